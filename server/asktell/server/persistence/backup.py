"""Copy a whole SQLite database while its server goes on."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from asktell.server.persistence.address import UnusableDatabase, database_url, shown, sqlite_path
from asktell.server.persistence.engines import sqlite_reader


def back_up(address: str, target: Path) -> int:
    """Copy the database to a new file, as it stands at one moment with all that was acknowledged before; the file's bytes.

    The server's lock is not needed: this only reads, and holds up no writer. The copy is checked, and durable when this returns.
    Raises UnusableDatabase for PostgreSQL, for a database that is not there, and for one that is damaged; FileExistsError if the target
    exists, OSError if it cannot be written.
    """
    url = database_url(address)
    path = sqlite_path(url)
    if path is None:
        raise UnusableDatabase(f"{shown(url)} is a PostgreSQL database: back it up with pg_dump --format=custom")
    if not path.is_file():
        raise UnusableDatabase(f"there is no database {path}")
    if target.exists():
        raise FileExistsError(f"{target} exists; a backup never replaces another file")
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        _create(part, target)
        _copy(url, part)
        _make_durable(part)
        os.link(part, target)
    finally:
        part.unlink(missing_ok=True)
    _make_durable(target.parent)
    return target.stat().st_size


def _create(part: Path, target: Path) -> None:
    """Make the file beside the target, or say of the target what is wrong: not of the database."""
    try:
        part.touch()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def _copy(url: URL, part: Path) -> None:
    engine = sqlite_reader(url, connections=1)
    try:
        with engine.connect() as connection, closing(sqlite3.connect(part)) as copy:
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


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
