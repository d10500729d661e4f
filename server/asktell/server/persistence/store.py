"""The store: steps of the use cases, run off the event loop on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import URL

from asktell.server.application.ports import Transaction
from asktell.server.persistence.address import database_url, shown, sqlite_path
from asktell.server.persistence.announcements import Announcements
from asktell.server.persistence.engines import postgresql_reader, postgresql_writer, sqlite_reader, sqlite_writer
from asktell.server.persistence.exclusive import hold_exclusively
from asktell.server.persistence.group_commit import GroupCommit
from asktell.server.persistence.health import PostgresqlHealth, SqliteHealth
from asktell.server.persistence.notifications import Notifications
from asktell.server.persistence.pooled import PooledSteps
from asktell.server.persistence.steps import Steps

T = TypeVar("T")

POSTGRESQL_READERS = 4
POSTGRESQL_WRITERS = 8
"""A server holds up to 12 connections to PostgreSQL, each used by a thread of its own, and two that announce changes."""

SQLITE_READERS = 8
"""Beside the one connection that writes."""

# Longer than PostgreSQL's deadlock_timeout (1 s), so that it finds a deadlock, which is run again, before this ends the wait.
LOCK_TIMEOUT = timedelta(seconds=2)
"""How long a transaction waits for a lock; with its place in the row's queue and the row itself a busy study may cost two waits."""


class SqlStore:
    """Implements `application.ports.Store`. Whoever stops waiting for a step leaves it running, or takes it back if it had not begun."""

    def __init__(
        self,
        description: str,
        *,
        reads: Steps,
        writes: Steps,
        health: PostgresqlHealth | SqliteHealth,
        announcements: Announcements,
        resources: ExitStack,
    ) -> None:
        self.description = description
        """The database's URL for people and logs, without its password."""
        self._reads = reads
        self._writes = writes
        self._health = health
        self._announcements = announcements
        self._resources = resources

    async def read(self, step: Callable[[Transaction], T]) -> T:
        """Run a step that only reads, on one consistent snapshot."""
        return await asyncio.wrap_future(self._reads.submit(step))

    async def write(self, step: Callable[[Transaction], T]) -> T:
        """Run a step and return after its commit is durable. The step may run more than once."""
        return await asyncio.wrap_future(self._writes.submit(step))

    async def check(self) -> None:
        """Raise Unavailable unless the database answers, and takes this server's writes as far as is known; a busy study is no reason.

        It takes one short transaction that reads; only after a write has failed it may write, or make all connections anew.
        """
        await self._health.check()

    def on_change(self, listener: Callable[[Collection[int]], None]) -> None:
        """Call the listener, on any thread, with the ids of studies that have changed here or at another server."""
        self._announcements.subscribe(listener)

    async def close(self) -> None:
        """Finish the steps that were given, and close the connections. Closing twice is fine."""
        await asyncio.to_thread(self._resources.close)


def open_store(address: str) -> SqlStore:
    """The store at `postgresql://...`, `sqlite:///path` or a path, migrated before by `migrate`.

    PostgreSQL need not be up yet. Raises UnusableDatabase, or DatabaseInUse if another server has the SQLite file open.
    """
    url = database_url(address)
    with ExitStack() as resources:
        store = _open_sqlite if sqlite_path(url) is not None else _open_postgresql
        return store(url, resources)


def _open_postgresql(url: URL, resources: ExitStack) -> SqlStore:
    notifications = Notifications(url)
    announcements = Announcements(notifications)
    resources.callback(notifications.close)
    # Pools of their own: writes that wait for a locked study never hold up reads.
    reader = postgresql_reader(url, connections=POSTGRESQL_READERS, lock_timeout=LOCK_TIMEOUT)
    resources.callback(reader.dispose)
    writer = postgresql_writer(url, connections=POSTGRESQL_WRITERS, lock_timeout=LOCK_TIMEOUT)
    resources.callback(writer.dispose)

    def reconnect() -> None:
        reader.dispose()
        writer.dispose()

    reads = PooledSteps(reader, _threads(resources, POSTGRESQL_READERS, "asktell-reader"), writing=False)
    health = PostgresqlHealth(reads, reconnect=reconnect)
    writes = PooledSteps(
        writer,
        _threads(resources, POSTGRESQL_WRITERS, "asktell-writer"),
        writing=True,
        announce=announcements.announce,
        doubt=health.doubt,
    )
    return SqlStore(
        shown(url),
        reads=reads,
        writes=writes,
        health=health,
        announcements=announcements,
        resources=resources.pop_all(),
    )


def _open_sqlite(url: URL, resources: ExitStack) -> SqlStore:
    resources.enter_context(hold_exclusively(url))
    writer = sqlite_writer(url)
    resources.callback(writer.dispose)
    reader = sqlite_reader(url, connections=SQLITE_READERS)
    resources.callback(reader.dispose)
    reads = PooledSteps(reader, _threads(resources, SQLITE_READERS, "asktell-reader"), writing=False)
    announcements = Announcements()
    writes = GroupCommit(writer, announce=announcements.announce)
    resources.callback(writes.close)
    health = SqliteHealth(reads, writes)
    writes.doubt = health.doubt
    return SqlStore(
        shown(url),
        reads=reads,
        writes=writes,
        health=health,
        announcements=announcements,
        resources=resources.pop_all(),
    )


def _threads(resources: ExitStack, count: int, name: str) -> ThreadPoolExecutor:
    return resources.enter_context(ThreadPoolExecutor(count, thread_name_prefix=name))
