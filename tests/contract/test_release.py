"""What a worker leaves when it gives a trial back: kept though its lease had expired, and not for the leases before, on every store."""

from __future__ import annotations

import asyncio

import pytest

from asktell.server.application import studies, trials
from asktell.server.application.clerk import Clerk
from asktell.server.application.leases import Release, release
from asktell.server.application.ports import Request
from asktell.server.domain.errors import FailedPrecondition
from asktell.server.domain.study import Budget
from asktell.server.domain.trial import TrialName, TrialState
from asktell.server.persistence.store import open_store
from tests.contract.test_clerk import NAME, create

ONE = TrialName(NAME, 1)
MINE, THEIRS = "s3://bucket/mine", "s3://bucket/theirs"


def given_back(trial, uri="", *, request=None):
    """The change that gives a trial back, whose reply is its checkpoint."""
    command = Release(trial=ONE, lease_token=trial.lease.token, checkpoint_uri=uri, request=request)
    return release(command, pack=lambda released: f"{released.sequence} {released.checkpoint_uri}".encode())


async def stored(store):
    return await store.read(lambda tx: trials.get_trial(tx, ONE))


async def expire(store, *, max_attempts=3):
    """The trial after its lease ran out."""

    def step(tx):
        locked = tx.lock_study(NAME, changes=1)
        expired = tx.find_trials(locked.study.id, [1])[1].expired(max_attempts=max_attempts, now=locked.now)
        tx.update_trials(locked.study.id, [expired])

    await store.write(step)
    return await stored(store)


async def take(store):
    """The trial in the hands of another worker."""

    def step(tx):
        locked = tx.lock_study(NAME, changes=1)
        spec = locked.study.spec
        queued = tx.find_trials(locked.study.id, [1])[1]
        taken = queued.leased(worker_id="another", duration=spec.lease_duration, now=locked.now)
        tx.update_trials(locked.study.id, [taken])
        return taken

    return await store.write(step)


async def refused(store, change):
    """Why the change is refused; it changes nothing."""
    before = await stored(store)
    with pytest.raises(FailedPrecondition) as caught:
        await Clerk(store).make(change)
    assert await stored(store) == before
    return caught.value.reason


async def test_an_expired_lease_that_nobody_took_gives_back_with_its_checkpoint_and_spends_no_attempt(store):
    (trial,) = await create(store, active=1)
    assert (await expire(store)).spent_attempts == 1
    await Clerk(store).make(given_back(trial, MINE))
    kept = await stored(store)
    assert (kept.state, kept.checkpoint_uri, kept.spent_attempts) == (TrialState.QUEUED, MINE, 0)
    assert not kept.resumable(trial.lease.token)
    assert (await take(store)).checkpoint_uri == MINE


async def test_an_expired_lease_of_a_full_study_gives_back_too(store):
    """Where there is no room for it to go on."""
    (trial, _) = await create(store, active=2)
    budget = Budget(max_parallel=1)
    await store.write(lambda tx: studies.update_study(tx, studies.UpdateStudy(name=NAME, budget=budget)))
    await expire(store)
    await Clerk(store).make(given_back(trial, MINE))
    assert (await stored(store)).checkpoint_uri == MINE


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("again", ["", MINE])
async def test_a_repeated_release_changes_nothing(store, expired, again):
    (trial,) = await create(store, active=1)
    if expired:
        await expire(store)
    first = await Clerk(store).make(given_back(trial, MINE))
    kept = await stored(store)
    assert await Clerk(store).make(given_back(trial, again)) == first
    assert await stored(store) == kept


async def test_a_release_of_an_expired_lease_is_known_by_its_request_though_another_worker_has_the_trial(store):
    (trial,) = await create(store, active=1)
    await expire(store)
    change = given_back(trial, MINE, request=Request("ReleaseTrial", "r", "f"))
    first = await Clerk(store).make(change)
    taken = await take(store)
    assert await Clerk(store).make(change) == first
    assert await stored(store) == taken


async def test_a_release_with_another_checkpoint_than_was_left_is_refused(store):
    """It would be lost."""
    (trial,) = await create(store, active=1)
    await Clerk(store).make(given_back(trial, MINE))
    assert await refused(store, given_back(trial, THEIRS)) == "LEASE_LOST"


@pytest.mark.parametrize("uri", ["", MINE, THEIRS])
async def test_a_lease_before_the_latest_gives_nothing_back_though_the_trial_waits(store, uri):
    (trial,) = await create(store, active=1)
    await expire(store)
    taken = await take(store)
    assert await refused(store, given_back(trial, uri)) == "LEASE_LOST"
    await Clerk(store).make(given_back(taken, THEIRS))
    assert await refused(store, given_back(trial, uri)) == "LEASE_LOST"
    await take(store)
    await expire(store)
    assert await refused(store, given_back(taken, uri)) == "LEASE_LOST"


async def test_a_lease_that_expired_once_too_often_gives_nothing_back(store):
    (trial,) = await create(store, active=1)
    assert (await expire(store, max_attempts=1)).state is TrialState.FAILED
    assert await refused(store, given_back(trial, MINE)) == "TRIAL_ENDED"


@pytest.mark.parametrize("named", [False, True])
async def test_on_postgresql_copies_of_a_release_through_replicas_give_back_once(migrated_url, named):
    stores = [open_store(migrated_url) for _ in range(2)]
    (trial,) = await create(stores[0], active=1)
    await expire(stores[1])
    request = Request("ReleaseTrial", "r", "f") if named else None
    clerks = [Clerk(store) for store in stores for _ in range(3)]
    replies = await asyncio.gather(*(clerk.make(given_back(trial, MINE, request=request)) for clerk in clerks))
    assert len(set(replies)) == 1
    kept = await stored(stores[1])
    assert (kept.state, kept.checkpoint_uri, kept.spent_attempts) == (TrialState.QUEUED, MINE, 0)
    for store in stores:
        await store.close()
