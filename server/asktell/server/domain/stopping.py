"""When a trial may be ended early: the rules that a study can have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeAlias

from asktell.server.domain.curve import Curve
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import MAX_STEP, Goal, Objective
from asktell.server.domain.text import check_variable

MAX_TRIALS = 2**53
MAX_REDUCTION = 1_000
MAX_FOLDS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """Stops a trial whose best value so far is worse than the median of the others' at its step.

    With `averages` the others' running averages are compared with (Golovin et al. 2017, section 3.2.2). Judges once `min_trials` others
    have come to the step.
    """

    min_trials: int = 5
    averages: bool = False

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        _check_whole("min_trials", self.min_trials, 1, MAX_TRIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """Stops a trial whose best value so far is not among the best `percentile` per cent of the others' at its step; 50 is the median."""

    percentile: float
    min_trials: int = 5
    averages: bool = False

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        if not 0 < self.percentile < 100:
            raise InvalidArgument("percentile", f"must be above 0 and below 100, not {self.percentile!r}")
        _check_whole("min_trials", self.min_trials, 1, MAX_TRIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessiveHalving:
    """Of the trials that came to a rung, the best `1 / reduction_factor` go on, until half of them came to the next rung; from then on only
    one that leads. ASHA, its stopping variant (Li et al. 2020), but for the half.

    The rungs are `min_step`, and each `reduction_factor` times the one before. Nobody waits: a trial is compared with those that came to the
    rung before it.
    """

    min_step: int = 1
    reduction_factor: int = 3

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        _check_whole("min_step", self.min_step, 1, MAX_STEP)
        _check_whole("reduction_factor", self.reduction_factor, 2, MAX_REDUCTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperband:
    """Successive halving in several brackets, which begin at later and later rungs (Li et al. 2018); a trial's number says in which it is.

    Trials are compared with those of their bracket. For studies in which early values say little of late ones.
    """

    min_step: int = 1
    reduction_factor: int = 3

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        _check_whole("min_step", self.min_step, 1, MAX_STEP)
        _check_whole("reduction_factor", self.reduction_factor, 2, MAX_REDUCTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Stops a trial whose last value is beyond a bound, NaN or infinite; without bounds, the latter two."""

    at_most: float | None = None
    at_least: float | None = None

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        for name in ("at_most", "at_least"):
            bound = getattr(self, name)
            if bound is not None and not math.isfinite(bound):
                raise InvalidArgument(name, f"must be finite, not {bound!r}")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise InvalidArgument("at_least", f"is {self.at_least!r}, above at_most, which is {self.at_most!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Stops a trial whose best value has not improved by more than `min_delta` for `steps` steps."""

    steps: int
    min_delta: float = 0.0

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        _check_whole("steps", self.steps, 1, MAX_STEP)
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
            raise InvalidArgument("min_delta", f"must be finite and at least 0, not {self.min_delta!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extrapolation:
    """Stops a trial whose best value at `max_step` is expected to beat the best one there with at most `probability`.

    What is expected is learned from the trials that came to `max_step`, of which there must be `min_trials`: how their best values there
    follow from those at the trial's step.
    """

    probability: float = 0.05
    min_trials: int = 5

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        _check_probability("probability", self.probability)
        _check_whole("min_trials", self.min_trials, 4, MAX_TRIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """For cross-validation, whose folds are the steps: stops a trial that is worse than the incumbent on the same folds, by a paired test.

    The incumbent has the best mean over all `folds`. The test is judged from `min_folds` folds on, at a level of `significance`.
    """

    folds: int
    min_folds: int = 2
    significance: float = 0.05

    def validate(self) -> None:
        """Raise InvalidArgument with a path relative to the kind."""
        _check_whole("folds", self.folds, 3, MAX_FOLDS)
        _check_whole("min_folds", self.min_folds, 2, self.folds - 1)
        _check_probability("significance", self.significance)


StoppingKind: TypeAlias = (
    Median | Percentile | SuccessiveHalving | Hyperband | Threshold | Patience | Extrapolation | Folds
)
KINDS: Mapping[str, type[StoppingKind]] = {
    "median": Median,
    "percentile": Percentile,
    "successive_halving": SuccessiveHalving,
    "hyperband": Hyperband,
    "threshold": Threshold,
    "patience": Patience,
    "extrapolation": Extrapolation,
    "folds": Folds,
}
"""The kinds by their names in the contract, where each has the fields that it has here."""

_NAMES = {kind: name for name, kind in KINDS.items()}
_NEED_MAX_STEP = (Hyperband, Extrapolation)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """What decides that a trial may stop early.

    `metric` is the one that is looked at, "" the only objective; `goal` is said for a metric that is no objective. A trial is not judged
    below `warmup_steps`, nor from `max_step` on, where it is complete.
    """

    kind: StoppingKind
    metric: str = ""
    goal: Goal | None = None
    warmup_steps: int = 0
    max_step: int | None = None

    def __str__(self) -> str:
        """The rule as its user wrote it."""
        parts = [(field.name, getattr(self.kind, field.name), field.default) for field in fields(self.kind)]
        parts += [("warmup_steps", self.warmup_steps, 0), ("max_step", self.max_step, None)]
        of = f" of {self.metric}" if self.metric else ""
        return ", ".join([f"{self.name}{of}", *(f"{name} {part}" for name, part, default in parts if part != default)])

    @property
    def name(self) -> str:
        """The kind's name in the contract."""
        return _NAMES[type(self.kind)]

    def looked_at(self, objectives: Sequence[Objective]) -> Objective:
        """The metric that the rule looks at, and which way of it is better."""
        known = {objective.metric: objective for objective in objectives}
        if self.goal is not None and self.metric not in known:
            return Objective(self.metric, self.goal)
        return known[self.metric] if self.metric else objectives[0]

    def judges(self, step: int) -> bool:
        """Whether a trial is judged at a step."""
        return self.warmup_steps <= step and (self.max_step is None or step < self.max_step)

    def validate(self, objectives: Sequence[Objective]) -> None:
        """Raise InvalidArgument with a path that starts at `stopping_rule` if it makes no sense for the objectives."""
        try:
            self._validate_metric({objective.metric: objective for objective in objectives})
            _check_whole("warmup_steps", self.warmup_steps, 0, MAX_STEP)
            self._validate_max_step()
            self._validate_kind()
        except InvalidArgument as error:
            raise error.within("stopping_rule") from None

    def _validate_metric(self, objectives: Mapping[str, Objective]) -> None:
        if not self.metric:
            if len(objectives) > 1:
                names = ", ".join(objectives)
                raise InvalidArgument("metric", f"is required with several objectives: which of {names}, or another")
            if self.goal is not None:
                raise InvalidArgument("goal", "is the objective's: name another metric, or leave it out")
            return
        check_variable("metric", self.metric)
        if self.metric not in objectives and self.goal is None:
            raise InvalidArgument("goal", f"is required: {self.metric!r} is no objective, which way of it is better?")
        if self.metric in objectives and self.goal not in (None, objectives[self.metric].goal):
            raise InvalidArgument("goal", f"is not that of the objective {self.metric!r}: leave it out")

    def _validate_max_step(self) -> None:
        if self.max_step is not None:
            _check_whole("max_step", self.max_step, self.warmup_steps + 1, MAX_STEP)
        elif isinstance(self.kind, _NEED_MAX_STEP):
            raise InvalidArgument("max_step", f"is required for {self.name}: the step at which a trial is complete")
        if isinstance(self.kind, Hyperband) and self.max_step is not None and self.kind.min_step >= self.max_step:
            raise InvalidArgument(
                "hyperband.min_step", f"must be below max_step, which is {self.max_step}, not {self.kind.min_step}"
            )

    def _validate_kind(self) -> None:
        try:
            self.kind.validate()
        except InvalidArgument as error:
            raise error.within(self.name) from None


@dataclass(frozen=True, slots=True)
class NewRule:
    """What the stopping rule of a study becomes; None: nothing stops its trials from now on."""

    rule: StoppingRule | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """A trial of which something was reported, from step `first` to `step`, and the curves of all trials of the study, by number.

    The curves are those of `metric`, as losses. A rule knows nothing else, so that equal measurements get equal answers.
    """

    rule: StoppingRule
    metric: Objective
    curves: Mapping[int, Curve]
    number: int
    first: int
    step: int

    @property
    def own(self) -> Curve:
        """The trial's curve as of the step; what an earlier attempt reported of later steps does not count."""
        return self.curves.get(self.number, Curve()).upto(self.step)

    def others(self) -> Iterator[tuple[int, Curve]]:
        """The other trials' numbers and curves, in no order."""
        return ((number, curve) for number, curve in self.curves.items() if number != self.number)

    def there(self) -> Iterator[Curve]:
        """The curves of the other trials that came to the step, in no order."""
        step = self.step
        return (curve for _, curve in self.others() if curve.reached(step))

    def shown(self, loss: float) -> str:
        """A loss as the value that was reported, for a message."""
        return f"{self.metric.loss(loss):.6g}" if math.isfinite(loss) else "not finite"


def make_kind(name: str, given: Mapping[str, Any]) -> StoppingKind:
    """The kind of a name with some of its fields; InvalidArgument, with a path relative to the rule, for one that is required and missing."""
    cls = KINDS[name]
    for field in fields(cls):
        if field.default is MISSING and field.name not in given:
            raise InvalidArgument(f"{name}.{field.name}", "is required")
    return cls(**given)


def _check_whole(path: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidArgument(path, f"must be from {low:,} to {high:,}, not {value:,}")


def _check_probability(path: str, value: float) -> None:
    if not 0 < value <= 0.5:
        raise InvalidArgument(path, f"must be above 0 and at most 0.5, not {value!r}")
