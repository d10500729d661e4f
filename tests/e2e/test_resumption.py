"""Whatever ends a training before its time, another worker goes on from its state, once, and nothing is left behind.

Real workers and trainings against a real server; leases take two and a half seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from asktell.client import Client, Study, Trial, TrialState
from tests.e2e.severed import SeverableLine
from tests.e2e.trainings import COMMAND, FUNCTION, Epoch, Field, kill
from tests.processes import Process, Processes, Server, gone, until

pytestmark = pytest.mark.parametrize("objective", [COMMAND, FUNCTION], ids=["command", "function"])

SEEN = 8
"""Epochs that were begun when the fault happens."""
KEPT = ("--lease-duration", "60")
"""For who takes over from one that comes back: it is not to lose the trial in turn where this machine is slow to renew."""


@pytest.fixture
def field(server: Server, processes: Processes, tmp_path: Path) -> Iterator[Field]:
    with Client(server.target) as client:
        yield Field(server, processes, tmp_path, client, slow_from=SEEN)


def ended(study: Study) -> Trial:
    """The only trial, once it has ended."""

    def look() -> Trial | None:
        trial = study.get_trial(1)
        return trial if trial.state is TrialState.SUCCEEDED else None

    return until(look)


def check_resumed(field: Field, trial: Trial, *, attempts: int = 2) -> None:
    """One attempt went on from where the one before had saved, and came to the end; no epoch but the one under way was trained twice."""
    assert trial.attempt == attempts
    assert trial.value("first") >= SEEN - 1
    assert trial.checkpoint_uri.endswith(f"/1/attempt-{attempts}")
    finisher = field.log()[-1].pid
    assert [each.epoch for each in field.log() if each.pid == finisher] == list(
        range(int(trial.value("first")), field.epochs)
    )


def check_another_resumes(field: Field, study: Study, objective: Sequence[str]) -> None:
    """Another worker takes the trial to its end, and leaves nothing behind."""
    field.hurry()
    second = field.work(study, objective)
    trial = ended(study)
    assert second.wait() == 0, second.errors()
    check_resumed(field, trial)
    assert field.alive() == []


def check_both_end(field: Field, study: Study, *workers: Process) -> None:
    """One of the workers takes the trial to its end, and both go on to theirs."""
    field.hurry()
    check_resumed(field, ended(study))
    assert [worker.wait() for worker in workers] == [0, 0], "".join(worker.errors() for worker in workers)


def under_way(field: Field, study: Study) -> int:
    """The process that trains, once it has come so far that a fault would cost something, and the service knows where its state lies."""
    field.training(1)
    until(lambda: study.get_trial(1).checkpoint_uri)
    return field.training(SEEN)


def repeated(log: Sequence[Epoch]) -> int:
    return len(log) - len({(each.trial, each.epoch) for each in log})


def test_a_training_that_is_killed_is_gone_on_with(field: Field, objective) -> None:
    study = field.study()
    first = field.work(study, objective, "--max-trials", "1")
    kill(under_way(field, study))
    first.wait()
    check_another_resumes(field, study, objective)
    assert repeated(field.log()) <= 1


def test_the_training_of_a_worker_that_is_killed_ends_and_is_gone_on_with(field: Field, objective) -> None:
    study = field.study()
    first = field.work(study, objective)
    training = under_way(field, study)
    # The worker, the guard, the training, and where each trial has a process of its own the next one's guard.
    expected = 4 if objective == COMMAND else 3
    until(lambda: len(field.alive()) >= expected)
    assert len(field.alive()) == expected
    first.kill()
    until(lambda: not field.alive())
    assert gone(training)
    check_another_resumes(field, study, objective)
    assert repeated(field.log()) <= 1


def test_a_worker_that_is_told_to_end_saves_gives_back_and_ends_with_0(field: Field, objective) -> None:
    study = field.study()
    first = field.work(study, objective)
    under_way(field, study)
    first.terminate()
    assert first.wait() == 0, first.errors()
    assert field.alive() == []
    given_back = study.get_trial(1)
    assert (given_back.state, given_back.attempt) == (TrialState.QUEUED, 1)
    assert given_back.checkpoint_uri.endswith("/1/attempt-1")
    check_another_resumes(field, study, objective)
    assert repeated(field.log()) <= 1


def test_a_worker_that_is_cut_off_loses_its_trial_once_and_ends_the_training_when_it_hears_so(
    field: Field, objective
) -> None:
    study = field.study()
    with SeverableLine(field.server.port) as line:
        first = field.work(study, objective, target=line.target)
        zombie = under_way(field, study)
        line.cut()
        second = field.work(study, objective, *KEPT)
        until(lambda: field.log()[-1].pid != zombie)
        assert not gone(zombie)
        line.heal()
        until(lambda: gone(zombie))
        check_both_end(field, study, first, second)
    assert "lost" in first.errors()
    assert field.alive() == []


def test_a_worker_that_is_cut_off_ends_the_training_where_that_is_wanted(field: Field, objective) -> None:
    study = field.study()
    with SeverableLine(field.server.port) as line:
        first = field.work(study, objective, "--silence", "2", target=line.target)
        zombie = under_way(field, study)
        line.cut()
        until(lambda: gone(zombie))
        until(lambda: "no word from the service for 2 s" in first.errors())
        first.kill()
    check_another_resumes(field, study, objective)


def test_a_worker_that_was_frozen_past_its_lease_ends_its_training_and_spoils_nothing(field: Field, objective) -> None:
    study = field.study()
    first = field.work(study, objective)
    zombie = under_way(field, study)
    first.pause()
    second = field.work(study, objective, *KEPT)
    until(lambda: field.log()[-1].pid != zombie or len({each.pid for each in field.log()}) > 1)
    assert not gone(zombie)
    first.resume()
    until(lambda: gone(zombie))
    check_both_end(field, study, first, second)
    assert field.alive() == []
