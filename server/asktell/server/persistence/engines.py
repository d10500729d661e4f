"""Connections to the databases, set up so that what is acknowledged is durable and nothing waits for ever."""

from __future__ import annotations

import logging
import sqlite3
from datetime import timedelta
from functools import cache
from typing import Any

import stamina
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

# The standard library's, whose warnings a command that shows no logs shows all the same, and on standard error.
log = logging.getLogger("asktell.engines")

# The driver reads times in ISO's form alone, and numbers come back rounded without extra digits, before PostgreSQL 12 without all three.
_POSTGRESQL_FORMS = "-c timezone=UTC -c datestyle=ISO -c extra_float_digits=3"
# A server that was frozen in mid-transaction must not hold a study's lock for longer than this.
_POSTGRESQL_OPTIONS = f"{_POSTGRESQL_FORMS} -c idle_in_transaction_session_timeout=15s"
_POSTGRESQL_CONNECT = {
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": "asktell",
}
# What is written goes by keys, some dozens at a time. Of rows in a parameter the planner expects a hundred, for which it would rather walk
# over all of some thousand trials, or compile a statement.
_POSTGRESQL_BY_KEYS = " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
# Set for the session even if it stays the same, so that a configuration that is changed and loaded later takes nothing from open connections.
_COMMIT_DURABLY = """
SELECT chosen, set_config('synchronous_commit', CASE chosen WHEN 'off' THEN 'on' ELSE chosen END, false)
FROM current_setting('synchronous_commit') AS chosen
"""
_SQLITE_BUSY_TIMEOUT_MS = 30_000


def postgresql_writer(url: URL, *, connections: int, lock_timeout: timedelta) -> Engine:
    """An engine for PostgreSQL; what the URL's query says wins over our settings, and of its `options` each over ours of that name.

    A statement that has waited `lock_timeout` for one lock fails; to milliseconds. A commit outlives a crash of the database: who has turned
    `synchronous_commit` off for the database or the role is overruled, with a warning; any other of its values stays as it was at connect.
    """
    engine = _postgresql_engine(
        url,
        connections=connections,
        lock_timeout=lock_timeout,
        isolation="READ COMMITTED",
        planning=_POSTGRESQL_BY_KEYS,
    )
    event.listen(engine, "connect", _commit_durably)
    return engine


def postgresql_reader(url: URL, *, connections: int, lock_timeout: timedelta) -> Engine:
    """An engine whose transactions each see one snapshot of a PostgreSQL database, and write nothing; else as `postgresql_writer`."""
    engine = _postgresql_engine(url, connections=connections, lock_timeout=lock_timeout, isolation="REPEATABLE READ")
    event.listen(engine, "connect", _begin_read_only)
    return engine


def postgresql_notifier(url: URL, *, connections: int, lock_timeout: timedelta) -> Engine:
    """An engine for what is not run again when a connection turns out to be broken: each is tried before its use.

    Each statement is a transaction.
    """
    return _postgresql_engine(
        url, connections=connections, lock_timeout=lock_timeout, isolation="AUTOCOMMIT", ping=True
    )


def _postgresql_engine(
    url: URL, *, connections: int, lock_timeout: timedelta, isolation: str, ping: bool = False, planning: str = ""
) -> Engine:
    # The driver says how a transaction begins in BEGIN itself, once told at the connection's start. Connections are not tried before each
    # use, which would be a round trip more: a broken one fails before the commit, drops all others, and the step is run again.
    ours = f"{_POSTGRESQL_OPTIONS} -c lock_timeout={lock_timeout // timedelta(milliseconds=1)}ms{planning}"
    settings = {name: value for name, value in _POSTGRESQL_CONNECT.items() if name not in url.query}
    # Of two values PostgreSQL takes the later.
    options = " ".join((ours, *url.normalized_query.get("options", ())))
    return create_engine(
        url.difference_update_query(["options"]),
        connect_args={**settings, "options": options},
        pool_size=connections,
        max_overflow=0,
        isolation_level=isolation,
        pool_pre_ping=ping,
        hide_parameters=True,
    )


def _begin_read_only(connection: Any, _record: object) -> None:
    connection.read_only = True


def _commit_durably(connection: Any, _record: object) -> None:
    # In a transaction it would last until that is rolled back.
    connection.autocommit, autocommit = True, connection.autocommit
    chosen, _ = connection.execute(_COMMIT_DURABLY).fetchone()
    connection.autocommit = autocommit
    if chosen == "off":
        _warn_of_lost_commits(connection.info.dbname, connection.info.user)


@cache
def _warn_of_lost_commits(database: str, user: str) -> None:
    """Say it once, not for each connection."""
    log.warning(
        "synchronous_commit is off for database %s or role %s, so that PostgreSQL may lose in a crash what was acknowledged:"
        " asktell's connections set it to on, and what else writes to this database stays as it is",
        database,
        user,
    )


def sqlite_writer(url: URL) -> Engine:
    """An engine with the one connection that writes to a SQLite file."""
    engine = _sqlite_engine(url, connections=1, begin="BEGIN IMMEDIATE")
    event.listen(engine, "connect", _prepare_to_write)
    return engine


def sqlite_reader(url: URL, *, connections: int) -> Engine:
    """An engine whose transactions each see one snapshot of a SQLite file, and write nothing."""
    engine = _sqlite_engine(url, connections=connections, begin="BEGIN")
    event.listen(engine, "connect", _forbid_writes)
    return engine


def _sqlite_engine(url: URL, *, connections: int, begin: str) -> Engine:
    engine = create_engine(url, poolclass=QueuePool, pool_size=connections, max_overflow=0, hide_parameters=True)

    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", _take_transaction_control)
    event.listen(engine, "begin", begin_transaction)
    return engine


def _take_transaction_control(connection: Any, _record: object) -> None:
    # Python's driver would begin transactions by itself, too late for a snapshot and not IMMEDIATE.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_to_write(connection: Any, _record: object) -> None:
    # While another process makes the same switch on a new file, SQLite says locked at once, whatever the busy timeout.
    for attempt in stamina.retry_context(on=sqlite3.OperationalError, timeout=10.0, wait_initial=0.01, wait_max=0.1):
        with attempt:
            connection.execute("PRAGMA journal_mode = WAL")
    # FULL: with NORMAL a power cut loses commits that were acknowledged.
    connection.execute("PRAGMA synchronous = FULL")


def _forbid_writes(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON")
