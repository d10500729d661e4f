"""What the watches of a study promise over every store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from asktell.server.application import feed, studies, watch
from asktell.server.application.ports import NewStudy, Transaction
from asktell.server.application.watch import Change, Feeds, TrialChanged
from asktell.server.domain.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import Budget, StudyName, StudySpec, StudyState
from asktell.server.domain.trial import Origin, Trial, TrialState
from asktell.server.persistence.address import database_url
from asktell.server.persistence.store import SqlStore
from asktell.server.persistence.transaction import SqlTransaction

NAME = StudyName("digits", "first")
SPEC = StudySpec(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=(Objective("y", Goal.MINIMIZE),), policy="gp"
)
PATIENCE = 60.0

Stream = AsyncGenerator[bytes, None]


def pack(_: StudyName, changes: Sequence[Change], sequence: int) -> bytes:
    """Numbers of trials, 0 for the study, by their sequence; and where the watch has come to."""
    numbers = [(each.sequence, each.trial.number if isinstance(each, TrialChanged) else 0) for each in changes]
    return json.dumps([numbers, sequence]).encode()


@dataclass
class Watcher:
    """Reads a stream, and keeps what it saw."""

    stream: Stream
    seen: list[tuple[int, int]] = field(default_factory=list)
    sequence: int = 0

    async def turn(self) -> None:
        numbers, self.sequence = json.loads(await anext(self.stream))
        self.seen.extend((sequence, number) for sequence, number in numbers)

    async def upto(self, sequence: int) -> list[tuple[int, int]]:
        """All that was seen once the watch has come so far."""
        async with asyncio.timeout(PATIENCE):
            while self.sequence < sequence:
                await self.turn()
        return self.seen

    async def error(self) -> DomainError:
        """What the watch ends with."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.turn()
                except DomainError as error:
                    return error


@dataclass
class Counting:
    """A store that counts reads, and announces only if it is not mute."""

    store: SqlStore
    mute: bool = False
    reads: int = 0

    async def read(self, step: Callable[[Transaction], Any]) -> Any:
        self.reads += 1
        return await self.store.read(step)

    async def write(self, step: Callable[[Transaction], Any]) -> Any:
        return await self.store.write(step)

    def on_change(self, listener: Any) -> None:
        if not self.mute:
            self.store.on_change(listener)


async def create(store: SqlStore) -> None:
    new = NewStudy(name=NAME, spec=SPEC, seed=0, budget=Budget(), labels={})
    assert await store.write(lambda tx: tx.insert_study(new)) is not None


async def add(store: SqlStore, count: int = 1) -> None:
    """Add trials."""

    def step(tx: Transaction) -> None:
        locked = tx.lock_study(NAME, changes=count, new_trials=count)
        tx.insert_trials(
            locked.study.id,
            [trial(locked.first_number + index, locked.first_sequence + index) for index in range(count)],
        )

    await store.write(step)


async def touch(store: SqlStore, number: int) -> None:
    """Change a trial."""

    def step(tx: Transaction) -> None:
        locked = tx.lock_study(NAME, changes=1)
        found = tx.find_trials(locked.study.id, [number])[number]
        tx.update_trials(locked.study.id, [replace(found, message="again", sequence=locked.first_sequence)])

    await store.write(step)


def trial(number: int, sequence: int) -> Trial:
    return Trial(
        number=number,
        state=TrialState.QUEUED,
        parameters={"x": 0.5},
        origin=Origin(policy="user"),
        nonce=f"n{number}",
        sequence=sequence,
        create_time=datetime(2026, 1, 2, tzinfo=UTC),
    )


async def test_a_study_with_many_watchers_is_read_once_for_a_change(store):
    await create(store)
    counting = Counting(store)
    feeds = Feeds(counting, pack=pack)
    watchers = [Watcher(feeds.watch(NAME, 1)) for _ in range(100)]
    for watcher in watchers:
        await watcher.turn()
    begun = counting.reads
    waiting = [asyncio.create_task(watcher.upto(2)) for watcher in watchers]
    await add(store)
    assert await asyncio.gather(*waiting) == [[(2, 1)]] * 100
    assert counting.reads - begun <= 3
    for watcher in watchers:
        await watcher.stream.aclose()


async def test_watchers_that_begin_at_one_place_share_the_reads_of_history(store, monkeypatch):
    monkeypatch.setattr(watch, "MAX_CHANGES", 10)
    await create(store)
    await add(store, 95)
    counting = Counting(store)
    feeds = Feeds(counting, pack=pack)
    watchers = [Watcher(feeds.watch(NAME, 0)) for _ in range(50)]
    await asyncio.gather(*(watcher.turn() for watcher in watchers))
    begun = counting.reads
    found = await asyncio.gather(*(watcher.upto(96) for watcher in watchers))
    assert found == [[(1, 0), *((number + 1, number) for number in range(1, 96))]] * 50
    assert counting.reads - begun <= 20
    for watcher in watchers:
        await watcher.stream.aclose()


