"""Writes down what workers say of trials: what waits for one study goes into one transaction.

A study's row is its lock, so that its changes cannot commit side by side; those that wait while one commits share the next commit, and its
statements. Changes of different studies do not wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from asktell.server.application.curves import chart
from asktell.server.application.failpoints import reach
from asktell.server.application.ports import Locked, Replay, Request, Store, Transaction
from asktell.server.application.requests import Unchanged, replay_of, write_once
from asktell.server.application.studies import locked_study
from asktell.server.domain.errors import Conflict, DomainError, NotFound, Unavailable
from asktell.server.domain.metric import Measurement, Metrics
from asktell.server.domain.study import Study, StudyName
from asktell.server.domain.trial import Trial, TrialName, TrialState

T = TypeVar("T")

LARGEST_BATCH = 128
LARGEST_BATCH_TRIALS = 2_000
"""A batch may be larger by what one change touches, which is at most 1,000 trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """What a call does to trials of a study.

    `numbers` are the trials that it touches, `reported` those of them whose last measurement it may ask for. `amend` gets them, puts back
    what changes, and returns the reply; a DomainError that it raises is the reply, and undoes what it put. It may run more than once, and on
    any thread. With a `request` the reply is bytes, and is kept.
    """

    study: StudyName
    numbers: Sequence[int]
    amend: Callable[[Draft], T]
    reported: Sequence[int] = ()
    request: Request | None = None


@dataclass(slots=True)
class _Ledger:
    """The trials of one transaction, as the changes so far leave them."""

    tx: Transaction
    locked: Locked
    before: Mapping[int, Trial]
    reported: Mapping[int, Measurement]
    sequence: int
    trials: dict[int, Trial] = field(default_factory=dict)
    amended: dict[int, Trial] = field(default_factory=dict)
    measurements: dict[int, list[Measurement]] = field(default_factory=dict)
    active_before: int | None = None

    def __post_init__(self) -> None:
        self.trials.update(self.before)

    def count_active(self) -> int:
        """How many trials of the study are active, as the changes so far leave it."""
        if self.active_before is None:
            self.active_before = self.tx.count_active(self.locked.study.id)
        ended = sum(self.before[number].state is TrialState.ACTIVE for number in self.amended)
        begun = sum(trial.state is TrialState.ACTIVE for trial in self.amended.values())
        return self.active_before - ended + begun

    def take(self, draft: Draft) -> None:
        self.sequence += len(draft.put)
        self.trials |= draft.put
        self.amended |= draft.put
        for number, taken in draft.recorded.items():
            self.measurements.setdefault(number, []).extend(taken)


