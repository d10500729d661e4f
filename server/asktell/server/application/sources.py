"""What earlier studies bring to a study that starts from them: their observations, as far as both studies have the same parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Objective
from asktell.server.domain.policy import Observation, Source
from asktell.server.domain.space import Float, Int, Parameters, ParameterSpec, ParameterValue, SearchSpace, key
from asktell.server.domain.study import StudySpec
from asktell.server.domain.trial import TrialState, finite

MAX_OBSERVATIONS = 200
"""Observations of one source: half of them the best, the others evenly spread over the rest."""


def common(spec: StudySpec, earlier: StudySpec) -> frozenset[str]:
    """The parameters of a study that an earlier one also has, with some values in common as far as their kinds tell."""
    theirs = {each.name: each for each in earlier.space}
    return frozenset(each.name for each in spec.space if each.name in theirs and _alike(each, theirs[each.name]))


def unlike(spec: StudySpec, earlier: StudySpec) -> str | None:
    """Why there is nothing to take from an earlier study; None if there is."""
    if earlier.population is not None:
        return "trains a population, whose results tell of more than their trials' parameters"
    if not common(spec, earlier):
        return "has no parameter of this study"
    metrics = {objective.metric for objective in earlier.objectives}
    if metrics.isdisjoint(objective.metric for objective in spec.objectives):
        return f"has none of this study's objectives, but {', '.join(sorted(metrics))}"
    return None


def make_source(name: str, spec: StudySpec, earlier: StudySpec, observations: Sequence[Observation]) -> Source:
    """An earlier study as a source of one with `spec`. It is gone if they share no parameter."""
    shared = common(spec, earlier)
    if not shared:
        return Source(name, gone=True)
    measured = [seen for seen in observations if _measured(seen, spec.objectives)]
    if earlier.fidelity is not None and earlier.fidelity.parameter not in shared:
        measured = _highest(measured, earlier.fidelity)
    restricted = (_restricted(seen, spec.space, shared) for seen in measured)
    fitting = [seen for seen in restricted if seen is not None]
    return Source(name, shared, tuple(_chosen(fitting, spec.objectives[0])))


def _alike(mine: ParameterSpec, its: ParameterSpec) -> bool:
    if isinstance(mine, Float | Int) and isinstance(its, Float | Int):
        return isinstance(mine, Float) or isinstance(its, Int)
    return not isinstance(mine, Float | Int) and not isinstance(its, Float | Int)


def _measured(seen: Observation, objectives: Iterable[Objective]) -> bool:
    """Whether it says what one of the objectives is."""
    useful = seen.state in (TrialState.SUCCEEDED, TrialState.STOPPED)
    return useful and any(finite(seen.metrics, [objective.metric]) for objective in objectives)


def _highest(observations: Iterable[Observation], fidelity: Fidelity) -> list[Observation]:
    """Of each configuration the trial at the highest fidelity, for a study that does not know of it: else one has several results, of which
    those of the lower rungs are other measures. In the order of numbers.
    """
    best: dict[object, Observation] = {}
    for seen in sorted(observations, key=lambda seen: (fidelity.level(seen.parameters), -seen.number)):
        best[key({name: value for name, value in seen.parameters.items() if name != fidelity.parameter})] = seen
    return sorted(best.values(), key=lambda seen: seen.number)


def _restricted(seen: Observation, space: SearchSpace, shared: frozenset[str]) -> Observation | None:
    """The observation with the shared parameters alone; None if one of them lies outside the space."""
    kept: Parameters = {name: value for name, value in seen.parameters.items() if name in shared}
    if not kept or not all(_lies_in(space[name], value) for name, value in kept.items()):
        return None
    return Observation(seen.number, seen.state, kept, seen.metrics)


def _lies_in(spec: ParameterSpec, value: ParameterValue) -> bool:
    """Whether a value is in the range, on its grid or not."""
    if isinstance(spec, Float | Int):
        return isinstance(value, float | int) and not isinstance(value, bool) and spec.low <= value <= spec.high
    try:
        spec.check(value)
    except ValueError:
        return False
    return True


def _chosen(observations: Sequence[Observation], objective: Objective) -> list[Observation]:
    """At most `MAX_OBSERVATIONS`, in the order of numbers."""
    if len(observations) <= MAX_OBSERVATIONS:
        return list(observations)
    ranked = sorted(observations, key=lambda seen: (_loss(seen, objective), seen.number))
    best, rest = ranked[: MAX_OBSERVATIONS // 2], ranked[MAX_OBSERVATIONS // 2 :]
    count = MAX_OBSERVATIONS - len(best)
    spread = [rest[index * (len(rest) - 1) // (count - 1)] for index in range(count)]
    return sorted([*best, *spread], key=lambda seen: seen.number)


def _loss(seen: Observation, objective: Objective) -> float:
    metric = seen.metrics.get(objective.metric)
    return float("inf") if metric is None else objective.loss(metric.value)
