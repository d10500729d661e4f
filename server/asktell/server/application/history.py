"""What this replica knows of its studies' trials: a cache that is brought up to date by each read and may be dropped at any time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from asktell.server.application.ports import Found, Replay, Request, Store, Transaction
from asktell.server.application.roster import Roster
from asktell.server.application.studies import missing_study
from asktell.server.domain.study import Study, StudyName, TrialCounts
from asktell.server.domain.trial import Trial

PAGE = 5_000
"""Changed trials in one read: a study of a hundred thousand is not decoded in one go, which others would wait for."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study as it stands, the database's clock, what requests got before, by their keys, and the hint for the study's policy.

    The roster is the history's own and goes on changing: what is needed of it is taken before the next `await`; `counts` stay.
    """

    study: Study
    now: datetime
    replays: Mapping[tuple[str, str], Replay]
    roster: Roster
    counts: TrialCounts
    hint: bytes = b""


@dataclass(frozen=True, slots=True)
class _Known:
    name: StudyName
    parameters: int
    roster: Roster = field(default_factory=Roster)

    @property
    def values(self) -> int:
        """How many parameter values are kept, which is what memory goes by."""
        return len(self.roster.trials) * self.parameters


@dataclass(frozen=True, slots=True)
class _Read:
    found: Found
    replays: Mapping[tuple[str, str], Replay]
    since: int
    changed: Sequence[Trial]

    @property
    def complete(self) -> bool:
        """Whether this is all that had changed."""
        return len(self.changed) < PAGE


@dataclass(frozen=True, slots=True)
class _Reading:
    """The transaction that reads a study and what has changed of it, a page at most."""

    name: StudyName
    requests: Sequence[Request]
    sequences: Mapping[int, int]

    def __call__(self, tx: Transaction) -> _Read:
        # One replay comes with the study; several are a statement of their own.
        alone = self.requests[0] if len(self.requests) == 1 else None
        found = tx.find_study(self.name, request=alone)
        if found is None:
            raise missing_study(self.name)
        study = found.study
        replays = tx.find_replies(study.id, self.requests) if alone is None else {}
        if alone is not None and found.replay is not None:
            replays = {alone.key: found.replay}
        since = self.sequences.get(study.id, 0)
        changed = tx.changed_trials(study.id, after=since, upto=study.sequence, limit=PAGE)
        return _Read(found, replays, since, changed)


class History:
    """Reads studies with all their trials, fetching only what changed since the last time. Used from the event loop alone.

    The studies read last are remembered: at most `max_studies`, and of more than one at most `max_values` parameter values in all
    (a million take about 160 MB).
    """

    def __init__(self, store: Store, *, max_studies: int = 256, max_values: int = 1_000_000) -> None:
        self._store = store
        self._max_studies, self._max_values = max_studies, max_values
        self._known: OrderedDict[int, _Known] = OrderedDict()

    async def read(self, name: StudyName, *, requests: Sequence[Request] = ()) -> Snapshot:
        """The study as it stands, with what the requests got if they were answered before; NotFound if there is no such study."""
        while True:
            sequences = {study_id: known.roster.sequence for study_id, known in self._known.items()}
            read = await self._store.read(_Reading(name, requests, sequences))
            roster = self._remember(read)
            if roster is not None and read.complete:
                # The hint is not remembered: another replica's, or its loss, shows at the next read.
                return Snapshot(read.found.study, read.found.now, read.replays, roster, roster.counts, read.found.hint)

    def forget(self, name: StudyName) -> None:
        """Drop what is known of a study, as when it was deleted."""
        for study_id in [study_id for study_id, known in self._known.items() if known.name == name]:
            del self._known[study_id]

    def _remember(self, read: _Read) -> Roster | None:
        """What is known now; None if what the changes build on was dropped while they were read."""
        study = read.found.study
        present = self._known.get(study.id)
        if read.since > (0 if present is None else present.roster.sequence):
            return None
        known = self._known.setdefault(study.id, _Known(study.name, len(study.spec.space)))
        known.roster.learn(read.changed, study.sequence if read.complete else read.changed[-1].sequence)
        self._known.move_to_end(study.id)
        self._shrink()
        return known.roster

    def _shrink(self) -> None:
        values = sum(known.values for known in self._known.values())
        while len(self._known) > 1 and (len(self._known) > self._max_studies or values > self._max_values):
            _, dropped = self._known.popitem(last=False)
            values -= dropped.values
