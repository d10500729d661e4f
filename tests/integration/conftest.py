"""Servers as processes, on both databases."""

from __future__ import annotations

import itertools
import re
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest
import structlog

from asktell.cli import main
from asktell.client import Client
from tests.place import Place
from tests.postgres import Postgres
from tests.processes import Processes, Server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running server on SQLite. Unlike `server`, nothing happens in its database between two calls of a test."""
    directory = tmp_path_factory.mktemp("sqlite")
    with Processes(directory) as processes, Place.at(processes.serve(str(directory / "asktell.db"))) as served:
        yield served


@pytest.fixture(scope="session")
def on_postgresql(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running server on PostgreSQL."""
    directory = tmp_path_factory.mktemp("postgresql")
    database = postgres.url(postgres.create_database(migrated=True))
    with Processes(directory) as processes, Place.at(processes.serve(database)) as served:
        yield served


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """A running server on a database of either kind, shared by all tests: each makes studies of its own."""
    found: Place = request.getfixturevalue(f"on_{request.param}")
    return found


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest, place: Place) -> Place:
    """The one on a database of the other kind."""
    other = "on_sqlite" if place.server.database.startswith("postgresql:") else "on_postgresql"
    found: Place = request.getfixturevalue(other)
    return found


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client with a project of the test's own, which the commands get from the environment."""
    # Tests of two modules may have one name.
    project = f"{next(_numbers)}-" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:100]
    with Client(server.target, project=project) as client:
        yield client


@pytest.fixture
def study(client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`asktell study` in this process: what it writes to standard output, or to standard error if it is to fail."""
    monkeypatch.setenv("ASKTELL_TARGET", client.target)
    monkeypatch.setenv("ASKTELL_PROJECT", client.project)

    def run(*arguments: str, status: int = 0, columns: int = 120) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as exited:
            main(["study", *arguments])
        written = capsys.readouterr()
        assert exited.value.code == status, written.err
        assert status == 0 or written.out == ""
        return written.out if status == 0 else written.err

    return run


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs an example as `python -m` does, and gives the lines that it prints; in this process, which has loaded most of it already."""

    def run(module: str, *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        # Whoever captured logs in this process left structlog configured, to print; an example finds it as a new process does.
        structlog.reset_defaults()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_module(f"examples.{module}", run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run
