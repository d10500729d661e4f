"""Watch studies: every change of a study and its trials, in order, from any sequence number on, for any number of watchers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import structlog

from asktell.server.application.feed import Batch, Feed
from asktell.server.application.ports import Store, Transaction
from asktell.server.application.studies import CountedStudy, counted, missing_study, require_study
from asktell.server.domain.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from asktell.server.domain.study import Study, StudyName
from asktell.server.domain.trial import Trial

MAX_CHANGES = 500
MAX_BYTES = 1_000_000
"""Most changes that are read and sent at once, and most bytes that they may take, if there is more than one."""

READS_AT_ONCE = 2
"""Reads of all watches together; the others of the store's readers are left to other callers."""

POLL_INTERVAL = 1.0
"""Seconds between looks for changes that nobody announced."""
POLL_AT_ONCE = 5_000

GATHERING = 0.05
"""Seconds for which changes of a study are gathered after some were sent."""
GATHERING_PER_WATCHER = 0.0005
"""What each watcher adds to that, so that thousands of watchers of a busy study get fewer, larger batches, which cost a message each."""

T = TypeVar("T")

log = structlog.get_logger("asktell.watch")


@dataclass(frozen=True, slots=True)
class StudyChanged:
    """The study itself was created, or its state, budget or labels changed."""

    study: CountedStudy

    @property
    def sequence(self) -> int:
        """The sequence number of the change."""
        return self.study.study.own_sequence


@dataclass(frozen=True, slots=True)
class TrialChanged:
    """A trial was created or changed; without its measurements."""

    trial: Trial

    @property
    def sequence(self) -> int:
        """The sequence number of the change."""
        return self.trial.sequence


