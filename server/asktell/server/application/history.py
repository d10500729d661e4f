"""What this replica knows of its studies' trials: a cache that is brought up to date by each read and may be dropped at any time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from asktell.server.application.curves import Chart
from asktell.server.application.ports import (
    FIRST_POINT,
    CurvePlace,
    CurvePoint,
    Foresee,
    Found,
    Replay,
    Request,
    Store,
    Transaction,
)
from asktell.server.application.roster import Roster, observed
from asktell.server.application.sources import make_source
from asktell.server.application.studies import missing_study
from asktell.server.domain.errors import NotFound
from asktell.server.domain.metric import MetricValue, Objective
from asktell.server.domain.policy import Observation, Source
from asktell.server.domain.study import Study, StudyName, StudySpec, TrialCounts
from asktell.server.domain.trial import Trial, TrialState

log = structlog.get_logger("asktell.history")

PAGE = 5_000
"""Changed trials in one read: a study of a hundred thousand is not decoded in one go, which others would wait for."""


def foreseen(spec: StudySpec) -> Objective | None:
    """The objective of which stopped trials' ends are foreseen: the one that the study's stopping rule looks at, if it looks at one."""
    return spec.charted if spec.charted in spec.objectives else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study as it stands, the database's clock, what requests got before, by their keys, and the hint for the study's policy.

    The roster is the history's own and goes on changing: what is needed of it is taken before the next `await`; `counts` stay.
    `recalled`: the database was not looked at, so the study may have changed, `now` is past, and what requests got before is unknown.
    `incarnation` is the database's of which all this is.
    """

    study: Study
    now: datetime
    replays: Mapping[tuple[str, str], Replay]
    roster: Roster
    counts: TrialCounts
    hint: bytes = b""
    expected: Mapping[int, MetricValue] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    foretold: Observation | None = None
    recalled: bool = False
    incarnation: str = ""

    def foretelling(self, result: Observation) -> Snapshot:
        """The study as it will stand if nothing else happens before an active trial's success, of which nothing is expected, is stored."""
        counts = replace(self.counts, active=self.counts.active - 1, succeeded=self.counts.succeeded + 1)
        return replace(self, counts=counts, foretold=result)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What the model may learn from, in the order of numbers: of trials that were stopped, and of those under way, where they will have
        ended in the objective that is foreseen, if that is `expected`. The other objectives are as they stood.
        """
        objective = foreseen(self.study.spec)
        if self.foretold is not None:
            return tuple(sorted((*self.roster.observations, self.foretold), key=lambda seen: seen.number))
        if not self.expected or objective is None:
            return self.roster.observations
        metric = objective.metric
        seen = {each.number: each for each in self.roster.observations}
        for number, value in self.expected.items():
            measured = seen[number].metrics if number in seen else {}
            metrics = {**measured, metric: value}
            seen[number] = replace(observed(self.roster.trials[number]), state=TrialState.STOPPED, metrics=metrics)
        return tuple(seen[number] for number in sorted(seen))

    @property
    def pending(self) -> tuple[Trial, ...]:
        """The queued and active trials of which nothing is expected, in the order of numbers."""
        known = {*self.expected, *(() if self.foretold is None else (self.foretold.number,))}
        return tuple(trial for trial in self.roster.unfinished if trial.number not in known)


@dataclass(slots=True)
class _Known:
    """What is known of a study: all its trials up to a sequence number, and the study as it was found, which changes of trials that were
    noted have brought to the sequence number `noted`. `alone`: the last read brought nothing that was not known, so nobody else seems to
    change the study. Trials that were `told` are put into the roster when somebody looks. The chart is of the objective `charted`.
    """

    found: Found
    noted: int = 0
    roster: Roster = field(default_factory=Roster)
    chart: Chart = field(default_factory=Chart)
    charted: Objective | None = None
    alone: bool = False
    told: list[Trial] = field(default_factory=list)

    @property
    def name(self) -> StudyName:
        """The study's."""
        return self.found.study.name

    @property
    def values(self) -> int:
        """How many parameter values, and points of curves, are kept, which is what memory goes by."""
        return len(self.roster.trials) * len(self.found.study.spec.space) + self.chart.points

    @property
    def up_to_date(self) -> bool:
        """Whether all that is known goes together, and nothing else belongs to it."""
        spec = self.found.study.spec
        return self.complete and not spec.warm_start and foreseen(spec) is None

    @property
    def complete(self) -> bool:
        """Whether all trials up to `noted` are known."""
        return self.roster.sequence + len(self.told) == self.noted

    def absorb(self) -> None:
        """Put what was told into the roster."""
        if self.told:
            self.roster.learn(self.told, self.told[-1].sequence)
            self.told.clear()

    def denied_by(self, trials: Sequence[Trial]) -> bool:
        """Whether one of the trials, as they were stored, has a sequence number below which all is known, and yet was not known to change then:
        the database gave the number twice.
        """
        if all(trial.sequence > self.noted for trial in trials):
            return False
        self.absorb()
        return any(self.roster.lacks(trial) for trial in trials)

    def follow(self, points: Sequence[CurvePoint]) -> None:
        """Take in points of the curves of what is foreseen now; of another objective than before, none of the earlier ones stay."""
        objective = foreseen(self.found.study.spec)
        if objective is None:
            return
        if objective != self.charted:
            self.charted, self.chart = objective, Chart(self.chart.place)
        self.chart.learn(points, objective)

    def mark(self) -> _Mark:
        """What the next read goes by."""
        return _Mark(self.found, self.noted, self.roster.sequence, self.chart.place)


