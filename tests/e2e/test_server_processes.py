"""Several server processes on one port are one server to its clients, and one that dies is replaced."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest

from asktell.server import supervision
from asktell.server.settings import StartError
from asktell.v1 import study_service_pb2 as studies
from tests.processes import ASKTELL, DidNotStart, Processes, Server, until
from tests.wire import Wire, small_study

WORKERS, TRIALS = 12, 96


@pytest.fixture
def shared(processes: Processes, migrated_url: str) -> Iterator[Server]:
    """A server of two processes."""
    with processes:
        yield processes.serve(migrated_url, environment={"ASKTELL_PROCESSES": "2"})


def serving(server: Server) -> list[psutil.Process]:
    """The processes that listen on the server's port."""
    return [
        child
        for child in psutil.Process(server.pid).children(recursive=True)
        if any(each.status == "LISTEN" and each.laddr.port == server.port for each in child.net_connections())
    ]


def work(server: Server, study: str, worker: int) -> dict[int, float]:
    """What one worker told and heard acknowledged, on a connection of its own, whatever becomes of the processes."""
    told: dict[int, float] = {}
    with Wire(server.target, wait=True) as wire:
        while len(told) < TRIALS // WORKERS:
            try:
                trial = wire.one(study, f"w{worker}")
                wire.tell(trial, trial.number / 7)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            else:
                told[trial.number] = trial.number / 7
    return told


def test_a_process_that_is_killed_is_replaced_and_no_acknowledged_tell_is_lost(shared: Server) -> None:
    before = serving(shared)
    assert len(before) == 2
    with Wire(shared.target, wait=True) as wire:
        study = wire.create("shared", small_study()).name
        with ThreadPoolExecutor(WORKERS) as pool:
            shares = [pool.submit(work, shared, study, worker) for worker in range(WORKERS)]
            until(
                lambda: (
                    wire.surely("GetStudy", studies.GetStudyRequest(name=study)).trial_counts.succeeded > TRIALS // 4
                )
            )
            before[0].kill()
            told = [share.result() for share in shares]
        acknowledged = {number: value for of_one in told for number, value in of_one.items()}
        assert sum(map(len, told)) == len(acknowledged), "no trial was told by two"
        stored = {trial.number: trial.metrics["loss"].value for trial in wire.all_trials(study) if trial.metrics}
        assert acknowledged.items() <= stored.items()
    until(lambda: len(serving(shared)) == 2)
    assert before[0].pid not in {process.pid for process in serving(shared)}
    assert "process_lost" in shared.errors()


def test_a_process_that_hangs_is_killed_and_replaced(processes: Processes, migrated_url: str) -> None:
    with processes:
        settings = {"ASKTELL_PROCESSES": "2", "ASKTELL_HANG_LIMIT": "2"}
        server = processes.serve(migrated_url, environment=settings)
        hanging, other = serving(server)
        hanging.suspend()
        until(lambda: "process_started_anew" in server.errors())
        assert {process.pid for process in serving(server)} > {other.pid}
        assert not hanging.is_running()
        assert server.errors().count("process_hangs") == 1
        with Wire(server.target, wait=True) as wire:
            wire.create("shared", small_study())
        server.terminate()
        assert server.wait() == 0


def test_processes_are_not_taken_for_hanging_when_the_first_one_was_stopped(
    processes: Processes, migrated_url: str
) -> None:
    with processes:
        settings = {"ASKTELL_PROCESSES": "2", "ASKTELL_HANG_LIMIT": "2"}
        server = processes.serve(migrated_url, environment=settings)
        before, first = serving(server), psutil.Process(server.pid)
        first.suspend()
        time.sleep(3)
        first.resume()
        time.sleep(1)
        assert serving(server) == before
        assert "process_hangs" not in server.errors()


def test_the_processes_end_in_order_with_the_first_one(shared: Server) -> None:
    listening = serving(shared)
    with Wire(shared.target) as wire:
        study = wire.create("shared", small_study()).name
        stream = wire.watch(study)
        shared.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            for _ in stream:
                pass
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert shared.wait() == 0
    assert not any(process.is_running() for process in listening)
    assert shared.errors().count("stopped") == 3, "both processes, and the first one"
    assert "process_lost" not in shared.errors()


def test_the_processes_end_when_the_first_one_is_killed(shared: Server) -> None:
    listening = serving(shared)
    os.kill(shared.pid, signal.SIGKILL)
    until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in listening))


def test_a_port_that_others_share_is_refused(shared: Server, processes: Processes) -> None:
    with pytest.raises(DidNotStart, match=f"cannot listen on {shared.target}"):
        processes.serve(shared.database, listen=shared.target, environment={"ASKTELL_PROCESSES": "2"})
    with pytest.raises(DidNotStart, match=f"cannot listen on {shared.target}"):
        processes.again(shared)


def test_a_port_is_refused_to_others_before_a_process_listens_on_it() -> None:
    with supervision.reserved("127.0.0.1:0") as listen:
        for _ in range(2):
            with pytest.raises(StartError, match="Address already in use"), supervision.reserved(listen):
                pytest.fail("two servers would share the port unawares")


def test_all_processes_stopped_while_they_start_end_in_order(migrated_url: str, processes: Processes) -> None:
    with processes:
        command = [ASKTELL, "serve", "--processes", "2", "--listen", "127.0.0.1:0", "--database", migrated_url]
        starting = processes.start(command)
        # Those two, and what keeps track of their resources.
        until(lambda: len(psutil.Process(starting.pid).children()) == 3)
        os.killpg(starting.pid, signal.SIGTERM)
        assert starting.wait() == 0
        assert starting.rest() == ""
        assert "before it answered" not in starting.errors()


def test_a_process_that_cannot_be_replaced_for_want_of_room_is_replaced_later(shared: Server) -> None:
    limit = resource.prlimit(shared.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(shared.pid, resource.RLIMIT_NOFILE, (3, limit[1]))
    serving(shared)[0].kill()
    until(lambda: "Too many open files" in shared.errors())
    resource.prlimit(shared.pid, resource.RLIMIT_NOFILE, limit)
    until(lambda: len(serving(shared)) == 2)
