"""P11: replicas that are replaced one after another, under load, through the shipped client: nobody notices."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from asktell.client import Client, Float, Minimize
from tests.chaos.replicas import NOT_SERVING, SERVING, Replicas, watched
from tests.processes import Processes

WORKERS = 6


@dataclass
class Load:
    """Workers that ask and tell through the shipped client, with nothing but gRPC's own quick retries, as fast as they may."""

    target: str
    pause: float = 0.0
    told: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def work(self, worker: str) -> None:
        with Client(self.target, retry_for=0) as client:
            study = client.get_study("rolling")
            while not self.done.wait(self.pause):
                start = time.monotonic()
                (trial,) = study.ask(worker_id=worker)
                asked = time.monotonic()
                trial.tell(loss=trial.number / 7)
                self.told.append(trial.number)
                self.seconds += [asked - start, time.monotonic() - asked]


def rolling_restart(processes: Processes, database: str, *, rounds: int, pause: float = 0.0) -> None:
    replicas = Replicas.start(processes, database, 3)
    with Client(replicas.target) as client:
        study = client.create_study(
            "rolling", parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random"
        )
        load = Load(replicas.target, pause)
        with ThreadPoolExecutor(WORKERS) as pool:
            working = [pool.submit(load.work, f"w{index}") for index in range(WORKERS)]
            try:
                for index in [index for _ in range(rounds) for index in range(3)]:
                    with watched(replicas.servers[index]) as health:
                        assert replicas.restart(index) == 0
                    assert health.seen == [SERVING, NOT_SERVING], "it did not say that it was about to end"
            finally:
                load.done.set()
            for worker in working:
                worker.result()
        stored = {trial.number: trial.value() for trial in study.list_trials()}
    assert stored == {number: number / 7 for number in load.told}, "a call was lost, or was carried out twice"
    assert len(load.told) == len(set(load.told))
    seconds = sorted(load.seconds)
    print(
        f"rolling restart: {rounds * 3} restarts, {len(seconds)} calls, 0 errors,"
        f" p99 {seconds[len(seconds) * 99 // 100] * 1000:.0f} ms, longest {seconds[-1] * 1000:.0f} ms"
    )


def test_replicas_replaced_one_after_another_fail_no_call(processes: Processes, migrated_url: str) -> None:
    rolling_restart(processes, migrated_url, rounds=1)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_fifteen_replacements_at_a_hundred_calls_a_second_fail_no_call(processes: Processes, migrated_url: str) -> None:
    rolling_restart(processes, migrated_url, rounds=5, pause=2 * WORKERS / 100)
