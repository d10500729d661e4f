"""What every store promises to many callers at once, and when the database fails."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from sqlalchemy import Connection, Engine, event, text

from asktell.server.application.leases import expire_leases
from asktell.server.application.ports import NewStudy, Request
from asktell.server.application.requests import keep_reply, refuse_replay, write_once
from asktell.server.domain.errors import Conflict, Unavailable
from asktell.server.domain.metric import Goal, Measurement, MetricValue, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence.store import LOCK_TIMEOUT, POSTGRESQL_WRITERS, SqlStore, open_store

NAME = StudyName("digits", "first")
ELSEWHERE = StudyName("digits", "second")
MINUTE = timedelta(minutes=1)
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("loss", Goal.MINIMIZE),)
)
REQUEST = Request("tell", "r-1", "digest")

ALL = 10**9
LOOKS = "SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout'"
"""After how many milliseconds of waiting PostgreSQL looks for a deadlock."""


@pytest_asyncio.fixture
async def study_id(store: SqlStore) -> int:
    return await create(store, NAME)


async def create(store: SqlStore, name: StudyName) -> int:
    new = NewStudy(name=name, spec=SPEC, seed=0, budget=Budget(), labels={})
    study = await store.write(lambda tx: tx.insert_study(new))
    assert study is not None
    return study.id


def add_trial(tx, name: StudyName = NAME, *, leased: bool = False) -> Trial:
    """What an ask does: take the next number under the study's lock."""
    locked = tx.lock_study(name, changes=1)
    study = locked.study
    trial = Trial(
        number=study.next_number,
        state=TrialState.QUEUED,
        parameters={"x": 0.5},
        origin=Origin(policy="random"),
        nonce=f"n{study.next_number}",
        sequence=locked.first_sequence,
        create_time=locked.now,
    )
    if leased:
        trial = trial.leased(worker_id="w", duration=MINUTE, now=locked.now - 2 * MINUTE)
    tx.insert_trials(study.id, [trial])
    tx.update_study(replace(study, next_number=study.next_number + 1))
    return trial


async def find(store: SqlStore, study_id: int, number: int) -> Trial:
    return (await store.read(lambda tx: tx.find_trials(study_id, [number])))[number]


