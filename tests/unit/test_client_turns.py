"""How many trials the loops of one `optimize` begin, and until when: side by side in threads, or as tasks."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from asktell import client as at
from asktell.client import aio
from asktell.client.turns import Turns, loops
from asktell.client.values import Reason
from asktell.v1 import trial_service_pb2 as pb2
from tests.unit.client_fake import serving


@pytest.fixture
def service():
    with serving() as service:
        yield service


@pytest.fixture
def study(service):
    with at.Client(service.target, retry_for=30) as client:
        yield client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], max_trials=8)


def states(service):
    return [trial.state for trial in service.trials["projects/default/studies/s"].values()]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """What `optimize` reads the time from: it passes only as the test says, however busy the machine is."""
    clock = Clock()
    monkeypatch.setitem(Turns.__init__.__kwdefaults__, "clock", clock)
    return clock


def test_turns_end_with_their_count():
    turns = Turns(count=2)
    assert [turns.take() for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("timeout", [1.5, timedelta(seconds=1.5)])
def test_turns_end_with_their_time(timeout):
    clock = Clock()
    turns = Turns(timeout=timeout, clock=clock)
    assert (turns.take(), turns.left) == (True, 1.5)
    clock.now += 1.5
    assert (turns.take(), turns.left) == (False, 0.0)


def test_turns_that_were_ended_begin_no_more():
    turns = Turns()
    assert turns.take()
    turns.end()
    assert (turns.take(), turns.left) == (False, 0.0)


def test_a_wait_is_news_once_until_a_trial_came():
    turns = Turns()
    assert [turns.wait(Reason.PAUSED), turns.wait(Reason.PAUSED), turns.wait(Reason.MAX_PARALLEL)] == [
        True,
        False,
        True,
    ]
    assert turns.wait(Reason.PAUSED)
    turns.handed()
    assert turns.wait(Reason.PAUSED)


def test_only_the_first_of_several_loops_hears_that_there_was_no_trial():
    turns = Turns()
    assert [turns.close(), turns.close()] == [True, False]
    turns = Turns()
    turns.handed()
    assert not turns.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": -1}, r"count: must be at least 0.*not -1"),
        ({"timeout": -0.5}, r"timeout: must be at least 0 seconds.*not -0.5"),
        ({"timeout": float("nan")}, r"timeout: must be at least 0 seconds.*not nan"),
        ({"n_jobs": 0}, r"n_jobs: must be at least 1.*not 0"),
        ({"n_jobs": -2}, r"n_jobs: must be at least 1.*not -2"),
    ],
)
def test_limits_that_make_no_sense_are_refused_before_anything_is_asked(service, study, options, words):
    with pytest.raises(at.InvalidArgument, match=words):
        study.optimize(lambda trial: 1.0, **options)
    assert not service.requests["Ask"]


def test_minus_one_is_a_loop_for_each_processor(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert (loops(-1), loops(3)) == (6, 3)


def test_threads_evaluate_side_by_side_and_each_result_is_its_own_trials(service, study):
    together = threading.Barrier(4, timeout=30)
    seen = []

    def objective(trial):
        together.wait()
        return trial.parameters["x"]

    study.optimize(objective, n_jobs=4, callbacks=[lambda study, trial: seen.append(trial.number)])
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED] * 8
    assert sorted(seen) == list(range(1, 9))
    for trial in study.list_trials():
        assert trial.value() == trial.parameters["x"]


def test_threads_share_the_count(service, study):
    study.optimize(lambda trial: 1.0, n_jobs=3, count=5)
    assert len(states(service)) == 5


def test_callbacks_of_several_threads_are_called_one_at_a_time(study):
    inside, most = [], []

    def callback(study, trial):
        inside.append(trial)
        threading.Event().wait(0.01)
        most.append(len(inside))
        inside.remove(trial)

    study.optimize(lambda trial: 1.0, n_jobs=4, callbacks=[callback])
    assert most == [1] * 8


def test_an_error_in_one_thread_lets_the_others_finish_and_is_raised(service, study):
    together = threading.Barrier(2, timeout=30)

    def objective(trial):
        together.wait()
        if trial.number == 1:
            raise ValueError("odd")
        while pb2.Trial.STATE_FAILED not in states(service):
            threading.Event().wait(0.01)
        return 1.0

    with pytest.raises(ValueError, match="odd"):
        study.optimize(objective, n_jobs=2, on_error="raise")
    assert states(service) == [pb2.Trial.STATE_FAILED, pb2.Trial.STATE_SUCCEEDED]


def test_threads_give_up_together_on_a_broken_objective(service, study):
    def broken(trial):
        raise TypeError("always")

    with pytest.raises(TypeError, match="always"):
        study.optimize(broken, n_jobs=2)
    assert 3 <= len(states(service)) <= 4


def test_no_trial_begins_after_the_timeout(service, study, clock):
    def objective(trial):
        clock.now += 0.6
        return 1.0

    study.optimize(objective, timeout=0.5)
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED]
    study.optimize(objective, timeout=0)
    assert len(states(service)) == 1


def test_the_timeout_ends_the_wait_for_a_trial(service, study):
    service.waits.extend([60.0] * 2)
    study.optimize(lambda trial: 1.0, timeout=timedelta(seconds=1))
    assert states(service) == []
    assert len(service.requests["Ask"]) == 1


def test_a_paused_study_is_said_to_be_once(service, study, caplog):
    service.reason = pb2.AskResponse.REASON_PAUSED
    service.waits.extend([0.01] * 3)
    study.optimize(lambda trial: 1.0, count=1)
    assert [record.message for record in caplog.records] == [
        "study 's' is paused: waiting for study.resume(), or `asktell study resume`"
    ]
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED]


INTERRUPTED = """
import sys, threading
from asktell import client as at

