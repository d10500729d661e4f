"""What a call does to trials of a study, as a function that makes it in a transaction which it shares with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from asktell.server.application.ports import Locked, Replay, Request, Transaction
from asktell.server.application.requests import replay_of
from asktell.server.domain.errors import Conflict, DomainError, NotFound
from asktell.server.domain.metric import Measurement, Metrics, MetricValue
from asktell.server.domain.study import Study, StudyName
from asktell.server.domain.trial import Trial, TrialName, TrialState, changed

T = TypeVar("T")

Replays = Mapping[tuple[str, str], Replay]
"""What requests to one study got, by their keys."""


METRICS_OF_WEIGHT = 10
"""So many metrics of measurements are as much work for the database as one trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """What a call does to trials of a study.

    `numbers` are the trials that it touches, `reported` those of them whose last measurement it may ask for, `metrics` how many metrics of
    measurements it keeps at most. `amend` gets them, puts back what changes, and returns the reply; a DomainError that it raises is the reply,
    and undoes what it put. It may run more than once, and on any thread. With a `request` the reply is bytes, and is kept. `note` gets the
    reply once it is durable, whether or not the caller still waits for it, and must not raise.
    """

    study: StudyName
    numbers: Sequence[int]
    amend: Callable[[Draft], T]
    reported: Sequence[int] = ()
    metrics: int = 0
    request: Request | None = None
    note: Callable[[T], None] | None = None

    @property
    def weight(self) -> int:
        """How much work it is for the database, in trials."""
        return weight(len(self.numbers), metrics=self.metrics)


def weight(trials: int, *, metrics: int) -> int:
    """How much work it is for the database to write so many trials and metrics of measurements, in trials."""
    return trials + metrics // METRICS_OF_WEIGHT


@dataclass(slots=True)
class Ledger:
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

    _ledger: Ledger
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

    @property
    def incarnation(self) -> str:
        """The database's, as in `ports.Found`."""
        return self._ledger.locked.incarnation

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
        latest = changed(trial, sequence=self._ledger.sequence + len(self.put))
        self.put[trial.number] = latest
        return latest

    def may_resume(self) -> bool:
        """Whether the budget leaves room for one more active trial. Costs a statement if it has a limit."""
        limit = self.study.budget.max_parallel
        return limit is None or self._ledger.count_active() + len(self.put) < limit

    def record(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Keep measurements of a trial."""
        self.recorded[number] = measurements

    def last_reported(self, number: int) -> Metrics:
        """The metrics of the last step of one of the `reported` trials, each as it was reported last; none if nothing was reported."""
        stored = self._ledger.reported.get(number)
        reported = [*([] if stored is None else [stored]), *self._ledger.measurements.get(number, ())]
        last = max((measurement.step for measurement in reported), default=0)
        metrics: dict[str, MetricValue] = {}
        for measurement in reported:
            if measurement.step == last:
                metrics |= measurement.metrics
        return metrics


def make(change: Change[Any], ledger: Ledger, replays: Replays) -> Any:
    """Make the change in the ledger: its reply, or the error that it ended with. Conflict asks for another run."""
    draft = Draft(ledger)
    try:
        earlier = None if change.request is None else replay_of(change.request, replays.get(change.request.key))
        if earlier is not None:
            return earlier
        reply = change.amend(draft)
    except DomainError as error:
        if change.request is not None and change.request.key not in replays:
            _refuse_late_replay(change.request, ledger)
        return error
    ledger.take(draft)
    return reply


def _refuse_late_replay(request: Request, ledger: Ledger) -> None:
    """Raise Conflict if a request of this id was answered while this one waited for the lock: that is why it would be refused. Whether it was
    a copy of this one, the next run judges.
    """
    if ledger.tx.find_replies(ledger.locked.study.id, [request]):
        raise Conflict


def missing_trial(name: TrialName) -> NotFound:
    """The error for a trial that is not there."""
    return NotFound(f"there is no trial {name.number} in study {name.study}", reason="TRIAL_NOT_FOUND")
