"""Bring a database to the schema of this version, step by step."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError

from asktell.server.persistence.address import UnusableDatabase, database_url, require_local, shown, sqlite_path
from asktell.server.persistence.engines import postgresql_writer, sqlite_writer
from asktell.server.persistence.failures import unavailable

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"

# Any number will do that nobody else uses on the same database.
_ADVISORY_LOCK = 0x61736B74656C6C
# A migration waits for another's end, and for the transactions of running servers.
_LOCK_TIMEOUT = timedelta(seconds=10)


class NotMigrated(Exception):
    """The database lacks the schema of this version; the message names the command that brings it there."""


def migrate(address: str) -> None:
    """Bring the database to the newest schema, in one transaction. Doing it twice, at once, or under a running server is safe.

    The schema of a newer version stays as it is, see `check_migrated`: a server of the last release may start again while others are newer.

    Raises Unavailable if the database cannot be reached, and UnusableDatabase.
    """
    url = database_url(address)
    path = sqlite_path(url)
    if path is not None:
        require_local(path)
    with _connected(url) as connection:
        if path is None:
            # On SQLite BEGIN IMMEDIATE has made others wait already.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        revision = _revision(connection)
        if revision is None or (revision != newest_revision() and _known(revision)):
            _upgrade(connection)


def check_migrated(address: str) -> None:
    """Raise NotMigrated unless the database has the schema of this version, or of a newer one.

    A newer one keeps the last release working: its migrations first add, and remove only a release later.
    """
    url = database_url(address)
    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise NotMigrated(f"there is no database {path}; {_command(address)} makes it")
    if path is not None:
        require_local(path)
    with _connected(url) as connection:
        revision = _revision(connection)
    newest = newest_revision()
    if revision is None or (revision != newest and _known(revision)):
        raise NotMigrated(
            f"the database {named(address)} is at {revision or 'no schema'}, this server needs {newest}: run {_command(address)}"
        )


def named(address: str) -> str:
    """A database for people, as its address was given: a file with its whole path, PostgreSQL without its password."""
    url = database_url(address)
    path = sqlite_path(url)
    return shown(url.set(drivername=address.partition("://")[0])) if path is None else str(path)


def _command(address: str) -> str:
    return f"`asktell migrate --database {shlex.quote(named(address))}`"


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            _require_forms(connection, url)
            yield connection
    except OperationalError as error:
        raise unavailable(error) from error
    except DatabaseError as error:
        raise UnusableDatabase(f"the database {shown(url)} cannot be used: {error.orig}") from error
    finally:
        engine.dispose()


def _require_forms(connection: Connection, url: URL) -> None:
    """Raise UnusableDatabase if PostgreSQL cannot keep every text, or would speak in another encoding or of times in another form than we."""
    if sqlite_path(url) is not None:
        return
    driver: Any = connection.connection.driver_connection
    # PostgreSQL has said so when the connection began.
    kept, spoken, dates = map(driver.info.parameter_status, ("server_encoding", "client_encoding", "DateStyle"))
    if kept != "UTF8":
        raise UnusableDatabase(
            f"the database {shown(url)} has the encoding {kept} and asktell needs UTF8: give one made by"
            " CREATE DATABASE ... ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
        )
    if spoken != "UTF8":
        raise UnusableDatabase(
            f"the database's address has client_encoding {spoken} and asktell needs UTF8: leave it out"
        )
    if not dates.startswith("ISO"):
        raise UnusableDatabase(
            f"datestyle is {dates} and asktell needs ISO: leave it out of the options of the database's address, and unset PGDATESTYLE"
        )


def _engine(url: URL) -> Engine:
    if sqlite_path(url) is None:
        return postgresql_writer(url, connections=1, lock_timeout=_LOCK_TIMEOUT)
    return sqlite_writer(url)


def newest_revision() -> str:
    """The schema of this version: migrations are numbered, and their files begin with the number."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*_*.py"))


def _revision(connection: Connection) -> str | None:
    """Where the database stands; None if it has no schema."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


# Alembic takes a tenth of a server's memory and start, which a server whose database is as it should be can do without.


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415

    command.upgrade(_config(connection), "head")


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _known(revision: str) -> bool:
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    try:
        ScriptDirectory.from_config(_config()).get_revision(revision)
    except CommandError:
        return False
    return True
