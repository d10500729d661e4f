"""What every store promises, one transaction at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, event

from asktell.server.application.ports import (
    FIRST_METRIC,
    FIRST_POINT,
    Charted,
    CurvePlace,
    CurvePoint,
    NewStudy,
    Replay,
    Request,
)
from asktell.server.domain.errors import Conflict, Unavailable
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Categorical, Condition, Float, SearchSpace
from asktell.server.domain.study import Budget, LateTells, StudyName, StudySpec, StudyState, TrialCounts
from asktell.server.domain.trial import Lease, Origin, Prediction, Trial, TrialState
from asktell.server.persistence.store import SqlStore

NAME = StudyName("digits", "first")
ELSEWHERE = StudyName("digits", "second")
MINUTE = timedelta(minutes=1)
THEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAN = float("nan")
INFINITY = float("inf")

SPEC = StudySpec(
    space=SearchSpace(
        (
            Categorical(name="optimizer", choices=("sgd", 1, 1.0, True, None), default=1.0, has_default=True),
            Float(name="momentum", low=0.0, high=1.0, when=Condition("optimizer", ("sgd", True))),
        )
    ),
    objectives=(Objective("loss", Goal.MINIMIZE),),
    seed=2**63 - 1,
    lease_duration=timedelta(seconds=7.000001),
    late_tells=LateTells.REFUSE,
)

ALL = 10**9


def new_study(name: StudyName = NAME) -> NewStudy:
    return NewStudy(name=name, spec=SPEC, seed=-(2**63), budget=Budget(max_trials=5), labels={"a": "ü\n"})


def queued(number: int, **fields) -> Trial:
    given = {
        "state": TrialState.QUEUED,
        "parameters": {"x": number},
        "origin": Origin(policy="random"),
        "nonce": f"nonce{number}",
        "sequence": number,
        "create_time": THEN,
    }
    return Trial(number=number, **(given | fields))


def active(number: int, *, now: datetime, duration: timedelta = MINUTE, **fields) -> Trial:
    return queued(number, **fields).leased(worker_id=f"worker{number}", duration=duration, now=now)


async def create(store: SqlStore, name: StudyName = NAME) -> int:
    study = await store.write(lambda tx: tx.insert_study(new_study(name)))
    assert study is not None
    return study.id


async def insert(store: SqlStore, study_id: int, *trials: Trial) -> None:
    await store.write(lambda tx: tx.insert_trials(study_id, trials))


async def find(store: SqlStore, study_id: int, number: int) -> Trial:
    return (await store.read(lambda tx: tx.find_trials(study_id, [number])))[number]


async def clock(store: SqlStore, name: StudyName = NAME) -> datetime:
    found = await store.read(lambda tx: tx.find_study(name))
    assert found is not None
    return found.now


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that are sent to any database, but those that begin and end transactions."""
    sent: list[str] = []

    def note(connection, cursor, statement, parameters, context, executemany):
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")):
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_a_created_study_comes_back_as_it_was_given(store):
    created = await store.write(lambda tx: tx.insert_study(new_study()))
    found = await store.read(lambda tx: tx.find_study(NAME))
    assert found.study == created
    assert repr(created.spec) == repr(SPEC)
    assert (created.seed, created.budget, created.labels) == (-(2**63), Budget(max_trials=5), {"a": "ü\n"})
    assert (created.state, created.sequence, created.next_number) == (StudyState.ACTIVE, 1, 1)
    assert created.create_time.tzinfo is UTC
    assert found.now >= created.update_time >= created.create_time


async def test_a_taken_name_creates_nothing_and_breaks_nothing(store):
    await create(store)

    def create_again_and_look(tx):
        return tx.insert_study(new_study()), tx.find_study(NAME)

    again, found = await store.write(create_again_and_look)
    assert again is None
    assert found.study.sequence == 1


async def test_what_is_not_there_is_none(store):
    assert await store.read(lambda tx: tx.find_study(NAME)) is None
    assert await store.write(lambda tx: tx.lock_study(NAME, changes=1)) is None
    assert await store.write(lambda tx: tx.delete_study(NAME)) is False
    assert await store.read(lambda tx: tx.find_trials(1, [1])) == {}
    assert await store.read(lambda tx: tx.count_trials([1])) == {}


