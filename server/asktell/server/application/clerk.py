"""Writes down what workers say of trials: what waits goes into one transaction, that of one study and that of several.

A study's row is its lock, so that its changes cannot commit side by side; those that wait while one commits share the next commit, and its
statements. So do those of other studies that wait then, for what a transaction costs besides is dearer than the work in it. No study waits
for another that somebody holds: a transaction of several passes those over, which then have one of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from asktell.server.application.batch import Apart, Batch, Together
from asktell.server.application.change import Change
from asktell.server.application.ports import Store, Transaction
from asktell.server.application.requests import Unchanged, write_once
from asktell.server.domain.errors import DomainError, Unavailable
from asktell.server.domain.study import StudyName

T = TypeVar("T")

LARGEST_BATCH = 128
"""Changes of a transaction, of one study or of several."""
LARGEST_BATCH_WEIGHT = 2_000
"""Changes of one study that weigh more together do not share a transaction, some tenths of a second long; one may weigh more by itself."""
SHARED_WEIGHT = 128
"""A batch that weighs more has a transaction of its own: others shall not wait for it."""
LARGEST_SHARED_WEIGHT = 512
"""A transaction of several studies may weigh more by one batch."""
LARGE_AT_ONCE = 2
"""So many transactions of batches that are too large to share one go on at once: they take the database, and the threads that write, from
all others.
"""
PATIENCE = 0.05
"""Seconds for which what is ready waits for the transaction under way; then another begins beside it. The fewer there are, the more share
each, and the less the server pays for transactions.
"""
GATHERING = 0.025
"""Seconds for which a transaction that follows another waits at most while those who were answered call again."""
PAUSE = 0.004
"""Seconds without a call after which a call that is ready waits no longer for others; sending the replies takes about as long."""
TRANSACTIONS = 4
"""So many transactions of several studies go on at once at most."""


@dataclass(frozen=True, slots=True)
class _Alone:
    """A step that has a transaction for itself, in its turn."""

    step: Callable[[Transaction], Any]
    weight: int


@dataclass(frozen=True, slots=True)
class _Entry:
    change: Change[Any] | _Alone
    reply: asyncio.Future[Any]

    def settle(self, outcome: Any) -> None:
        """Hand the caller its reply or error, if it still waits."""
        if isinstance(self.change, Change) and self.change.note is not None and not isinstance(outcome, BaseException):
            self.change.note(outcome)
        if self.reply.done():
            return
        if isinstance(outcome, BaseException):
            self.reply.set_exception(outcome)
        else:
            self.reply.set_result(outcome)


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """What comes next of one study: entries that go into one transaction, their changes, and how much work they are, in trials."""

    study: StudyName
    entries: Sequence[_Entry]
    batch: Batch
    weight: int

    @classmethod
    def of(cls, study: StudyName, entries: Sequence[_Entry]) -> _Turn:
        """The turn of these entries."""
        changes = [entry.change for entry in entries if isinstance(entry.change, Change)]
        return cls(study, entries, Batch(study, changes), sum(entry.change.weight for entry in entries))

    @property
    def large(self) -> bool:
        """Whether it would keep others waiting."""
        return self.weight > SHARED_WEIGHT

    @property
    def shared(self) -> bool:
        """Whether other studies may take part in its transaction: a step that is alone is no change."""
        return bool(self.batch.changes) and not self.large

    def awaited(self) -> _Turn:
        """The part of it that somebody waits for."""
        entries = [entry for entry in self.entries if not entry.reply.done()]
        return self if len(entries) == len(self.entries) else _Turn.of(self.study, entries)

    def settle(self, outcomes: Sequence[Any]) -> None:
        """Hand each caller its outcome."""
        for entry, outcome in zip(self.entries, outcomes, strict=True):
            entry.settle(outcome)

    def settle_all(self, error: Exception) -> None:
        """Hand all callers that still wait an error."""
        for entry in self.entries:
            entry.settle(error)


class Clerk:
    """Makes changes of trials, those of one study in the order in which they came. Used from the event loop alone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # The studies that have something waiting or under way, and those of them of which nothing is under way.
        self._lines: dict[StudyName, deque[_Entry]] = {}
        self._ready: deque[StudyName] = deque()
        # Of those who make what is ready, by numbers: how many there are, the latest, and when that began its transaction.
        self._numbers = itertools.count()
        self._sharing = 0
        self._latest: int | None = None
        self._begun = 0.0
        # How many calls have come, and with which one the next transaction is complete.
        self._queued = self._awaited = 0
        self._complete = asyncio.Event()
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._relief: asyncio.TimerHandle | None = None
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def make(self, change: Change[T]) -> T:
        """Make the change, and return its reply once it is durable. Who stops waiting takes back a change that was not begun."""
        reply: T = await self._queue(change.study, change)
        return reply

    async def write(self, study: StudyName, step: Callable[[Transaction], T], *, weight: int = 1) -> T:
        """Run another step that changes a study, in its turn; as `requests.write_once`. A study keeps one writer busy at most.

        `weight` is how much work the step is for the database, in trials.
        """
        reply: T = await self._queue(study, _Alone(step, weight))
        return reply

    def _queue(self, study: StudyName, change: Change[Any] | _Alone) -> asyncio.Future[Any]:
        self._queued += 1
        if self._queued == self._awaited:
            self._complete.set()
        entry = _Entry(change, asyncio.get_running_loop().create_future())
        line = self._lines.get(study)
        if line is None:
            self._lines[study] = deque([entry])
            self._make_ready(study)
        else:
            line.append(entry)
        return entry.reply

    def _make_ready(self, study: StudyName) -> None:
        self._ready.append(study)
        if self._latest is None:
            self._begin()
        elif self._relief is None:
            self._await_relief(PATIENCE)

    def _begin(self) -> None:
        """Make what is ready; whoever did so before stops after the transaction that holds it up."""
        self._latest = number = next(self._numbers)
        self._sharing += 1
        self._keep(self._work(number))

    def _await_relief(self, seconds: float) -> None:
        self._relief = asyncio.get_running_loop().call_later(seconds, self._relieve)

    def _relieve(self) -> None:
        self._relief = None
        if not self._ready:
            return
        left = self._begun + PATIENCE - time.monotonic()
        if left <= 0 and self._sharing < TRANSACTIONS:
            self._begin()
        self._await_relief(left if left > 0 else PATIENCE)

    async def _work(self, number: int) -> None:
        """Make, in one transaction after another, what is ready."""
        try:
            while self._ready and self._latest == number:
                self._begun = time.monotonic()
                turns = self._next_turns()
                await self._make_together(turns)
                await self._gather(answered=sum(len(turn.entries) for turn in turns))
        finally:
            self._sharing -= 1
            if self._latest == number:
                self._latest = None

    async def _gather(self, *, answered: int) -> None:
        """Wait until so many have called again, as most do at once when there is much to do, or until no call comes: the more share a
        transaction, the less each pays for it.
        """
        if not self._ready and answered <= 1:
            return
        self._awaited, end = self._queued + answered, time.monotonic() + GATHERING
        self._complete.clear()
        before = -1
        # While nothing is ready, nobody waits for this to end; and a call that came alone would hold the others up.
        while (before != self._queued or not self._ready) and time.monotonic() < end:
            before = self._queued
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await self._complete.wait()
                    return

    def _next_turns(self) -> list[_Turn]:
        """The turns that share the next transaction; those that come by and share none are begun."""
        turns: list[_Turn] = []
        room, lift = LARGEST_BATCH, LARGEST_SHARED_WEIGHT
        while self._ready and room > 0 and lift > 0:
            study = self._ready.popleft()
            turn = _Turn.of(study, _next_batch(self._lines[study]))
            if not turn.entries:
                self._end(turn)
            elif turn.shared:
                turns.append(turn)
                room -= len(turn.entries)
                lift -= turn.weight
            else:
                self._keep(self._make_alone(turn))
        return turns

    async def _make_together(self, turns: Sequence[_Turn]) -> None:
        apart: Sequence[_Turn] = ()
        try:
            apart = await self._share(turns)
        except asyncio.CancelledError:
            # Only the end of the event loop cancels this.
            self._stopped = True
            raise
        finally:
            for turn in turns:
                if turn not in apart:
                    self._end(turn)
        for turn in apart:
            self._keep(self._make_alone(turn))

    async def _share(self, turns: Sequence[_Turn]) -> list[_Turn]:
        """Settle the turns by one transaction, but those that must have one of their own, which are returned."""
        apart: list[_Turn] = []
        while turns:
            try:
                outcomes = await write_once(self._store, Together([turn.batch for turn in turns]))
            except Apart as division:
                apart += [turns[place] for place in division.places]
                turns = [turn for turn in turns if turn not in apart]
            except DomainError as error:
                for turn in turns:
                    turn.settle_all(error)
                break
            except Exception:  # noqa: BLE001 - one of them broke the transaction: by itself it breaks its own
                return [*apart, *turns]
            else:
                for turn, of_turn in zip(turns, outcomes, strict=True):
                    if of_turn is None:
                        apart.append(turn)
                    else:
                        turn.settle(of_turn)
                break
        return apart

    async def _make_alone(self, turn: _Turn) -> None:
        try:
            async with self._large if turn.large else contextlib.nullcontext():
                # Some callers may have stopped waiting meanwhile.
                awaited = turn.awaited()
                if awaited.entries:
                    await self._commit(awaited)
        except asyncio.CancelledError:
            self._stopped = True
            raise
        finally:
            self._end(turn)

    async def _commit(self, turn: _Turn) -> None:
        first = turn.entries[0].change
        step = partial(_run_alone, first) if isinstance(first, _Alone) else turn.batch
        try:
            turn.settle(await write_once(self._store, step))
        except Exception as error:  # noqa: BLE001 - each caller gets the error; the line goes on
            await self._recover(turn, error)

    async def _recover(self, turn: _Turn, error: Exception) -> None:
        """What fails for all alike fails; a change that breaks the transaction shall not take others along."""
        if len(turn.entries) == 1 or isinstance(error, DomainError):
            turn.settle_all(error)
            return
        for entry in turn.entries:
            await self._commit(_Turn.of(turn.study, [entry]))

    def _end(self, turn: _Turn) -> None:
        """Let what waits behind the turn come next."""
        _close(turn.entries)
        line = self._lines[turn.study]
        if line and not self._stopped:
            self._make_ready(turn.study)
        else:
            _close(line)
            del self._lines[turn.study]

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="clerk")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _close(entries: Iterable[_Entry]) -> None:
    """Tell those who still wait that the server ends."""
    for entry in entries:
        if not entry.reply.done():
            entry.settle(Unavailable("the server is shutting down", reason="SHUTTING_DOWN"))


def _next_batch(line: deque[_Entry]) -> list[_Entry]:
    """The entries that come next; copies of a request not together, so that the later one finds what the earlier one got."""
    batch: list[_Entry] = []
    keys: set[tuple[str, str]] = set()
    weight = 0
    while line and len(batch) < LARGEST_BATCH:
        change = line[0].change
        if line[0].reply.done():
            line.popleft()
        elif isinstance(change, _Alone):
            return batch or [line.popleft()]
        elif batch and not _fits(change, keys=keys, weight=weight):
            return batch
        else:
            batch.append(line.popleft())
            weight += change.weight
            keys |= {change.request.key} if change.request is not None else set()
    return batch


def _fits(change: Change[Any], *, keys: Collection[tuple[str, str]], weight: int) -> bool:
    """Whether the change can share a transaction with others of its study, which have these requests and weigh so much."""
    copied = change.request is not None and change.request.key in keys
    return not copied and weight + change.weight <= LARGEST_BATCH_WEIGHT


def _run_alone(alone: _Alone, tx: Transaction) -> list[Any]:
    try:
        return [alone.step(tx)]
    except Unchanged as end:
        raise Unchanged([end.reply]) from None
