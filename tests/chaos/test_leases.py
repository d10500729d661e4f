"""A trial has one live lease: those that expire together are handed on once each, and who was asleep cannot overwrite (P6, P7)."""

from __future__ import annotations

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, timedelta

import grpc
import pytest

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.cluster import Cluster
from tests.chaos.seed import say
from tests.processes import Process, Processes, until
from tests.wire import Wire, refusal_of, seconds, small_study

LEASE = 1.0
LONG = seconds(3600)
CLIENTS = 8
FULL = [pytest.mark.chaos, pytest.mark.timeout(600)]
_names = itertools.count()
Trial = trials.Trial
ACCEPT, REFUSE = studies.StudySpec.LATE_TELLS_ACCEPT, studies.StudySpec.LATE_TELLS_REFUSE


def full_study(wire: Wire, count: int, **spec: object) -> str:
    """A study that has only so many trials, which wait for workers."""
    message = small_study(budget={"max_trials": count}, lease_duration=seconds(LEASE), **spec)
    study = wire.create(f"leases-{next(_names)}", message).name
    wire.enqueue(study, [index / count for index in range(count)])
    return study


@pytest.mark.parametrize("count", [200, pytest.param(1_000, marks=FULL)])
def test_leases_that_expire_together_are_handed_on_once_each(three: Cluster, count: int) -> None:
    with Wire(three.servers[0].target) as wire:
        study = full_study(wire, count)
        lost = wire.ask(study, "lost", count=count).trials
        assert len(lost) == count
    left = threading.Semaphore(count)

    def take(index: int) -> list[trials.Trial]:
        """What one client gets, one or a few at a time, until all clients together have all."""
        taken: list[trials.Trial] = []
        with Wire(three.servers[index % len(three.servers)].target) as own:
            while left.acquire(blocking=False):
                left.release()
                found = own.ask(study, f"w{index}", count=1 + index % 3, lease_duration=LONG).trials
                taken.extend(found)
                for _ in found:
                    assert left.acquire(blocking=False), "more was handed out than there is"
        return taken

    with ThreadPoolExecutor(CLIENTS) as pool:
        taken = [trial for share in pool.map(take, range(CLIENTS)) for trial in share]
    assert sorted(trial.number for trial in taken) == list(range(1, count + 1))
    assert {trial.attempt for trial in taken} == {2}
    expired = {trial.number: trial.lease.expire_time.ToDatetime(tzinfo=UTC) for trial in lost}
    waited = [trial.start_time.ToDatetime(tzinfo=UTC) - expired[trial.number] for trial in taken]
    assert min(waited) >= timedelta(0)
    with Wire(three.servers[1].target) as wire:
        assert not wire.ask(study, "late").trials
    say(f"{count} leases expired together: {count} handed on once, the last {max(waited).total_seconds():.1f} s later")


def start_zombie(processes: Processes, three: Cluster, study: str, index: int) -> Process:
    target = three.servers[index % len(three.servers)].target
    return processes.start([sys.executable, "-m", "tests.e2e.worker", target, study, f"zombie-{index}", "1"])


@pytest.mark.parametrize("late_tells", [ACCEPT, REFUSE])
@pytest.mark.parametrize("count", [2, pytest.param(50, marks=FULL)])
def test_workers_that_slept_past_their_leases_cannot_overwrite(
    processes: Processes, three: Cluster, count: int, late_tells: int
) -> None:
    with Wire(three.servers[0].target) as wire:
        # A study for each, lest one that starts late takes what an earlier one slept on.
        places = [full_study(wire, 1, late_tells=late_tells) for _ in range(count)]
        zombies = [start_zombie(processes, three, study, index) for index, study in enumerate(places)]
        for zombie in zombies:
            assert zombie.line() == "1 1"
            zombie.pause()
        taken = [until(lambda study=study: hand_on(wire, study, 1)) for study in places]
        ended = [wire.tell(handed[1], 2) for handed in taken]
        for zombie in zombies:
            zombie.say("tell")
            zombie.resume()
        assert [zombie.line() for zombie in zombies] == ["TRIAL_ENDED"] * count
        assert [wire.trial(study, 1) for study in places] == ended
        assert {trial.metrics["loss"].value for trial in ended} == {2}
    say(f"{count} workers stopped past their leases: {count} late tells refused, the others' values stand")


def hand_on(wire: Wire, study: str, count: int) -> dict[int, trials.Trial]:
    found = wire.ask(study, "other", count=count, lease_duration=LONG).trials
    assert all(trial.attempt == 2 for trial in found)
    return {trial.number: trial for trial in found}


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=FULL)])
def test_a_late_tell_and_the_new_holders_tell_that_race_are_one_result(three: Cluster, count: int) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(server.target)) for server in three.servers]
        study = full_study(wires[0], count, late_tells=ACCEPT)
        late = {trial.number: trial for trial in wires[0].ask(study, "late", count=count).trials}
        taken: dict[int, trials.Trial] = {}
        until(lambda: taken.update(hand_on(wires[1], study, count)) or len(taken) == count)
        with ThreadPoolExecutor(CLIENTS) as pool:
            first, second = {}, {}
            for n, trial in late.items():
                pairs = [(first, wires[n % 3], trial, 1), (second, wires[(n + 1) % 3], taken[n], 2)]
                for sent, wire, held, value in pairs if n % 2 else reversed(pairs):
                    sent[n] = pool.submit(told, wire, held, value)
            outcomes = {n: {first[n].result(), second[n].result()} for n in late}
        stored = {trial.number: trial.metrics["loss"].value for trial in wires[2].all_trials(study)}
        assert outcomes == {n: {stored[n], None} for n in late}
        won = sum(value == 1 for value in stored.values())
    say(f"{count} races of a late tell with the new holder's: one result each, {won} of them late ones")


def told(wire: Wire, trial: trials.Trial, value: float) -> float | None:
    """The loss that a tell stored; None if the trial had ended."""
    try:
        return wire.tell(trial, value).metrics["loss"].value
    except grpc.RpcError as error:
        if refusal_of(error).reason != "TRIAL_ENDED":
            raise
        return None
