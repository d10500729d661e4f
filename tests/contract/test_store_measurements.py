"""What was measured is kept to the bit, and written in one statement however much it is."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, event

from asktell.server.application.ports import FIRST_POINT, Charted, NewStudy
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence.store import SqlStore

NAME, OTHER = StudyName("p", "one"), StudyName("p", "two")
SPEC = StudySpec(space=SearchSpace((Float(name="x", low=0, high=1),)), objectives=(Objective("y", Goal.MINIMIZE),))
THEN, LATER = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), datetime(2027, 1, 1, tzinfo=UTC)
AWKWARD = [
    5e-324,
    -5e-324,
    2.2250738585072014e-308,
    2.225073858507201e-308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    0.1 + 0.2,
    1 / 3,
    0.1,
    1e22,
    1e23,
    9007199254740993.0,
    123456789.123456789,
    0.0,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
]


async def create(store: SqlStore, name: StudyName = NAME, *, trials: int = 1) -> int:
    """The id of a study with so many trials."""

    def step(tx):
        study = tx.insert_study(NewStudy(name=name, spec=SPEC, seed=0, budget=Budget(), labels={}))
        tx.insert_trials(
            study.id,
            [
                Trial(
                    number=number,
                    state=TrialState.QUEUED,
                    parameters={"x": 0.5},
                    origin=Origin(policy="random"),
                    nonce=f"n{number}",
                    sequence=1,
                    create_time=THEN,
                )
                for number in range(1, trials + 1)
            ],
        )
        return study.id

    return await store.write(step)


def one(step: int, value: float, metric: str = "y") -> Measurement:
    return Measurement(step, {metric: MetricValue(value)})


async def measured(store: SqlStore, study_id: int, number: int = 1) -> list[Measurement]:
    return await store.read(lambda tx: tx.list_measurements(study_id, number))


def bits(value: float) -> bytes:
    return struct.pack(">d", value)


@pytest.mark.parametrize("way", ["record", "insert"])
async def test_awkward_numbers_are_kept_to_the_bit(store, way):
    study_id = await create(store)
    errors = [value for value in AWKWARD if math.isfinite(value) and value >= 0]
    reported = [
        Measurement(step, {"y": MetricValue(value, errors[step % len(errors)])}, THEN)
        for step, value in enumerate(AWKWARD)
    ]
    if way == "record":
        await store.write(lambda tx: tx.record_measurements(study_id, {1: reported}, now=LATER))
    else:
        await store.write(lambda tx: tx.insert_measurements(study_id, 1, reported))
    found = await measured(store, study_id)
    assert [bits(each.metrics["y"].value) for each in found] == [bits(value) for value in AWKWARD]
    assert [bits(each.metrics["y"].standard_error) for each in found] == [
        bits(each.metrics["y"].standard_error) for each in reported
    ]
    assert {each.create_time for each in found} == {THEN}


async def test_a_time_of_another_zone_is_the_same_moment(store):
    study_id = await create(store)
    there = THEN.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    await store.write(
        lambda tx: tx.record_measurements(study_id, {1: [replace(one(1, 1.0), create_time=there)]}, now=THEN)
    )
    (found,) = await measured(store, study_id)
    assert found.create_time == THEN


async def test_a_step_that_comes_twice_in_one_call_is_kept_as_it_came_last_metric_by_metric(store):
    study_id = await create(store)
    reported = [one(1, 1.0), Measurement(1, {"y": MetricValue(2.0, 0.5), "z": MetricValue(3.0)}), one(1, 4.0, "z")]
    await store.write(lambda tx: tx.record_measurements(study_id, {1: reported}, now=THEN))
    assert [each.metrics for each in await measured(store, study_id)] == [
        {"y": MetricValue(2.0, 0.5), "z": MetricValue(4.0)}
    ]


async def test_a_step_that_is_there_is_replaced_with_all_its_columns(store):
    study_id = await create(store)
    first = [Measurement(1, {"y": MetricValue(1.0, 0.1)})]
    charted = Charted("y", {1: 7})
    await store.write(lambda tx: tx.record_measurements(study_id, {1: first}, now=THEN, charted=charted))
    await store.write(lambda tx: tx.record_measurements(study_id, {1: [one(1, math.nan)]}, now=LATER))
    (found,) = await measured(store, study_id)
    assert repr(found) == repr(replace(one(1, math.nan), create_time=LATER))
    assert await store.read(lambda tx: tx.curve_points(study_id, FIRST_POINT, limit=9)) == []


async def test_measurements_of_several_studies_stay_apart_each_with_the_curves_of_its_own_rule(store):
    first, second = await create(store, trials=2), await create(store, OTHER, trials=2)
    reported = {first: {2: [one(1, 1.0)]}, second: {1: [one(1, 2.0), one(2, 3.0, "z")]}}
    charted = {first: None, second: Charted("z", {1: 9})}
    await store.write(lambda tx: tx.record_measurements_of(reported, now=THEN, charted=charted))
    assert await measured(store, first, 1) == await measured(store, second, 2) == []
    assert [each.metrics for each in await measured(store, first, 2)] == [{"y": MetricValue(1.0)}]
    assert [each.step for each in await measured(store, second, 1)] == [1, 2]
    assert await store.read(lambda tx: tx.curve_points(first, FIRST_POINT, limit=9)) == []
    points = await store.read(lambda tx: tx.curve_points(second, FIRST_POINT, limit=9))
    assert [(point.place, point.metric, point.value) for point in points] == [((9, 1, 2), "z", 3.0)]


@contextmanager
def sent() -> Iterator[list[bool]]:
    """Of what is sent to the databases of this process, whether it was rows one by one."""
    found: list[bool] = []

    def note(connection, cursor, statement, parameters, context, executemany):
        found.append(executemany)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("way", ["record", "insert"])
async def test_as_much_as_a_report_may_have_is_one_statement_and_not_row_by_row(store, way):
    study_id = await create(store)
    reported = [
        Measurement(step, {f"m{place}": MetricValue(step + place / 128) for place in range(100)}, THEN)
        for step in range(1_000)
    ]

    def step(tx):
        with sent() as one_by_one:
            if way == "record":
                tx.record_measurements(study_id, {1: reported}, now=THEN)
            else:
                tx.insert_measurements(study_id, 1, reported)
        return one_by_one

    assert await store.write(step) == [False]
    assert await measured(store, study_id) == reported
