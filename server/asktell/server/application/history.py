"""What this replica knows of its studies' trials: a cache that is brought up to date by each read and may be dropped at any time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from asktell.server.application.ports import Found, Replay, Request, Store, Transaction
from asktell.server.application.studies import missing_study
from asktell.server.domain.study import Study, StudyName
from asktell.server.domain.trial import Trial


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study with all its trials by number, without measurements, the database's clock and the hint for the study's policy."""

    study: Study
    now: datetime
    replay: Replay | None
    trials: Mapping[int, Trial]
    hint: bytes = b""


@dataclass(slots=True)
class _Known:
    name: StudyName
    parameters: int
    sequence: int = 0
    trials: dict[int, Trial] = field(default_factory=dict)

    @property
    def values(self) -> int:
        """How many parameter values are kept, which is what memory goes by."""
        return len(self.trials) * self.parameters

    def learn(self, trials: Iterable[Trial], sequence: int) -> None:
        """Take in changed trials. Reads may end in another order than they began, so an older row never replaces a newer one."""
        for trial in trials:
            present = self.trials.get(trial.number)
            if present is None or present.sequence < trial.sequence:
                self.trials[trial.number] = trial
        self.sequence = max(self.sequence, sequence)


class History:
    """Reads studies with all their trials, fetching only what changed since the last time. Used from the event loop alone.

    The studies read last are remembered: at most `max_studies`, and of more than one at most `max_values` parameter values in all
    (a million take about 160 MB).
    """

    def __init__(self, store: Store, *, max_studies: int = 256, max_values: int = 1_000_000) -> None:
        self._store = store
        self._max_studies, self._max_values = max_studies, max_values
        self._known: OrderedDict[int, _Known] = OrderedDict()

    async def read(self, name: StudyName, *, request: Request | None = None) -> Snapshot:
        """The study as it stands; NotFound if there is none."""
        sequences = {study_id: known.sequence for study_id, known in self._known.items()}

        def step(tx: Transaction) -> tuple[Found, int, list[Trial]]:
            found = tx.find_study(name, request=request)
            if found is None:
                raise missing_study(name)
            since = sequences.get(found.study.id, 0)
            return found, since, tx.trials_after(found.study.id, since)

        found, since, changed = await self._store.read(step)
        known = self._remember(found.study, since, changed)
        if known is None:
            return await self.read(name, request=request)
        # The hint is not remembered: another replica's, or its loss, shows at the next read.
        return Snapshot(found.study, found.now, found.replay, known.trials, found.hint)

    def forget(self, name: StudyName) -> None:
        """Drop what is known of a study, as when it was deleted."""
        for study_id in [study_id for study_id, known in self._known.items() if known.name == name]:
            del self._known[study_id]

    def _remember(self, study: Study, since: int, changed: Iterable[Trial]) -> _Known | None:
        """What is known now; None if what the changes build on was dropped while they were read."""
        if since and study.id not in self._known:
            return None
        known = self._known.setdefault(study.id, _Known(study.name, len(study.spec.space)))
        known.learn(changed, study.sequence)
        self._known.move_to_end(study.id)
        self._shrink()
        return known

    def _shrink(self) -> None:
        values = sum(known.values for known in self._known.values())
        while len(self._known) > 1 and (len(self._known) > self._max_studies or values > self._max_values):
            _, dropped = self._known.popitem(last=False)
            values -= dropped.values
