"""As many values or rows as one likes in one parameter, so that the statement's text, which databases and SQLAlchemy keep, stays the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Column, Dialect, Subquery, Text, bindparam, column, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from asktell.server.persistence.column_types import ExactFloat, Instant, microseconds_of, text_of

Item = int | str | datetime | timedelta | None

DIALECTS = ("postgresql", "sqlite")

_ITEMS = {
    "postgresql": ("jsonb_array_elements(CAST(:{name} AS jsonb)) AS item(value)", "item.value ->> {place}"),
    "sqlite": ("json_each(:{name}) AS item", "json_extract(item.value, '$[{place}]')"),
}
# A time comes as the text that SQLite keeps of it, which names no zone, so that it depends on no setting. So does a double: JSON has no NaN.
_CASTS = {
    "postgresql": {
        "instant": "CAST({item} AS timestamp) AT TIME ZONE 'UTC'",
        "double": "CAST({item} AS double precision)",
    },
    "sqlite": {"instant": "{item}", "double": "{item}"},
}
_CAST = "CAST({item} AS {kind})"
_KINDS = {"bigint": BigInteger, "text": Text, "instant": Instant, "double": ExactFloat}


class Values(TypeDecorator[Sequence[Any]]):
    """Integers or texts as one value: an array on PostgreSQL, JSON on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, of: type[BigInteger] | type[Text]) -> None:
        super().__init__()
        self.of = of

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(self.of()))

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> Any:
        return json.dumps(value) if dialect.name == "sqlite" else value


class among(FunctionElement[Any]):  # noqa: N801
    """Whether a column has one of the values of the parameter of this name."""

    # As a Boolean it would be compared with 1 on SQLite, which then uses no index.
    type = NullType()
    inherit_cache = True

    def __init__(self, column: Column[Any], name: str) -> None:
        kind = BigInteger if isinstance(column.type, BigInteger) else Text
        values: BindParameter[Sequence[Any]] = bindparam(name, type_=Values(kind))
        super().__init__(column, values)


@compiles(among, "postgresql")
def _postgresql_among(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY ({values})"


@compiles(among, "sqlite")
def _sqlite_among(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 - both are ours


def given(dialect: str, name: str, kinds: Mapping[str, str]) -> Subquery:
    """The rows in the parameter of this name, JSON that `rows_parameter` makes, as a table with columns of the kinds "bigint", "text",
    "instant" and "double".
    """
    source, item = _ITEMS[dialect]
    fields = ", ".join(
        f"{_CASTS[dialect].get(kind, _CAST).format(item=item.format(place=place), kind=kind)} AS {of}"
        for place, (of, kind) in enumerate(kinds.items())
    )
    rows = text(f"SELECT {fields} FROM {source.format(name=name)}").bindparams(bindparam(name, type_=Text))  # noqa: S608 - all ours
    return rows.columns(*(column(of, _KINDS[kind]) for of, kind in kinds.items())).subquery(name)


def kind_of(column: Column[Any]) -> str:
    """The kind under which `given` takes the column's values."""
    if isinstance(column.type, Instant):
        return "instant"
    if isinstance(column.type, ExactFloat):
        return "double"
    return "text" if isinstance(column.type, Text) else "bigint"


def rows_parameter(rows: Iterable[Sequence[Item]]) -> str:
    """Rows for a table that `given` makes; a double comes as the text that `digits_of` makes of it."""
    return _encode(list(rows))


def _plain(value: datetime | timedelta) -> str | int:
    return text_of(value) if isinstance(value, datetime) else microseconds_of(value)


# Made once: `json.dumps` makes an encoder for each call. A character beyond ASCII is no longer than in UTF-8.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain).encode
