"""Which trials are best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from asktell.server.domain.metric import Metrics, MetricValue, Objective, OutcomeConstraint
from asktell.server.domain.space import key
from asktell.server.domain.study import StudySpec
from asktell.server.domain.trial import Trial, TrialState, finite

Losses = tuple[float, ...]


def losses(trial: Trial, objectives: Sequence[Objective]) -> Losses:
    """The trial's objective values with signs turned so that smaller is better."""
    return tuple(objective.loss(trial.metrics[objective.metric].value) for objective in objectives)


def feasible(metrics: Metrics, constraints: Sequence[OutcomeConstraint]) -> bool:
    """Whether metrics are known to meet all constraints."""
    return all(constraint.met(metrics) for constraint in constraints)


def optimal(trials: Iterable[Trial], spec: StudySpec) -> list[Trial]:
    """The best feasible trial (the earliest among equals), or, with several objectives, the Pareto front, in the order of numbers.

    Only succeeded trials with finite objectives count. In a noisy study trials of equal parameters count as one, the earliest, with the mean
    of their losses, and feasible if the means of their constrained metrics are.
    """
    names = [objective.metric for objective in spec.objectives]
    usable = [trial for trial in trials if trial.state is TrialState.SUCCEEDED and finite(trial.metrics, names)]
    ranked = sorted(_ranked(usable, spec), key=lambda pair: (pair[0], pair[1].number))
    if len(names) == 1:
        return [trial for _, trial in ranked[:1]]
    front = _front_of_two(ranked) if len(names) == 2 else _front_of_many(ranked)
    return sorted((trial for _, trial in front), key=lambda trial: trial.number)


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
