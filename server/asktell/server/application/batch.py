"""The transactions that make changes of trials: those of one study together, and those of several studies that nobody else holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asktell.server.application.change import Change, Ledger, Replays, make
from asktell.server.application.curves import chart
from asktell.server.application.failpoints import reach
from asktell.server.application.ports import Locked, Request, Transaction
from asktell.server.application.requests import Unchanged
from asktell.server.application.studies import locked_study
from asktell.server.domain.study import StudyName
from asktell.server.domain.trial import Trial


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one study that are made together. As a step of the store it waits for whoever holds the study, and returns a reply or an
    error for each change; Conflict asks for another run.
    """

    study: StudyName
    changes: Sequence[Change[Any]]

    @property
    def size(self) -> int:
        """How many trials its changes touch; one that several touch counts for each."""
        return sum(len(change.numbers) for change in self.changes)

    @property
    def numbers(self) -> set[int]:
        """The trials that its changes touch."""
        return {number for change in self.changes for number in change.numbers}

    @property
    def requests(self) -> list[Request]:
        """The requests of its changes."""
        return [change.request for change in self.changes if change.request is not None]

    def __call__(self, tx: Transaction) -> list[Any]:
        # The lock brings one replay along, for a call that comes alone; several are a statement of their own.
        alone = _single(self.requests)
        locked = locked_study(tx, self.study, changes=self.size, request=alone)
        replays = _replay(alone, locked) if alone else tx.find_replies(locked.study.id, self.requests)
        made = _make(tx, self, locked, tx.find_trials(locked.study.id, self.numbers), replays)
        if made.nothing:
            raise Unchanged(made.outcomes)
        _write(tx, [made])
        return made.outcomes


class Apart(Exception):
    """Some batches, by their places, cannot share a transaction with the others, which has made no change: they go by themselves."""

    def __init__(self, places: Collection[int]) -> None:
        super().__init__("not together")
        self.places = places


@dataclass(frozen=True, slots=True)
class Together:
    """Batches of several studies that are made in one transaction, which waits for nobody. As a step of the store it returns the outcomes of
    each batch, None of one whose study is missing or held by another transaction; or raises Apart.

    A batch that changes nothing, or of whose trials one is missing or held, goes apart: sequence numbers move with changes only.
    """

    batches: Sequence[Batch]

    def __call__(self, tx: Transaction) -> list[list[Any] | None]:
        alone = _single([request for batch in self.batches for request in batch.requests])
        locked = tx.lock_idle_studies({batch.study: batch.size for batch in self.batches}, request=alone)
        # By the batches' places from here on: names take longer to look up, and there is a study for each call at worst.
        held = {place: of for place, batch in enumerate(self.batches) if (of := locked.get(batch.study)) is not None}
        if not held:
            raise Unchanged([None] * len(self.batches))
        made = self._make_each(tx, held, alone)
        self._require_all(held, made)
        _write(tx, list(made.values()))
        return [made[place].outcomes if place in made else None for place in range(len(self.batches))]

    def _make_each(self, tx: Transaction, held: Mapping[int, Locked], alone: Request | None) -> dict[int, _Made]:
        """What the batches at these places come to, without those of whose trials one is missing or held."""
        ids = {place: locked.study.id for place, locked in held.items()}
        numbers = {study_id: self.batches[place].numbers for place, study_id in ids.items()}
        found = tx.find_idle_trials(numbers)
        replays = {} if alone else tx.find_replies_of({ids[place]: self.batches[place].requests for place in held})
        made: dict[int, _Made] = {}
        for place, locked in held.items():
            before = found.get(ids[place], {})
            if len(before) == len(numbers[ids[place]]):
                known = _replay(alone, locked) if alone else replays.get(ids[place], {})
                made[place] = _make(tx, self.batches[place], locked, before, known)
        return made

    def _require_all(self, held: Collection[int], made: Mapping[int, _Made]) -> None:
        """Raise Apart unless each of the batches changes something; Unchanged if there is but one, of known outcome."""
        ill = [place for place in held if place not in made or made[place].nothing]
        if len(self.batches) == 1 and made and ill:
            raise Unchanged([made[0].outcomes])
        if ill:
            raise Apart(ill)


@dataclass(frozen=True, slots=True)
class _Made:
    """What the changes of a batch come to: outcomes in their order, and the replies to keep."""

    ledger: Ledger
    outcomes: list[Any]
    replies: list[tuple[Request, bytes]]

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not self.ledger.amended and not self.replies


def _make(tx: Transaction, batch: Batch, locked: Locked, before: dict[int, Trial], replays: Replays) -> _Made:
    reported = {number for change in batch.changes for number in change.reported}
    ledger = Ledger(tx, locked, before, tx.last_measurements(locked.study.id, reported), locked.first_sequence)
    outcomes = [make(change, ledger, replays) for change in batch.changes]
    replies = [
        (change.request, outcome)
        for change, outcome in zip(batch.changes, outcomes, strict=True)
        if change.request is not None and change.request.key not in replays and isinstance(outcome, bytes)
    ]
    return _Made(ledger, outcomes, replies)


def _write(tx: Transaction, made: Sequence[_Made]) -> None:
    tx.update_trials_of({each.ledger.locked.study.id: each.ledger.amended.values() for each in made})
    _record(tx, [each.ledger for each in made if each.ledger.measurements])
    if any(each.replies for each in made):
        tx.save_replies_of({each.ledger.locked.study.id: each.replies for each in made}, now=made[0].ledger.locked.now)
    reach("tell.updated")


def _record(tx: Transaction, ledgers: Sequence[Ledger]) -> None:
    """Write down what was measured."""
    if not ledgers:
        return
    charted = {
        ledger.locked.study.id: chart(
            ledger.locked.study.spec, {number: trial.sequence for number, trial in ledger.amended.items()}
        )
        for ledger in ledgers
    }
    measured = {ledger.locked.study.id: ledger.measurements for ledger in ledgers}
    tx.record_measurements_of(measured, now=ledgers[0].locked.now, charted=charted)


def _single(requests: Sequence[Request]) -> Request | None:
    return requests[0] if len(requests) == 1 else None


def _replay(request: Request, locked: Locked) -> Replays:
    return {} if locked.replay is None else {request.key: locked.replay}