@dataclass(slots=True)
class Draft:
    """One change's view of its study: what it puts and records here counts once the change is made."""

    _ledger: _Ledger
    put: dict[int, Trial] = field(default_factory=dict)
    recorded: dict[int, Sequence[Measurement]] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """The study, locked."""
        return self._ledger.locked.study

    @property
    def now(self) -> datetime:
        """The database's clock."""
        return self._ledger.locked.now

    def find(self, number: int) -> Trial | None:
        """One of the trials that the change touches; None if there is no such trial."""
        return self._ledger.trials.get(number)

    def trial(self, number: int) -> Trial:
        """One of the trials that the change touches, or NotFound."""
        trial = self.find(number)
        if trial is None:
            raise missing_trial(TrialName(self.study.name, number))
        return trial

    def change(self, trial: Trial) -> Trial:
        """Store a trial in place of the one of its number, and return it with its new sequence number. At most once for each."""
        changed = replace(trial, sequence=self._ledger.sequence + len(self.put))
        self.put[trial.number] = changed
        return changed

    def may_resume(self) -> bool:
        """Whether the budget leaves room for one more active trial. Costs a statement if it has a limit."""
        limit = self.study.budget.max_parallel
        return limit is None or self._ledger.count_active() + len(self.put) < limit

    def record(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Keep measurements of a trial."""
        self.recorded[number] = measurements

    def last_reported(self, number: int) -> Metrics:
        """The metrics of the last step of one of the `reported` trials; none if nothing was reported."""
        stored = self._ledger.reported.get(number)
        reported = [*([] if stored is None else [stored]), *self._ledger.measurements.get(number, ())]
        return max(reported, key=lambda measurement: measurement.step).metrics if reported else {}


@dataclass(frozen=True, slots=True)
class _Batch:
    """The transaction that makes some changes of one study. Returns a reply or an error for each; Conflict asks for another run."""

    study: StudyName
    changes: Sequence[Change[Any]]

    def __call__(self, tx: Transaction) -> list[Any]:
        requests = [change.request for change in self.changes if change.request is not None]
        # The lock brings one replay along, for a call that comes alone; several are a statement of their own.
        alone = requests[0] if len(requests) == 1 else None
        changes = sum(len(change.numbers) for change in self.changes)
        locked = locked_study(tx, self.study, changes=changes, request=alone)
        replays = _of(alone, locked.replay) if alone else tx.find_replies(locked.study.id, requests)
        numbers = {number for change in self.changes for number in change.numbers}
        reported = {number for change in self.changes for number in change.reported}
        ledger = _Ledger(
            tx,
            locked,
            tx.find_trials(locked.study.id, numbers),
            tx.last_measurements(locked.study.id, reported),
            locked.first_sequence,
        )
        outcomes = [self._make(change, ledger, replays) for change in self.changes]
        replies = [
            (change.request, outcome)
            for change, outcome in zip(self.changes, outcomes, strict=True)
            if change.request is not None and change.request.key not in replays and isinstance(outcome, bytes)
        ]
        if not ledger.amended and not replies:
            raise Unchanged(outcomes)
        tx.update_trials(locked.study.id, list(ledger.amended.values()))
        charted = chart(locked.study.spec, {number: trial.sequence for number, trial in ledger.amended.items()})
        tx.record_measurements(locked.study.id, ledger.measurements, now=locked.now, charted=charted)
        tx.save_replies(locked.study.id, replies, now=locked.now)
        reach("tell.updated")
        return outcomes

    def _make(self, change: Change[Any], ledger: _Ledger, replays: Mapping[tuple[str, str], Replay]) -> Any:
        """The change's reply, or the error that it ended with."""
        draft = Draft(ledger)
        try:
            earlier = _earlier(change.request, replays)
            if earlier is not None:
                return earlier
            reply = change.amend(draft)
        except DomainError as error:
            _refuse_late_replay(change.request, ledger)
            return error
        ledger.take(draft)
        return reply


def _of(request: Request, replay: Replay | None) -> dict[tuple[str, str], Replay]:
    return {} if replay is None else {request.key: replay}


def _earlier(request: Request | None, replays: Mapping[tuple[str, str], Replay]) -> bytes | None:
    return None if request is None else replay_of(request, replays.get(request.key))


def _refuse_late_replay(request: Request | None, ledger: _Ledger) -> None:
    """Raise Conflict if a copy of a refused request was answered while this one waited for the lock: that is why it would be refused."""
    if request is None:
        return
    found = ledger.tx.find_replies(ledger.locked.study.id, [request]).get(request.key)
    if found is not None and found.fingerprint == request.fingerprint:
        raise Conflict


@dataclass(frozen=True, slots=True)
class _Alone:
    """A step that has a transaction for itself, in its turn."""

    step: Callable[[Transaction], Any]


@dataclass(frozen=True, slots=True)
class _Entry:
    change: Change[Any] | _Alone
    reply: asyncio.Future[Any]

    def settle(self, outcome: Any) -> None:
        """Hand the caller its reply or error, if it still waits."""
        if self.reply.done():
            return
        if isinstance(outcome, BaseException):
            self.reply.set_exception(outcome)
        else:
            self.reply.set_result(outcome)


class Clerk:
    """Makes changes of trials, those of one study in the order in which they came. Used from the event loop alone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[StudyName, deque[_Entry]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def make(self, change: Change[T]) -> T:
        """Make the change, and return its reply once it is durable. Who stops waiting takes back a change that was not begun."""
        reply: T = await self._queue(change.study, change)
        return reply

    async def write(self, study: StudyName, step: Callable[[Transaction], T]) -> T:
        """Run another step that changes a study, in its turn; as `requests.write_once`. A study keeps one writer busy at most."""
        reply: T = await self._queue(study, _Alone(step))
        return reply

    def _queue(self, study: StudyName, change: Change[Any] | _Alone) -> asyncio.Future[Any]:
        entry = _Entry(change, asyncio.get_running_loop().create_future())
        line = self._lines.get(study)
        if line is None:
            line = self._lines[study] = deque()
            task = asyncio.create_task(self._work(study, line), name="clerk")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        line.append(entry)
        return entry.reply

    async def _work(self, study: StudyName, line: deque[_Entry]) -> None:
        entries: list[_Entry] = []
        try:
            while line:
                entries = _next_batch(line)
                await self._commit(study, entries)
        finally:
            # Whoever is settled already is not heard of this.
            del self._lines[study]
            for entry in (*entries, *line):
                entry.settle(Unavailable("the server is shutting down", reason="SHUTTING_DOWN"))

    async def _commit(self, study: StudyName, entries: Sequence[_Entry]) -> None:
        try:
            outcomes = (
                await write_once(self._store, _step(study, [entry.change for entry in entries])) if entries else []
            )
        except Exception as error:  # noqa: BLE001 - each caller gets the error; the line goes on
            await self._recover(study, entries, error)
            return
        for entry, outcome in zip(entries, outcomes, strict=True):
            entry.settle(outcome)

    async def _recover(self, study: StudyName, entries: Sequence[_Entry], error: Exception) -> None:
        """What fails for all alike fails; a change that breaks the transaction shall not take others along."""
        if len(entries) == 1 or isinstance(error, DomainError):
            for entry in entries:
                entry.settle(error)
            return
        for entry in entries:
            await self._commit(study, [entry])


def missing_trial(name: TrialName) -> NotFound:
    """The error for a trial that is not there."""
    return NotFound(f"there is no trial {name.number} in study {name.study}", reason="TRIAL_NOT_FOUND")


def _next_batch(line: deque[_Entry]) -> list[_Entry]:
    """The entries that come next; copies of a request not together, so that the later one finds what the earlier one got."""
    batch: list[_Entry] = []
    keys: set[tuple[str, str]] = set()
    trials = 0
    while line and len(batch) < LARGEST_BATCH and trials < LARGEST_BATCH_TRIALS:
        change = line[0].change
        if line[0].reply.done():
            line.popleft()
        elif isinstance(change, _Alone):
            return batch or [line.popleft()]
        elif change.request is not None and change.request.key in keys:
            return batch
        else:
            batch.append(line.popleft())
            trials += len(change.numbers)
            keys |= {change.request.key} if change.request is not None else set()
    return batch


def _run_alone(alone: _Alone, tx: Transaction) -> list[Any]:
    try:
        return [alone.step(tx)]
    except Unchanged as end:
        raise Unchanged([end.reply]) from None


def _step(study: StudyName, changes: Sequence[Change[Any] | _Alone]) -> Callable[[Transaction], list[Any]]:
    """The transaction that makes the changes, with a reply or an error for each."""
    first = changes[0]
    if isinstance(first, _Alone):
        return partial(_run_alone, first)
    return _Batch(study, [change for change in changes if isinstance(change, Change)])
