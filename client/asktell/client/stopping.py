"""When a study's trials may be ended early: the rules that the service can apply to what is reported.

No rule stops a trial that leads: whose best value is at least as good as that of all others that came to its step. Each rule looks at
`metric`, the objective by default; `goal` says which way is better of a metric that is no objective. Trials are not judged below
`warmup_steps`, nor from `max_step` on, where they are complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, TypeAlias

Goal: TypeAlias = Literal["minimize", "maximize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """What all rules have; `kind` is the name of each."""

    kind: ClassVar[str]
    metric: str | None = None
    goal: Goal | None = None
    warmup_steps: int = 0
    max_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianRule(StoppingRule):
    """Stops a trial whose best value so far is worse than the median of the others' at its step.

    It judges once `min_trials` others have come to the step. With `averages`, the median of the others' running averages.
    """

    kind: ClassVar[str] = "median"
    min_trials: int = 5
    averages: bool = False


@dataclass(frozen=True, slots=True)
class PercentileRule(StoppingRule):
    """Stops a trial whose best value so far is not among the best `percentile` per cent of the others' at its step."""

    kind: ClassVar[str] = "percentile"
    percentile: float
    _: KW_ONLY
    min_trials: int = 5
    averages: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessiveHalvingRule(StoppingRule):
    """ASHA: of the trials that came to a rung, the best `1 / reduction_factor` go on, until half of them came to the next rung.

    The rungs are `min_step`, and each `reduction_factor` times the one before.
    """

    kind: ClassVar[str] = "successive_halving"
    min_step: int = 1
    reduction_factor: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperbandRule(StoppingRule):
    """Successive halving in several brackets, which begin at later and later rungs below `max_step`, which must be given."""

    kind: ClassVar[str] = "hyperband"
    min_step: int = 1
    reduction_factor: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRule(StoppingRule):
    """Stops a trial whose last value is beyond a bound, NaN or infinite; without bounds, the latter two."""

    kind: ClassVar[str] = "threshold"
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, slots=True)
class PatienceRule(StoppingRule):
    """Stops a trial whose best value has not improved by more than `min_delta` for `steps` steps."""

    kind: ClassVar[str] = "patience"
    steps: int
    _: KW_ONLY
    min_delta: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtrapolationRule(StoppingRule):
    """Stops a trial whose best value at `max_step`, which must be given, is expected to beat the best one with at most `probability`.

    What is expected follows from the trials that came to `max_step`, of which there must be `min_trials`.
    """

    kind: ClassVar[str] = "extrapolation"
    probability: float = 0.05
    min_trials: int = 5


@dataclass(frozen=True, slots=True)
class FoldsRule(StoppingRule):
    """For cross-validation, each fold a step: stops a trial that is worse than the incumbent on the same folds, by a paired test.

    It judges from `min_folds` folds on, at a level of `significance`; the incumbent has the best mean over all `folds`.
    """

    kind: ClassVar[str] = "folds"
    folds: int
    _: KW_ONLY
    min_folds: int = 2
    significance: float = 0.05


STOPPING_RULES: Mapping[str, type[StoppingRule]] = {
    rule.kind: rule
    for rule in (
        MedianRule,
        PercentileRule,
        SuccessiveHalvingRule,
        HyperbandRule,
        ThresholdRule,
        PatienceRule,
        ExtrapolationRule,
        FoldsRule,
    )
}
"""All rules by their kinds."""
