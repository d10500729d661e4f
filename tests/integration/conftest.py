"""Servers as processes, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.place import Place
from tests.postgres import Postgres
from tests.processes import Processes, migrate


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
