"""Whether a database takes what this server has to write: found out without a write, unless one has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlalchemy import ARRAY, Text, bindparam, text

from asktell.server.domain.errors import DATABASE_UNAVAILABLE, Unavailable
from asktell.server.persistence.failures import GRANT, LEAVE_READ_ONLY
from asktell.server.persistence.steps import Steps
from asktell.server.persistence.tables import metadata
from asktell.server.persistence.transaction import SqlTransaction

# Of privileges those without which no trial is asked for or told. They are looked up in PostgreSQL's caches, and nothing is locked.
_OBSTACLES = text("""
SELECT pg_is_in_recovery() AS standby, CAST(current_setting('default_transaction_read_only') AS boolean) AS read_only,
    (SELECT string_agg(privilege || ' on ' || of_table, ', ') FROM unnest(:tables) AS of_table,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege WHERE NOT has_table_privilege(of_table, privilege)) AS lacking
""").bindparams(bindparam("tables", sorted(metadata.tables), type_=ARRAY(Text)))


class PostgresqlHealth:
    """Looks over a connection that reads: writes that wait for a busy study say nothing against the database."""

    def __init__(self, reads: Steps, *, reconnect: Callable[[], None]) -> None:
        self._reads = reads
        self._reconnect = reconnect
        self._doubted = False

    def doubt(self) -> None:
        """A write was refused as in a database that is only read; on any thread."""
        self._doubted = True

    async def check(self) -> None:
        """Raise Unavailable unless the database answers and lets this server write."""
        doubted, self._doubted = self._doubted, False
        if doubted:
            # A session keeps the server and the defaults that it began with, whatever has become of them.
            await asyncio.to_thread(self._reconnect)
        obstacle = await asyncio.wrap_future(self._reads.submit(_obstacle))
        if obstacle:
            self._doubted = True
            raise Unavailable(f"the database takes no writes: {obstacle}", reason=DATABASE_UNAVAILABLE)


class SqliteHealth:
    """Believes that a file can be written until a write has failed, and from then on writes until that succeeds."""

    def __init__(self, reads: Steps, writes: Steps) -> None:
        self._reads = reads
        self._writes = writes
        self._doubted = False

    def doubt(self) -> None:
        """A write has failed for the disk's or the file's sake; on any thread."""
        self._doubted = True

    async def check(self) -> None:
        """Raise Unavailable unless the database answers and takes writes."""
        doubted, self._doubted = self._doubted, False
        if doubted:
            try:
                await asyncio.wrap_future(self._writes.submit(_write))
            except BaseException:
                # Also if nobody waits any longer, as for a disk that hangs.
                self._doubted = True
                raise
        await asyncio.wrap_future(self._reads.submit(_read))


def _read(transaction: SqlTransaction) -> None:
    transaction.studies_with_expired_leases(1)


def _obstacle(transaction: SqlTransaction) -> str:
    """Why nothing can be written, for the operator; empty if it can."""
    _read(transaction)
    found = transaction.connection.execute(_OBSTACLES).one()
    if found.standby:
        return f"it is a standby; {LEAVE_READ_ONLY}"
    if found.read_only:
        return f"default_transaction_read_only is on; {LEAVE_READ_ONLY}"
    return f"the server's role lacks {found.lacking}; {GRANT}" if found.lacking else ""


def _write(transaction: SqlTransaction) -> None:
    """Write a page as it is; a row that stays the same SQLite would leave out."""
    version = transaction.connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    transaction.connection.exec_driver_sql(f"PRAGMA user_version = {version}")
