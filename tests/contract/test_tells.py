"""What a tell keeps beside others of its trial, and when it is a repetition, on every store."""

from __future__ import annotations

import asyncio

import pytest

from asktell.server.application import trials
from asktell.server.application.clerk import Clerk
from asktell.server.application.leases import Report, report
from asktell.server.application.tell import Failed, Infeasible, Result, Stopped, Succeeded, Tell, tell
from asktell.server.domain.errors import FailedPrecondition
from asktell.server.domain.metric import Measurement, MetricValue
from asktell.server.domain.trial import TrialName, TrialState
from tests.contract.test_clerk import NAME, create
from tests.cost import counted

ONE = TrialName(NAME, 1)
MINE, OTHER = "s3://bucket/mine", "s3://bucket/other"


def told(trial, outcome, **noted):
    """The change that tells a trial, whose reply is its sequence number."""
    result = Result(number=trial.number, lease_token=trial.lease.token, outcome=outcome, **noted)
    return tell(Tell(study=NAME, results=[result]), pack=lambda taken: str(taken.trials[0].sequence).encode())


def reported(trial, step, **values):
    metrics = {name: MetricValue(value) for name, value in values.items()}
    return report(Report(trial=ONE, lease_token=trial.lease.token, measurements=[Measurement(step, metrics)]))


async def stored(store):
    return await store.read(lambda tx: trials.get_trial(tx, ONE))


OUTCOMES = [
    Succeeded({"y": MetricValue(1.0)}),
    Stopped({"y": MetricValue(1.0)}, "slow"),
    Infeasible("too large"),
    Failed("broken", retry=False),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("noted", [{}, {"checkpoint_uri": MINE}, {"metadata": {"host": "a"}}])
async def test_a_repeated_tell_with_what_is_known_changes_nothing(store, outcome, noted):
    (trial,) = await create(store, active=1)
    first = await Clerk(store).make(told(trial, outcome, checkpoint_uri=MINE, metadata={"host": "a", "gpu": "0"}))
    kept = await stored(store)
    assert await Clerk(store).make(told(trial, outcome, **noted)) == first
    assert await stored(store) == kept


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize(
    "noted", [{"checkpoint_uri": OTHER}, {"metadata": {"host": "b"}}, {"metadata": {"host": "a", "disk": "1"}}]
)
async def test_a_repeated_tell_with_something_new_is_refused_and_not_dropped_in_silence(store, outcome, noted):
    (trial,) = await create(store, active=1)
    await Clerk(store).make(told(trial, outcome, checkpoint_uri=MINE, metadata={"host": "a", "gpu": "0"}))
    kept = await stored(store)
    with pytest.raises(FailedPrecondition) as caught:
        await Clerk(store).make(told(trial, outcome, **noted))
    assert caught.value.reason == "TRIAL_ENDED"
    assert await stored(store) == kept


@pytest.mark.parametrize("earlier", [[], [9]])
async def test_a_trial_that_stops_as_reported_has_the_metrics_of_its_last_step_in_whatever_order_they_came(
    store, earlier
):
    """The reports share a transaction with the stop."""
    (trial,) = await create(store, active=1)
    clerk = Clerk(store)
    for step in earlier:
        await clerk.make(reported(trial, step, y=float(step)))
    with counted() as cost:
        await asyncio.gather(
            *(clerk.make(reported(trial, step, y=float(step))) for step in (7, 3)),
            clerk.make(told(trial, Stopped({}, "enough"))),
        )
    assert cost.commits == 1
    kept = await stored(store)
    assert (kept.state, kept.metrics) == (TrialState.STOPPED, {"y": MetricValue(float(max([7, *earlier])))})


async def test_a_trial_that_stops_as_reported_has_the_last_step_as_it_was_reported_last(store):
    """Metric by metric, as the measurements are kept."""
    (trial,) = await create(store, active=1)
    clerk = Clerk(store)
    await clerk.make(reported(trial, 7, y=1.0, z=1.0))
    with counted() as cost:
        await asyncio.gather(
            clerk.make(reported(trial, 7, y=2.0)),
            clerk.make(reported(trial, 7, y=3.0)),
            clerk.make(told(trial, Stopped({}, "enough"))),
        )
    assert cost.commits == 1
    kept = await stored(store)
    assert kept.metrics == kept.measurements[-1].metrics == {"y": MetricValue(3.0), "z": MetricValue(1.0)}