async def test_a_lock_reserves_sequence_numbers_without_gaps(store):
    await create(store)
    first = await store.write(lambda tx: tx.lock_study(NAME, changes=3))
    second = await store.write(lambda tx: tx.lock_study(NAME, changes=1))
    assert (first.first_sequence, first.study.sequence) == (2, 4)
    assert (second.first_sequence, second.study.sequence) == (5, 5)
    assert second.now >= second.study.update_time > first.study.create_time


async def test_a_lock_reserves_trial_numbers_without_gaps(store):
    await create(store)
    first = await store.write(lambda tx: tx.lock_study(NAME, changes=3, new_trials=2))
    second = await store.write(lambda tx: tx.lock_study(NAME, changes=1))
    third = await store.write(lambda tx: tx.lock_study(NAME, changes=1, new_trials=1))
    assert (first.first_number, first.study.next_number) == (1, 3)
    assert (second.first_number, second.study.next_number) == (3, 3)
    assert (third.first_number, third.study.next_number) == (3, 4)


async def test_a_lock_without_changes_leaves_the_study_as_it_is(store):
    await create(store)
    before = await store.read(lambda tx: tx.find_study(NAME))
    locked = await store.write(lambda tx: tx.lock_study(NAME, changes=0))
    assert locked.study == before.study


async def test_the_mutable_parts_of_a_study_are_stored(store):
    await create(store)

    def change(tx):
        study = tx.lock_study(NAME, changes=1).study
        budget = Budget(max_duration=timedelta(days=36_500, microseconds=1), max_parallel=2**53 - 1)
        wider = [replace(spec, high=spec.high + 1) if isinstance(spec, Float) else spec for spec in study.spec.space]
        changed = study.changed(state=StudyState.PAUSED, budget=budget, labels={}, parameters=wider)
        assert changed.spec != study.spec
        changed = replace(changed, next_number=9)
        tx.update_study(changed)
        return changed

    changed = await store.write(change)
    assert (await store.read(lambda tx: tx.find_study(NAME))).study == changed


async def test_deleting_a_study_deletes_all_that_belongs_to_it_and_nothing_else(store):
    request = Request("tell", "r", "f")

    def fill(tx, study_id):
        tx.insert_trials(study_id, [queued(1)])
        tx.record_measurements(study_id, {1: [Measurement(1, {"loss": MetricValue(1.0)})]}, now=THEN)
        tx.save_replies(study_id, [(request, b"reply")], now=THEN)

    first, second = await create(store), await create(store, ELSEWHERE)
    for study_id in (first, second):
        await store.write(lambda tx, study_id=study_id: fill(tx, study_id))
    assert await store.write(lambda tx: tx.delete_study(NAME)) is True
    assert await store.read(lambda tx: tx.list_measurements(first, 1)) == []
    assert await store.read(lambda tx: tx.count_trials([first, second])) == {second: TrialCounts(queued=1)}
    assert (await store.read(lambda tx: tx.find_study(ELSEWHERE, request=request))).replay is not None


async def test_the_id_of_a_deleted_study_is_never_used_again(store):
    first = await create(store)
    await store.write(lambda tx: tx.delete_study(NAME))
    assert await create(store) > first


async def test_studies_are_listed_by_code_point_after_a_name(store):
    names = ["B", "a", "_", "Z", "0", "a.b", "a-b", "aa", "-"]
    for name in names:
        await create(store, StudyName("digits", name))
    await create(store, StudyName("other", "A"))
    everything = await store.read(lambda tx: tx.list_studies("digits", after="", limit=100))
    assert [study.name.study for study in everything] == sorted(names)
    page = await store.read(lambda tx: tx.list_studies("digits", after="B", limit=2))
    assert [study.name.study for study in page] == ["Z", "_"]


