"""How trials stand against each other, with one objective or several: what evolution selects by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from asktell.server.domain.metric import OutcomeConstraint
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Indices, Matrix
from asktell.server.policies.labels import measured

BLOCK = 200
"""So many trials at a time compete with the survivors of those before: to sort n trials at once takes n²."""
FEW = 3
"""With more objectives than these nearly all trials are incomparable, and crowding tells little: reference directions take its place."""
_REFERENCES = 100
"""About how many reference directions there are."""


@dataclass(frozen=True, slots=True)
class Population:
    """Trials that others may descend from, the better ones first.

    `fronts` (`n`) is 0 for those that none dominates. Of two trials in one front, that with the larger `apart` (`n`) has more room about it.
    """

    trials: tuple[Observation, ...]
    fronts: Vector
    apart: Vector

    def __len__(self) -> int:
        return len(self.trials)


@dataclass(frozen=True, slots=True)
class Results:
    """What trials came to: losses (`n x m`), and by how much each misses the constraints on metrics (`n`), 0 where it meets them."""

    losses: Matrix
    violations: Vector

    @classmethod
    def of(cls, trials: Sequence[Observation], request: SuggestRequest) -> Results:
        """The results of trials whose objectives are finite."""
        objectives = [(objective.metric, objective) for objective in request.objectives]
        losses = [[each.loss(trial.metrics[name].value) for name, each in objectives] for trial in trials]
        violations = np.zeros(len(trials))
        for constraint in request.outcome_constraints:
            violations += _violations(trials, constraint)
        return cls(np.array(losses, dtype=np.float64).reshape(len(trials), len(objectives)), violations)

    def __getitem__(self, places: Indices) -> Results:
        return Results(self.losses[places], self.violations[places])

    def __len__(self) -> int:
        return len(self.violations)


def _violations(trials: Sequence[Observation], constraint: OutcomeConstraint) -> Vector:
    """How far trials lie beyond a bound (`n`), where 1 is the farthest; 1 as well where the metric is missing or not finite."""
    given = [trial.metrics.get(constraint.metric) for trial in trials]
    excess = np.array([math.nan if each is None else constraint.excess(each.value) for each in given])
    known = np.isfinite(excess)
    farthest = float(excess[known].max(initial=0.0)) or 1.0
    return np.where(known, np.clip(excess / farthest, 0.0, 1.0), 1.0)


def ranks(trials: Sequence[Observation], request: SuggestRequest) -> Vector:
    """One number for each trial (`n`), smaller for the better; equal for equals. Those without finite objectives come last.

    With several objectives it is the front that counts, then the room that a trial has in it.
    """
    useful = np.flatnonzero(measured(trials, request.objectives))
    results = Results.of([trials[place] for place in useful], request)
    ranked = np.full(len(trials), float(len(trials)))
    if len(request.objectives) == 1:
        keys = np.stack([results.violations, results.losses[:, 0]], axis=1)
    else:
        standing = Standing(results)
        keys = np.stack([standing.fronts, -standing.apart], axis=1)
    if len(useful):
        ranked[useful] = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return ranked


def population(request: SuggestRequest, size: int) -> Population:
    """The best trials of a study, at most `size`. Only trials with finite objectives are among them.

    Those that meet the constraints on metrics come first, then those that miss them least (Deb 2000).
    """
    useful = np.flatnonzero(measured(request.observations, request.objectives))
    trials = sorted((request.observations[place] for place in useful), key=lambda trial: trial.number)
    results = Results.of(trials, request)
    if len(request.objectives) == 1:
        order = np.lexsort((results.losses[:, 0], results.violations))[:size]
        places = np.arange(len(order), dtype=np.float64)
        return Population(tuple(trials[place] for place in order), places, np.zeros(len(order)))
    kept = np.arange(0)
    for start in range(0, len(trials), BLOCK):
        rivals = np.concatenate([kept, np.arange(start, min(start + BLOCK, len(trials)))])
        kept = rivals[Standing(results[rivals]).best(size)]
    standing = Standing(results[kept])
    order = np.lexsort((-standing.apart, standing.fronts))
    return Population(tuple(trials[place] for place in kept[order]), standing.fronts[order], standing.apart[order])


class Standing:
    """Who dominates whom among some results, as in NSGA-II (Deb et al. 2002) and, beyond three objectives, NSGA-III."""

    def __init__(self, results: Results) -> None:
        self._losses, self._violations = results.losses, results.violations

    @cached_property
    def fronts(self) -> Vector:
        """The front of each: 0 for those that none dominates, 1 for those that only front 0 dominates, and so on (`n`)."""
        losses, violations = self._losses, self._violations
        no_worse = (losses[:, None] <= losses[None]).all(axis=2)
        equal, less = violations[:, None] == violations, violations[:, None] < violations
        dominates = less | (equal & no_worse & ~no_worse.T)
        above = dominates.sum(axis=0)
        fronts = np.full(len(losses), -1.0)
        front = 0
        while (waiting := fronts < 0).any():
            now = waiting & (above == 0)
            fronts[now] = front
            above = above - dominates[now].sum(axis=0)
            front += 1
        return fronts

    @cached_property
    def apart(self) -> Vector:
        """How far each is from its neighbours in its front (`n`); infinite at the ends. Zero throughout beyond three objectives."""
        distances = np.zeros(len(self._losses))
        if self._losses.shape[1] > FEW:
            return distances
        for front in range(int(self.fronts.max(initial=-1)) + 1):
            members = np.flatnonzero(self.fronts == front)
            distances[members] = crowding(self._losses[members])
        return distances

    def best(self, size: int) -> Indices:
        """The best `size`, in the order of their indices: whole fronts, and of the last one those that keep the most room between them."""
        if len(self._losses) <= size:
            return np.arange(len(self._losses))
        order = np.sort(self.fronts)
        whole = np.flatnonzero(self.fronts < order[size])
        last = np.flatnonzero(self.fronts == order[size])
        wanted = size - len(whole)
        if self._losses.shape[1] > FEW:
            chosen = self._niched(whole, last, wanted)
        else:
            chosen = last[np.argsort(-self.apart[last], kind="stable")[:wanted]]
        return np.sort(np.concatenate([whole, chosen]))

    def _niched(self, whole: Indices, last: Indices, wanted: int) -> Indices:
        """Of the last front those nearest to the reference directions that have the fewest (Deb and Jain 2014, section IV)."""
        members = np.concatenate([whole, last])
        niches, distances = associate(self._losses[members], self._losses[self.fronts == 0])
        counts = np.bincount(niches[: len(whole)], minlength=niches.max() + 1)
        waiting = [len(whole) + place for place in np.argsort(distances[len(whole) :], kind="stable")]
        chosen = []
        for _ in range(wanted):
            place = min(waiting, key=lambda candidate: counts[niches[candidate]])
            waiting.remove(place)
            counts[niches[place]] += 1
            chosen.append(members[place])
        return np.array(chosen, dtype=np.intp)


def crowding(losses: Matrix) -> Vector:
    """The sum over the objectives of the gap between each one's neighbours, in units of the range (`n`); infinite at the ends."""
    distances = np.zeros(len(losses))
    for values in losses.T:
        order = np.argsort(values, kind="stable")
        ranked = values[order] / (np.abs(values).max() or 1.0)
        gaps = np.full(len(losses), np.inf)
        gaps[1:-1] = (ranked[2:] - ranked[:-2]) / (float(ranked[-1] - ranked[0]) or 1.0)
        distances[order] += gaps
    return distances