async def test_more_changes_than_a_page_holds_come_without_another_announcement(store, monkeypatch):
    """Nothing looks for what was not announced here."""
    monkeypatch.setattr(watch, "MAX_CHANGES", 3)
    await create(store)
    async with aclosing(Feeds(store, pack=pack).watch(NAME, 1)) as stream:
        watcher = Watcher(stream)
        await watcher.turn()
        await add(store, 20)
        assert await watcher.upto(21) == [(number + 1, number) for number in range(1, 21)]


async def test_changes_that_nobody_announced_are_found(store, monkeypatch):
    monkeypatch.setattr(watch, "POLL_INTERVAL", 0.02)
    await create(store)
    feeds = Feeds(Counting(store, mute=True), pack=pack)
    looking = asyncio.create_task(feeds.keep_up())
    async with aclosing(feeds.watch(NAME, 1)) as stream:
        watcher = Watcher(stream)
        await watcher.turn()
        for sequence in range(2, 6):
            await add(store)
            assert (await watcher.upto(sequence))[-1] == (sequence, sequence - 1)
        await store.write(lambda tx: tx.delete_study(NAME))
        assert isinstance(await watcher.error(), NotFound)
    looking.cancel()


async def test_a_look_for_changes_is_one_read_for_all_studies(store):
    names = [StudyName("digits", f"s{number}") for number in range(20)]
    for name in names:
        await store.write(
            lambda tx, name=name: tx.insert_study(NewStudy(name=name, spec=SPEC, seed=0, budget=Budget(), labels={}))
        )
    counting = Counting(store)
    feeds = Feeds(counting, pack=pack)
    watchers = [Watcher(feeds.watch(name, 1)) for name in names]
    for watcher in watchers:
        await watcher.turn()
    assert feeds.watched == 20
    await settle(feeds)
    begun = counting.reads
    await feeds._look()
    assert counting.reads - begun == 1
    for watcher in watchers:
        await watcher.stream.aclose()


async def settle(feeds: Feeds) -> None:
    """Wait until no feed is read."""
    async with asyncio.timeout(PATIENCE):
        while any(each.pump is not None for each in feeds._feeds.values()):
            await asyncio.sleep(0)


async def test_a_watcher_that_is_behind_what_is_kept_misses_nothing(store, monkeypatch):
    monkeypatch.setattr(feed, "MAX_KEPT_BATCHES", 2)
    monkeypatch.setattr(watch, "MAX_CHANGES", 3)
    monkeypatch.setattr(watch, "GATHERING", 0.0)
    await create(store)
    feeds = Feeds(store, pack=pack)
    quick, slow = Watcher(feeds.watch(NAME, 1)), Watcher(feeds.watch(NAME, 1))
    await quick.turn()
    await slow.turn()
    for sequence in range(2, 22):
        await add(store)
        await quick.upto(sequence)
    expected = [(sequence, sequence - 1) for sequence in range(2, 22)]
    assert quick.seen == expected
    assert await slow.upto(21) == expected
    await quick.stream.aclose()
    await slow.stream.aclose()


async def test_what_a_feed_keeps_is_bounded(store, monkeypatch):
    monkeypatch.setattr(feed, "MAX_KEPT_BYTES", 100)
    monkeypatch.setattr(watch, "GATHERING", 0.0)
    await create(store)
    feeds = Feeds(store, pack=pack)
    async with aclosing(feeds.watch(NAME, 1)) as stream:
        watcher = Watcher(stream)
        await watcher.turn()
        for sequence in range(2, 32):
            await add(store)
            await watcher.upto(sequence)
        (kept,) = feeds._feeds.values()
        assert 0 < sum(len(batch.packed) for batch in kept._kept.values()) <= 100


async def test_of_a_trial_that_changed_often_a_late_watcher_sees_the_latest_change_alone(store):
    await create(store)
    await add(store, 2)
    for _ in range(5):
        await touch(store, 1)
    async with aclosing(Feeds(store, pack=pack).watch(NAME, 0)) as stream:
        assert await Watcher(stream).upto(8) == [(1, 0), (3, 2), (8, 1)]


async def test_the_studys_own_change_comes_in_its_place_whatever_the_size_of_pages(store, monkeypatch):
    await create(store)
    await add(store, 5)
    await store.write(lambda tx: studies.update_study(tx, studies.UpdateStudy(name=NAME, state=StudyState.PAUSED)))
    await add(store, 5)
    expected = [*((number + 1, number) for number in range(1, 6)), (7, 0), *((n + 2, n) for n in range(6, 11))]
    for size in range(1, 12):
        monkeypatch.setattr(watch, "MAX_CHANGES", size)
        async with aclosing(Feeds(store, pack=pack).watch(NAME, 0)) as stream:
            assert await Watcher(stream).upto(12) == expected


