"""The databases that a server is measured on, both durable: a SQLite file, and a PostgreSQL of our own with fsync on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.meter import OwnMeter, ServerMeter
from benchmarks.server import ASKTELL, Server, served
from tests.postgres import Postgres

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
KINDS = (SQLITE, POSTGRESQL)
PAGE = 4096
SYNCS = 100


@dataclass(slots=True)
class Databases:
    """New databases on one disk, in a directory of their own; PostgreSQL is started when it is first needed."""

    directory: Path
    _postgres: Postgres | None = None
    _made: int = field(default=0)

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[Databases]:
        """Databases that are gone at the end."""
        with tempfile.TemporaryDirectory(prefix="asktell-service-") as directory:
            databases = cls(Path(directory))
            try:
                yield databases
            finally:
                if databases._postgres is not None:
                    # An interrupt may have ended it already.
                    with suppress(subprocess.CalledProcessError):
                        databases._postgres.remove()
                    shutil.rmtree(databases._postgres.directory, ignore_errors=True)

    def empty(self, kind: str) -> str:
        """The address of a new and empty database: a URL of PostgreSQL's, or the path of a file that is not there yet."""
        self._made += 1
        if kind == SQLITE:
            return str(self.directory / f"{self._made}.db")
        if self._postgres is None:
            self._postgres = Postgres(settings={"fsync": "on"})
            self._postgres.start()
        return self._postgres.url(self._postgres.create_database())

    @contextmanager
    def served(self, kind: str, *, processes: int = 1) -> Iterator[Server]:
        """A server on a new database; with several processes on PostgreSQL only."""
        address = self.empty(kind)
        if kind == POSTGRESQL:
            subprocess.run([ASKTELL, "migrate", "--database", address], check=True, capture_output=True)
        directory = self.directory / f"server-{self._made}"
        directory.mkdir()
        with served(directory, database=address, processes=processes) as server:
            yield server

    def sync_seconds(self) -> float:
        """The median time that the disk takes to make a page durable."""
        taken = []
        with (self.directory / "sync").open("wb", buffering=0) as file:
            for _ in range(SYNCS):
                began = time.perf_counter()
                file.write(bytes(PAGE))
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter() - began)
        return sorted(taken)[SYNCS // 2]


@dataclass(slots=True)
class Spent:
    """Processor seconds of a server and of this process, which is its clients, since this was made."""

    server: ServerMeter
    _own: OwnMeter = field(default_factory=OwnMeter)
    _before: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self._before = (self.server.cpu(), self._own.cpu())

    def seconds(self) -> tuple[float, float]:
        """The server's and the clients'."""
        return self.server.cpu() - self._before[0], self._own.cpu() - self._before[1]
