"""P3: what was acknowledged is there after a power cut.

The database is on a filesystem of its own on an image. At a cut, all processes that write are stopped as they are, the image is copied, and
they go on. The copy holds what had reached the disk; its journal is replayed and its database recovers, as after a power cut.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from asktell.v1 import study_service_pb2 as studies
from tests.chaos.disk import CannotMount, Disk, require_disks
from tests.e2e.test_crash import WORKERS, Load
from tests.postgres import Postgres
from tests.processes import ASKTELL, Processes, Server, until
from tests.wire import Wire, seconds, small_study

BETWEEN = 60
"""Acknowledged tells from one cut to the next, at least."""
STUDY = "projects/p/studies/cut"
FLUSHED = {"fsync": "on", "shared_buffers": "16MB", "max_connections": "40", "max_wal_size": "64MB"}
WEAK = (sys.executable, "-m", "tests.chaos.weak_server")


@pytest.fixture(scope="module", autouse=True)
def disks() -> None:
    """Nothing but a disk can lose what it was not made to keep: without one there is nothing to test."""
    try:
        require_disks()
    except CannotMount as reason:
        pytest.skip(f"a power cut needs a filesystem to cut, and this machine mounts none: {reason}")


@contextmanager
def frozen(family: list[psutil.Process]) -> Iterator[None]:
    """All threads of the processes stand still: none is in the midst of a write or a flush."""
    for process in family:
        os.kill(process.pid, signal.SIGSTOP)
    until(lambda: all(map(_still, family)))
    yield
    for process in family:
        os.kill(process.pid, signal.SIGCONT)


def _still(process: psutil.Process) -> bool:
    states = [Path(task, "stat").read_text().rpartition(")")[2].split()[0] for task in _tasks(process)]
    return all(state in "TtZX" for state in states)


def _tasks(process: psutil.Process) -> list[Path]:
    return list(Path(f"/proc/{process.pid}/task").iterdir())


def family_of(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def cuts(
    load: Load,
    disk: Disk,
    family: Callable[[], list[psutil.Process]],
    recover: Callable[[Disk], dict[int, float]],
    *,
    count: int,
    enough: float = math.inf,
) -> int:
    """Cut `count` times under load, or until `enough` is lost; how many acknowledged tells were not there after their cut."""
    missing = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        working = [pool.submit(load.work, f"w{index}") for index in range(WORKERS)]
        try:
            for cut in range(count):
                load.await_more(BETWEEN)
                with frozen(family()):
                    acknowledged = dict(load.told)
                    left = disk.copy()
                stored = recover(left)
                lost = [number for number, value in acknowledged.items() if stored.get(number) != value]
                missing += len(lost)
                print(
                    f"power cut {cut + 1}: {len(acknowledged)} acknowledged, {len(stored)} recovered, {len(lost)} lost"
                )
                if missing >= enough:
                    break
        finally:
            load.done.set()
        for future in working:
            future.result()
    return missing


def told(server: Server) -> dict[int, float]:
    """The trials that a server says were told; none if even the study is not there."""
    with Wire(server.target) as wire:
        found = (
            wire.all_trials(STUDY)
            if wire.call("ListStudies", studies.ListStudiesRequest(parent="projects/p")).studies
            else []
        )
    return {trial.number: trial.metrics["loss"].value for trial in found if "loss" in trial.metrics}


def sqlite_cuts(processes: Processes, *, count: int, weak: bool = False) -> int:
    with Disk.new(mebibytes=48) as disk:
        database = str(disk.path / "asktell.db")
        server = processes.serve(database, program=WEAK if weak else (ASKTELL,))

        def recover(left: Disk) -> dict[int, float]:
            left.check()
            with left:
                recovered = processes.serve(str(left.path / "asktell.db"))
                stored = told(recovered)
                recovered.end()
            return stored

        with Wire(server.target) as wire:
            wire.create("cut", small_study(lease_duration=seconds(3600)))
        os.sync()
        load = Load(server.target, STUDY)
        missing = cuts(load, disk, lambda: family_of(server.pid), recover, count=count, enough=1 if weak else math.inf)
        server.end()
        return missing


def postgres_cuts(processes: Processes, *, count: int, weak: bool = False) -> int:
    with Disk.new(mebibytes=320) as disk:
        postgres = Postgres(disk.path / "data", settings=FLUSHED)
        postgres.start()
        name = postgres.create_database(migrated=True)
        server = processes.serve(postgres.url(name), program=WEAK if weak else (ASKTELL,))

        def family() -> list[psutil.Process]:
            return [*family_of(postgres.pid), *family_of(server.pid)]

        def recover(left: Disk) -> dict[int, float]:
            left.check()
            with left:
                # The machine of the postmaster that wrote this is taken to be off.
                (left.path / "data" / "postmaster.pid").unlink()
                again = Postgres(left.path / "data", settings=FLUSHED)
                again.start()
                recovered = processes.serve(again.url(name))
                stored = told(recovered)
                recovered.end()
                again.crash()
            return stored

        with Wire(server.target) as wire:
            wire.create("cut", small_study(lease_duration=seconds(3600)))
        os.sync()
        load = Load(server.target, STUDY)
        missing = cuts(load, disk, family, recover, count=count)
        server.end()
        postgres.crash()
        return missing


def test_a_power_cut_loses_no_acknowledged_tell_on_sqlite(processes: Processes) -> None:
    assert sqlite_cuts(processes, count=2) == 0


def test_a_power_cut_loses_no_acknowledged_tell_on_postgresql(processes: Processes) -> None:
    assert postgres_cuts(processes, count=1) == 0


def test_without_a_flush_at_each_commit_a_power_cut_loses_acknowledged_tells_on_sqlite(processes: Processes) -> None:
    assert sqlite_cuts(processes, count=5, weak=True) > 0, "the test is blind: it finds no loss where there must be one"


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_twenty_power_cuts_lose_no_acknowledged_tell_on_sqlite(processes: Processes) -> None:
    assert sqlite_cuts(processes, count=20) == 0


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_twenty_power_cuts_lose_no_acknowledged_tell_on_postgresql(processes: Processes) -> None:
    assert postgres_cuts(processes, count=20) == 0


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_without_a_flush_at_each_commit_a_power_cut_loses_acknowledged_tells_on_postgresql(
    processes: Processes,
) -> None:
    assert postgres_cuts(processes, count=5, weak=True) > 0, "the test is blind"
