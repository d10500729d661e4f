"""Which trials are best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asktell.server.domain.metric import Objective
from asktell.server.domain.trial import Trial, TrialState, finite


def losses(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The trial's objective values with signs turned so that smaller is better."""
    return tuple(objective.loss(trial.metrics[objective.metric].value) for objective in objectives)


def optimal(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The best succeeded trial (the earliest among equals), or, with several objectives, the Pareto front, in the order of numbers."""
    names = [objective.metric for objective in objectives]
    ranked = [trial for trial in trials if trial.state is TrialState.SUCCEEDED and finite(trial.metrics, names)]
    if len(objectives) == 1:
        return [min(ranked, key=lambda trial: (losses(trial, objectives), trial.number))] if ranked else []
    return sorted(_front(ranked, objectives), key=lambda trial: trial.number)


def _front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Trials that no other dominates. Sorted by losses, a trial can only be dominated by one before it."""
    ordered = sorted(
        ((losses(trial, objectives), trial) for trial in trials), key=lambda pair: (pair[0], pair[1].number)
    )
    return _front_of_two(ordered) if len(objectives) == 2 else _front_of_many(ordered)


def _front_of_two(ordered: Sequence[tuple[tuple[float, ...], Trial]]) -> list[Trial]:
    """One sweep: the first loss only rises, so the second has to fall."""
    front: list[tuple[tuple[float, ...], Trial]] = []
    for own, trial in ordered:
        if not front or own[1] < front[-1][0][1] or own == front[-1][0]:
            front.append((own, trial))
    return [trial for _, trial in front]


def _front_of_many(ordered: Sequence[tuple[tuple[float, ...], Trial]]) -> list[Trial]:
    front: list[tuple[tuple[float, ...], Trial]] = []
    for own, trial in ordered:
        if not any(dominates(other, own) for other, _ in front):
            front.append((own, trial))
    return [trial for _, trial in front]


def dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether `left` is nowhere worse than `right` and somewhere better (smaller is better)."""
    return all(a <= b for a, b in zip(left, right, strict=True)) and any(
        a < b for a, b in zip(left, right, strict=True)
    )
