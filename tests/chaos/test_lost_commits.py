"""A crash of a database that acknowledges before it is on the disk loses commits; servers that had seen them go on by what there is."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import psycopg
import pytest

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.cluster import is_serving
from tests.postgres import Postgres
from tests.processes import Processes, until
from tests.wire import Wire, real, small_study

# Nothing but the WAL writer would bring to the disk what was committed, and that is stopped where it matters.
HASTY = {"synchronous_commit": "off", "wal_writer_delay": "10s", "bgwriter_lru_maxpages": "0", "autovacuum": "off"}


@pytest.fixture
def hasty() -> Iterator[Postgres]:
    """A PostgreSQL that acknowledges commits before they are on the disk."""
    server = Postgres(settings=HASTY)
    server.start()
    yield server
    server.remove()


def make_durable(database: str) -> None:
    """Have all that was committed so far on the disk: a commit that waits for it comes after."""
    with psycopg.connect(database) as connection:
        connection.execute("SET synchronous_commit = on")
        connection.execute("CREATE TABLE durable ()")


def wal_writer(postgres: Postgres) -> psutil.Process:
    (found,) = [each for each in psutil.Process(postgres.pid).children() if "walwriter" in " ".join(each.cmdline())]
    return found


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


def test_servers_go_on_by_what_a_database_has_after_it_lost_commits(processes: Processes, hasty: Postgres) -> None:
    database = hasty.url(hasty.create_database(migrated=True))
    servers = [processes.serve(database) for _ in range(2)]
    with Wire(servers[0].target) as home, Wire(servers[1].target) as other:
        behind = home.create("behind", small_study(budget={"max_parallel": 1})).name
        ahead = home.create("ahead", small_study(budget={"max_trials": 9})).name
        for study in (behind, ahead):
            add(home, study, 1.0)
            assert best(home, study) == [1.0]
        make_durable(database)
        wal_writer(hasty).suspend()
        assert ask(home, behind).trials
        assert ask(home, behind).reason == trials.AskResponse.REASON_MAX_PARALLEL
        add(home, ahead, -5.0, -5.0, -5.0)
        assert best(home, ahead) == [-5.0]
        # When one process of it dies, PostgreSQL ends all others and starts anew from the disk.
        wal_writer(hasty).kill()
        until(lambda: other.surely("ListTrials", trials.ListTrialsRequest(parent=ahead)) and True)
        stored = [len(other.all_trials(study)) for study in (behind, ahead)]
        assert stored == [1, 1], "nothing was lost: the test is blind"
        # Others go on, past the numbers that were lost.
        add(other, ahead, 2.0, 3.0, 4.0, 5.0, 6.0)
        assert best(home, ahead) == best(other, ahead) == [1.0]
        assert [trial.number for trial in ask(home, behind).trials] == [2]
        assert [trial.number for trial in ask(home, ahead).trials] == [7]
        until(lambda: all(is_serving(server.target) for server in servers))
    print("one process of the database crashed: 4 trials lost, and no server answers by them")