@dataclass(frozen=True, slots=True)
class _Mark:
    """Up to where a study is known: its trials up to the number `sequence`, its curves up to `place`, changes up to `noted`, and the study
    as it was `found`.
    """

    found: Found
    noted: int
    sequence: int
    place: CurvePlace

    def stands(self, now: Found) -> bool:
        """Whether what is known is a part of what the database has.

        It is not if the database lost commits, as one that took over before it had them: then it has not come as far, or has come there, or
        further, by other changes. Of these one shows by its time; all others show by the database's being another incarnation.
        """
        before, study = self.found.study, now.study
        if now.incarnation != self.found.incarnation or study.sequence < self.noted:
            return False
        return study.sequence > before.sequence or study.update_time == before.update_time


@dataclass(frozen=True, slots=True)
class _Read:
    """What a read brought: changes after `since`. `afresh`: what was known when it began is not a part of what the database has."""

    found: Found
    replays: Mapping[tuple[str, str], Replay]
    since: int
    changed: Sequence[Trial]
    points: Sequence[CurvePoint] = ()
    afresh: bool = False

    @property
    def complete(self) -> bool:
        """Whether this is all that had changed."""
        return len(self.changed) < PAGE and len(self.points) < PAGE

    @property
    def upto(self) -> int:
        """The sequence number up to which all changed trials were read."""
        return self.found.study.sequence if len(self.changed) < PAGE else self.changed[-1].sequence


@dataclass(frozen=True, slots=True)
class _Reading:
    """The transaction that reads a study and what has changed of it, a page at most."""

    name: StudyName
    requests: Sequence[Request]
    mark: _Mark | None

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
        mark = self.mark if self.mark is not None and self.mark.found.study.id == study.id else None
        afresh = mark is not None and not mark.stands(found)
        since, place = (0, FIRST_POINT) if mark is None or afresh else (mark.sequence, mark.place)
        changed = tx.changed_trials(study.id, after=since, upto=study.sequence, limit=PAGE)
        points: Sequence[CurvePoint] = ()
        if foreseen(study.spec) is not None:
            points = tx.curve_points(study.id, place, limit=PAGE)
        return _Read(found, replays, since, changed, points, afresh)


