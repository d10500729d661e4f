"""Where a trial's state lies goes from attempt to attempt, however the attempt before ended. Against the real service, over the SDK."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from asktell.client import Client, Float, InvalidArgument, Minimize, Study, Trial, TrialState
from tests.processes import Processes, Server, until
from tests.wire import Wire

NUMBERS = itertools.count(1)
FIRST, SECOND = "s3://bucket/1", "file:///checkpoints/2"


@pytest.fixture
def study(server: Server) -> Iterator[Study]:
    name = f"study-{next(NUMBERS)}"
    with Client(server.target) as client:
        yield client.create_study(
            name, parameters=[Float("x", 0, 1)], objectives=[Minimize("y")], policy="random", lease_duration=60.0
        )


def ask(study: Study, **how) -> Trial:
    (trial,) = study.ask(worker_id="w", **how)
    return trial


def sequence_of(study: Study) -> int:
    study.refresh()
    return study.sequence


def test_a_checkpoint_without_measurements_is_kept_and_changes_the_trial(study: Study) -> None:
    trial = ask(study)
    before, sequence = study.get_trial(1), sequence_of(study)
    assert not trial.checkpoint(FIRST).should_stop
    after = study.get_trial(1)
    assert (after.checkpoint_uri, after.measurements, after.state) == (FIRST, (), TrialState.ACTIVE)
    assert sequence_of(study) > sequence
    assert after.lease is not None
    assert before.lease is not None
    assert after.lease.expire_time >= before.lease.expire_time


def test_the_latest_checkpoint_counts_until_another_comes(study: Study) -> None:
    trial = ask(study)
    trial.report(step=1, y=1.0, checkpoint_uri=FIRST)
    trial.checkpoint(SECOND)
    trial.report(step=2, y=0.5)
    assert study.get_trial(1).checkpoint_uri == SECOND
    assert [measurement.step for measurement in study.get_trial(1).measurements] == [1, 2]


@pytest.mark.parametrize("uri", ["", "/tmp/state", "ftp://host/state", "s3://" + "x" * 2048])
def test_a_checkpoint_that_is_none_is_refused_and_changes_nothing(study: Study, uri: str) -> None:
    trial = ask(study)
    trial.checkpoint(FIRST)
    sequence = sequence_of(study)
    with pytest.raises(InvalidArgument):
        trial.checkpoint(uri)
    assert (sequence_of(study), study.get_trial(1).checkpoint_uri) == (sequence, FIRST)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("release", lambda trial: trial.release()),
        ("release-anew", lambda trial: trial.release(checkpoint_uri=SECOND)),
        ("retry", lambda trial: trial.fail("broke", retry=True)),
        ("retry-anew", lambda trial: trial.fail("broke", retry=True, checkpoint_uri=SECOND)),
    ],
)
def test_the_next_attempt_gets_the_checkpoint(study: Study, name: str, end) -> None:
    trial = ask(study)
    trial.checkpoint(FIRST)
    end(trial)
    again = ask(study)
    assert (again.number, again.attempt, again.checkpoint_uri) == (1, 2, SECOND if "anew" in name else FIRST)


def test_an_expired_lease_hands_the_checkpoint_on_and_a_zombie_cannot_replace_it(study: Study) -> None:
    trial = ask(study, lease_duration=1.0)
    trial.checkpoint(FIRST)
    until(lambda: study.get_trial(1).state is TrialState.QUEUED)
    again = ask(study)
    assert (again.number, again.attempt, again.checkpoint_uri) == (1, 2, FIRST)
    assert trial.checkpoint(SECOND).lost
    assert study.get_trial(1).checkpoint_uri == FIRST


def test_a_worker_that_slept_past_its_lease_leaves_its_checkpoint_to_the_next(study: Study) -> None:
    trial = ask(study, lease_duration=1.0)
    until(lambda: study.get_trial(1).state is TrialState.QUEUED)
    trial.release(checkpoint_uri=FIRST)
    again = ask(study)
    assert (again.number, again.attempt, again.checkpoint_uri) == (1, 2, FIRST)


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (TrialState.SUCCEEDED, lambda trial: trial.tell(y=1.0, checkpoint_uri=SECOND)),
        (TrialState.STOPPED, lambda trial: trial.stop({"y": 1.0}, checkpoint_uri=SECOND)),
        (TrialState.FAILED, lambda trial: trial.fail("broke", checkpoint_uri=SECOND)),
    ],
)
def test_the_checkpoint_of_the_end_is_kept(study: Study, state: TrialState, end) -> None:
    trial = ask(study)
    trial.checkpoint(FIRST)
    end(trial)
    ended = study.get_trial(1)
    assert (ended.state, ended.checkpoint_uri) == (state, SECOND)


def test_a_checkpoint_outlives_the_server(processes: Processes, tmp_path: Path) -> None:
    server = processes.serve(str(tmp_path / "own.db"))
    with Client(server.target, retry_for=30) as client:
        study = client.create_study("s", parameters=[Float("x", 0, 1)], objectives=[Minimize("y")], policy="random")
        ask(study, lease_duration=600.0).checkpoint(FIRST)
        server.kill()
        again = processes.again(server)
        assert study.get_trial(1).checkpoint_uri == FIRST
    with Wire(again.target) as wire:
        assert wire.trial("projects/default/studies/s", 1).checkpoint_uri == FIRST
