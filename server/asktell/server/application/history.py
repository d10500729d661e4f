"""What this replica knows of its studies' trials: a cache that is brought up to date by each read and may be dropped at any time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from asktell.server.application.ports import Found, Replay, Request, Store, Transaction
from asktell.server.application.studies import missing_study
from asktell.server.domain.study import Study, StudyName
from asktell.server.domain.trial import Trial


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study with all its trials by number, without measurements, and the database's clock."""

    study: Study
    now: datetime
    replay: Replay | None
    trials: Mapping[int, Trial]


@dataclass(slots=True)
class _Known:
    sequence: int
    trials: dict[int, Trial]

    def learn(self, trials: Iterable[Trial], sequence: int) -> None:
        """Take in changed trials. Reads may end in another order than they began, so an older row never replaces a newer one."""
        for trial in trials:
            present = self.trials.get(trial.number)
            if present is None or present.sequence < trial.sequence:
                self.trials[trial.number] = trial
        self.sequence = max(self.sequence, sequence)


class History:
    """Reads studies with all their trials, fetching only what changed since the last time. Used from the event loop alone."""

    def __init__(self, store: Store, *, max_studies: int = 256) -> None:
        self._store = store
        self._max_studies = max_studies
        self._known: OrderedDict[int, _Known] = OrderedDict()

    async def read(self, name: StudyName, *, request: Request | None = None) -> Snapshot:
        """The study as it stands; NotFound if there is none."""
        known = dict(self._known)

        def step(tx: Transaction) -> tuple[Found, list[Trial]]:
            found = tx.find_study(name, request=request)
            if found is None:
                raise missing_study(name)
            since = known[found.study.id].sequence if found.study.id in known else 0
            return found, tx.trials_after(found.study.id, since)

        found, changed = await self._store.read(step)
        current = self._remember(found.study, changed)
        return Snapshot(found.study, found.now, found.replay, current.trials)

    def _remember(self, study: Study, changed: Iterable[Trial]) -> _Known:
        known = self._known.setdefault(study.id, _Known(0, {}))
        known.learn(changed, study.sequence)
        self._known.move_to_end(study.id)
        if len(self._known) > self._max_studies:
            self._known.popitem(last=False)
        return known