class History:
    """Reads studies with all their trials, fetching only what changed since the last time. Used from the event loop alone.

    If the database lost commits that are known here, what is known of the study is dropped, and all is read.

    The studies read last are remembered: at most `max_studies`, and of more than one at most `max_values` parameter values in all
    (a million take about 160 MB).
    """

    def __init__(
        self,
        store: Store,
        *,
        foresee: Foresee = lambda *_: {},
        max_studies: int = 256,
        max_values: int = 1_000_000,
    ) -> None:
        self._store, self._foresee = store, foresee
        self._max_studies, self._max_values = max_studies, max_values
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._ids: dict[StudyName, int] = {}
        self._sources: OrderedDict[tuple[int, str], tuple[tuple[int, int, int, str], Source]] = OrderedDict()

    async def read(self, name: StudyName, *, requests: Sequence[Request] = ()) -> Snapshot:
        """The study as it stands, with its sources and what the requests got if they were answered before; NotFound if there is none."""
        snapshot = await self._read(name, requests=requests)
        if not snapshot.study.spec.warm_start:
            return snapshot
        sources = [await self._source(snapshot.study, source) for source in snapshot.study.spec.warm_start]
        # Read again: the roster may have changed since, and must go with the study.
        return replace(await self._read(name, requests=requests), sources=tuple(sources))

    def recall(self, name: StudyName) -> Snapshot | None:
        """The study as this replica last read it and has changed it since, without a look at the database; None if that is not known, or
        if somebody else was seen to change it. Others may have changed it all the same: what comes of it must be held to its sequence number.
        """
        known = self._known.get(self._ids.get(name, 0))
        if known is None or not (known.alone and known.up_to_date):
            return None
        self._known.move_to_end(known.found.study.id)
        known.absorb()
        found = known.found
        study = replace(found.study, sequence=known.noted)
        return Snapshot(
            study,
            found.now,
            {},
            known.roster,
            known.roster.counts,
            found.hint,
            recalled=True,
            incarnation=found.incarnation,
        )

    def note_added(self, study: Study, trials: Sequence[Trial], *, after: int) -> None:
        """Take in trials that this replica handed out, which made the study this, whose sequence number was `after`. If more had happened
        before than is known here, the next read brings all.
        """
        known = self._known.get(study.id)
        if known is None:
            return
        if known.denied_by(trials):
            self._drop(study.id)
        elif known.noted == after and known.complete:
            known.absorb()
            known.roster.learn(trials, study.sequence)
            known.found, known.noted = replace(known.found, study=study), study.sequence
            self._shrink()

    def note_hint(self, study_id: int, hint: bytes) -> None:
        """Remember a hint that is being stored."""
        known = self._known.get(study_id)
        if known is not None:
            known.found = replace(known.found, hint=hint)

    def note_told(self, name: StudyName, trials: Sequence[Trial]) -> None:
        """Take in trials that were told to this replica, in the order of their changes, as far as they are the next changes of the study."""
        known = self._known.get(self._ids.get(name, 0))
        if known is None:
            return
        if known.denied_by(trials):
            self._drop(known.found.study.id)
            return
        for trial in trials:
            if trial.sequence == known.noted + 1 and known.complete:
                known.told.append(trial)
                known.noted = trial.sequence

    async def _source(self, study: Study, source: str) -> Source:
        """An earlier study as it stands; gone if it was deleted."""
        try:
            found = await self._read(StudyName(study.name.project, source))
        except NotFound:
            return Source(source, gone=True)
        # The study's own space may have become wider since.
        place = (study.id, source)
        basis = (study.own_sequence, found.study.id, found.study.sequence, found.incarnation)
        kept = self._sources.get(place)
        if kept is None or kept[0] != basis:
            kept = basis, make_source(source, study.spec, found.study.spec, found.observations)
            self._sources[place] = kept
        self._sources.move_to_end(place)
        while len(self._sources) > self._max_studies:
            self._sources.popitem(last=False)
        return kept[1]

    async def _read(self, name: StudyName, *, requests: Sequence[Request] = ()) -> Snapshot:
        while True:
            if (present := self._known.get(self._ids.get(name, 0))) is not None:
                present.absorb()
            mark = None if present is None else present.mark()
            read = await self._store.read(_Reading(name, requests, mark))
            known = self._remember(read)
            if known is not None and read.complete:
                # Another replica's hint, or its loss, shows at each read.
                return self._snapshot(read, known)

    def forget(self, name: StudyName) -> None:
        """Drop what is known of a study, as when it was deleted."""
        for study_id in [study_id for study_id, known in self._known.items() if known.name == name]:
            del self._known[study_id]
        self._ids.pop(name, None)

    def _drop(self, study_id: int) -> None:
        """Drop what is known of a study, since the database has come to where it is by other changes, and what was made of it."""
        known = self._known.pop(study_id, None)
        if known is not None:
            log.info("study_read_anew", study=str(known.name), known_to=known.noted)
            self._sources.clear()

    def _goes_with(self, found: Found) -> bool:
        """Whether what is known under the study's id, if anything is, is of the same database and study: an id that was lost is given again."""
        known = self._known.get(found.study.id)
        return known is None or (known.found.incarnation, known.name) == (found.incarnation, found.study.name)

    def _snapshot(self, read: _Read, known: _Known) -> Snapshot:
        found, roster = read.found, known.roster
        expected = self._expected(found.study, known)
        return Snapshot(
            found.study,
            found.now,
            read.replays,
            roster,
            roster.counts,
            found.hint,
            expected,
            incarnation=found.incarnation,
        )

    def _expected(self, study: Study, known: _Known) -> Mapping[int, MetricValue]:
        """What the objective of trials that were stopped, and of those under way, is expected to come to, from all that was measured.

        With several objectives those under way are left out: how they stand in the others is not known here.
        """
        objective, rule = foreseen(study.spec), study.spec.stopping_rule
        if objective is None or rule is None or objective != known.charted:
            return {}
        partial = [each.number for each in known.roster.observations if each.state is TrialState.STOPPED]
        if len(study.spec.objectives) == 1:
            partial += [trial.number for trial in known.roster.unfinished]
        endings = self._foresee(rule, known.chart.curves, partial)
        return {
            number: MetricValue(objective.loss(ending.loss), ending.standard_error)
            for number, ending in endings.items()
        }

    def _remember(self, read: _Read) -> _Known | None:
        """What is known now; None if what the changes build on was dropped while they were read."""
        study = read.found.study
        if read.since == 0 and (read.afresh or not self._goes_with(read.found)):
            self._drop(study.id)
        present = self._known.get(study.id)
        if present is not None:
            present.absorb()
        if read.since > (0 if present is None else present.roster.sequence) or not self._goes_with(read.found):
            return None
        known = self._known.setdefault(study.id, _Known(read.found))
        known.alone = present is not None and study.sequence <= known.roster.sequence
        known.roster.learn(read.changed, read.upto)
        if study.sequence >= known.noted:
            known.found, known.noted = replace(read.found, replay=None), study.sequence
        self._ids[study.name] = study.id
        known.follow(read.points)
        self._known.move_to_end(study.id)
        self._shrink()
        return known

    def _shrink(self) -> None:
        values = sum(known.values for known in self._known.values())
        while len(self._known) > 1 and (len(self._known) > self._max_studies or values > self._max_values):
            study_id, dropped = self._known.popitem(last=False)
            values -= dropped.values
            if self._ids.get(dropped.name) == study_id:
                del self._ids[dropped.name]
