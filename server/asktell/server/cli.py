"""The commands that run a server: serve, migrate, backup."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cyclopts import App

from asktell.server.logs import show_logs
from asktell.server.settings import DatabaseAddress, Settings, StartError
from asktell.server.supervision import supervise

app = App(name="asktell-server", help="Run an asktell server.")


@app.command
def serve(settings: Settings | None = None) -> None:
    """Serve studies over gRPC until SIGTERM or Ctrl-C.

    Without any setting: on 127.0.0.1:50051, with a SQLite file in the user's data directory.

    For example:

    `asktell serve`

    `asktell serve --listen 0.0.0.0:50051 --database postgresql://asktell@db/asktell`

    `asktell serve --processes 4 --database postgresql://asktell@db/asktell`, where one core is too few for the calls

    `ASKTELL_DATABASE=./study.db asktell serve --log-level debug`

    `asktell serve --torch-device cuda:0`, for studies whose policy is gp-botorch
    """
    chosen = settings or Settings()
    show_logs(level=chosen.log_level, style=chosen.log_format)
    try:
        if chosen.processes > 1:
            asyncio.run(supervise(chosen, announce=_announce))
        else:
            from asktell.server import bootstrap

            bootstrap.serve(chosen, announce=_announce)
    except StartError as error:
        sys.exit(f"asktell serve: {error}")


def _announce(target: str) -> None:
    print(f"asktell serves on {target}", flush=True)


@app.command
def migrate(*, database: DatabaseAddress = None) -> None:
    """Bring a database's schema up to date. Safe to repeat, and to run from several places at once.

    For example: `asktell migrate --database postgresql://asktell@db/asktell`

    Parameters
    ----------
    database
        Database: a path, sqlite:///PATH, or postgresql://USER@HOST/NAME, with the password in PGPASSWORD or ~/.pgpass. A SQLite file in
        the user's data directory if not given.
    """
    from asktell.server import bootstrap
    from asktell.server.persistence.migration import named

    settings = Settings(database=database)
    try:
        bootstrap.migrate_database(settings)
    except StartError as error:
        sys.exit(f"asktell migrate: {error}")
    print(f"{named(settings.database_url)}: the schema is up to date")


@app.command
def backup(file: Path, /, *, database: DatabaseAddress = None) -> None:
    """Copy a SQLite database to a new file, as it stands at one moment, while its server goes on.

    The copy is a database: to go back to it, stop the server and put it in the database's place. For PostgreSQL, use pg_dump.

    For example: `asktell backup --database ./asktell.db asktell-2026-01-31.db`

    Parameters
    ----------
    file
        The file to make; one that exists is never replaced.
    database
        Database: a path or sqlite:///PATH. A SQLite file in the user's data directory if not given.
    """
    from asktell.server import bootstrap

    try:
        size = bootstrap.back_up_database(Settings(database=database), file)
    except StartError as error:
        sys.exit(f"asktell backup: {error}")
    print(f"{file}: {size:,} bytes")
