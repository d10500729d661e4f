"""Studies that are being imported, on every store: no name reaches them until they are published, and none is left for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from asktell.server.application.imports import discard_abandoned, discard_staged
from asktell.server.application.ports import FIRST_METRIC, NewStudy
from asktell.server.domain.errors import Conflict
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, Study, StudyName, StudySpec, StudyState
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence.tables import studies

THEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAME = StudyName("p", "s")
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("y", Goal.MINIMIZE),), seed=3
)
STUDY = Study(
    id=0,
    name=NAME,
    spec=SPEC,
    seed=3,
    budget=Budget(max_trials=9),
    labels={"a": "ü"},
    state=StudyState.PAUSED,
    next_number=7,
    sequence=11,
    own_sequence=8,
    create_time=THEN,
    update_time=THEN + timedelta(microseconds=1),
)
TRIALS = [
    Trial(
        number=number,
        state=TrialState.QUEUED,
        parameters={"x": 0.5},
        origin=Origin(policy="user"),
        nonce=f"n{number}",
        sequence=number,
        create_time=THEN,
    )
    for number in range(1, 7)
]
MEASURED = [
    Measurement(step, {"y": MetricValue(-0.0), "z": MetricValue(float("nan"), 0.5)}, THEN + timedelta(seconds=step % 7))
    for step in (0, 3, 2**53)
]


async def stage(store, key: str = "key") -> int:
    study_id = await store.write(lambda tx: tx.stage_study(STUDY, key=key))
    await store.write(lambda tx: tx.insert_trials(study_id, TRIALS))
    await store.write(lambda tx: tx.insert_measurements(study_id, 2, MEASURED))
    return study_id


async def publish(store, study_id: int) -> None:
    await store.write(lambda tx: tx.publish_study(replace(STUDY, id=study_id)))


async def test_a_staged_study_is_found_by_no_name_until_it_is_published_as_it_was(store):
    study_id = await stage(store)
    assert await store.read(lambda tx: tx.find_study(NAME)) is None
    assert await store.read(lambda tx: tx.list_studies("p", after="", limit=10)) == []
    await publish(store, study_id)
    found = await store.read(lambda tx: tx.find_study(NAME))
    assert found.study == replace(STUDY, id=study_id)
    trials = await store.read(lambda tx: tx.list_trials(study_id, after=0, limit=10, states=(), worker_id=""))
    assert trials == TRIALS
    assert repr(await store.read(lambda tx: tx.list_measurements(study_id, 2))) == repr(MEASURED)


async def test_a_taken_name_is_a_conflict_and_leaves_the_study_staged(store):
    new = NewStudy(name=NAME, spec=SPEC, seed=3, budget=Budget(), labels={})
    await store.write(lambda tx: tx.insert_study(new))
    study_id = await stage(store)
    with pytest.raises(Conflict):
        await publish(store, study_id)
    assert await store.write(lambda tx: tx.keep_staged(study_id))


async def test_what_was_published_is_neither_kept_nor_discarded(store):
    study_id = await stage(store)
    await publish(store, study_id)
    assert not await store.write(lambda tx: tx.keep_staged(study_id))
    await discard_staged(store, study_id)
    assert (await store.read(lambda tx: tx.count_trials([study_id])))[study_id].queued == len(TRIALS)
    assert await store.read(lambda tx: tx.find_study(NAME)) is not None


async def test_trials_are_discarded_a_portion_at_a_time_with_what_was_measured(store):
    study_id = await stage(store)
    discarded = [await store.write(lambda tx: tx.discard_trials(study_id, limit=4)) for _ in range(3)]
    assert discarded == [4, 2, 0]
    assert await store.read(lambda tx: tx.metrics_after(study_id, FIRST_METRIC, limit=10)) == []
    await store.write(lambda tx: tx.discard_study(study_id))
    assert not await store.write(lambda tx: tx.keep_staged(study_id))


async def test_only_what_nobody_has_kept_for_an_hour_is_abandoned(store):
    old, fresh, named = [await stage(store, key) for key in ("old", "fresh", "named")]
    await publish(store, named)

    def age(tx):
        now = tx.lock_study(NAME, changes=0).now
        tx._connection.execute(update(studies).values(update_time=now - timedelta(hours=1, seconds=1)))

    await store.write(age)
    assert await store.write(lambda tx: tx.keep_staged(fresh))
    assert await store.read(lambda tx: tx.abandoned_studies(limit=10)) == [old]
    assert await discard_abandoned(store) == 1
    assert not await store.write(lambda tx: tx.keep_staged(old))
    assert await store.write(lambda tx: tx.keep_staged(fresh))


async def test_metrics_are_read_in_pages_that_may_end_within_a_step(store):
    study_id = await stage(store)
    await store.write(lambda tx: tx.insert_measurements(study_id, 5, MEASURED))
    after, found = FIRST_METRIC, []
    while page := await store.read(lambda tx, after=after: tx.metrics_after(study_id, after, limit=5)):
        found += page
        after = page[-1].key
    assert [each.key for each in found] == [
        (number, step, metric) for number in (2, 5) for step in (0, 3, 2**53) for metric in ("y", "z")
    ]
    assert repr(found[0].value) == repr(MetricValue(-0.0))
