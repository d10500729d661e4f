"""P21: hours of steady work leave a server as it was: memory, open files and threads stay, and no call fails.

Three minutes, or as many seconds as the environment variable ASKTELL_SOAK_SECONDS says: 1800 is the full form.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.processes import Processes, Server
from tests.wire import Wire, small_study

DURATION = float(os.environ.get("ASKTELL_SOAK_SECONDS", "180"))
WARM_UP = min(300.0, DURATION / 3)
WINDOW = min(60.0, DURATION / 9)
TELLS = 50
LIFE = 20
"""Seconds that a study lives: a server that has forgotten the deleted ones is not larger for them."""
CROWD = 64
GROWTH = 1.05
EVENT_ENGINE = 16
"""As many threads as gRPC's event engine keeps in reserve on a machine of many cores."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A server at one moment, and the calls since the moment before, in seconds each."""

    elapsed: float
    rss: int
    descriptors: int
    threads: int
    grpc: int
    calls: list[float]


@dataclass(slots=True)
class Work:
    """Each second: one ask for fifty trials and fifty tells, side by side, and one ask that the model answers."""

    wire: Wire
    turn: int = 0
    bulk: str = ""
    modelled: str = ""
    calls: list[float] = field(default_factory=list)

    def second(self, pool: ThreadPoolExecutor) -> list[float]:
        """How long each call took."""
        self.calls = []
        if self.turn % LIFE == 0:
            self.renew_studies()
        self.turn += 1
        asked = self.timed(lambda: self.wire.ask(self.bulk, count=TELLS).trials)
        list(pool.map(self.tell, asked))
        self.tell(self.wire.one(self.modelled))
        return self.calls

    def renew_studies(self) -> None:
        for name in filter(None, (self.bulk, self.modelled)):
            self.wire.call("DeleteStudy", studies.DeleteStudyRequest(name=name))
        self.bulk = self.wire.create(f"bulk-{self.turn}", small_study()).name
        self.modelled = self.wire.create(f"modelled-{self.turn}", small_study(policy="gp")).name

    def tell(self, trial: trials.Trial) -> None:
        self.timed(lambda: self.wire.tell(trial, (trial.parameters["x"].double_value - 0.3) ** 2))

    def timed(self, call):
        start = time.monotonic()
        result = call()
        self.calls.append(time.monotonic() - start)
        return result


def samples(server: Server) -> Iterator[Sample]:
    """One each second, for as long as it lasts."""
    process = psutil.Process(server.pid)
    start = time.monotonic()
    with Wire(server.target) as wire, ThreadPoolExecutor(8) as pool:
        crowd(wire)
        work = Work(wire)
        while (elapsed := time.monotonic() - start) < DURATION:
            calls = work.second(pool)
            rss, files, (own, grpc) = process.memory_info().rss, process.num_fds(), threads(server)
            yield Sample(elapsed, rss, files, own, grpc, calls)
            # A machine that cannot keep the pace does what it can.
            time.sleep(max(0.0, start + work.turn - time.monotonic()))


def crowd(wire: Wire) -> None:
    """Clients enough for all that a server starts only when it is needed: threads, and their connections to the database."""

    def visit(number: int) -> None:
        study = wire.create(f"visit-{number}", small_study()).name
        for _ in range(5):
            wire.tell(wire.one(study), 1.0)
            wire.call("GetStudy", studies.GetStudyRequest(name=study))
        wire.call("DeleteStudy", studies.DeleteStudyRequest(name=study))

    with ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(visit, range(CROWD)))


def threads(server: Server) -> tuple[int, int]:
    """How many threads a server has, without gRPC's event engine, and how many that has: it starts another where all are busy."""
    names = []
    for place in Path(f"/proc/{server.pid}/task").iterdir():
        # It may have ended.
        with suppress(FileNotFoundError):
            names.append((place / "comm").read_text().strip())
    grpc = names.count("event_engine")
    return len(names) - grpc, grpc


def p99(window: list[Sample]) -> float:
    calls = sorted(each for sample in window for each in sample.calls)
    return calls[len(calls) * 99 // 100]


@pytest.mark.chaos
@pytest.mark.timeout(DURATION + 120)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_steady_work_leaves_memory_files_and_threads_as_they_were(
    processes: Processes, request: pytest.FixtureRequest, database: str
) -> None:
    server = processes.serve(request.getfixturevalue("sqlite_file" if database == "sqlite" else "migrated_url"))
    taken = list(samples(server))
    early = [sample for sample in taken if WARM_UP <= sample.elapsed < WARM_UP + WINDOW]
    late = [sample for sample in taken if sample.elapsed >= DURATION - WINDOW]
    before, after = (statistics.median(sample.rss for sample in window) for window in (early, late))
    print(
        f"soak on {database}: {DURATION:g} s, {sum(len(sample.calls) for sample in taken)} calls, 0 errors,"
        f" RSS {before / 2**20:.1f} -> {after / 2**20:.1f} MiB ({100 * (after / before - 1):+.1f} %),"
        f" files {max(s.descriptors for s in early)} -> {max(s.descriptors for s in late)},"
        f" threads {max(s.threads for s in early)} -> {max(s.threads for s in late)},"
        f" gRPC's {max(s.grpc for s in early)} -> {max(s.grpc for s in late)},"
        f" p99 {1000 * p99(early):.0f} -> {1000 * p99(late):.0f} ms"
    )
    assert after <= GROWTH * before
    assert max(sample.descriptors for sample in late) <= max(sample.descriptors for sample in early)
    assert max(sample.threads for sample in late) <= max(sample.threads for sample in early)
    assert max(sample.grpc for sample in taken) <= EVENT_ENGINE