async def test_a_trial_comes_back_with_every_field_and_kind(store):
    study_id = await create(store)
    trial = Trial(
        number=2**53,
        state=TrialState.ACTIVE,
        parameters={
            "i": 1,
            "f": 1.0,
            "b": True,
            "n": None,
            "s": "1",
            "z": -0.0,
            "nan": NAN,
            "big": -(2**63),
            "a": 5e-324,
        },
        origin=Origin(
            policy="gp",
            method="logei",
            fallback="'; DROP TABLE trials; --",
            predictions={"loss": Prediction(-INFINITY, NAN)},
            acquisition=-0.0,
            incumbent=None,
            compute_duration=timedelta(microseconds=1),
        ),
        nonce="abc",
        metrics={"loss": MetricValue(NAN, None), "gain": MetricValue(-INFINITY, 0.0), "zero": MetricValue(-0.0, 1e308)},
        message="%_\u202e\n",
        metadata={"float": "nan", "nul": "\0"},
        lease=Lease("abc-3", "w", THEN + timedelta(microseconds=1), timedelta(days=7, microseconds=1)),
        worker_id="w",
        attempt=3,
        spent_attempts=2,
        checkpoint_uri="s3://bucket/key",
        parent=2**53 - 1,
        member=2**31 - 1,
        sequence=2**62,
        create_time=THEN,
        start_time=THEN.replace(microsecond=0),
        end_time=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    )
    await insert(store, study_id, trial)
    assert repr(await find(store, study_id, 2**53)) == repr(trial)


async def test_times_are_utc_wherever_they_come_from(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1, create_time=THEN.astimezone(timezone(timedelta(hours=-11)))))
    stored = (await find(store, study_id, 1)).create_time
    assert stored == THEN
    assert stored.tzinfo is UTC


async def test_a_time_without_a_zone_is_refused(store):
    study_id = await create(store)
    with pytest.raises(Exception, match="time zone"):
        await insert(store, study_id, queued(1, create_time=THEN.replace(tzinfo=None)))


async def test_an_updated_trial_keeps_what_never_changes(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1), queued(2))
    trial = (await find(store, study_id, 1)).leased(worker_id="w", duration=MINUTE, now=THEN)
    ended = trial.ended(TrialState.SUCCEEDED, now=THEN, metrics={"loss": MetricValue(0.5)})
    ended = replace(ended.noted(metadata={"k": "v"}, checkpoint_uri="file:///c"), sequence=7)
    await store.write(lambda tx: tx.update_trials(study_id, [ended]))
    assert await find(store, study_id, 1) == ended
    assert await find(store, study_id, 2) == queued(2)


async def test_a_taken_trial_number_is_a_conflict_and_stores_nothing(store):
    study_id = await create(store)
    await insert(store, study_id, queued(2))
    with pytest.raises(Conflict, match="2"):
        await insert(store, study_id, queued(1), queued(2))
    assert await store.read(lambda tx: tx.count_trials([study_id])) == {study_id: TrialCounts(queued=1)}


async def test_a_trial_of_no_study_is_not_a_conflict(store):
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await insert(store, 999, queued(1))


async def test_trials_are_counted_by_study_and_state(store):
    first, second = await create(store), await create(store, ELSEWHERE)
    states = [*TrialState, TrialState.FAILED]
    await insert(store, first, *(queued(number, state=state) for number, state in enumerate(states, 1)))
    await insert(store, second, queued(1))
    counts = await store.read(lambda tx: tx.count_trials([first, second]))
    assert counts == {
        first: TrialCounts(queued=1, active=1, succeeded=1, stopped=1, infeasible=1, failed=2, cancelled=1),
        second: TrialCounts(queued=1),
    }


async def test_trials_after_a_sequence_number_come_in_the_order_of_changes(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1, sequence=9), queued(2, sequence=4), queued(3, sequence=7))
    changed = await store.read(lambda tx: tx.changed_trials(study_id, after=4, upto=ALL, limit=ALL))
    assert [(trial.sequence, trial.number) for trial in changed] == [(7, 3), (9, 1)]


async def test_trials_are_listed_by_number_state_and_worker(store):
    study_id = await create(store)
    await insert(
        store,
        study_id,
        queued(3, worker_id="w"),
        queued(1),
        queued(2, state=TrialState.FAILED, worker_id="w"),
        queued(4, state=TrialState.ACTIVE, worker_id="w"),
    )

    async def numbers(**given) -> list[int]:
        asked = {"after": 0, "limit": 10, "states": (), "worker_id": ""} | given
        return [trial.number for trial in await store.read(lambda tx: tx.list_trials(study_id, **asked))]

    assert await numbers() == [1, 2, 3, 4]
    assert await numbers(after=1, limit=2) == [2, 3]
    assert await numbers(states={TrialState.QUEUED, TrialState.FAILED}) == [1, 2, 3]
    assert await numbers(states={TrialState.QUEUED}, worker_id="w") == [3]
    assert await numbers(worker_id="W") == []


