"""P15 and P16: any replica proposes the same, and asks that compute keep nobody else waiting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.postgres import Postgres
from tests.processes import PATIENCE, Processes, migrate
from tests.wire import METHODS, Wire, real, report_request, small_study

DIALS = [f"x{index}" for index in range(3)]


def wide_study(policy: str) -> studies.Study:
    """A study with three dials."""
    study = small_study(policy=policy, seed=7)
    del study.spec.parameters[:]
    dials = [space.ParameterSpec(name=name, float_spec=space.FloatSpec(low=0, high=1)) for name in DIALS]
    study.spec.parameters.extend(dials)
    return study


def bowl(trial: trials.Trial) -> float:
    return sum((trial.parameters[name].double_value - 0.3) ** 2 for name in DIALS)


def proposals(wires: Sequence[Wire], study: str, *, rounds: int) -> list[bytes]:
    """What is proposed in a course of asks and tells, one call to one replica and the next to the next; times and tokens are left out."""
    proposed: list[bytes] = []
    for turn in range(rounds):
        wire, other = wires[turn % len(wires)], wires[(turn + 1) % len(wires)]
        asked = [wire.one(study), other.one(study)]
        for trial in asked:
            wire.tell(trial, bowl(trial))
        proposed += [essence(trial) for trial in asked]
    return proposed


def essence(trial: trials.Trial) -> bytes:
    origin = trials.Origin()
    origin.CopyFrom(trial.origin)
    origin.ClearField("compute_duration")
    kept = trials.Trial(number=trial.number, parameters=trial.parameters, origin=origin)
    return kept.SerializeToString(deterministic=True)


def test_three_replicas_in_turn_propose_bit_for_bit_what_each_proposes_alone(
    processes: Processes, postgres: Postgres, tmp_path: Path
) -> None:
    template = postgres.create_database()
    migrate(postgres.url(template))
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    home = {"HOME": str(nowhere), "XDG_DATA_HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere)}

    def course(replicas: int) -> list[bytes]:
        database = postgres.url(postgres.create_database(template=template))
        servers = [processes.serve(database, environment=home, cwd=nowhere) for _ in range(replicas)]
        wires = [Wire(server.target) for server in servers]
        study = wires[0].create("equal", wide_study("gp")).name
        proposed = proposals(wires, study, rounds=7)
        for wire, server in zip(wires, servers, strict=True):
            wire.channel.close()
            server.terminate()
            assert server.wait() == 0
        return proposed

    alone = course(1)
    assert course(3) == alone
    assert trials.Trial.FromString(alone[-1]).origin.predictions, "the policy's model was never asked"
    assert list(nowhere.iterdir()) == [], "a replica keeps something on its disk"


def import_observations(wire: Wire, study: str, count: int) -> None:
    def finished(index: int) -> trials.NewTrial:
        values = [((index * (2 * dial + 3)) % 101) / 101 for dial in range(len(DIALS))]
        return trials.NewTrial(
            parameters={name: real(value) for name, value in zip(DIALS, values, strict=True)},
            state=trials.Trial.STATE_SUCCEEDED,
            metrics={"loss": metric.MetricValue(value=sum((value - 0.3) ** 2 for value in values))},
        )

    new = [finished(index) for index in range(count)]
    wire.call("AddTrials", trials.AddTrialsRequest(parent=study, trials=new))


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.chaos)])
def test_tells_reports_and_reads_of_one_study_do_not_wait_for_slow_asks_of_another(
    processes: Processes, request: pytest.FixtureRequest, database: str
) -> None:
    address = request.getfixturevalue("sqlite_file" if database == "sqlite" else "migrated_url")
    server = processes.serve(address)
    with Wire(server.target) as slow, Wire(server.target) as wire:
        busy = slow.create("busy", wide_study("gp")).name
        import_observations(slow, busy, 300)
        idle = wire.create("idle", small_study()).name
        running = [begin_ask(slow, busy, f"slow-{index}", count=4) for index in range(4)]
        start = time.monotonic()
        for turn in range(50):
            trial = wire.one(idle, f"w{turn}")
            wire.call("Report", report_request(trial, 1, 1))
            assert wire.trial(idle, trial.number).measurements
            wire.tell(trial, turn)
        took = time.monotonic() - start
        left = [ask for ask in running if not ask.done()]
        assert left, "all slow asks had been met before: either 200 calls waited for them, or they are not slow"
        assert wire.study(idle).trial_counts.succeeded == 50
        handed_out = [len(trials.AskResponse.FromString(ask.result()).trials) for ask in running]
        print(
            f"200 calls in {took:.2f} s while {len(left)} of 4 slow asks ran; these took {time.monotonic() - start:.1f} s"
        )
        assert handed_out == [4] * 4


def begin_ask(wire: Wire, study: str, worker: str, *, count: int) -> Future[bytes]:
    request = trials.AskRequest(parent=study, worker_id=worker, count=count)
    asked: Future[bytes] = wire.channel.unary_unary(METHODS["Ask"]).future(
        request.SerializeToString(), timeout=PATIENCE
    )
    return asked
