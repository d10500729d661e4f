"""Take what became of trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from asktell.server.application.change import Change, Draft
from asktell.server.application.failpoints import reach
from asktell.server.application.ports import Request
from asktell.server.domain.errors import DomainError, InvalidArgument
from asktell.server.domain.metric import Metrics, check_metrics, require_metrics
from asktell.server.domain.study import Study, StudyName, StudySpec
from asktell.server.domain.text import check_checkpoint_uri, check_lease_token, check_message, check_notes
from asktell.server.domain.trial import Trial, TrialState

MAX_RESULTS = 1_000


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It was evaluated."""

    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt broke; `retry`: another worker should try, while attempts are left."""

    message: str
    retry: bool


@dataclass(frozen=True, slots=True)
class Infeasible:
    """These parameters cannot work."""

    message: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """It was ended early; without metrics, the last reported ones are kept."""

    metrics: Metrics
    message: str


Measured = Succeeded | Stopped
Outcome = Measured | Failed | Infeasible


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one trial; an `outcome` of None, where the caller did not say, is refused."""

    number: int
    lease_token: str
    outcome: Outcome | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    checkpoint_uri: str = ""

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the result."""
        if self.outcome is None:
            raise _outcome_missing()
        check_notes("metadata", self.metadata)
        check_checkpoint_uri("checkpoint_uri", self.checkpoint_uri)
        check_lease_token("lease_token", self.lease_token)
        if isinstance(self.outcome, Measured):
            self._validate_metrics(self.outcome)
        if not isinstance(self.outcome, Succeeded):
            check_message(f"{kind(self.outcome)}.message", self.outcome.message)

    def _validate_metrics(self, outcome: Measured) -> None:
        try:
            check_metrics(outcome.metrics)
        except InvalidArgument as error:
            raise error.within(kind(outcome)) from None


def _outcome_missing() -> InvalidArgument:
    return InvalidArgument("outcome", "is missing: succeeded, failed, infeasible or stopped")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A result that was not taken, and why."""

    number: int
    error: DomainError