class Gate:
    """Holds a step inside its transaction until it is opened."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def hold(self) -> None:
        self._reached.set()
        assert self._opened.wait(30), "nobody opened the gate"

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 30), "the step never came to the gate"

    def open(self) -> None:
        self._opened.set()


async def until_blocked(address: str) -> None:
    """Wait until a transaction waits for another's lock. SQLite's writer takes one step after another: nothing to wait for."""
    if not address.startswith("postgresql"):
        return
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        while True:
            cursor = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            row = await cursor.fetchone()
            if row is not None and row[0] > 0:
                return
            await asyncio.sleep(0.01)


@contextmanager
def listening(name: str, listener: Callable[..., None]) -> Iterator[None]:
    event.listen(Engine, name, listener)
    try:
        yield
    finally:
        event.remove(Engine, name, listener)


async def test_32_writers_at_once_take_each_number_and_each_sequence_once(store, study_id):
    async def writer() -> list[Trial]:
        return [await store.write(add_trial) for _ in range(8)]

    async def reader() -> None:
        for _ in range(20):
            trials = await store.read(lambda tx: tx.changed_trials(study_id, after=0, upto=ALL, limit=ALL))
            assert [trial.sequence for trial in trials] == list(range(2, 2 + len(trials)))

    made, *_ = await asyncio.gather(asyncio.gather(*(writer() for _ in range(32))), *(reader() for _ in range(4)))
    trials = [trial for of_one in made for trial in of_one]
    assert sorted(trial.number for trial in trials) == list(range(1, 257))
    assert sorted(trial.sequence for trial in trials) == list(range(2, 258))


async def test_a_reader_that_asks_for_what_is_after_a_sequence_number_misses_nothing(store, study_id):
    seen: list[int] = []

    async def watch() -> None:
        while len(seen) < 100:
            trials = await store.read(
                lambda tx: tx.changed_trials(study_id, after=seen[-1] if seen else 0, upto=ALL, limit=ALL)
            )
            seen.extend(trial.sequence for trial in trials)

    await asyncio.gather(watch(), *(store.write(add_trial) for _ in range(100)))
    assert seen == list(range(2, 102))


async def test_a_read_sees_one_snapshot_throughout(store, study_id):
    gate = Gate()

    def read_twice(tx):
        before = tx.find_study(NAME).study.sequence
        gate.hold()
        return (
            before,
            tx.find_study(NAME).study.sequence,
            len(tx.changed_trials(study_id, after=0, upto=ALL, limit=ALL)),
        )

    reading = asyncio.create_task(store.read(read_twice))
    await gate.reached()
    await store.write(add_trial)
    gate.open()
    assert await reading == (1, 1, 0)


async def test_a_copy_of_a_request_that_waited_for_the_first_gets_its_reply(store, address, study_id):
    gate = Gate()

    def answer(tx):
        locked = tx.lock_study(NAME, changes=1, request=REQUEST)
        gate.hold()
        tx.save_replies(study_id, [(REQUEST, b"answer")], now=locked.now)

    def copy(tx):
        locked = tx.lock_study(NAME, changes=1, request=REQUEST)
        refuse_replay(locked, REQUEST)
        return keep_reply(tx, locked, REQUEST, b"another answer")

    first = asyncio.create_task(store.write(answer))
    await gate.reached()
    copies = [asyncio.create_task(write_once(store, copy)) for _ in range(3)]
    await until_blocked(address)
    gate.open()
    await first
    assert await asyncio.gather(*copies) == [b"answer"] * 3
    assert (await store.read(lambda tx: tx.find_study(NAME))).study.sequence == 2, "the copies changed nothing"


async def test_of_two_who_answer_a_request_without_the_lock_one_meets_a_conflict(store, study_id):
    now = (await store.read(lambda tx: tx.find_study(NAME))).now
    outcomes = await asyncio.gather(
        *(store.write(lambda tx: tx.save_replies(study_id, [(REQUEST, b"")], now=now)) for _ in range(8)),
        return_exceptions=True,
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 7


async def test_a_lease_cannot_be_renewed_after_a_tell_that_was_first(store, address, study_id):
    trial = await store.write(lambda tx: add_trial(tx, leased=True))
    gate = Gate()

    def tell(tx):
        locked = tx.lock_study(NAME, changes=1)
        held = tx.find_trials(study_id, [1])[1]
        gate.hold()
        ended = held.ended(TrialState.SUCCEEDED, now=locked.now, metrics={"loss": MetricValue(1.0)})
        tx.update_trials(study_id, [ended])
        return ended

    telling = asyncio.create_task(store.write(tell))
    await gate.reached()
    renewing = asyncio.create_task(
        store.write(lambda tx: tx.renew_leases({(study_id, trial.number): [trial.lease.token]}))
    )
    await until_blocked(address)
    gate.open()
    assert await renewing == {}
    assert await find(store, study_id, 1) == await telling


async def test_a_change_that_waited_for_a_renewal_keeps_it(store, address, study_id):
    trial = await store.write(lambda tx: add_trial(tx, leased=True))
    gate = Gate()

    def renew(tx):
        renewed = tx.renew_leases({(study_id, trial.number): [trial.lease.token]})
        gate.hold()
        return renewed[study_id, trial.number]

    def note(tx):
        tx.lock_study(NAME, changes=1)
        found = tx.find_trials(study_id, [1])[1]
        tx.update_trials(study_id, [found.noted(metadata={"noted": "yes"})])

    renewing = asyncio.create_task(store.write(renew))
    await gate.reached()
    noting = asyncio.create_task(store.write(note))
    await until_blocked(address)
    gate.open()
    renewed = await renewing
    await noting
    assert renewed.expire_time > trial.lease.expire_time
    assert await find(store, study_id, 1) == replace(trial, lease=renewed).noted(metadata={"noted": "yes"})


async def test_a_lease_that_is_renewed_while_it_is_sought_has_not_expired(store, address, study_id):
    trial = await store.write(lambda tx: add_trial(tx, leased=True))
    gate = Gate()

    def renew(tx):
        tx.renew_leases({(study_id, trial.number): [trial.lease.token]})
        gate.hold()

    def expire(tx):
        tx.lock_study(NAME, changes=0)
        return tx.expired_trials(study_id)

    renewing = asyncio.create_task(store.write(renew))
    await gate.reached()
    expiring = asyncio.create_task(store.write(expire))
    await until_blocked(address)
    gate.open()
    await renewing
    assert await expiring == []


async def test_renewals_and_tells_in_any_order_end_each_trial_once_and_for_good(store, study_id):
    trials = [await store.write(lambda tx: add_trial(tx, leased=True)) for _ in range(20)]
    order = random.Random(7)

    def tell(number: int):
        def step(tx):
            locked = tx.lock_study(NAME, changes=1)
            held = tx.find_trials(study_id, [number])[number]
            tx.record_measurements(study_id, {number: [Measurement(1, {"loss": MetricValue(1.0)})]}, now=locked.now)
            tx.update_trials(study_id, [held.ended(TrialState.SUCCEEDED, now=locked.now)])

        return step

    tokens = [((study_id, trial.number), [trial.lease.token]) for trial in trials]
    steps = [tell(trial.number) for trial in trials]
    some = [dict(order.sample(tokens, 5)) for _ in range(40)]
    steps += [lambda tx, tokens=tokens: tx.renew_leases(tokens) for tokens in some]
    order.shuffle(steps)
    await asyncio.gather(*(store.write(step) for step in steps))
    ended = await store.read(lambda tx: tx.changed_trials(study_id, after=0, upto=ALL, limit=ALL))
    assert {trial.state for trial in ended} == {TrialState.SUCCEEDED}
    assert {trial.lease for trial in ended} == {None}


async def test_of_those_who_wait_together_one_that_fails_harms_no_other(store, study_id):
    gate = Gate()

    def fail(tx):
        add_trial(tx)
        raise ValueError("my own fault")

    def conflict(tx):
        trial = add_trial(tx)
        tx.insert_trials(study_id, [trial])

    holding = asyncio.create_task(store.write(lambda tx: gate.hold()))
    await gate.reached()
    steps = [add_trial, fail, add_trial, conflict, add_trial]
    waiting = [asyncio.create_task(store.write(step)) for step in steps]
    await asyncio.sleep(0)
    gate.open()
    await holding
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Trial, ValueError, Trial, Conflict, Trial]
    stored = await store.read(lambda tx: tx.changed_trials(study_id, after=0, upto=ALL, limit=ALL))
    assert [trial.number for trial in stored] == [1, 2, 3]
    assert sorted(outcome.number for outcome in outcomes if isinstance(outcome, Trial)) == [1, 2, 3]


async def test_who_stops_waiting_stops_nobody_else(store, study_id):
    gate = Gate()

    def held(tx):
        gate.hold()
        return add_trial(tx)

    running = asyncio.create_task(store.write(held))
    await gate.reached()
    waiting = [asyncio.create_task(store.write(lambda tx: add_trial(tx, ELSEWHERE))) for _ in range(3)]
    await asyncio.sleep(0)
    for task in (running, *waiting):
        task.cancel()
    outcomes = await asyncio.gather(running, *waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    gate.open()
    assert (await store.write(add_trial)).number in (1, 2)
    assert (await store.read(lambda tx: tx.find_study(ELSEWHERE))) is None


async def test_writes_that_wait_hold_up_no_read(store, study_id):
    gate = Gate()
    waiting = [asyncio.create_task(store.write(lambda tx: gate.hold())) for _ in range(2 * POSTGRESQL_WRITERS)]
    await gate.reached()
    found = await asyncio.gather(*(store.read(lambda tx: tx.find_study(NAME)) for _ in range(20)))
    assert {each.study.id for each in found} == {study_id}
    assert not any(task.done() for task in waiting)
    gate.open()
    await asyncio.gather(*waiting)


async def test_a_study_that_cannot_be_read_keeps_no_other_lease_from_expiring(store, study_id):
    await create(store, ELSEWHERE)
    for name in (NAME, ELSEWHERE):
        await store.write(lambda tx, name=name: add_trial(tx, name, leased=True))
    spoil = text("UPDATE studies SET spec = '[99, {}]' WHERE id = :id")
    await store.write(lambda tx: tx._connection.execute(spoil, {"id": study_id}))
    assert await expire_leases(store) == 1
    assert await expire_leases(store) == 0
    assert await store.read(lambda tx: tx.studies_with_expired_leases(9)) == [NAME]


async def test_steps_given_before_the_close_are_finished(store, address, study_id):
    made = [asyncio.create_task(store.write(add_trial)) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(trial.number for trial in await asyncio.gather(*made)) == list(range(1, 51))
    again = open_store(address)
    assert len(await again.read(lambda tx: tx.changed_trials(study_id, after=0, upto=ALL, limit=ALL))) == 50
    await again.close()


class TestSqlite:
    """One writer, whose commits many share."""

    @pytest.fixture
    def address(self, sqlite_address: str) -> str:
        return sqlite_address

    async def test_those_who_wait_together_share_one_commit(self, store, study_id):
        gate, commits = Gate(), []
        holding = asyncio.create_task(store.write(lambda tx: gate.hold()))
        await gate.reached()
        waiting = [asyncio.create_task(store.write(add_trial)) for _ in range(100)]
        await asyncio.sleep(0)
        with listening("commit", commits.append):
            gate.open()
            await asyncio.gather(holding, *waiting)
        assert len(commits) == 2

    async def test_a_commit_that_fails_is_unavailable_to_all_in_it(self, store, study_id):
        gate = Gate()

        def leave_an_orphan(tx):
            tx._connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            tx.record_measurements(study_id, {999: [Measurement(1, {"loss": MetricValue(1.0)})]}, now=now)

        now = (await store.read(lambda tx: tx.find_study(NAME))).now
        holding = asyncio.create_task(store.write(lambda tx: gate.hold()))
        await gate.reached()
        waiting = [asyncio.create_task(store.write(step)) for step in (add_trial, leave_an_orphan, add_trial)]
        await asyncio.sleep(0)
        gate.open()
        await holding
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
        assert (await store.write(add_trial)).number == 1

    async def test_a_full_disk_is_unavailable_and_nothing_half_written_stays(self, store, study_id):
        await store.write(add_trial)

        def fill(tx):
            pages = tx._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            tx._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")
            add_trial(tx)
            tx.save_replies(study_id, [(REQUEST, b"x" * 1_000_000)], now=tx.find_study(NAME).now)

        outcomes = await asyncio.gather(
            *(store.write(step) for step in (add_trial, fill, add_trial)), return_exceptions=True
        )
        assert isinstance(outcomes[1], Unavailable)
        assert "full" in str(outcomes[1])
        acknowledged = {1} | {outcome.number for outcome in outcomes if isinstance(outcome, Trial)}
        stored = await store.read(lambda tx: tx.changed_trials(study_id, after=0, upto=ALL, limit=ALL))
        assert {trial.number for trial in stored} == acknowledged


class TestPostgresql:
    """Connections end and transactions collide: what had not been committed is done again."""

    @pytest.fixture
    def address(self, migrated_url: str) -> str:
        return migrated_url

    async def test_a_connection_lost_before_the_commit_costs_only_time(self, store, address, study_id):
        runs = []

        def lose_the_first_connection(tx):
            trial = add_trial(tx)
            runs.append(trial)
            if len(runs) == 1:
                terminate(address, tx._connection)
            tx.find_study(NAME)
            return trial

        assert (await store.write(lose_the_first_connection)).number == 1
        assert len(runs) == 2
        assert len(await store.read(lambda tx: tx.changed_trials(study_id, after=0, upto=ALL, limit=ALL))) == 1

    async def test_a_connection_lost_in_the_commit_is_unavailable_and_not_tried_again(self, store, address, study_id):
        runs = []

        def count(tx):
            runs.append(add_trial(tx))

        with (
            listening("commit", lambda connection: terminate(address, connection)),
            pytest.raises(Unavailable, match="may be stored or not"),
        ):
            await store.write(count)
        assert len(runs) == 1
        assert (await store.write(add_trial)).number == 1

    async def test_a_connection_lost_after_the_last_read_takes_nothing_from_what_was_read(
        self, store, address, study_id
    ):
        runs = []

        def read_and_lose_the_connection(tx):
            runs.append(tx.find_study(NAME).study)
            terminate(address, tx._connection)
            return runs[0]

        assert (await store.read(read_and_lose_the_connection)).id == study_id
        assert len(runs) == 1
        assert (await store.read(lambda tx: tx.find_study(NAME))).study == runs[0]

    async def test_of_two_in_a_deadlock_both_succeed_in_the_end(self, store, address, study_id):
        await create(store, ELSEWHERE)
        looks = await store.write(lambda tx: tx._connection.exec_driver_sql(LOOKS).scalar_one())
        assert timedelta(milliseconds=int(looks)) < LOCK_TIMEOUT, "a deadlock is found before the wait for a lock ends"
        # However late the second of them begins to wait.
        patient = open_store(f"{address}?options={quote('-c lock_timeout=60s')}")
        both_hold_one = threading.Barrier(2)
        first_runs = {NAME, ELSEWHERE}

        def lock_both(first: StudyName, second: StudyName):
            def step(tx):
                tx.lock_study(first, changes=1)
                if first in first_runs:
                    first_runs.discard(first)
                    both_hold_one.wait(30)
                tx.lock_study(second, changes=1)

            return step

        await asyncio.gather(patient.write(lock_both(NAME, ELSEWHERE)), patient.write(lock_both(ELSEWHERE, NAME)))
        await patient.close()
        for name in (NAME, ELSEWHERE):
            assert (await store.read(lambda tx, name=name: tx.find_study(name))).study.sequence == 3

    async def test_a_server_that_is_not_there_is_unavailable(self):
        store = open_store("postgresql://nobody:secret@127.0.0.1:1/nothing")
        for run in (store.read, store.write):
            with pytest.raises(Unavailable, match="refused") as caught:
                await run(lambda tx: tx.find_study(NAME))
            assert "secret" not in str(caught.value)
        await store.close()

    async def test_a_busy_study_blocks_no_other(self, store, address, study_id):
        await create(store, ELSEWHERE)
        gate = Gate()

        def hold(tx):
            add_trial(tx)
            gate.hold()

        holding = asyncio.create_task(store.write(hold))
        await gate.reached()
        assert (await store.write(lambda tx: add_trial(tx, ELSEWHERE))).number == 1
        assert (await store.read(lambda tx: tx.find_study(NAME))).study.next_number == 1
        gate.open()
        await holding

    async def test_a_write_to_a_locked_study_gives_up_after_one_attempt(self, store, address, study_id):
        sent: list[str] = []
        with (
            locked_row(address, study_id),
            listening("before_cursor_execute", lambda *given: sent.append(given[2])),
            pytest.raises(Unavailable, match="the study is busy") as caught,
        ):
            await store.write(add_trial)
        assert [statement.split()[:2] for statement in sent] == [["UPDATE", "studies"]]
        assert caught.value.reason == "STUDY_BUSY"
        assert (await store.write(add_trial)).number == 1

    async def test_a_locked_study_leaves_reads_and_the_writes_of_others_alone(self, store, address, study_id):
        await create(store, ELSEWHERE)
        with locked_row(address, study_id):
            waiting = [asyncio.create_task(store.write(add_trial)) for _ in range(2 * POSTGRESQL_WRITERS)]
            await until_blocked(address)
            for name in (NAME, ELSEWHERE):
                found = await store.read(lambda tx, name=name: tx.find_study(name))
                assert found.study.next_number == 1
            assert (await store.write(lambda tx: add_trial(tx, ELSEWHERE))).number == 1
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unavailable}

    async def test_a_locked_study_keeps_no_other_lease_from_expiring(self, store, address, study_id):
        elsewhere = await create(store, ELSEWHERE)
        for name in (NAME, ELSEWHERE):
            await store.write(lambda tx, name=name: add_trial(tx, name, leased=True))
        with locked_row(address, study_id):
            assert await expire_leases(store) == 1
            assert (await find(store, elsewhere, 1)).state is TrialState.QUEUED
            assert await expire_leases(store) == 0, "the database answers: one busy study does not make it unavailable"
            assert (await find(store, study_id, 1)).state is TrialState.ACTIVE
        assert await expire_leases(store) == 1

    async def test_leases_that_a_database_without_writes_cannot_expire_are_unavailable(self, store, address, study_id):
        await create(store, ELSEWHERE)
        for name in (NAME, ELSEWHERE):
            await store.write(lambda tx, name=name: add_trial(tx, name, leased=True))
        with psycopg.connect(address, autocommit=True) as connection:
            name = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        standby = open_store(address)
        with pytest.raises(Unavailable, match="read-only"):
            await expire_leases(standby)
        await standby.close()

    async def test_two_servers_on_one_database_hand_out_each_number_once(self, store, address, study_id):
        other = open_store(address)
        made = await asyncio.gather(*(server.write(add_trial) for server in (store, other) for _ in range(50)))
        await other.close()
        assert sorted(trial.number for trial in made) == list(range(1, 101))


@contextmanager
def locked_row(address: str, study_id: int) -> Iterator[None]:
    """Keep a study's row locked, as somebody does who forgot to end a transaction."""
    with psycopg.connect(address) as other:
        other.execute("SELECT FROM studies WHERE id = %s FOR UPDATE", (study_id,))
        yield
        other.rollback()


def terminate(address: str, connection: Connection) -> None:
    """End the server's side of a connection, and return once it is gone."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with psycopg.connect(address, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (driver.info.backend_pid,))
