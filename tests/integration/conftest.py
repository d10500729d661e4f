"""Servers as processes, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from asktell.cli import main
from asktell.client import Client
from tests.place import Place
from tests.postgres import Postgres
from tests.processes import Processes, Server, migrate


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running server on a database of either kind, shared by all tests: each makes studies of its own."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        database = str(directory / "asktell.db")
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        database = postgres.url(postgres.create_database())
        migrate(database)
    with Processes(directory) as processes, Place.at(processes.serve(database)) as served:
        yield served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("cli")
    with Processes(directory) as processes:
        yield processes.serve(str(directory / "asktell.db"))


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client with a project of the test's own, which the commands get from the environment."""
    project = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:128]
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
