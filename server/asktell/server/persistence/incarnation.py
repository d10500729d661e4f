"""Which incarnation of the database answers: another one may lack the last commits of the one before, and have others in their place."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class database_incarnation(FunctionElement[Any]):  # noqa: N801
    """A text that is another one after a failover, a crash, a restart, or the restoring of a dump; empty on SQLite, which has one server."""

    type = Text()
    inherit_cache = True

    def __init__(self) -> None:
        super().__init__()


# The start of the server is another one after a failover or a restart. When a single process of it crashes, the others start anew without it,
# and what was not on the disk is gone just so: then its statistics are reset. Tables that a dump brought back have other ids.
_POSTGRESQL = (
    "concat_ws(' ', extract(epoch from pg_postmaster_start_time()),"
    " extract(epoch from pg_stat_get_bgwriter_stat_reset_time()), 'studies'::regclass::oid)"
)


@compiles(database_incarnation, "postgresql")
def _on_postgresql(element: database_incarnation, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return _POSTGRESQL


@compiles(database_incarnation, "sqlite")
def _on_sqlite(element: database_incarnation, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return "''"