async def test_only_active_trials_past_their_time_have_expired(store):
    study_id = await create(store)
    now = await clock(store)
    past, future = now - 2 * MINUTE, now + MINUTE
    lapsed = active(4, now=past)
    await insert(
        store,
        study_id,
        active(1, now=past),
        active(2, now=future),
        replace(active(3, now=past), state=TrialState.QUEUED),
        lapsed,
        queued(5),
    )
    other = await create(store, ELSEWHERE)
    await insert(store, other, active(1, now=future))
    expired = await store.write(lambda tx: tx.expired_trials(study_id))
    assert expired == [active(1, now=past), lapsed]
    assert await store.read(lambda tx: tx.studies_with_expired_leases(10)) == [NAME]


async def test_no_more_studies_with_expired_leases_are_named_than_asked_for(store):
    for name in (NAME, ELSEWHERE):
        study_id = await create(store, name)
        await insert(store, study_id, *(active(number, now=THEN) for number in (1, 2)))
    assert len(await store.read(lambda tx: tx.studies_with_expired_leases(1))) == 1
    assert len(await store.read(lambda tx: tx.studies_with_expired_leases(9))) == 2


async def test_the_study_whose_lease_expired_longest_ago_is_named_first(store):
    for name, expired in ((NAME, THEN), (ELSEWHERE, THEN - MINUTE)):
        study_id = await create(store, name)
        await insert(store, study_id, active(1, now=expired), active(2, now=THEN + MINUTE))
    assert await store.read(lambda tx: tx.studies_with_expired_leases(9)) == [ELSEWHERE, NAME]


async def test_a_renewed_lease_starts_anew_from_the_databases_clock(store):
    study_id = await create(store)
    duration = timedelta(days=7, milliseconds=1)
    await insert(store, study_id, active(1, now=THEN, duration=duration), active(2, now=THEN))
    before = await clock(store)
    tokens = {(study_id, 1): ["nonce1-1"], (study_id, 2): ["nonce2-7", "x' OR '1'='1"], (study_id, 3): ["nonce1-1"]}
    renewed = await store.write(lambda tx: tx.renew_leases(tokens))
    after = await clock(store)
    assert set(renewed) == {(study_id, 1)}
    lease = renewed[study_id, 1]
    assert before <= lease.expire_time - duration <= after
    trial = await find(store, study_id, 1)
    assert trial.lease == lease
    assert replace(trial, lease=None) == replace(active(1, now=THEN), lease=None)
    assert await find(store, study_id, 2) == active(2, now=THEN)


async def test_only_live_leases_of_the_given_trials_are_renewed(store):
    study_id, other = await create(store), await create(store, ELSEWHERE)
    lost = replace(active(1, now=THEN), state=TrialState.QUEUED)
    await insert(store, study_id, lost)
    await insert(store, other, active(2, now=THEN))
    tokens = {(study_id, 1): ["nonce1-1"], (study_id, 2): ["nonce2-1"], (other, 1): ["nonce2-1"]}
    assert await store.write(lambda tx: tx.renew_leases(tokens)) == {}
    assert await find(store, study_id, 1) == lost


async def test_study_ids_are_found_by_project_and_name(store):
    study_id, other = await create(store), await create(store, ELSEWHERE)
    missing = StudyName(NAME.project, "missing")
    assert await store.read(lambda tx: tx.find_study_ids([NAME, ELSEWHERE, missing])) == {
        NAME: study_id,
        ELSEWHERE: other,
    }
    assert await store.read(lambda tx: tx.find_study_ids([])) == {}


async def test_measurements_come_back_by_step_with_all_their_numbers(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1), queued(2))
    reported = [
        Measurement(2**53, {"loss": MetricValue(NAN, None), "gain": MetricValue(INFINITY, 0.0)}),
        Measurement(0, {"loss": MetricValue(-0.0, 5e-324), "gain": MetricValue(-INFINITY, 0.1)}),
    ]
    await store.write(lambda tx: tx.record_measurements(study_id, {1: reported}, now=THEN))
    stored = await store.read(lambda tx: tx.list_measurements(study_id, 1))
    expected = [replace(measurement, create_time=THEN) for measurement in reversed(reported)]
    assert [repr(replace(each, metrics=dict(sorted(each.metrics.items())))) for each in stored] == [
        repr(replace(each, metrics=dict(sorted(each.metrics.items())))) for each in expected
    ]
    assert await store.read(lambda tx: tx.list_measurements(study_id, 2)) == []


