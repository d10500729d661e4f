"""What the surrogate is told of stopped trials: where they would have ended, on both databases."""

from __future__ import annotations

from dataclasses import replace

from asktell.server.application.curves import chart
from asktell.server.application.history import History
from asktell.server.application.ports import Transaction
from asktell.server.application.studies import CreateStudy, UpdateStudy, create_study, update_study
from asktell.server.application.trials import AddTrials, NewTrial, add_trials
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.stopping import Median, NewRule, StoppingRule
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import TrialState
from asktell.server.persistence.store import SqlStore
from asktell.server.stopping.foresight import foresee

NAME = StudyName("p", "s")
GAIN = Objective("gain", Goal.MAXIMIZE)


def trial(state: TrialState, *gains: float) -> NewTrial:
    """A trial with gains at steps 1, 2, 3 and so on, that ended with the last one."""
    measured = [Measurement(step, {"gain": MetricValue(gain)}) for step, gain in enumerate(gains, start=1)]
    return NewTrial(parameters={"x": 0.5}, state=state, metrics=measured[-1].metrics, measurements=measured)


async def create(store: SqlStore, rule: StoppingRule | None, *objectives: Objective) -> None:
    space = SearchSpace((Float(name="x", low=0.0, high=1.0),))
    spec = StudySpec(space=space, objectives=objectives, stopping_rule=rule, policy="random")
    command = CreateStudy(name=NAME, spec=spec, budget=Budget(), drawn_seed=1)
    await store.write(lambda tx: create_study(tx, command))


async def add(store: SqlStore, *trials: NewTrial) -> None:
    command = AddTrials(study=NAME, trials=trials, nonces=[f"n{index}" for index in range(len(trials))])
    await store.write(lambda tx: add_trials(tx, command, pack=lambda _: b""))


async def gains(history: History) -> list[float]:
    return [seen.metrics["gain"].value for seen in (await history.read(NAME)).observations]


FINISHED = [trial(TrialState.SUCCEEDED, 0.5, 0.8), trial(TrialState.SUCCEEDED, 0.4, 0.7)]
STOPPED = trial(TrialState.STOPPED, 0.25)


async def test_a_stopped_trial_is_observed_where_it_would_have_ended(store: SqlStore) -> None:
    await create(store, StoppingRule(kind=Median()), GAIN)
    history = History(store, foresee=foresee)
    await add(store, STOPPED)
    assert await gains(history) == [0.25]
    # What comes later is learned from, too: the two gained 0.3.
    await add(store, *FINISHED)
    assert [round(gain, 9) for gain in await gains(history)] == [0.55, 0.8, 0.7]
    assert await gains(history) == await gains(History(store, foresee=foresee))


async def test_a_trial_under_way_is_observed_where_it_will_have_ended_and_is_not_pending(store: SqlStore) -> None:
    await create(store, StoppingRule(kind=Median()), GAIN)
    queued = NewTrial(parameters={"x": 0.25})
    await add(store, *FINISHED, queued, replace(queued, parameters={"x": 0.75}))
    snapshot = await History(store, foresee=foresee).read(NAME)
    assert [trial.parameters["x"] for trial in snapshot.pending] == [0.25, 0.75]

    def report(tx: Transaction) -> None:
        locked = tx.lock_study(NAME, changes=1)
        assert locked is not None
        trial = tx.find_trials(locked.study.id, [3])[3]
        tx.update_trials(locked.study.id, [replace(trial, sequence=locked.first_sequence)])
        measured = {3: [Measurement(1, {"gain": MetricValue(0.25)})]}
        charted = chart(locked.study.spec, {3: locked.first_sequence})
        tx.record_measurements(locked.study.id, measured, now=locked.now, charted=charted)

    await store.write(report)
    snapshot = await History(store, foresee=foresee).read(NAME)
    assert [trial.parameters["x"] for trial in snapshot.pending] == [0.75]
    assert [(seen.number, round(seen.metrics["gain"].value, 9)) for seen in snapshot.observations] == [
        (1, 0.8),
        (2, 0.7),
        (3, 0.55),
    ]


async def test_without_a_rule_or_with_one_for_another_metric_it_is_observed_as_it_stood(store: SqlStore) -> None:
    other = StoppingRule(kind=Median(), metric="loss", goal=Goal.MINIMIZE)
    for rule in (None, other):
        await create(store, rule, GAIN)
        await add(store, *FINISHED, STOPPED)
        assert await gains(History(store, foresee=foresee)) == [0.8, 0.7, 0.25]
        await store.write(lambda tx: tx.delete_study(NAME))


def sized(trial: NewTrial) -> NewTrial:
    return replace(trial, metrics={**trial.metrics, "size": MetricValue(3.0)})


async def test_of_several_objectives_the_one_that_the_rule_looks_at_is_foreseen_in_stopped_trials(
    store: SqlStore,
) -> None:
    rule = StoppingRule(kind=Median(), metric="gain")
    await create(store, rule, Objective("size", Goal.MINIMIZE), GAIN)
    underway = NewTrial(parameters={"x": 0.25})
    await add(store, sized(STOPPED), *map(sized, FINISHED), underway)
    snapshot = await History(store, foresee=foresee).read(NAME)
    seen = [(each.metrics["size"].value, round(each.metrics["gain"].value, 9)) for each in snapshot.observations]
    assert seen == [(3.0, 0.55), (3.0, 0.8), (3.0, 0.7)]
    assert [trial.number for trial in snapshot.pending] == [4]


async def test_a_rule_that_comes_later_foresees_by_what_was_measured_before(store: SqlStore) -> None:
    await create(store, None, GAIN)
    history = History(store, foresee=foresee)
    await add(store, STOPPED, *FINISHED)
    assert await gains(history) == [0.25, 0.8, 0.7]
    rule = NewRule(StoppingRule(kind=Median()))
    await store.write(lambda tx: update_study(tx, UpdateStudy(name=NAME, stopping_rule=rule)))
    assert [round(gain, 9) for gain in await gains(history)] == [0.55, 0.8, 0.7]
    await store.write(lambda tx: update_study(tx, UpdateStudy(name=NAME, stopping_rule=NewRule(None))))
    assert await gains(history) == [0.25, 0.8, 0.7]


async def test_a_rule_that_looks_at_another_objective_from_now_on_foresees_by_what_was_measured_of_that_alone(
    store: SqlStore,
) -> None:
    size = Objective("size", Goal.MINIMIZE)
    await create(store, StoppingRule(kind=Median(), metric="gain"), size, GAIN)
    await add(store, sized(STOPPED), *map(sized, FINISHED))
    history = History(store, foresee=foresee)
    before = await history.read(NAME)
    rule = NewRule(StoppingRule(kind=Median(), metric="size"))
    await store.write(lambda tx: update_study(tx, UpdateStudy(name=NAME, stopping_rule=rule)))
    after, anew = await history.read(NAME), await History(store, foresee=foresee).read(NAME)
    assert before.expected
    assert after.expected == anew.expected == {}
    assert after.observations == anew.observations
