"""A server with a client on it and a second look into its database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg

from tests.processes import Server
from tests.wire import Wire

Dump = dict[str, list[str]]

_SQLITE_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_POSTGRES_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


@dataclass(frozen=True, slots=True)
class Place:
    """A running server, a client, and a connection of our own to its database that reads only."""

    server: Server
    wire: Wire
    database: Any

    @classmethod
    @contextmanager
    def at(cls, server: Server) -> Iterator[Place]:
        """A place with connections of its own."""
        with Wire(server.target) as wire, closing(_reader(server.database)) as database:
            yield cls(server, wire, database)

    def dump(self) -> Dump:
        """Every row of every table as text, in an order that depends on their content alone; read past the server."""
        sqlite = isinstance(self.database, sqlite3.Connection)
        found = self.database.execute(_SQLITE_TABLES if sqlite else _POSTGRES_TABLES)
        tables = [name for (name,) in found.fetchall()]
        return {name: sorted(map(repr, self.database.execute(f'SELECT * FROM "{name}"'))) for name in tables}


def _reader(database: str) -> Any:
    if database.startswith("postgresql:"):
        return psycopg.connect(database, autocommit=True)
    return sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True, isolation_level=None)