async def test_measurements_of_several_trials_stay_apart(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1), queued(2), queued(3))
    reported = {number: [Measurement(7, {"loss": MetricValue(float(number))})] for number in (1, 3)}
    await store.write(lambda tx: tx.record_measurements(study_id, {**reported, 2: []}, now=THEN))
    for number in (1, 2, 3):
        stored = await store.read(lambda tx, number=number: tx.list_measurements(study_id, number))
        assert stored == [replace(each, create_time=THEN) for each in reported.get(number, [])]


async def test_points_of_curves_come_in_the_order_of_changes_and_again_where_they_were_replaced(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1), queued(2))

    def both(value: float) -> dict[str, MetricValue]:
        return {"loss": MetricValue(value), "gain": MetricValue(-value)}

    async def record(sequence: int, number: int, steps: dict[int, float]) -> None:
        measured = {number: [Measurement(step, both(value)) for step, value in steps.items()]}
        charted = Charted("loss", {number: sequence})
        await store.write(lambda tx: tx.record_measurements(study_id, measured, now=THEN, charted=charted))

    async def points(place: CurvePlace, limit: int = 10) -> list[CurvePoint]:
        return await store.read(lambda tx: tx.curve_points(study_id, place, limit=limit))

    await record(5, 2, {1: 0.1, 2: NAN})
    await record(6, 1, {1: 0.3})
    assert repr(await points(FIRST_POINT)) == repr(
        [CurvePoint(5, 2, 1, 0.1, "loss"), CurvePoint(5, 2, 2, NAN, "loss"), CurvePoint(6, 1, 1, 0.3, "loss")]
    )
    assert await points(FIRST_POINT, limit=1) == [CurvePoint(5, 2, 1, 0.1, "loss")]
    assert repr(await points((5, 2, 2))) == repr([CurvePoint(5, 2, 2, NAN, "loss"), CurvePoint(6, 1, 1, 0.3, "loss")])
    await record(7, 2, {1: 0.2})
    assert await points((6, 1, 1)) == [CurvePoint(6, 1, 1, 0.3, "loss"), CurvePoint(7, 2, 1, 0.2, "loss")]
    assert [point.place for point in await points(FIRST_POINT)] == [(5, 2, 2), (6, 1, 1), (7, 2, 1)]

    await store.write(lambda tx: tx.chart_anew(study_id, metric="gain", sequence=8))
    assert repr(await points((7, 2, 1))) == repr(
        [CurvePoint(8, 1, 1, -0.3, "gain"), CurvePoint(8, 2, 1, -0.2, "gain"), CurvePoint(8, 2, 2, NAN, "gain")]
    )
    assert len(await points(FIRST_POINT)) == 3


async def test_a_renewed_lease_says_why_its_trial_shall_stop_until_that_is_forgotten(store):
    study_id = await create(store)
    trial = active(1, now=THEN).judged("it falls behind")
    await insert(store, study_id, trial)
    tokens = {(study_id, 1): [trial.lease.token]}
    assert (await store.write(lambda tx: tx.renew_leases(tokens)))[study_id, 1].stop == "it falls behind"
    await store.write(lambda tx: tx.forget_stops(study_id))
    assert (await store.write(lambda tx: tx.renew_leases(tokens)))[study_id, 1].stop == ""


async def test_what_no_stopping_rule_looks_at_is_no_point_of_a_curve(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1))
    reported = {1: [Measurement(1, {"loss": MetricValue(1.0)})]}
    await store.write(lambda tx: tx.record_measurements(study_id, reported, now=THEN))
    assert await store.read(lambda tx: tx.curve_points(study_id, FIRST_POINT, limit=10)) == []


async def test_a_step_reported_again_is_replaced_metric_by_metric(store):
    study_id = await create(store)
    await insert(store, study_id, queued(1))
    later = THEN + MINUTE

    def report(metrics, now):
        return lambda tx: tx.record_measurements(study_id, {1: [Measurement(3, metrics)]}, now=now)

    await store.write(report({"loss": MetricValue(1.0, 0.5), "gain": MetricValue(2.0)}, THEN))
    await store.write(report({"loss": MetricValue(9.0)}, later))
    (stored,) = await store.read(lambda tx: tx.list_measurements(study_id, 1))
    assert stored == Measurement(3, {"loss": MetricValue(9.0), "gain": MetricValue(2.0)}, later)


