"""A SQLite file belongs to one server at a time: only then does one writer order all changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import URL

from asktell.server.persistence.address import require_local, sqlite_path


class DatabaseInUse(Exception):
    """Another process has the SQLite database open."""


@contextmanager
def hold_exclusively(url: URL) -> Iterator[None]:
    """Hold the lock file beside a SQLite database; DatabaseInUse if another has it. Does nothing for PostgreSQL.

    The lock is a name's, and the file's because `database_url` knows a file by one name only. The operating system lets go of it when its
    process dies, however it dies.
    """
    path = sqlite_path(url)
    if path is None:
        yield
        return
    require_local(path)
    lock = FileLock(Path(f"{path}.lock"), timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise DatabaseInUse(
            f"another server has the database {path} open; one SQLite file serves one server: reach that one as the target that its"
            " log names, or `client.target` of the Client.local that opened it; else stop it, or use PostgreSQL"
        ) from error
    try:
        yield
    finally:
        lock.release()
