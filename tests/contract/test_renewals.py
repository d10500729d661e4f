"""Calls that keep leases and share a transaction, on every store: each is judged by its own token, and all together by the limit."""

from __future__ import annotations

import asyncio

import pytest

from asktell.server.application import studies, trials
from asktell.server.application.clerk import Clerk
from asktell.server.application.leases import Directive, Renew, Renewal, Renewals, Report, report
from asktell.server.domain.metric import Measurement, MetricValue
from asktell.server.domain.study import Budget
from asktell.server.domain.trial import TrialName, TrialState
from tests.contract.test_clerk import NAME, create
from tests.cost import counted

LIMIT = 20


async def expire(store, active):
    """Let the leases of these trials run out."""

    def step(tx):
        locked = tx.lock_study(NAME, changes=len(active))
        tx.update_trials(locked.study.id, [trial.expired(max_attempts=3, now=locked.now) for trial in active])

    await store.write(step)


async def active(store):
    """How many trials are active."""
    listed = trials.ListTrials(study=NAME, after=0, limit=1000)
    found = await store.read(lambda tx: trials.list_trials(tx, listed))
    return sum(trial.state is TrialState.ACTIVE for trial in found)


async def by_renewals(store, given):
    renewals = Renewals(store, Clerk(store))
    calls = [Renew(study=NAME, renewals=[Renewal(trial.number, trial.lease.token)]) for trial in given]
    return [verdict for (verdict,) in await asyncio.gather(*map(renewals.renew, calls))]


async def by_reports(store, given):
    clerk, measured = Clerk(store), [Measurement(1, {"y": MetricValue(0.5)})]
    calls = [
        Report(trial=TrialName(NAME, trial.number), lease_token=trial.lease.token, measurements=measured)
        for trial in given
    ]
    return [taken.verdict for taken in await asyncio.gather(*(clerk.make(report(call)) for call in calls))]


@pytest.mark.parametrize("go_on", [by_renewals, by_reports])
async def test_no_more_leases_go_on_by_calls_that_share_a_transaction_than_may_be_active(store, go_on):
    given = await create(store, active=30)
    budget = Budget(max_parallel=LIMIT)
    await store.write(lambda tx: studies.update_study(tx, studies.UpdateStudy(name=NAME, budget=budget)))
    await expire(store, given)
    with counted() as cost:
        verdicts = await go_on(store, given)
    directives = [verdict.directive for verdict in verdicts]
    assert (directives.count(Directive.CONTINUE), directives.count(Directive.ABANDON)) == (LIMIT, 10)
    assert await active(store) == LIMIT
    assert cost.commits <= 2, "they did not meet: there is nothing to see here"


async def test_the_token_of_an_earlier_attempt_keeps_nothing_beside_the_latest(store):
    (first,) = await create(store, active=1)
    await expire(store, [first])

    def take(tx):
        locked = tx.lock_study(NAME, changes=1)
        queued = tx.find_trials(locked.study.id, [1])[1]
        taken = queued.leased(worker_id="another", duration=locked.study.spec.lease_duration, now=locked.now)
        tx.update_trials(locked.study.id, [taken])
        return taken

    second = await store.write(take)
    for order in ([first, second], [second, first]):
        verdicts = await by_renewals(store, order)
        heard = {trial.lease.token: verdict for trial, verdict in zip(order, verdicts, strict=True)}
        assert heard[second.lease.token].directive is Directive.CONTINUE
        assert heard[first.lease.token].directive is Directive.ABANDON
        assert heard[first.lease.token].lease is None