async def test_a_request_is_replayed_from_its_kept_reply(store):
    study_id = await create(store)
    request = Request("ask", "r-1", "digest")
    await store.write(lambda tx: tx.save_replies(study_id, [(request, b"\0\xff")], now=THEN))
    locked = await store.write(lambda tx: tx.lock_study(NAME, changes=1, request=request))
    found = await store.read(lambda tx: tx.find_study(NAME, request=request))
    assert locked.replay == found.replay == Replay("digest", b"\0\xff")


@pytest.mark.parametrize("other", [Request("tell", "r-1", "digest"), Request("ask", "r-2", "digest"), None])
async def test_a_reply_is_that_of_its_method_and_id_alone(store, other):
    study_id = await create(store)
    await create(store, ELSEWHERE)
    request = Request("ask", "r-1", "digest")
    await store.write(lambda tx: tx.save_replies(study_id, [(request, b"")], now=THEN))
    assert (await store.write(lambda tx: tx.lock_study(NAME, changes=0, request=other))).replay is None
    assert (await store.read(lambda tx: tx.find_study(NAME, request=other))).replay is None
    assert (await store.read(lambda tx: tx.find_study(ELSEWHERE, request=request))).replay is None


async def test_a_second_reply_to_one_request_is_a_conflict(store):
    study_id = await create(store)
    request = Request("ask", "r-1", "digest")
    await store.write(lambda tx: tx.save_replies(study_id, [(request, b"first")], now=THEN))
    with pytest.raises(Conflict, match="r-1"):
        await store.write(lambda tx: tx.save_replies(study_id, [(request, b"second")], now=THEN))
    found = await store.read(lambda tx: tx.find_study(NAME, request=request))
    assert found.replay.response == b"first"


async def test_only_replies_older_than_a_day_are_forgotten(store):
    study_id = await create(store)
    now = await clock(store)
    day = timedelta(hours=24)
    ages = {"fresh": timedelta(0), "nearly": day - MINUTE, "old": day, "older": 2 * day, "oldest": 3 * day}
    for name, age in ages.items():
        request = Request("ask", name, "")
        await store.write(
            lambda tx, request=request, age=age: tx.save_replies(study_id, [(request, b"")], now=now - age)
        )
    assert await store.write(lambda tx: tx.forget_old_replies(2)) == 2
    assert await store.write(lambda tx: tx.forget_old_replies(2)) == 1
    kept = [
        name
        for name in ages
        if (await store.read(lambda tx, name=name: tx.find_study(NAME, request=Request("ask", name, "")))).replay
    ]
    assert kept == ["fresh", "nearly"]


async def test_a_step_that_raises_changes_nothing(store):
    study_id = await create(store)

    def refuse(tx):
        tx.lock_study(NAME, changes=5)
        tx.insert_trials(study_id, [queued(1)])
        raise ValueError("refused")

    before = await store.read(lambda tx: tx.find_study(NAME))
    with pytest.raises(ValueError, match="refused"):
        await store.write(refuse)
    after = await store.read(lambda tx: tx.find_study(NAME))
    assert after.study == before.study
    assert await store.read(lambda tx: tx.count_trials([study_id])) == {}


async def test_a_read_cannot_write(store):
    with pytest.raises(Exception, match=r"(?i)read-?only"):
        await store.read(lambda tx: tx.insert_study(new_study()))
    assert await store.read(lambda tx: tx.find_study(NAME)) is None


async def test_a_closed_store_says_so(store):
    await store.close()
    await store.close()
    for run in (store.read, store.write):
        with pytest.raises(Unavailable, match="closed"):
            await run(lambda tx: tx.find_study(NAME))


