"""Servers that are killed at work: what they acknowledged is there, and their clients go on."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from asktell.v1 import trial_service_pb2 as trials
from tests.processes import Processes, Server
from tests.wire import Wire, seconds, small_study, tell_request

WORKERS = 6


@dataclass
class Load:
    """Workers that ask and tell until they are told to stop, through whatever happens to the server."""

    target: str
    study: str
    told: dict[int, float] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    grown: threading.Condition = field(default_factory=threading.Condition)

    def work(self, worker: str) -> None:
        """Each call has a request id, so that a repeated one counts once."""
        with Wire(self.target, wait=True) as wire:
            for turn in itertools.count():
                if self.done.is_set():
                    return
                ask = trials.AskRequest(parent=self.study, worker_id=worker, request_id=f"ask-{worker}-{turn}")
                for trial in wire.surely("Ask", ask).trials:
                    wire.surely("Tell", tell_request(trial, trial.number / 7, request_id=f"tell-{worker}-{turn}"))
                    self.acknowledge(trial.number, trial.number / 7)

    def acknowledge(self, number: int, value: float) -> None:
        with self.grown:
            self.asked.append(number)
            self.told[number] = value
            self.grown.notify_all()

    def await_more(self, count: int) -> None:
        """Return once `count` more tells are acknowledged."""
        with self.grown:
            wanted = len(self.told) + count
            assert self.grown.wait_for(lambda: len(self.told) >= wanted, timeout=60)


def crash_under_load(processes: Processes, database: str, *, kills: int, between: int) -> None:
    server: Server = processes.serve(database)
    with Wire(server.target) as wire:
        study = wire.create("crash", small_study(lease_duration=seconds(3600))).name
    load = Load(server.target, study)
    with ThreadPoolExecutor(WORKERS) as pool:
        working = [pool.submit(load.work, f"w{index}") for index in range(WORKERS)]
        try:
            for _ in range(kills):
                load.await_more(between)
                server.kill()
                server = processes.again(server)
            load.await_more(between)
        finally:
            load.done.set()
        for future in working:
            future.result()
    with Wire(server.target) as wire:
        stored = {trial.number: trial for trial in wire.all_trials(study)}
    assert len(load.told) >= (kills + 1) * between
    missing = [number for number, value in load.told.items() if stored[number].metrics["loss"].value != value]
    assert not missing, f"{len(missing)} of {len(load.told)} acknowledged tells are lost: {missing[:10]}"
    assert sorted(load.asked) == sorted(stored), "a repeated ask handed out another trial"
    assert {trial.state for trial in stored.values()} == {trials.Trial.STATE_SUCCEEDED}


def test_a_killed_server_loses_no_acknowledged_tell(processes: Processes, sqlite_file: str) -> None:
    crash_under_load(processes, sqlite_file, kills=3, between=100)


def test_thirty_two_clients_on_one_sqlite_file_lose_nothing(processes: Processes, sqlite_file: str) -> None:
    server = processes.serve(sqlite_file)
    rounds, clients = 5, 32
    with Wire(server.target) as wire:
        study = wire.create("many", small_study()).name

    def work(index: int) -> list[tuple[int, float]]:
        told = []
        with Wire(server.target) as own:
            for turn in range(rounds):
                trial = own.one(study, f"w{index}")
                value = index + turn / rounds
                told.append((own.tell(trial, value).number, value))
        return told

    with ThreadPoolExecutor(clients) as pool:
        told = dict(pair for pairs in pool.map(work, range(clients)) for pair in pairs)
    with Wire(server.target) as wire:
        stored = {trial.number: trial.metrics["loss"].value for trial in wire.all_trials(study)}
    assert stored == told
    assert sorted(stored) == list(range(1, clients * rounds + 1))
