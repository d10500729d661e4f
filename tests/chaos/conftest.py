"""Servers that tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.cluster import Cluster, cluster
from tests.postgres import Postgres
from tests.processes import Processes


@pytest.fixture(scope="session")
def three(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers on one PostgreSQL database, for tests that make studies of their own and leave all servers running."""
    database = postgres.url(postgres.create_database(migrated=True))
    with Processes(tmp_path_factory.mktemp("three")) as processes, cluster(processes, database, servers=3) as started:
        yield started