METHODS = {
    "insert_study": lambda tx, study, trials: tx.insert_study(new_study()),
    "find_study": lambda tx, study, trials: tx.find_study(NAME, request=Request("ask", "r", "f")),
    "lock_study": lambda tx, study, trials: tx.lock_study(NAME, changes=len(trials)),
    "lock_idle_studies": lambda tx, study, trials: tx.lock_idle_studies(
        {NAME: len(trials), ELSEWHERE: 1}, request=Request("ask", "r", "f")
    ),
    "update_study": lambda tx, study, trials: tx.update_study(tx.find_study(NAME).study),
    "delete_study": lambda tx, study, trials: tx.delete_study(ELSEWHERE),
    "list_studies": lambda tx, study, trials: tx.list_studies("digits", after="", limit=10),
    "count_trials": lambda tx, study, trials: tx.count_trials([study, study + 1]),
    "insert_trials": lambda tx, study, trials: tx.insert_trials(
        study, [replace(t, number=t.number + 1000) for t in trials]
    ),
    "update_trials": lambda tx, study, trials: tx.update_trials(study, trials),
    "update_trials_of": lambda tx, study, trials: tx.update_trials_of({study: trials, study + 1: []}),
    "claim_trials": lambda tx, study, trials: tx.claim_trials(study, [(t, t.sequence) for t in trials]),
    "find_study_ids": lambda tx, study, trials: tx.find_study_ids([NAME, ELSEWHERE]),
    "find_trials": lambda tx, study, trials: tx.find_trials(study, [t.number for t in trials]),
    "find_idle_trials": lambda tx, study, trials: tx.find_idle_trials(
        {study: [t.number for t in trials], study + 1: [1]}
    ),
    "find_replies_of": lambda tx, study, trials: tx.find_replies_of({study: _requests(trials), study + 1: []}),
    "save_replies_of": lambda tx, study, trials: tx.save_replies_of(
        {study: [(request, b"") for request in _requests(trials)]}, now=THEN
    ),
    "changed_trials": lambda tx, study, trials: tx.changed_trials(study, after=0, upto=ALL, limit=ALL),
    "list_trials": lambda tx, study, trials: tx.list_trials(study, after=0, limit=99, states=(), worker_id=""),
    "expired_trials": lambda tx, study, trials: tx.expired_trials(study),
    "studies_with_expired_leases": lambda tx, study, trials: tx.studies_with_expired_leases(10),
    "renew_leases": lambda tx, study, trials: tx.renew_leases({(study, t.number): [t.lease.token] for t in trials}),
    "forget_stops": lambda tx, study, trials: tx.forget_stops(study),
    "chart_anew": lambda tx, study, trials: tx.chart_anew(study, metric="loss", sequence=9),
    "record_measurements": lambda tx, study, trials: tx.record_measurements(
        study, {t.number: [Measurement(1, {"a": MetricValue(1.0), "b": MetricValue(2.0)})] for t in trials}, now=THEN
    ),
    "record_measurements_of": lambda tx, study, trials: tx.record_measurements_of(
        {study: {t.number: [Measurement(1, {"a": MetricValue(1.0)})] for t in trials}, study + 1: {}},
        now=THEN,
        charted={study: None, study + 1: None},
    ),
    "list_measurements": lambda tx, study, trials: tx.list_measurements(study, 1),
    "metrics_after": lambda tx, study, trials: tx.metrics_after(study, FIRST_METRIC, limit=10),
    "insert_measurements": lambda tx, study, trials: tx.insert_measurements(
        study, 1, [Measurement(t.number, {"a": MetricValue(1.0)}, THEN) for t in trials]
    ),
    "curve_points": lambda tx, study, trials: tx.curve_points(study, FIRST_POINT, limit=10),
    "keep_staged": lambda tx, study, trials: tx.keep_staged(study),
    "abandoned_studies": lambda tx, study, trials: tx.abandoned_studies(limit=10),
    "discard_trials": lambda tx, study, trials: tx.discard_trials(study, limit=10),
    "discard_study": lambda tx, study, trials: tx.discard_study(study),
    "last_measurements": lambda tx, study, trials: tx.last_measurements(study, [t.number for t in trials]),
    "save_hint": lambda tx, study, trials: tx.save_hint(study, "auto", b"h" * len(trials)),
    "forget_old_replies": lambda tx, study, trials: tx.forget_old_replies(10),
}


def _requests(trials):
    return [Request("ask", f"r{trial.number}", "f") for trial in trials]


