"""The database's clock: the only one that judges leases, so that servers whose clocks disagree agree on them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from asktell.server.persistence.column_types import Instant

# SQLite's clock ticks in milliseconds; six digits make its text comparable with that of a column.
_SQLITE_FORMAT = "'%Y-%m-%d %H:%M:%f000', 'now'"


class database_now(FunctionElement[Any]):  # noqa: N801
    """The time now; on PostgreSQL not that of the transaction's start, which may lie a lock's wait behind."""

    type = Instant()
    inherit_cache = True

    def __init__(self) -> None:
        super().__init__()


class database_now_plus(FunctionElement[Any]):  # noqa: N801
    """The time now plus a `Duration`."""

    type = Instant()
    inherit_cache = True

    def __init__(self, duration: ColumnElement[Any]) -> None:
        super().__init__(duration)


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return "clock_timestamp()"


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return f"strftime({_SQLITE_FORMAT})"


@compiles(database_now_plus, "postgresql")
def _postgresql_now_plus(element: database_now_plus, compiler: SQLCompiler, **options: Any) -> str:
    return f"(clock_timestamp() + {compiler.process(element.clauses, **options)} * interval '1 microsecond')"


@compiles(database_now_plus, "sqlite")
def _sqlite_now_plus(element: database_now_plus, compiler: SQLCompiler, **options: Any) -> str:
    return f"strftime({_SQLITE_FORMAT}, ({compiler.process(element.clauses, **options)} / 1000000.0) || ' seconds')"
