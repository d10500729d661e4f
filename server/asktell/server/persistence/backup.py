"""Copy a whole SQLite database while its server goes on."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, inspect
from sqlalchemy.exc import DBAPIError

from asktell.server.persistence.address import UnusableDatabase, database_url, shown, sqlite_path
from asktell.server.persistence.engines import sqlite_reader
from asktell.server.persistence.tables import measurements, requests, studies, trials

# Of every version so far, and enough to tell it from other programs' studies and trials.
_TABLES = frozenset({"alembic_version", *(table.name for table in (studies, trials, measurements, requests))})


def back_up(address: str, target: Path) -> int:
    """Copy the database to a new file, as it stands at one moment with all that was acknowledged before; the file's bytes.

    The server's lock is not needed: this only reads, and holds up no writer. The copy is checked, and durable when this returns.
    Raises UnusableDatabase for PostgreSQL, for a database that is not there, for one of another program, and for one that is damaged;
    FileExistsError if the target exists, OSError if it cannot be written.
    """
    url = database_url(address)
    path = sqlite_path(url)
    if path is None:
        raise UnusableDatabase(f"{shown(url)} is a PostgreSQL database: back it up with pg_dump --format=custom")
    if not path.is_file():
        raise UnusableDatabase(f"there is no database {path}")
    if os.path.lexists(target):
        raise _exists(target)
    with _directory_beside(target) as directory:
        part = Path(directory, "part.db")
        _copy(url, part)
        _make_durable(part)
        _publish(part, target)
    _make_durable(target.parent)
    return target.stat().st_size


def _directory_beside(target: Path) -> tempfile.TemporaryDirectory[str]:
    """A new directory on the target's file system, for the copy and SQLite's files beside it; or say of the target what is wrong."""
    try:
        return tempfile.TemporaryDirectory(prefix="asktell-backup-", dir=target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def _publish(part: Path, target: Path) -> None:
    """Give the whole copy its name. A link, as a rename would replace what has come there in the meantime."""
    try:
        os.link(part, target)
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(f"{target} exists; a backup never replaces another file")


def _copy(url: URL, part: Path) -> None:
    engine = sqlite_reader(url, connections=1)
    try:
        with engine.connect() as connection, closing(sqlite3.connect(part)) as copy:
            _require_asktell(connection, url)
            source: Any = connection.connection.driver_connection
            # All pages in one step, from one snapshot: between steps another process's commit would make SQLite begin anew.
            source.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE")
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except (DBAPIError, sqlite3.Error) as error:
        raise UnusableDatabase(f"the database {url.database} cannot be copied: {error}") from error
    finally:
        engine.dispose()
    if found != "ok":
        raise UnusableDatabase(f"the database {url.database} is damaged: {found}")


def _require_asktell(connection: Connection, url: URL) -> None:
    missing = _TABLES.difference(inspect(connection).get_table_names())
    if missing:
        raise UnusableDatabase(f"{url.database} is no database of asktell: it has no table {min(missing)}")


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