async def test_each_method_is_one_statement_whatever_the_number_of_trials(store):
    study_id = await create(store)
    trials = [active(number, now=THEN) for number in range(1, 41)]
    await insert(store, study_id, *trials)
    counts = {}
    for name, method in METHODS.items():
        for given in (trials[:1], trials):

            def step(tx, method=method, given=given):
                method(tx, study_id, given)
                raise RuntimeError("enough")  # Rolled back: each method meets the same database.

            with statements() as sent, pytest.raises(RuntimeError, match="enough"):
                await store.write(step)
            counts[name, len(given)] = len(sent)
    extra = {"update_study": 1}  # The step reads the study first.
    assert counts == {(name, size): 1 + extra.get(name, 0) for name in METHODS for size in (1, 40)}


async def test_locking_for_a_request_is_one_statement(store):
    await create(store)
    with statements() as sent:
        await store.write(lambda tx: tx.lock_study(NAME, changes=1, request=Request("ask", "r", "f")))
    assert len(sent) == 1


async def test_replies_are_found_by_method_and_request(store):
    study_id = await create(store)
    kept = [
        (Request("ask", "r1", "f1"), b"one"),
        (Request("tell", "r1", "f2"), b"two"),
        (Request("ask", "r2", "f3"), b""),
    ]
    await store.write(lambda tx: tx.save_replies(study_id, kept, now=THEN))
    sought = [Request("ask", "r1", "other"), Request("tell", "r2", "f"), Request("ask", "r2", "f3")]
    assert await store.read(lambda tx: tx.find_replies(study_id, sought)) == {
        ("ask", "r1"): Replay("f1", b"one"),
        ("ask", "r2"): Replay("f3", b""),
    }
    assert await store.read(lambda tx: tx.find_replies(study_id, [])) == {}


async def test_a_trial_that_changed_since_it_was_read_cannot_be_claimed(store):
    study_id = await create(store)
    seen = [queued(number, sequence=number) for number in (1, 2)]
    await insert(store, study_id, *seen)
    claimed = [(replace(each, state=TrialState.ACTIVE, sequence=10 + each.number), each.sequence) for each in seen]
    await store.write(lambda tx: tx.update_trials(study_id, [replace(seen[1], sequence=5)]))
    with pytest.raises(Conflict, match="one of the trials 1, 2 has changed"):
        await store.write(lambda tx: tx.claim_trials(study_id, claimed))
    await store.write(lambda tx: tx.claim_trials(study_id, claimed[:1]))
    found = await store.read(lambda tx: tx.find_trials(study_id, [1, 2]))
    assert [(each.state, each.sequence) for each in found.values()] == [(TrialState.ACTIVE, 11), (TrialState.QUEUED, 5)]


async def test_studies_are_locked_together_each_with_sequence_numbers_of_its_own(store):
    for name in (NAME, ELSEWHERE):
        await create(store, name)
    changes = {NAME: 3, StudyName("digits", "missing"): 1, ELSEWHERE: 1}
    locked = await store.write(lambda tx: tx.lock_idle_studies(changes))
    assert {name: (each.first_sequence, each.study.sequence) for name, each in locked.items()} == {
        NAME: (2, 4),
        ELSEWHERE: (2, 2),
    }
    found = [(await store.read(lambda tx, name=name: tx.find_study(name))).study for name in locked]
    assert found == [each.study for each in locked.values()]


async def test_trials_and_replies_of_several_studies_are_found_by_study(store):
    first, second = [await create(store, name) for name in (NAME, ELSEWHERE)]
    for study_id in (first, second):
        await insert(store, study_id, queued(1, sequence=2), queued(2, sequence=3))
    one, two = Request("tell", "r", "f1"), Request("tell", "r", "f2")
    await store.write(lambda tx: tx.save_replies_of({first: [(one, b"one")], second: [(two, b"two")]}, now=THEN))
    trials = await store.write(lambda tx: tx.find_idle_trials({first: [1, 9], second: [1, 2]}))
    assert {study_id: sorted(of_one) for study_id, of_one in trials.items()} == {first: [1], second: [1, 2]}
    assert await store.write(lambda tx: tx.find_idle_trials({first: []})) == {}
    replies = await store.read(lambda tx: tx.find_replies_of({first: [one], second: [one, Request("ask", "r", "f")]}))
    assert replies == {first: {one.key: Replay("f1", b"one")}, second: {one.key: Replay("f2", b"two")}}
    assert await store.read(lambda tx: tx.find_replies_of({first: []})) == {}
