"""Which trials are best."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Metrics, MetricValue, Objective, OutcomeConstraint
from asktell.server.domain.space import key
from asktell.server.domain.study import StudySpec
from asktell.server.domain.trial import Trial, TrialState, finite

Losses = tuple[float, ...]

MAX_FRONT = 4
"""Of so many objectives at most hypervolume is computed: beyond, it takes too long."""
_MARGIN = 0.1


def losses(trial: Trial, objectives: Sequence[Objective]) -> Losses:
    """The trial's objective values with signs turned so that smaller is better."""
    return tuple(objective.loss(trial.metrics[objective.metric].value) for objective in objectives)


def feasible(metrics: Metrics, constraints: Sequence[OutcomeConstraint]) -> bool:
    """Whether metrics are known to meet all constraints."""
    return all(constraint.met(metrics) for constraint in constraints)


def optimal(trials: Iterable[Trial], spec: StudySpec) -> list[Trial]:
    """The best feasible trial (the earliest among equals), or, with several objectives, the Pareto front, in the order of numbers.

    Only succeeded trials with finite objectives count. In a noisy study trials of equal parameters count as one, the earliest, with the mean
    of their losses, and feasible if the means of their constrained metrics are. In a study with a fidelity only those at the highest one that
    a feasible trial has reached count: a loss after few epochs is another measure.
    """
    ranked = sorted(_ranked(_usable(trials, spec), spec), key=lambda pair: (pair[0], pair[1].number))
    if len(spec.objectives) == 1:
        return [trial for _, trial in ranked[:1]]
    return sorted((trial for _, trial in _front(ranked)), key=lambda trial: trial.number)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a trial's end makes of the losses at a place of the ranking: None for what is not feasible. It stands in place of what was there."""

    number: int
    place: int
    losses: Losses | None


def standings(trials: Iterable[Trial], spec: StudySpec) -> Iterator[Standing]:
    """How the ranking came about as trials ended. Each trial has a place of its own; in a noisy study all of equal parameters have one."""
    repeats: dict[object, list[Trial]] = {}
    for trial in sorted(_usable(trials, spec), key=_by_end):
        group = repeats.setdefault(key(trial.parameters) if spec.noisy else trial.number, [])
        group.append(trial)
        ranked = _ranked(group, spec)
        yield Standing(trial.number, group[0].number, ranked[0][0] if ranked else None)


def front_losses(trials: Iterable[Trial], spec: StudySpec) -> list[Losses]:
    """The losses of the Pareto front of several objectives."""
    ranked = sorted(_ranked(_usable(trials, spec), spec), key=lambda pair: (pair[0], pair[1].number))
    return [own for own, _ in _front(ranked)]


def reference(front: Sequence[Losses], spec: StudySpec) -> Losses:
    """The losses that hypervolume is measured from: those given with the objectives, else a tenth of the front's extent beyond its worst.

    Where the front has no extent, a tenth of its value's magnitude (Ishibuchi et al. 2011 for the tenth).
    """
    columns = zip(*front, strict=True) if front else [(0.0,)] * len(spec.objectives)
    return tuple(
        _beyond(max(column), max(column) - min(column))
        if objective.reference is None
        else objective.loss(objective.reference)
        for objective, column in zip(spec.objectives, columns, strict=True)
    )


def _beyond(worst: float, extent: float) -> float:
    margin = _MARGIN * (extent or abs(worst) or 1.0)
    return min(worst + margin, sys.float_info.max)


def _by_end(trial: Trial) -> tuple[float, int]:
    return (trial.end_time.timestamp() if trial.end_time else 0.0, trial.number)


def _usable(trials: Iterable[Trial], spec: StudySpec) -> list[Trial]:
    names = [objective.metric for objective in spec.objectives]
    usable = [trial for trial in trials if trial.state is TrialState.SUCCEEDED and finite(trial.metrics, names)]
    return usable if spec.fidelity is None else _highest(usable, spec, spec.fidelity)


def _highest(trials: Sequence[Trial], spec: StudySpec, fidelity: Fidelity) -> list[Trial]:
    """The trials at the highest fidelity that a feasible one has reached: values of lower ones are none of these."""
    reached = [
        fidelity.level(trial.parameters) for trial in trials if feasible(trial.metrics, spec.outcome_constraints)
    ]
    return [trial for trial in trials if reached and fidelity.level(trial.parameters) == max(reached)]


def _front(ordered: Sequence[tuple[Losses, Trial]]) -> list[tuple[Losses, Trial]]:
    return _front_of_two(ordered) if ordered and len(ordered[0][0]) == 2 else _front_of_many(ordered)


def _ranked(trials: Sequence[Trial], spec: StudySpec) -> list[tuple[Losses, Trial]]:
    """What there is to rank: feasible trials with their losses, or, in a noisy study, feasible configurations with their mean losses."""
    if not spec.noisy:
        return [
            (losses(trial, spec.objectives), trial)
            for trial in trials
            if feasible(trial.metrics, spec.outcome_constraints)
        ]
    repeats: dict[object, list[Trial]] = {}
    for trial in trials:
        repeats.setdefault(key(trial.parameters), []).append(trial)
    return [
        (_mean([losses(trial, spec.objectives) for trial in group]), min(group, key=lambda trial: trial.number))
        for group in repeats.values()
        if feasible(_averaged(group, spec.outcome_constraints), spec.outcome_constraints)
    ]


def _averaged(trials: Sequence[Trial], constraints: Sequence[OutcomeConstraint]) -> Metrics:
    """The constrained metrics' means over the trials that have them; a value that is not finite spoils its mean."""
    names = [constraint.metric for constraint in constraints]
    values = {name: [trial.metrics[name].value for trial in trials if name in trial.metrics] for name in names}
    return {name: MetricValue(sum(each / len(given) for each in given)) for name, given in values.items() if given}


def _mean(rows: Sequence[Losses]) -> Losses:
    # Divided first: the sum of two finite numbers may be infinite.
    return tuple(math.fsum(value / len(rows) for value in column) for column in zip(*rows, strict=True))


def _front_of_two(ordered: Sequence[tuple[Losses, Trial]]) -> list[tuple[Losses, Trial]]:
    """One sweep: the first loss only rises, so the second has to fall."""
    front: list[tuple[Losses, Trial]] = []
    for own, trial in ordered:
        if not front or own[1] < front[-1][0][1] or own == front[-1][0]:
            front.append((own, trial))
    return front


def _front_of_many(ordered: Sequence[tuple[Losses, Trial]]) -> list[tuple[Losses, Trial]]:
    """Sorted by losses, a trial can only be dominated by one before it."""
    front: list[tuple[Losses, Trial]] = []
    for own, trial in ordered:
        if not any(dominates(other, own) for other, _ in front):
            front.append((own, trial))
    return front


def dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether `left` is nowhere worse than `right` and somewhere better (smaller is better)."""
    return all(a <= b for a, b in zip(left, right, strict=True)) and any(
        a < b for a, b in zip(left, right, strict=True)
    )
