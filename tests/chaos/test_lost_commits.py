"""P25: a standby that was behind takes over, and servers that had seen what it lacks go on by what there is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.cluster import is_serving
from tests.postgres import Postgres
from tests.processes import Processes, until
from tests.wire import Wire, real, small_study


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that a test may end."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@contextmanager
def lost(postgres: Postgres, tmp_path: Path) -> Iterator[None]:
    """In the end the database is as it was in the beginning, as a standby that was behind: a copy of its files takes their place."""
    copy = tmp_path / "standby"
    postgres.crash()
    # With the owner that PostgreSQL wants its files to have.
    subprocess.run(["cp", "-a", str(postgres.directory), str(copy)], check=True)
    postgres.start()
    yield
    postgres.crash()
    shutil.rmtree(postgres.directory)
    subprocess.run(["cp", "-a", str(copy), str(postgres.directory)], check=True)
    postgres.start()


def add(wire: Wire, study: str, *losses: float) -> None:
    """Trials that were evaluated elsewhere."""
    new = [
        trials.NewTrial(parameters={"x": real(0.5)}, state=3, metrics={"loss": metric.MetricValue(value=loss)})
        for loss in losses
    ]
    wire.surely("AddTrials", trials.AddTrialsRequest(parent=study, trials=new))


def best(wire: Wire, study: str) -> list[float]:
    found = wire.surely("ListOptimalTrials", trials.ListOptimalTrialsRequest(parent=study))
    return [trial.metrics["loss"].value for trial in found.trials]


def ask(wire: Wire, study: str) -> trials.AskResponse:
    reply: trials.AskResponse = wire.surely("Ask", trials.AskRequest(parent=study, worker_id="w"))
    return reply


def test_servers_go_on_by_what_a_database_has_after_it_lost_commits(
    processes: Processes, own_postgres: Postgres, tmp_path: Path
) -> None:
    database = own_postgres.url(own_postgres.create_database(migrated=True))
    servers = [processes.serve(database) for _ in range(2)]
    with Wire(servers[0].target) as home, Wire(servers[1].target) as other:
        behind = home.create("behind", small_study(budget={"max_parallel": 1})).name
        ahead = home.create("ahead", small_study(budget={"max_trials": 9})).name
        for study in (behind, ahead):
            add(home, study, 1.0)
        with lost(own_postgres, tmp_path):
            assert ask(home, behind).trials
            assert ask(home, behind).reason == trials.AskResponse.REASON_MAX_PARALLEL
            add(home, ahead, -5.0, -5.0, -5.0)
            assert best(home, ahead) == [-5.0]
        # Others go on, past the numbers that were lost.
        add(other, ahead, 2.0, 3.0, 4.0, 5.0, 6.0)
        assert [len(other.all_trials(study)) for study in (behind, ahead)] == [1, 6]
        assert best(home, ahead) == best(other, ahead) == [1.0]
        assert [trial.number for trial in ask(home, behind).trials] == [2]
        assert [trial.number for trial in ask(home, ahead).trials] == [7]
        until(lambda: all(is_serving(server.target) for server in servers))
    print("a standby that was behind took over: 4 trials lost, and no server answers by them")
