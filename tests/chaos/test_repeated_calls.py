"""Copies of a call that are sent at once through three servers happen once, and get one reply (P4, P5)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from google.protobuf.message import Message

from asktell.v1 import trial_service_pb2 as trials
from tests.chaos.cluster import Cluster
from tests.chaos.seed import say
from tests.wire import Wire, refusal, seconds, small_study, tell_request

AT_ONCE = 20
LONG = seconds(3600)
FULL = [pytest.mark.chaos, pytest.mark.timeout(600)]
_names = itertools.count()
Trial = trials.Trial


@pytest.fixture
def wires(three: Cluster) -> Iterator[Sequence[Wire]]:
    """A client of each server."""
    with ExitStack() as stack:
        yield [stack.enter_context(Wire(server.target)) for server in three.servers]


def new_study(wire: Wire) -> str:
    return wire.create(f"repeated-{next(_names)}", small_study(lease_duration=LONG)).name


def copies(wires: Sequence[Wire], method: str, requests: Sequence[Message], *, each: int) -> list[list[bytes]]:
    """The replies to copies of each request. All copies of some requests are under way at the same time, each through the next server."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sent = [
            [
                pool.submit(wires[(index + copy) % len(wires)].send, method, request.SerializeToString())
                for copy in range(each)
            ]
            for index, request in enumerate(requests)
        ]
        return [[future.result() for future in replies] for replies in sent]


@pytest.mark.parametrize("count", [40, pytest.param(1_000, marks=FULL)])
def test_five_copies_of_a_tell_change_one_row_once(wires: Sequence[Wire], count: int) -> None:
    study = new_study(wires[0])
    asked = wires[0].ask(study, count=count).trials
    before = wires[0].study(study).sequence
    requests = [tell_request(trial, trial.number / 7, request_id=f"tell-{trial.number}") for trial in asked]
    replies = copies(wires, "Tell", requests, each=5)
    assert [len(set(equal)) for equal in replies] == [1] * count
    stored = wires[1].all_trials(study)
    assert {trial.number: trial.metrics["loss"].value for trial in stored} == {n: n / 7 for n in range(1, count + 1)}
    assert {trial.state for trial in stored} == {Trial.STATE_SUCCEEDED}
    changes = {trial.sequence for trial in stored}
    assert len(changes) == count
    assert min(changes) > before
    others = [
        tell_request(trial, trial.number / 3, request_id=request.request_id)
        for trial, request in zip(asked, requests, strict=True)
    ]
    for index, other in enumerate(others):
        wire = wires[index % 3]
        assert refusal(lambda wire=wire, other=other: wire.call("Tell", other)).code is grpc.StatusCode.ALREADY_EXISTS
    assert wires[2].all_trials(study) == stored
    say(f"{count} tells x 5 copies through 3 servers: {count} rows changed once; {count} reused ids refused")


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=FULL)])
def test_four_copies_of_an_ask_are_one_trial_also_after_a_restart(
    three: Cluster, wires: Sequence[Wire], count: int
) -> None:
    study = new_study(wires[0])
    requests = [
        trials.AskRequest(parent=study, worker_id=f"w{index}", request_id=f"ask-{index}") for index in range(count)
    ]
    replies = copies(wires, "Ask", requests, each=4)
    assert [len(set(equal)) for equal in replies] == [1] * count
    handed = [trial.number for (reply, *_) in replies for trial in trials.AskResponse.FromString(reply).trials]
    assert sorted(handed) == list(range(1, count + 1))
    stored = wires[1].all_trials(study)
    assert len({trial.parameters["x"].double_value for trial in stored}) == count
    three.kill(0)
    three.complete()
    with Wire(three.servers[0].target) as wire:
        again = copies([wire], "Ask", requests, each=1)
        assert [one for (one,) in again] == [reply for (reply, *_) in replies]
        assert wire.all_trials(study) == stored
    say(f"{count} asks x 4 copies through 3 servers: {count} trials, equal replies, also after a kill")