@dataclass(frozen=True, slots=True)
class Taken:
    """What a call came to: the trials that were told, and the results that were not taken, both in the order of the results; and those of the
    trials that it `changed`, which one that was told before is not.
    """

    trials: Sequence[Trial]
    refusals: Sequence[Refusal] = ()
    changed: Sequence[Trial] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """A worker's call that ends trials: all or none of them, or, `independent`, each by itself."""

    study: StudyName
    results: Sequence[Result]
    independent: bool = False
    request: Request | None = None

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the request.

        Of independent results each is looked at when it is taken. A number that stands there twice is wrong of the request all the same, for
        results and refusals are told apart by their numbers.
        """
        if not 1 <= len(self.results) <= MAX_RESULTS:
            raise InvalidArgument("results", f"has {len(self.results):,} results; 1 to {MAX_RESULTS:,} are allowed")
        seen: set[int] = set()
        for index, result in enumerate(self.results):
            if result.number in seen:
                raise InvalidArgument(f"results[{index}].number", f"trial {result.number} stands there twice")
            seen.add(result.number)
            if not self.independent:
                _validate(result, place=f"results[{index}]")


def _validate(result: Result, *, place: str) -> None:
    try:
        result.validate()
    except InvalidArgument as error:
        raise error.within(place) from None


def tell(
    command: Tell, *, pack: Callable[[Taken], bytes], note: Callable[[bytes], None] | None = None
) -> Change[bytes]:
    """The change that ends the trials; its reply is packed. `note` is that of `Change`.

    A trial that ended just so already, with the same metadata and checkpoint at least, stays as it is; one that ended otherwise, or whose
    lease is another's, is FailedPrecondition.
    """
    command.validate()

    def amend(draft: Draft) -> bytes:
        reach("tell.locked")
        return pack(_tell_each(draft, command) if command.independent else _tell_all(draft, command))

    return Change(
        study=command.study,
        numbers=[result.number for result in command.results],
        reported=[result.number for result in command.results if _ends_as_reported(result.outcome)],
        amend=amend,
        request=command.request,
        note=note,
    )


def _ends_as_reported(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Stopped) and not outcome.metrics


def _tell_all(draft: Draft, command: Tell) -> Taken:
    placed = [(f"results[{index}]", result) for index, result in enumerate(command.results)]
    for place, result in placed:
        _require_objectives(result, draft.study.spec, place=place)
    trials = [_tell_one(draft, result, place=place) for place, result in placed]
    return Taken(trials, changed=tuple(draft.put.values()))


def _tell_each(draft: Draft, command: Tell) -> Taken:
    told, refusals = [], []
    for index, result in enumerate(command.results):
        place = f"results[{index}]"
        try:
            _validate(result, place=place)
            _require_objectives(result, draft.study.spec, place=place)
            told.append(_tell_one(draft, result, place=place))
        except DomainError as error:
            refusals.append(Refusal(result.number, error))
    return Taken(told, refusals, changed=tuple(draft.put.values()))


def _require_objectives(result: Result, spec: StudySpec, *, place: str) -> None:
    if isinstance(result.outcome, Succeeded):
        try:
            require_metrics(result.outcome.metrics, spec.objectives)
        except InvalidArgument as error:
            raise error.within(f"{place}.succeeded") from None


def _tell_one(draft: Draft, result: Result, *, place: str) -> Trial:
    trial = draft.trial(result.number)
    if trial.state.terminal and trial.held(result.lease_token) and _ended_so(trial, result) and _knows(trial, result):
        return trial
    _require_tellable(trial, result, draft.study)
    noted = trial.noted(metadata=result.metadata, checkpoint_uri=result.checkpoint_uri)
    # Each tell adds to what is there.
    check_notes(f"{place}.metadata", noted.metadata)
    return draft.change(_end(draft, noted, result.outcome))


def _require_tellable(trial: Trial, result: Result, study: Study) -> None:
    """A failure says something about the attempt alone, and a lost attempt has been counted: so only its holder may tell one."""
    if isinstance(result.outcome, Failed):
        trial.require_lease(result.lease_token)
    else:
        trial.require_tellable(result.lease_token, study.spec.late_tells)


def _end(draft: Draft, trial: Trial, outcome: Outcome | None) -> Trial:
    match outcome:
        case Succeeded(metrics):
            return trial.ended(TrialState.SUCCEEDED, metrics=metrics, now=draft.now)
        case Infeasible(message):
            return trial.ended(TrialState.INFEASIBLE, message=message, now=draft.now)
        case Failed(message, retry):
            attempts = draft.study.spec.max_attempts
            return trial.broken(message=message, max_attempts=attempts, retry=retry, now=draft.now)
        case Stopped(metrics, message):
            last = metrics or draft.last_reported(trial.number)
            return trial.ended(TrialState.STOPPED, metrics=last, message=message, now=draft.now)
        case None:
            raise _outcome_missing()


def _ended_so(trial: Trial, result: Result) -> bool:
    """Whether the trial ended with just this outcome, NaN being equal to NaN."""
    match result.outcome:
        case Succeeded(metrics):
            return trial.state is TrialState.SUCCEEDED and _equal(trial.metrics, metrics)
        case Stopped(metrics, message):
            kept = not metrics or _equal(trial.metrics, metrics)
            return trial.state is TrialState.STOPPED and trial.message == message and kept
        case Infeasible(message):
            return trial.state is TrialState.INFEASIBLE and trial.message == message
        case Failed(message):
            return trial.state is TrialState.FAILED and trial.message == message
        case None:
            return False


def _knows(trial: Trial, result: Result) -> bool:
    """Whether the trial has all that the result notes beside its outcome."""
    return result.checkpoint_uri in ("", trial.checkpoint_uri) and result.metadata.items() <= trial.metadata.items()


def _equal(left: Metrics, right: Metrics) -> bool:
    return left.keys() == right.keys() and all(
        left[name].standard_error == right[name].standard_error
        and (left[name].value == right[name].value or (math.isnan(left[name].value) and math.isnan(right[name].value)))
        for name in left
    )


def kind(outcome: Outcome) -> str:
    """The name of the outcome's field in the request."""
    return type(outcome).__name__.lower()
