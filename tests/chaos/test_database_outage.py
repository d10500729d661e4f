"""P12: while the database is away every call ends, says so, and readiness with it; when it is back, so is the service."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import psutil
import pytest

from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.replicas import NOT_SERVING, SERVING, await_health
from tests.postgres import Postgres
from tests.processes import Processes
from tests.wire import Wire, refusal_of, renew_request, report_request, small_study, tell_request

CALLERS = 12
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
LATE = grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that a test may end."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@contextmanager
def hanging(postgres: Postgres) -> Iterator[None]:
    """PostgreSQL with all its processes stopped: connections stand, and nobody answers."""
    parent = psutil.Process(postgres.pid)
    family = [parent, *parent.children(recursive=True)]
    for process in family:
        os.kill(process.pid, signal.SIGSTOP)
    yield
    for process in family:
        os.kill(process.pid, signal.SIGCONT)


def ends(wire: Wire, study: str, held: trials.Trial, *, deadline: float) -> list[tuple[str, grpc.StatusCode, float]]:
    """How each of many calls at once ended, and after how many seconds."""
    ask = trials.AskRequest(parent=study, worker_id="w")
    calls = [
        ("Ask", ask),
        ("Tell", tell_request(held, 1)),
        ("Report", report_request(held, 1, 1)),
        ("RenewLeases", renew_request(held)),
        ("GetTrial", trials.GetTrialRequest(name=held.name)),
        ("ListTrials", trials.ListTrialsRequest(parent=study)),
    ]

    def call(turn: int) -> tuple[str, grpc.StatusCode, float]:
        method, request = calls[turn % len(calls)]
        start = time.monotonic()
        try:
            wire.call(method, request, deadline=deadline)
        except grpc.RpcError as error:
            return method, refusal_of(error).code, time.monotonic() - start
        return method, grpc.StatusCode.OK, time.monotonic() - start

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(call, range(4 * len(calls))))


def test_a_database_that_is_down_is_unavailable_before_the_deadline_and_comes_back(
    processes: Processes, own_postgres: Postgres
) -> None:
    database = own_postgres.url(own_postgres.create_database(migrated=True))
    server = processes.serve(database)
    await_health(server, SERVING)
    with Wire(server.target) as wire:
        study = wire.create("outage", small_study()).name
        held, told = wire.one(study), wire.tell(wire.one(study), 1)
        own_postgres.crash()
        ended = ends(wire, study, held, deadline=20)
        assert {code for _, code, _ in ended} == {UNAVAILABLE}, ended
        print(
            f"database down: {len(ended)} calls UNAVAILABLE, the longest after {max(took for *_, took in ended):.1f} s"
        )
        await_health(server, NOT_SERVING)
        own_postgres.start()
        await_health(server, SERVING)
        assert wire.tell(held, 2).metrics["loss"].value == 2
        assert wire.trial(study, told.number) == told


def test_no_call_outlives_its_deadline_while_the_database_hangs(processes: Processes, own_postgres: Postgres) -> None:
    database = own_postgres.url(own_postgres.create_database(migrated=True))
    server = processes.serve(database)
    await_health(server, SERVING)
    with Wire(server.target) as wire:
        study = wire.create("hanging", small_study()).name
        held = wire.one(study)
        with hanging(own_postgres):
            ended = ends(wire, study, held, deadline=1)
            assert {code for _, code, _ in ended} <= {UNAVAILABLE, LATE}, ended
            print(
                f"database hangs: {len(ended)} calls with 1 s each, the longest took {max(t for *_, t in ended):.2f} s"
            )
            await_health(server, NOT_SERVING)
        await_health(server, SERVING)
        # What was given up by its caller may have been done all the same: this repeats it.
        assert wire.call("Tell", tell_request(held, 1)).trials[0].metrics["loss"].value == 1
        assert wire.one(study).number


@pytest.mark.chaos
def test_an_outage_of_ten_seconds_is_bounded(processes: Processes, own_postgres: Postgres) -> None:
    """The pass marks of P12 in numbers; a machine that is busy otherwise may fail them."""
    database = own_postgres.url(own_postgres.create_database(migrated=True))
    server = processes.serve(database)
    await_health(server, SERVING)
    deadline = 3.0
    with Wire(server.target) as wire:
        study = wire.create("bounded", small_study()).name
        held = wire.one(study)
        stopped = time.monotonic()
        own_postgres.crash()
        await_health(server, NOT_SERVING)
        unready = time.monotonic() - stopped
        ended: list[tuple[str, grpc.StatusCode, float]] = []
        while time.monotonic() < stopped + 10:
            ended += ends(wire, study, held, deadline=deadline)
        own_postgres.start()
        started = time.monotonic()
        await_health(server, SERVING)
        while True:
            if all(code is grpc.StatusCode.OK for _, code, _ in ends(wire, study, held, deadline=deadline)):
                break
        normal = time.monotonic() - started
        late = max(took for *_, took in ended) - deadline
        print(
            f"outage: {len(ended)} calls; NOT_SERVING after {unready:.1f} s; latest {late:+.2f} s; normal in {normal:.1f} s"
        )
        assert {code for _, code, _ in ended} == {UNAVAILABLE}
        assert late <= 0.2
        assert unready <= 2
        assert normal <= 5
