"""What every store promises to those who follow its changes."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from asktell.server.application.ports import NewStudy, Transaction
from asktell.server.domain.errors import DomainError
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec, StudyState
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence import notifications
from asktell.server.persistence.notifications import IDS_A_PAYLOAD, payloads
from asktell.server.persistence.store import SqlStore, open_store
from tests.processes import PATIENCE, until

NAME = StudyName("digits", "first")
ELSEWHERE = StudyName("digits", "second")
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("y", Goal.MINIMIZE),), policy="gp"
)
THEN = datetime(2026, 1, 2, tzinfo=UTC)


async def create(store: SqlStore, name: StudyName = NAME) -> int:
    new = NewStudy(name=name, spec=SPEC, seed=0, budget=Budget(), labels={})
    study = await store.write(lambda tx: tx.insert_study(new))
    assert study is not None
    return study.id


def queued(number: int, sequence: int) -> Trial:
    return Trial(
        number=number,
        state=TrialState.QUEUED,
        parameters={"x": 0.5},
        origin=Origin(policy="user"),
        nonce=f"n{number}",
        sequence=sequence,
        create_time=THEN,
    )


def add(tx: Transaction) -> None:
    """Add one trial."""
    locked = tx.lock_study(NAME, changes=1, new_trials=1)
    tx.insert_trials(locked.study.id, [queued(locked.first_number, locked.first_sequence)])


class Heard:
    """What a store told a listener."""

    def __init__(self, store: SqlStore) -> None:
        self.calls: queue.Queue[set[int]] = queue.Queue()
        store.on_change(lambda ids: self.calls.put(set(ids)))

    def until(self, study_id: int) -> None:
        """Wait for a wake-up about the study; queue.Empty if none comes."""
        while study_id not in self.calls.get(timeout=PATIENCE):
            pass


async def changed(store: SqlStore, study_id: int, *, after: int, upto: int, limit: int = 100) -> list[tuple[int, int]]:
    found = await store.read(lambda tx: tx.changed_trials(study_id, after=after, upto=upto, limit=limit))
    return [(trial.number, trial.sequence) for trial in found]


async def test_changed_trials_come_in_the_order_of_sequences_within_both_bounds(store):
    study_id, other = await create(store), await create(store, ELSEWHERE)
    trials = [queued(number, sequence) for number, sequence in ((1, 9), (2, 3), (3, 5), (4, 12))]
    await store.write(lambda tx: tx.insert_trials(study_id, trials))
    await store.write(lambda tx: tx.insert_trials(other, [queued(1, 4)]))
    assert await changed(store, study_id, after=0, upto=100) == [(2, 3), (3, 5), (1, 9), (4, 12)]
    assert await changed(store, study_id, after=3, upto=9) == [(3, 5), (1, 9)]
    assert await changed(store, study_id, after=0, upto=100, limit=2) == [(2, 3), (3, 5)]
    assert await changed(store, study_id, after=12, upto=100) == []


async def test_a_study_is_found_by_its_id_and_not_by_that_of_one_that_had_its_name(store):
    first = await create(store)
    assert (await store.read(lambda tx: tx.find_study_by_id(first))).name == NAME
    await store.write(lambda tx: tx.delete_study(NAME))
    second = await create(store)
    assert second != first
    assert await store.read(lambda tx: tx.find_study_by_id(first)) is None


async def test_the_sequences_of_many_studies_are_read_at_once(store):
    first, second = await create(store), await create(store, ELSEWHERE)
    await store.write(add)
    assert await store.read(lambda tx: tx.study_sequences([first, second, second + 1])) == {first: 2, second: 1}
    assert await store.read(lambda tx: tx.study_sequences([])) == {}


async def test_a_study_keeps_the_sequence_of_its_own_latest_change(store):
    def pause(tx: Transaction) -> None:
        locked = tx.lock_study(NAME, changes=1)
        tx.update_study(replace(locked.study, state=StudyState.PAUSED, own_sequence=locked.first_sequence))

    study_id = await create(store)
    await store.write(add)
    assert (await store.read(lambda tx: tx.find_study_by_id(study_id))).own_sequence == 1
    await store.write(pause)
    await store.write(add)
    found = (await store.read(lambda tx: tx.find_study(NAME))).study
    assert (found.own_sequence, found.sequence) == (3, 4)


async def test_listeners_hear_of_what_was_created_changed_and_deleted_before_the_caller_does(store):
    heard = Heard(store)
    study_id = await create(store)
    assert study_id in heard.calls.get_nowait()
    await store.write(add)
    assert study_id in heard.calls.get_nowait()
    await store.write(lambda tx: tx.delete_study(NAME))
    assert study_id in heard.calls.get_nowait()


async def test_listeners_hear_nothing_of_what_was_undone_or_changed_nothing(store):
    def break_off(tx: Transaction) -> None:
        add(tx)
        raise DomainError("no")

    await create(store)
    heard = Heard(store)
    with pytest.raises(DomainError):
        await store.write(break_off)
    await store.write(lambda tx: tx.lock_study(NAME, changes=0))
    await store.write(lambda tx: tx.delete_study(ELSEWHERE))
    await store.read(lambda tx: tx.find_study(NAME))
    assert heard.calls.empty()


async def test_a_broken_listener_breaks_neither_the_commit_nor_the_others(store):
    def broken(_: Collection[int]) -> None:
        raise RuntimeError("broken")

    store.on_change(broken)
    heard = Heard(store)
    study_id = await create(store)
    assert study_id in heard.calls.get_nowait()


@asynccontextmanager
async def replicas(address: str) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    """Two stores on one database."""
    first, second = open_store(address), open_store(address)
    try:
        yield first, second
    finally:
        await first.close()
        await second.close()


def listening(address: str) -> int:
    """How many connections listen on the database."""
    with psycopg.connect(address, autocommit=True) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        ).fetchone()
    return count


async def test_a_replica_hears_of_what_another_one_changed(migrated_url):
    async with replicas(migrated_url) as (first, second):
        heard = Heard(first)
        Heard(second)
        until(lambda: listening(migrated_url) == 2)
        study_id = await create(second)
        heard.until(study_id)


async def test_a_replica_hears_its_own_changes_once(migrated_url):
    async with replicas(migrated_url) as (first, second):
        heard, elsewhere = Heard(first), Heard(second)
        until(lambda: listening(migrated_url) == 2)
        study_id = await create(first)
        assert heard.calls.get_nowait() == {study_id}
        elsewhere.until(study_id)
        other_id = await create(second, ELSEWHERE)
        assert heard.calls.get(timeout=PATIENCE) == {other_id}


async def test_a_replica_listens_again_after_its_connection_was_lost(migrated_url, monkeypatch):
    monkeypatch.setattr(notifications, "RECONNECT_PAUSE", 0.05)
    async with replicas(migrated_url) as (first, second):
        heard = Heard(first)
        until(lambda: listening(migrated_url) == 1)
        with psycopg.connect(migrated_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        until(lambda: listening(migrated_url) == 1)
        Heard(second)
        heard.until(await create(second))


async def test_a_replica_notifies_though_the_connection_for_it_was_lost(migrated_url):
    async with replicas(migrated_url) as (first, second):
        heard = Heard(first)
        Heard(second)
        until(lambda: listening(migrated_url) == 2)
        heard.until(await create(second))
        with psycopg.connect(migrated_url, autocommit=True) as connection:
            lost = connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE '%pg_notify(%' AND pid <> pg_backend_pid()"
            ).fetchall()
        assert lost == [(True,)]
        heard.until(await create(second, ELSEWHERE))


async def test_writes_go_on_when_nobody_can_be_notified(migrated_url, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no way out")

    async with replicas(migrated_url) as (first, second):
        Heard(first), Heard(second)
        monkeypatch.setattr(notifications, "payloads", fail)
        # What ends a listener that waits is a notification, or its turn.
        monkeypatch.setattr(notifications, "LISTEN_TURN", 0.5)
        await create(second)
        await second.write(add)
        assert await second.read(lambda tx: tx.find_study(NAME)) is not None


@pytest.mark.parametrize("count", [1, IDS_A_PAYLOAD, IDS_A_PAYLOAD + 1, 2_000])
def test_notifications_fit_postgresql_and_carry_every_id(count):
    ids = [2**63 - 1 - number for number in range(count)]
    sent = list(payloads("0123456789abcdef", ids))
    assert all(len(payload) < 8_000 for payload in sent)
    assert [int(each) for payload in sent for each in payload.partition(":")[2].split(",")] == ids
