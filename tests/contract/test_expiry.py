"""How leases of many studies are expired where the database fails, on every store."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from asktell.server.application import trials
from asktell.server.application.leases import expire_leases
from asktell.server.domain.errors import STUDY_BUSY, Unavailable
from asktell.server.domain.study import StudyName
from asktell.server.domain.trial import TrialState
from tests.contract.test_clerk import create

NAMES = [StudyName("p", f"s{number}") for number in range(6)]


@dataclass
class Failing:
    """A store whose writes fail from one of them on; a failure may be that of a busy study."""

    store: object
    after: int
    reason: str = ""
    tried: list[StudyName] = field(default_factory=list)

    async def read(self, step):
        return await self.store.read(step)

    async def write(self, step):
        self.tried.append(step.study)
        if len(self.tried) > self.after:
            raise Unavailable("away", **({"reason": self.reason} if self.reason else {}))
        return await self.store.write(step)


async def with_expired(store):
    """Studies of one trial each, whose lease has run out."""
    for name in NAMES:
        await create(store, name, active=1)

        def age(tx, name=name):
            locked = tx.lock_study(name, changes=1)
            trial = tx.find_trials(locked.study.id, [1])[1]
            duration = trial.lease.duration
            aged = trial.renewed(now=locked.now - 2 * duration)
            tx.update_trials(locked.study.id, [aged])

        await store.write(age)


async def queued(store):
    """Of how many studies the trial is queued."""
    states = [
        (
            await store.read(
                lambda tx, name=name: trials.list_trials(tx, trials.ListTrials(study=name, after=0, limit=1))
            )
        )
        for name in NAMES
    ]
    return sum(trial.state is TrialState.QUEUED for (trial,) in states)


@pytest.mark.parametrize("after", [0, 2])
async def test_a_database_that_fails_time_after_time_is_left_for_the_next_round(store, after):
    """Each failure may take seconds."""
    await with_expired(store)
    failing = Failing(store, after)
    if after:
        assert await expire_leases(failing) == after
    else:
        with pytest.raises(Unavailable):
            await expire_leases(failing)
    assert len(failing.tried) == after + 3
    assert await queued(store) == after
    assert await expire_leases(store) == len(NAMES) - after


async def test_studies_that_are_busy_say_nothing_against_the_database(store):
    await with_expired(store)
    failing = Failing(store, 0, STUDY_BUSY)
    assert await expire_leases(failing) == 0
    assert len(failing.tried) == len(NAMES)