def associate(losses: Matrix, front: Matrix) -> tuple[Indices, Vector]:
    """The reference direction nearest to each of the losses (`n`), and the distance to it (`n`), in units of the front's range."""
    magnitude = np.abs(losses).max(axis=0)
    magnitude[magnitude == 0] = 1.0
    losses, front = losses / magnitude, front / magnitude
    ideal = losses.min(axis=0)
    span = front.max(axis=0) - ideal
    span[span < 1e-12] = 1.0
    scaled = (losses - ideal) / span
    directions = references(losses.shape[1])
    along = scaled @ directions.T
    squares = (scaled**2).sum(axis=1, keepdims=True) - along**2
    niches = squares.argmin(axis=1)
    return niches, np.sqrt(np.maximum(squares[np.arange(len(losses)), niches], 0.0))


def references(objectives: int) -> Matrix:
    """Directions (`r x m`) of length 1 that spread over the positive orthant: the simplex lattice of Das and Dennis (1998).

    Where a lattice with inner points would be too large, one on the faces and a smaller inner one stand for it (Deb and Jain 2014).
    """
    outer = _finest(objectives)
    points = [_lattice(objectives, outer)]
    if outer < objectives:
        inner = _lattice(objectives, max(outer - 1, 1))
        points.append(0.5 * inner + 0.5 / objectives)
    directions = np.vstack(points)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _finest(objectives: int) -> int:
    """The most divisions whose lattice has no more points than wanted."""
    divisions = 1
    while math.comb(objectives + divisions, divisions + 1) <= _REFERENCES:
        divisions += 1
    return divisions


def _lattice(objectives: int, divisions: int) -> Matrix:
    """Every point of the simplex whose coordinates are multiples of 1 / divisions."""
    return np.array(list(_compositions(objectives, divisions)), dtype=np.float64) / divisions


def _compositions(parts: int, total: int) -> Iterator[tuple[int, ...]]:
    for bars in combinations(range(total + parts - 1), parts - 1):
        edges = (-1, *bars, total + parts - 1)
        yield tuple(right - left - 1 for left, right in zip(edges, edges[1:], strict=False))