async def test_changes_that_are_large_come_in_more_responses(store, monkeypatch):
    monkeypatch.setattr(watch, "MAX_BYTES", 40)
    await create(store)
    await add(store, 20)
    async with aclosing(Feeds(store, pack=pack).watch(NAME, 0)) as stream:
        watcher, turns = Watcher(stream), 0
        while watcher.sequence < 21:
            await watcher.turn()
            turns += 1
    assert watcher.seen == [(1, 0), *((number + 1, number) for number in range(1, 21))]
    assert turns > 5


@dataclass
class Overtaken(Counting):
    """A mute store in which a trial is added just after the first read."""

    mute: bool = True

    async def read(self, step: Callable[[Transaction], Any]) -> Any:
        found = await super().read(step)
        if self.reads == 1:
            await add(self.store)
        return found


async def test_a_change_between_the_first_read_and_the_feed_is_not_lost(store):
    await create(store)
    async with aclosing(Feeds(Overtaken(store), pack=pack).watch(NAME, 1)) as stream:
        assert await Watcher(stream).upto(2) == [(2, 1)]


async def test_a_study_that_nobody_watches_any_more_has_no_feed(store):
    await create(store)
    feeds = Feeds(store, pack=pack)
    watchers = [Watcher(feeds.watch(NAME, after)) for after in (0, 1)]
    for watcher in watchers:
        await watcher.turn()
    assert feeds.watched == 1
    await watchers[0].stream.aclose()
    assert feeds.watched == 1
    await watchers[1].stream.aclose()
    assert feeds.watched == 0


async def test_a_server_that_stops_ends_all_watches_and_begins_none(store):
    await create(store)
    feeds = Feeds(store, pack=pack)
    watchers = [Watcher(feeds.watch(NAME, 0)) for _ in range(3)]
    for watcher in watchers:
        await watcher.upto(1)
    ends = [asyncio.create_task(watcher.error()) for watcher in watchers]
    await asyncio.sleep(0)
    feeds.close()
    late = await Watcher(feeds.watch(NAME, 0)).error()
    assert [(type(end), end.reason) for end in [*await asyncio.gather(*ends), late]] == [
        (Unavailable, "SERVER_STOPPING")
    ] * 4
    assert feeds.watched == 0


async def test_a_study_put_back_to_an_older_state_ends_its_watches(store, address):
    await create(store)
    await add(store, 5)
    feeds = Feeds(store, pack=pack)
    async with aclosing(feeds.watch(NAME, 6)) as stream:
        watcher = Watcher(stream)
        await watcher.turn()
        await settle(feeds)
        engine = create_engine(database_url(address))
        with engine.begin() as connection:
            connection.execute(text("UPDATE studies SET change_seq = 3"))
        engine.dispose()
        await feeds._look()
        error = await watcher.error()
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "SEQUENCE_NOT_REACHED"


@pytest.mark.parametrize(("after", "kind"), [(-1, InvalidArgument), (2, FailedPrecondition)])
async def test_a_sequence_that_cannot_be_ends_the_watch_before_it_begins(store, after, kind):
    await create(store)
    assert isinstance(await Watcher(Feeds(store, pack=pack).watch(NAME, after)).error(), kind)


async def test_watches_go_on_after_the_database_was_away(store, monkeypatch):
    monkeypatch.setattr(watch, "POLL_INTERVAL", 0.02)
    await create(store)
    away = Away(store)
    feeds = Feeds(away, pack=pack)
    looking = asyncio.create_task(feeds.keep_up())
    async with aclosing(feeds.watch(NAME, 1)) as stream:
        watcher = Watcher(stream)
        await watcher.turn()
        away.away = True
        await add(store, 3)
        async with asyncio.timeout(PATIENCE):
            while away.refused < 3:
                await asyncio.sleep(0.01)
        away.away = False
        assert await watcher.upto(4) == [(2, 1), (3, 2), (4, 3)]
    looking.cancel()


@dataclass
class Away(Counting):
    """A store whose reads fail while it is away."""

    away: bool = False
    refused: int = 0

    async def read(self, step: Callable[[Transaction], Any]) -> Any:
        if self.away:
            self.refused += 1
            raise Unavailable("away")
        return await self.store.read(step)


async def test_changes_of_another_incarnation_of_the_database_are_not_kept_for_later_watchers(store, monkeypatch):
    monkeypatch.setattr(watch, "GATHERING", 0.0)
    await create(store)
    feeds = Feeds(store, pack=pack)
    early, late = Watcher(feeds.watch(NAME, 1)), Watcher(feeds.watch(NAME, 1))
    await early.turn()
    await settle(feeds)
    await feeds._look()
    await add(store)
    await early.upto(2)
    monkeypatch.setattr(SqlTransaction, "incarnation", lambda self: "another")
    await feeds._look()
    # What the database has there now, it has not from the changes that were kept.
    await touch(store, 1)
    await early.upto(3)
    assert await late.upto(3) == [(3, 1)]
    for watcher in (early, late):
        await watcher.stream.aclose()