running = threading.Barrier(3)

def objective(trial):
    running.wait()
    if trial.number == 1:
        print("running", flush=True)
    threading.Event().wait(300)

with at.Client(sys.argv[1], retry_for=30) as client:
    try:
        client.get_study("s").optimize(objective, n_jobs=3)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_gives_the_trials_of_all_threads_back_at_once(service, study):
    command = [sys.executable, "-c", INTERRUPTED, service.target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(30) == 0
    assert states(service) == [pb2.Trial.STATE_QUEUED] * 3


async def test_tasks_evaluate_side_by_side(service, study):
    together = asyncio.Barrier(4)

    async def objective(trial):
        await together.wait()
        return trial.parameters["x"]

    async with aio.Client(service.target, retry_for=30) as client:
        theirs = await client.get_study("s")
        await theirs.optimize(objective, n_jobs=4)
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED] * 8
    for trial in study.list_trials():
        assert trial.value() == trial.parameters["x"]


async def test_an_error_in_one_task_lets_the_others_finish_and_is_raised(service, study):
    together = asyncio.Barrier(2)

    async def objective(trial):
        await together.wait()
        if trial.number == 1:
            raise ValueError("odd")
        while pb2.Trial.STATE_FAILED not in states(service):
            await asyncio.sleep(0.01)
        return 1.0

    async with aio.Client(service.target, retry_for=30) as client:
        theirs = await client.get_study("s")
        with pytest.raises(ValueError, match="odd"):
            await theirs.optimize(objective, n_jobs=2, on_error="raise")
    assert states(service) == [pb2.Trial.STATE_FAILED, pb2.Trial.STATE_SUCCEEDED]


async def test_cancelling_gives_the_trials_of_all_tasks_back(service, study):
    together = asyncio.Barrier(4)

    async def objective(trial):
        await together.wait()
        await asyncio.Event().wait()

    async with aio.Client(service.target, retry_for=30) as client:
        theirs = await client.get_study("s")
        task = asyncio.create_task(theirs.optimize(objective, n_jobs=3))
        await together.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert states(service) == [pb2.Trial.STATE_QUEUED] * 3


async def test_tasks_end_with_the_timeout(service, study, clock):
    together = asyncio.Barrier(2)

    async def objective(trial):
        await together.wait()
        clock.now += 0.6
        return 1.0

    async with aio.Client(service.target, retry_for=30) as client:
        theirs = await client.get_study("s")
        await theirs.optimize(objective, n_jobs=2, timeout=0.5)
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED] * 2


def test_a_trial_that_comes_after_an_error_elsewhere_is_given_back(service, study, monkeypatch):
    ask, end, asked, ended = study.ask_once, Turns.end, threading.Event(), threading.Event()

    def late(**options):
        answer = ask(**options)
        if answer.trials[0].number > 1:
            asked.set()
            assert ended.wait(30)
        return answer

    def ending(turns):
        end(turns)
        ended.set()

    def objective(trial):
        assert asked.wait(30)
        raise ValueError("odd")

    monkeypatch.setattr(study, "ask_once", late)
    monkeypatch.setattr(Turns, "end", ending)
    with pytest.raises(ValueError, match="odd"):
        study.optimize(objective, n_jobs=2, on_error="raise")
    assert states(service) == [pb2.Trial.STATE_FAILED, pb2.Trial.STATE_QUEUED]


def test_a_trial_that_comes_after_the_timeout_is_given_back(service, study, monkeypatch, clock):
    ask = study.ask_once

    def late(**options):
        answer = ask(**options)
        clock.now += 0.1
        return answer

    monkeypatch.setattr(study, "ask_once", late)
    study.optimize(lambda trial: 1.0, timeout=0.05)
    assert states(service) == [pb2.Trial.STATE_QUEUED]


async def test_a_task_gives_a_trial_back_that_comes_after_the_timeout(service, study, monkeypatch, clock):
    async with aio.Client(service.target, retry_for=30) as client:
        theirs = await client.get_study("s")
        ask = theirs.ask_once

        async def late(**options):
            answer = await ask(**options)
            clock.now += 0.1
            return answer

        async def objective(trial):
            return 1.0

        monkeypatch.setattr(theirs, "ask_once", late)
        await theirs.optimize(objective, timeout=0.05)
    assert states(service) == [pb2.Trial.STATE_QUEUED]
