"""A study as a sequence of records, which can be carried to another database: what it holds, and what no export would write."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from asktell.server.application.studies import CreateStudy
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import Measurement, check_measurements, check_metrics
from asktell.server.domain.space import Parameters, SearchSpace
from asktell.server.domain.study import Study, StudyName, StudySpec, TrialCounts
from asktell.server.domain.text import (
    MAX_MESSAGE,
    check_checkpoint_uri,
    check_message,
    check_notes,
    check_text,
    check_variable,
    check_worker_id,
)
from asktell.server.domain.trial import Origin, Trial, TrialState

MAX_MEASUREMENTS = 1_000
MAX_NUMBER = 2**53
MAX_MEMBER = 1_000


@dataclass(frozen=True, slots=True)
class Header:
    """The study; its `id` means nothing. Active trials are counted as queued ones, which they are in the archive."""

    study: Study
    counts: TrialCounts


@dataclass(frozen=True, slots=True)
class Reported:
    """Some measurements of the trial before, in the order of steps."""

    number: int
    measurements: Sequence[Measurement]


@dataclass(frozen=True, slots=True)
class End:
    """How many trials there are."""

    trial_count: int


T = TypeVar("T")
Record = Header | Trial | Reported | End


def archived(trial: Trial) -> Trial:
    """The trial as it can be carried away: a live lease cannot, so that an active trial is queued, and no attempt is spent."""
    state = TrialState.QUEUED if trial.state is TrialState.ACTIVE else trial.state
    return replace(trial, state=state, lease=None, nonce="")


class Digest:
    """Equal for archives that say the same of a study, whatever its name."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: Record) -> None:
        """Take in the next record."""
        self._hash.update(repr(_canonical(record)).encode())

    def text(self) -> str:
        """What it is so far."""
        return self._hash.hexdigest()


def _canonical(record: Record) -> object:
    """The record without what differs between equal archives: the order of names, and what belongs to the database."""
    match record:
        case Header(study, counts):
            spec = replace(study.spec, seed=None)
            nameless = replace(study, id=0, name=StudyName("", ""), spec=spec, labels=_sorted(study.labels))
            return nameless, counts
        case Trial():
            origin = replace(record.origin, predictions=_sorted(record.origin.predictions))
            return replace(
                archived(record),
                origin=origin,
                parameters=_sorted(record.parameters),
                metrics=_sorted(record.metrics),
                metadata=_sorted(record.metadata),
            )
        case Reported(number, measurements):
            return number, [replace(each, metrics=_sorted(each.metrics)) for each in measurements]
        case End():
            return record


def _sorted(names: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(names.items()))


