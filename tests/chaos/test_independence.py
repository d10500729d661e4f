"""P15 and P16: any replica proposes the same, and asks that compute keep nobody else waiting."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from asktell.client import Client
from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.postgres import Postgres
from tests.processes import PATIENCE, Processes
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


def proposals(wires: Sequence[Wire], study: str, *, rounds: int, at_once: int) -> list[bytes]:
    """What is proposed in a course of asks and tells, one call to one replica and the next to the next; times and tokens are left out."""
    turns = itertools.cycle(wires)
    proposed: list[bytes] = []
    for _ in range(rounds):
        asked = [next(turns).one(study) for _ in range(at_once)]
        for trial in asked:
            next(turns).tell(trial, bowl(trial))
        proposed += [essence(trial) for trial in asked]
    return proposed


def essence(trial: trials.Trial) -> bytes:
    origin = trials.Origin()
    origin.CopyFrom(trial.origin)
    origin.ClearField("compute_duration")
    kept = trials.Trial(number=trial.number, parameters=trial.parameters, origin=origin)
    return kept.SerializeToString(deterministic=True)


# What is prepared ahead may lack an unsurprising result, and says so in `made_for`: with trials side by side it depends on who was told when.
@pytest.mark.parametrize(
    ("at_once", "rounds", "speculate"), [(1, 12, "true"), pytest.param(3, 8, "false", marks=pytest.mark.chaos)]
)
def test_three_replicas_in_turn_propose_bit_for_bit_what_one_proposes_alone(
    processes: Processes, postgres: Postgres, tmp_path: Path, at_once: int, rounds: int, speculate: str
) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    places = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"), str(nowhere))

    def course(replicas: int) -> list[bytes]:
        database = postgres.url(postgres.create_database(migrated=True))
        environment = {**places, "ASKTELL_SPECULATE": speculate}
        servers = [processes.serve(database, environment=environment, cwd=nowhere) for _ in range(replicas)]
        wires = [Wire(server.target) for server in servers]
        study = wires[0].create("equal", wide_study("gp")).name
        proposed = proposals(wires, study, rounds=rounds, at_once=at_once)
        for wire, server in zip(wires, servers, strict=True):
            wire.channel.close()
            server.terminate()
            assert server.wait() == 0
        return proposed

    alone = course(1)
    assert course(3) == alone
    modelled = sum(bool(trials.Trial.FromString(proposed).origin.predictions) for proposed in alone)
    print(f"interchangeable: {len(alone)} proposals, {modelled} of them by the model, bit for bit the same")
    assert modelled, "the policy's model was never asked"
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
        running = [begin_ask(slow, busy, f"slow-{index}", count=12) for index in range(4)]
        start = time.monotonic()
        for turn in range(50):
            trial = wire.one(idle, f"w{turn}")
            wire.call("Report", report_request(trial, 1, 1))
            assert wire.trial(idle, trial.number).measurements
            wire.tell(trial, turn)
        took = time.monotonic() - start
        left = [ask for ask in running if not ask.done()]
        assert left, f"all slow asks were met within the {took:.1f} s of 200 quick calls: did these wait for them?"
        assert wire.study(idle).trial_counts.succeeded == 50
        print(f"200 calls in {took:.2f} s while {len(left)} of 4 slow asks ran")
        assert len(trials.AskResponse.FromString(running[0].result()).trials) == 12
        for ask in running:
            ask.cancel()


def test_asks_beyond_those_that_may_wait_are_told_when_to_come_again_and_take_no_trial(
    processes: Processes, sqlite_file: str
) -> None:
    server = processes.serve(sqlite_file, environment={"ASKTELL_MAX_WAITING_ASKS": "2"})
    with Wire(server.target) as wire:
        busy = wire.create("busy", wide_study("gp")).name
        import_observations(wire, busy, 40)
        asks = [begin_ask(wire, busy, f"w{index}", count=2) for index in range(10)]
        met = [trials.AskResponse.FromString(ask.result()) for ask in asks if ask.exception() is None]
        refused = [ask.exception() for ask in asks if ask.exception() is not None]
        assert refused, "ten asks had room where two may wait"
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert all(retry_delay(error) >= 1 for error in refused)
        assert len(wire.all_trials(busy)) == 40 + sum(len(answer.trials) for answer in met)


def test_the_client_comes_again_when_the_service_says_so(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file, environment={"ASKTELL_MAX_WAITING_ASKS": "1"})
    workers = 8
    with Wire(server.target) as wire:
        import_observations(wire, wire.create("busy", wide_study("gp")).name, 40)
    with Client(server.target, project="p") as client, ThreadPoolExecutor(workers) as pool:
        study = client.get_study("busy")
        asked = list(pool.map(lambda index: study.ask(count=1, worker_id=f"w{index}"), range(workers)))
    assert sorted(trial.number for answer in asked for trial in answer) == list(range(41, 41 + workers))


def retry_delay(error: Any) -> float:
    """When to come again, in seconds, as a refusal says it."""
    info = RetryInfo()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info)
    return info.retry_delay.ToTimedelta().total_seconds()


def begin_ask(wire: Wire, study: str, worker: str, *, count: int) -> Any:
    """The call, under way."""
    request = trials.AskRequest(parent=study, worker_id=worker, count=count)
    call = wire.channel.unary_unary(METHODS["Ask"])
    return call.future(request.SerializeToString(), timeout=PATIENCE)