Change = StudyChanged | TrialChanged
Pack = Callable[[StudyName, Sequence[Change], int], bytes]
"""Packs changes, and the sequence number up to which there are no others."""


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """The transaction that reads what follows `after` in a study: not beyond `upto`, which without a value is all that there is."""

    study_id: int
    name: StudyName
    after: int
    upto: int | None
    pack: Pack

    def __call__(self, tx: Transaction) -> Batch:
        """The batch; NotFound once the study was deleted, FailedPrecondition if it has not come as far as `after`."""
        study = tx.find_study_by_id(self.study_id)
        if study is None or study.name != self.name:
            # A database that lost the study's creation may have given its id again.
            raise missing_study(self.name)
        require_reached(study, self.after)
        upto = study.sequence if self.upto is None else self.upto
        trials = tx.changed_trials(study.id, after=self.after, upto=upto, limit=MAX_CHANGES)
        reached = trials[-1].sequence if len(trials) == MAX_CHANGES else upto
        changes: list[Change] = [TrialChanged(trial) for trial in trials]
        if self.after < study.own_sequence <= reached:
            changes.append(StudyChanged(counted(tx, study)))
            changes.sort(key=lambda change: change.sequence)
        return self._packed(changes, reached, last=study.sequence)

    def _packed(self, changes: Sequence[Change], upto: int, *, last: int) -> Batch:
        """As many of the changes as fit, at least one if there is any. There may be none though the sequence has moved."""
        payload = self.pack(self.name, changes, upto) if upto > self.after else b""
        while len(payload) > MAX_BYTES and len(changes) > 1:
            changes = changes[: len(changes) // 2]
            upto = changes[-1].sequence
            payload = self.pack(self.name, changes, upto)
        return Batch(self.after, upto, payload, more=upto < last)


def require_reached(study: Study, sequence: int) -> None:
    """Raise FailedPrecondition if the study has no such sequence number yet.

    Whoever saw it saw another study of that name, or one that was since put back to an older state; to wait until the numbers come round
    again would hide the changes up to there.
    """
    if sequence > study.sequence:
        raise FailedPrecondition(
            f"study {study.name} has come to sequence {study.sequence}, not {sequence}: it is another one of that name, or was restored"
            " from a backup; watch from 0",
            reason="SEQUENCE_NOT_REACHED",
        )


class Feeds:
    """The watched studies of this replica. Made and used in one event loop.

    A study that somebody watches has one feed, which is read once for each wake-up, packed once, and sent to all. A wake-up comes from the
    store; what no wake-up told of is found by `keep_up`.
    """

    def __init__(self, store: Store, *, pack: Pack) -> None:
        self._store = store
        self._pack = pack
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[int, Feed] = {}
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        self._catching_up: dict[tuple[int, int, int], asyncio.Task[Batch]] = {}
        self._closed = False
        self._incarnation: str | None = None
        store.on_change(self._announced)

    @property
    def watched(self) -> int:
        """How many studies are watched."""
        return len(self._feeds)

    @property
    def watchers(self) -> int:
        """How many watches there are. Any thread may look."""
        return sum(feed.watchers for feed in list(self._feeds.values()))

    async def watch(self, name: StudyName, after: int) -> AsyncGenerator[bytes, None]:
        """The packed changes after a sequence number, for ever; first, at once, a pack of none.

        InvalidArgument for a negative number, FailedPrecondition for one that the study has not come to, NotFound without a study and once
        it is deleted, Unavailable when this server stops: the watch can go on at another one.
        """
        if after < 0:
            raise InvalidArgument("after_sequence", f"must be at least 0, not {after}")
        study = await self._read(partial(require_study, name=name))
        require_reached(study, after)
        async with self._joined(study) as feed:
            yield self._pack(name, (), after)
            position = after
            while True:
                batch = await self._following(feed, position)
                position = batch.upto
                yield batch.packed

    async def keep_up(self) -> None:
        """Find, for ever, what changed without a wake-up, as when another server died after its commit."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                await self._look()
            except Unavailable as error:
                log.debug("watch_behind", error=str(error))
            except Exception:
                log.exception("watch_broken")

    def close(self) -> None:
        """End all watches, now and to come, with Unavailable."""
        self._closed = True
        for feed in self._feeds.values():
            feed.end(_stopping)

    @asynccontextmanager
    async def _joined(self, study: Study) -> AsyncGenerator[Feed, None]:
        if self._closed:
            raise _stopping()
        feed = self._feeds.get(study.id)
        if feed is None or feed.ended:
            feed = self._feeds[study.id] = Feed(study.id, study.name, study.sequence)
        feed.watchers += 1
        # What changed since the study was read, before the feed was there to be woken.
        self._touch(feed)
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers and self._feeds.get(study.id) is feed:
                del self._feeds[study.id]

    async def _following(self, feed: Feed, position: int) -> Batch:
        """The batch after a position, from memory if the feed still has it. At most what a watcher can take is read for it."""
        while True:
            feed.require_open()
            batch = feed.batch_after(position)
            if batch is not None:
                return batch
            if position < feed.head:
                return await self._catch_up(feed, position)
            await feed.moved()

    async def _catch_up(self, feed: Feed, position: int) -> Batch:
        """A batch that is not in memory, up to where the feed goes on. Watchers at one position, as after a restart, share a read."""
        key = (feed.study_id, position, feed.head)
        task = self._catching_up.get(key)
        if task is None:
            step = ReadBatch(feed.study_id, feed.name, position, feed.head, self._pack)
            task = self._catching_up[key] = asyncio.create_task(self._read(step))
            task.add_done_callback(partial(self._caught_up, key))
        return await asyncio.shield(task)

    def _caught_up(self, key: tuple[int, int, int], task: asyncio.Task[Batch]) -> None:
        del self._catching_up[key]
        # Nobody may be left to hear of an error.
        if not task.cancelled():
            task.exception()

    def _announced(self, study_ids: Collection[int]) -> None:
        """Runs on any thread."""
        if not self._feeds.keys().isdisjoint(study_ids):
            self._loop.call_soon_threadsafe(self._wake, study_ids)

    def _wake(self, study_ids: Collection[int]) -> None:
        for study_id in study_ids:
            if study_id in self._feeds:
                self._touch(self._feeds[study_id])

    def _touch(self, feed: Feed) -> None:
        """Have the feed read again, now or once the read that is under way has ended."""
        feed.stale = True
        if feed.pump is None:
            feed.pump = asyncio.create_task(self._pump_until_fresh(feed), name=f"watch-{feed.study_id}")

    async def _pump_until_fresh(self, feed: Feed) -> None:
        try:
            while feed.stale and feed.watchers and not feed.ended:
                feed.stale = False
                batch = await self._read(ReadBatch(feed.study_id, feed.name, feed.head, None, self._pack))
                feed.extend(batch)
                feed.stale |= batch.more
                if batch.packed and not batch.more:
                    # The changes of this while go together.
                    await asyncio.sleep(max(GATHERING, GATHERING_PER_WATCHER * feed.watchers))
        except (NotFound, FailedPrecondition) as error:
            feed.end(partial(type(error), str(error), reason=error.reason))
        except Unavailable as error:
            log.debug("watch_behind", study=str(feed.name), error=str(error))
        except Exception:
            log.exception("watch_broken", study=str(feed.name))
        finally:
            feed.pump = None

    async def _look(self) -> None:
        watched = iter(list(self._feeds))
        while study_ids := list(islice(watched, POLL_AT_ONCE)):
            incarnation, sequences = await self._read(partial(_sequences, study_ids=study_ids))
            self._look_at(incarnation)
            for study_id in study_ids:
                feed = self._feeds.get(study_id)
                if feed is not None and sequences.get(study_id) != feed.head:
                    self._touch(feed)

    def _look_at(self, incarnation: str) -> None:
        """Another incarnation of the database may have lost changes that feeds keep."""
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            for feed in self._feeds.values():
                feed.forget()

    async def _read(self, step: Callable[[Transaction], T]) -> T:
        async with self._reading:
            return await self._store.read(step)


def _sequences(tx: Transaction, study_ids: Collection[int]) -> tuple[str, dict[int, int]]:
    return tx.incarnation(), tx.study_sequences(study_ids)


def _stopping() -> Unavailable:
    return Unavailable("this server stops: go on at another one", reason="SERVER_STOPPING")
