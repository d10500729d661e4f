"""A trial's life: leases, attempts, ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from asktell.server.domain.errors import FailedPrecondition, InvalidArgument
from asktell.server.domain.metric import MetricValue
from asktell.server.domain.study import LateTells, StudyName
from asktell.server.domain.trial import Origin, Trial, TrialName, TrialState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def queued(number: int = 7) -> Trial:
    return Trial(
        number=number,
        state=TrialState.QUEUED,
        parameters={"x": 1.0},
        origin=Origin(policy="user"),
        nonce="n",
        create_time=NOW,
    )


def leased() -> Trial:
    return queued().leased(worker_id="gpu-0", duration=MINUTE, now=NOW)


def token(trial: Trial) -> str:
    assert trial.lease is not None
    return trial.lease.token


def succeeded(number: int, **metrics: float) -> Trial:
    values = {name: MetricValue(value) for name, value in metrics.items()}
    active = queued(number).leased(worker_id="w", duration=MINUTE, now=NOW)
    return active.ended(TrialState.SUCCEEDED, metrics=values, now=NOW)


def test_each_lease_has_a_token_of_its_own() -> None:
    first = leased()
    second = first.expired(max_attempts=3, now=NOW).leased(worker_id="gpu-1", duration=MINUTE, now=NOW)
    assert second.attempt == 2
    assert second.holds(token(second))
    assert not second.holds(token(first))
    assert second.held(token(first))


def test_only_a_queued_trial_is_leased() -> None:
    with pytest.raises(FailedPrecondition, match="trial 7 is active, not queued"):
        leased().leased(worker_id="gpu-1", duration=MINUTE, now=NOW)


@pytest.mark.parametrize("forged", ["", "n", "n-0", "n-2", "m-1", "n-1-1", "n-x", "n-99999999999999999999"])
def test_a_token_that_was_never_given_is_refused(forged: str) -> None:
    with pytest.raises(FailedPrecondition, match="never had this lease"):
        leased().require_tellable(forged, LateTells.ACCEPT)


def test_a_late_tell_is_the_studys_to_judge() -> None:
    trial = leased()
    requeued = trial.expired(max_attempts=3, now=NOW)
    requeued.require_tellable(token(trial), LateTells.ACCEPT)
    with pytest.raises(FailedPrecondition, match="lease of attempt 1 was lost"):
        requeued.require_tellable(token(trial), LateTells.REFUSE)


def test_a_stale_token_cannot_end_a_trial_that_ended() -> None:
    trial = leased()
    done = trial.ended(TrialState.SUCCEEDED, now=NOW)
    with pytest.raises(FailedPrecondition, match="trial 7 is succeeded, not active"):
        done.require_tellable(token(trial), LateTells.ACCEPT)


def test_a_trial_whose_leases_expire_too_often_fails_and_says_so() -> None:
    trial = queued()
    for attempt in range(3):
        assert trial.state is TrialState.QUEUED
        assert trial.spent_attempts == attempt
        trial = trial.leased(worker_id="gpu-0", duration=MINUTE, now=NOW).expired(max_attempts=3, now=NOW)
    assert trial.state is TrialState.FAILED
    assert "expired without a result in 3 attempts, last held by gpu-0" in trial.message


def test_a_released_trial_spends_no_attempt_and_cannot_be_resumed() -> None:
    trial = leased()
    released = trial.released()
    assert (released.state, released.spent_attempts) == (TrialState.QUEUED, 0)
    assert not released.resumable(token(trial))


def test_an_expired_lease_goes_on_if_nobody_took_the_trial() -> None:
    trial = leased()
    expired = trial.expired(max_attempts=3, now=NOW)
    assert expired.resumable(token(trial))
    resumed = expired.resumed(now=NOW + MINUTE)
    assert resumed.holds(token(trial))
    assert resumed.spent_attempts == 0
    assert resumed.lease is not None
    assert resumed.lease.expire_time == NOW + 2 * MINUTE
    taken = expired.leased(worker_id="gpu-1", duration=MINUTE, now=NOW)
    assert not taken.resumable(token(trial))


def test_a_broken_attempt_is_retried_while_attempts_are_left() -> None:
    once = leased().broken(message="out of memory", max_attempts=2, retry=True, now=NOW)
    assert once.state is TrialState.QUEUED
    again = once.leased(worker_id="gpu-0", duration=MINUTE, now=NOW)
    assert again.broken(message="again", max_attempts=2, retry=True, now=NOW).state is TrialState.FAILED
    assert leased().broken(message="bug", max_attempts=2, retry=False, now=NOW).state is TrialState.FAILED


def test_an_ended_trial_stays_ended() -> None:
    with pytest.raises(FailedPrecondition, match="trial 7 is failed and cannot become succeeded"):
        leased().ended(TrialState.FAILED, now=NOW).ended(TrialState.SUCCEEDED, now=NOW)


@pytest.mark.parametrize(
    "name",
    [
        "projects/p/studies/s",
        "projects/p/studies/s/trials/",
        "projects/p/studies/s/trials/0",
        "projects/p/studies/s/trials/01",
        "projects/p/studies/s/trials/-1",
        "projects/p/studies/s/trials/١",
        "projects/p/studies/../trials/1",
        "projects/p/studies/s/trials/99999999999999999",
    ],
)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        TrialName.parse(name, path="name")
    assert refused.value.field == "name"


def test_names_go_there_and_back() -> None:
    name = TrialName(StudyName("p", "s"), 12)
    assert TrialName.parse(str(name), path="name") == name


def test_notes_add_up_and_a_checkpoint_stays_until_replaced() -> None:
    noted = leased().noted(metadata={"a": "1"}, checkpoint_uri="file:///c").noted(metadata={"b": "2"})
    assert noted.metadata == {"a": "1", "b": "2"}
    assert noted.checkpoint_uri == "file:///c"
