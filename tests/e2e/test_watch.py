"""P14: a watch has no gap and no repeat, through two servers, cut as often as you like."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from asktell.client import Client, TrialState
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.processes import Processes, until
from tests.wire import Wire, changes, refusal, small_study

Trial = trials.Trial
WRITERS = 8


@dataclass
class Cut:
    """A watcher whose stream is cut after a few responses, and goes on at either server with the sequence that it came to."""

    study: str
    targets: Sequence[str]
    random: random.Random
    seen: list[studies.Change] = field(default_factory=list)
    sequence: int = 0
    cuts: int = 0

    def follow(self, written: threading.Event) -> None:
        """Watch until everything was written, and has come."""
        while not written.is_set() or self.sequence < self.last():
            with Wire(self.random.choice(self.targets)) as wire:
                self._take(wire.watch(self.study, self.sequence))
            self.cuts += 1

    def last(self) -> int:
        """The sequence number that the study has come to."""
        with Wire(self.targets[0]) as wire:
            return wire.study(self.study).sequence

    def _take(self, stream: Iterator[studies.WatchStudyResponse]) -> None:
        for _ in range(self.random.randint(0, 3)):
            if self.sequence >= self.last():
                return
            response = next(stream)
            assert response.sequence > self.sequence
            self.seen.extend(response.changes)
            self.sequence = response.sequence


def write(study: str, targets: Sequence[str], index: int, tells: int, due: Callable[[int], bool]) -> None:
    """Take trials and tell them one by one when they are due, at either server in turn."""
    wires = [Wire(target) for target in targets]
    wires[0].enqueue(study, [index / WRITERS] * tells)
    taken = wires[1].ask(study, f"w{index}", count=tells).trials
    for place, trial in enumerate(taken):
        until(lambda place=place: due(place))
        wires[place % len(wires)].tell(trial, trial.number / 7)
    for wire in wires:
        wire.channel.close()


@pytest.mark.parametrize(
    ("tells", "cuts"),
    [(60, 20), pytest.param(1_000, 100, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_a_watch_that_is_cut_often_has_no_gap_and_no_repeat(
    processes: Processes, migrated_url: str, tells: int, cuts: int
) -> None:
    targets = [processes.serve(migrated_url).target for _ in range(2)]
    with Wire(targets[0]) as wire:
        study = wire.create("watched", small_study(budget={"max_trials": WRITERS * tells})).name
        watcher = Cut(study, targets, random.Random(14))
        steady = wire.watch(study, deadline=900)
        with ThreadPoolExecutor(WRITERS + 1) as pool:
            done = threading.Event()
            following = pool.submit(watcher.follow, done)

            def due(place: int) -> bool:
                """Whether there were cuts enough for this tell: fast writers wait for the watcher."""
                return watcher.cuts * tells >= cuts * place or following.done()

            written = [pool.submit(write, study, targets, index, tells, due) for index in range(WRITERS)]
            try:
                for writing in written:
                    writing.result()
            finally:
                done.set()
            following.result()
        stored = {trial.number: trial for trial in wire.all_trials(study)}
        last = wire.study(study).sequence
        uncut = _follow(steady, last)
        steady.cancel()
    for seen in (watcher.seen, uncut):
        sequences = [change.sequence for change in seen]
        assert sequences == sorted(set(sequences))
        assert {change.trial.number: change.trial for change in seen if change.HasField("trial")} == stored
    assert len(stored) == WRITERS * tells
    assert all(trial.state == Trial.STATE_SUCCEEDED for trial in stored.values())
    assert watcher.cuts >= cuts
    print(
        f"{len(stored)} trials, {last} changes: {len(watcher.seen)} seen through {watcher.cuts} cuts, {len(uncut)} without"
    )


def _follow(stream: Iterator[studies.WatchStudyResponse], last: int) -> list[studies.Change]:
    seen: list[studies.Change] = []
    for response in stream:
        seen.extend(response.changes)
        if response.sequence >= last:
            break
    return seen


def test_a_change_is_seen_though_its_server_died_before_it_told_the_others(
    processes: Processes, migrated_url: str
) -> None:
    alive = processes.serve(migrated_url)
    doomed = processes.serve(migrated_url, environment={"ASKTELL_FAILPOINTS": "tell.committed=kill"})
    with Wire(alive.target) as wire, Wire(doomed.target) as dying:
        study = wire.create("orphaned", small_study()).name
        trial = wire.one(study)
        stream = wire.watch(study, 2)
        assert refusal(lambda: dying.tell(trial, 0.5)).code is grpc.StatusCode.UNAVAILABLE
        doomed.wait()
        (change,) = changes(stream, 1)
        assert (change.trial.number, change.trial.state) == (1, Trial.STATE_SUCCEEDED)
        stream.cancel()


def test_a_server_that_stops_ends_its_watches_at_once_and_others_take_them_over(
    processes: Processes, migrated_url: str
) -> None:
    leaving = processes.serve(migrated_url, environment={"ASKTELL_DRAIN": "3600"})
    staying = processes.serve(migrated_url)
    with Wire(leaving.target) as wire, Wire(staying.target) as other:
        study = other.create("moved", small_study()).name
        streams = [wire.watch(study, 1, deadline=600) for _ in range(20)]
        leaving.terminate()
        ends = {refusal(lambda stream=stream: next(stream)).code for stream in streams}
        assert ends == {grpc.StatusCode.UNAVAILABLE}
        assert leaving.wait() == 0
        other.enqueue(study, [0.5])
        stream = other.watch(study, 1)
        assert [change.sequence for change in changes(stream, 1)] == [2]
        stream.cancel()


def test_a_clients_watch_survives_a_server_that_is_killed_and_comes_back(
    processes: Processes, sqlite_file: str
) -> None:
    server = processes.serve(sqlite_file)
    seen: list[Any] = []
    with Client(server.target, project="p") as client, Wire(server.target, wait=True) as wire:
        name = wire.create("survived", small_study()).name
        study = client.get_study("survived")

        def watch() -> None:
            with closing(study.watch(study.sequence)) as stream:
                while len(seen) < 9:
                    seen.append(next(stream))

        watching = threading.Thread(target=watch)
        watching.start()
        for _ in range(3):
            wire.enqueue(name, [0.1, 0.2, 0.3])
            server.kill()
            server = processes.again(server)
        watching.join()
    assert [change.sequence for change in seen] == list(range(2, 11))
    assert {change.trial.state for change in seen} == {TrialState.QUEUED}