@dataclass(slots=True)
class Inspection:
    """Takes the records of an archive one after another and raises InvalidArgument at the first that no export would write."""

    policies: Collection[str]
    digest: Digest = field(default_factory=Digest)
    ended: bool = False
    _header: Header | None = None
    _records: int = 0
    _number: int = 0
    _step: int = -1
    _numbers: set[int] = field(default_factory=set)
    _sequences: set[int] = field(default_factory=set)
    _states: Counter[TrialState] = field(default_factory=Counter)

    @property
    def header(self) -> Header:
        """The first record, once it was taken."""
        if self._header is None:
            raise InvalidArgument("records", "is empty: an archive begins with a header")
        return self._header

    @property
    def counts(self) -> TrialCounts:
        """How many trials of each state were taken."""
        return TrialCounts(**{state.value: count for state, count in self._states.items()})

    def take_all(self, records: Iterable[Record]) -> list[Record]:
        """The records as they are to be kept."""
        return [self.take(record) for record in records]

    def take(self, record: Record) -> Record:
        """The record as it is to be kept."""
        try:
            taken = self._take(record)
        except InvalidArgument as error:
            raise error.within(f"records[{self._records}]") from None
        self._records += 1
        self.digest.add(taken)
        return taken

    def require_end(self) -> None:
        """Raise InvalidArgument unless the last record was the end."""
        if not self.ended:
            raise InvalidArgument(f"records[{self._records}]", "is missing: the archive ends without its end")

    def _take(self, record: Record) -> Record:
        if self.ended:
            raise InvalidArgument("", "follows the end")
        if (self._header is None) is not isinstance(record, Header):
            raise InvalidArgument("", "must be the header" if self._header is None else "is a second header")
        match record:
            case Header():
                return _within("header", lambda: self._take_header(record))
            case Trial():
                return _within("trial", lambda: self._take_trial(record))
            case Reported():
                return _within("reported", lambda: self._take_reported(record))
            case End():
                return _within("end", lambda: self._take_end(record))

    def _take_header(self, header: Header) -> Header:
        study = header.study
        _within("study", lambda: _check_study(study, self.policies))
        _check_range("next_number", study.next_number, 1, MAX_NUMBER)
        _check_range("own_sequence", study.own_sequence, 1, study.sequence)
        self._sequences.add(study.own_sequence)
        self._header = header
        return header

    def _take_trial(self, trial: Trial) -> Trial:
        study = self.header.study
        if not self._number < trial.number < study.next_number:
            raise InvalidArgument(
                "number", f"{trial.number} is not between {self._number}, the trial before, and {study.next_number}"
            )
        if trial.sequence in self._sequences:
            raise InvalidArgument("sequence", f"{trial.sequence} is that of an earlier record")
        _check_range("sequence", trial.sequence, 1, study.sequence)
        _check_trial(trial, study.spec)
        if trial.parent and trial.parent not in self._numbers:
            raise InvalidArgument("parent", f"{trial.parent} is not the number of an earlier trial")
        self._number, self._step = trial.number, -1
        self._numbers.add(trial.number)
        self._sequences.add(trial.sequence)
        self._states[trial.state] += 1
        return replace(trial, parameters=_kept(trial.parameters, study.spec.space))

    def _take_reported(self, reported: Reported) -> Reported:
        if reported.number != self._number or not self._number:
            raise InvalidArgument("number", f"{reported.number} is not that of the trial before")
        if not 1 <= len(reported.measurements) <= MAX_MEASUREMENTS:
            raise InvalidArgument("measurements", f"has {len(reported.measurements):,}; 1 to 1,000 are allowed")
        check_measurements(reported.measurements)
        for index, measurement in enumerate(reported.measurements):
            if measurement.step <= self._step:
                raise InvalidArgument(f"measurements[{index}].step", f"{measurement.step} follows {self._step}")
            if measurement.create_time is None:
                raise InvalidArgument(f"measurements[{index}].create_time", "is missing")
            self._step = measurement.step
        return reported

    def _take_end(self, end: End) -> End:
        if end.trial_count != self._states.total():
            raise InvalidArgument("trial_count", f"is {end.trial_count}, but there are {self._states.total()} trials")
        if self.counts != self.header.counts:
            raise InvalidArgument("", f"the header counts {self.header.counts}, but the trials are {self.counts}")
        self.ended = True
        return end


def _within(prefix: str, check: Callable[[], T]) -> T:
    try:
        return check()
    except InvalidArgument as error:
        raise error.within(prefix) from None


def _check_range(field_name: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise InvalidArgument(field_name, f"must be from {low} to {high}, not {number}")


def _check_study(study: Study, policies: Collection[str]) -> None:
    CreateStudy(
        name=study.name, spec=study.spec, budget=study.budget, labels=study.labels, drawn_seed=study.seed
    ).validate(policies)
    _check_range("sequence", study.sequence, 1, MAX_NUMBER)


def _check_trial(trial: Trial, spec: StudySpec) -> None:
    if trial.state is TrialState.ACTIVE:
        raise InvalidArgument("state", "an archive holds no active trial; queue it")
    if (trial.end_time is not None) is not trial.state.terminal:
        raise InvalidArgument(
            "end_time", f"a {trial.state.value} trial has {'one' if trial.state.terminal else 'none'}"
        )
    if trial.metrics and trial.state not in (TrialState.SUCCEEDED, TrialState.STOPPED):
        raise InvalidArgument("metrics", f"a {trial.state.value} trial has none")
    check_metrics(trial.metrics, required=spec.objectives if trial.state is TrialState.SUCCEEDED else ())
    _check_range("attempt", trial.attempt, 0, 2**31 - 1)
    _check_range("spent_attempts", trial.spent_attempts, 0, trial.attempt)
    _check_range("member", trial.member, 0, MAX_MEMBER)
    check_message("message", trial.message)
    check_notes("metadata", trial.metadata)
    check_checkpoint_uri("checkpoint_uri", trial.checkpoint_uri)
    if trial.worker_id:
        check_worker_id("worker_id", trial.worker_id)
    _check_origin(trial.origin)


def _check_origin(origin: Origin) -> None:
    for name in ("policy", "method", "fallback", "reason"):
        check_text(f"origin.{name}", getattr(origin, name), limit=MAX_MESSAGE)
    _check_range("origin.made_for", origin.made_for, 0, MAX_NUMBER)
    for name in origin.predictions:
        check_variable(f"origin.predictions[{name[:64]}]", name)


def _kept(parameters: Parameters, space: SearchSpace) -> Parameters:
    """The parameters, checked, in the order of the space, each with its very bits unless it is of another kind than the space's."""
    checked = space.check(parameters)
    return {
        name: parameters[name] if type(parameters[name]) is type(value) else value for name, value in checked.items()
    }
