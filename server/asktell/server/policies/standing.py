"""How trials stand against each other, with one objective or several: what evolution selects by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np

from asktell.server.domain.metric import OutcomeConstraint
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Indices, Mask, Matrix
from asktell.server.policies.labels import measured

BLOCK = 200
"""So many trials at a time compete with the survivors of those before: to sort n trials at once takes n²."""
FEW = 3
"""With more objectives than these nearly all trials are incomparable, and crowding tells little: reference directions take its place."""
_OFF = 5.0
_REFERENCES = 100
"""About how many reference directions there are."""


@dataclass(frozen=True, slots=True)
class Population:
    """Trials that others may descend from, the better ones first.

    `ranks` (`n`) is 0 for the best, and equal for those of which none is better. It never falls.
    """

    trials: tuple[Observation, ...]
    ranks: Indices

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
        losses = [
            objective.loss(1.0) * np.array([trial.metrics[objective.metric].value for trial in trials])
            for objective in request.objectives
        ]
        violations = np.zeros(len(trials))
        for constraint in request.outcome_constraints:
            violations += _violations(trials, constraint)
        return cls(np.stack(losses, axis=1), violations)

    @property
    def keys(self) -> Matrix:
        """What orders results of one objective, the smaller the better (`n x 2`): the violation, then the loss."""
        return np.stack([self.violations, self.losses[:, 0]], axis=1)

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
    useful = np.flatnonzero(measured(trials, request.objectives)).tolist()
    results = Results.of([trials[place] for place in useful], request)
    ranked = np.full(len(trials), float(len(trials)))
    several = len(request.objectives) > 1
    keys = Standing(results).keys if several else results.keys
    if len(useful):
        ranked[useful] = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return ranked


def population(request: SuggestRequest, size: int) -> Population:
    """The best trials of a study, at most `size`. Only trials with finite objectives are among them.

    Those that meet the constraints on metrics come first, then those that miss them least (Deb 2000). With several objectives, blocks of
    trials compete with the survivors of those before; where there are enough survivors, what one of them dominates does not.
    """
    useful = np.flatnonzero(measured(request.observations, request.objectives)).tolist()
    trials = sorted((request.observations[place] for place in useful), key=lambda trial: trial.number)
    results = Results.of(trials, request)
    if len(request.objectives) == 1:
        return _ordered(trials, results.keys, size)
    kept = np.arange(0)
    for start in range(0, len(trials), BLOCK):
        new = np.arange(start, min(start + BLOCK, len(trials)))
        if len(kept) == size:
            new = new[~dominating(results[kept], results[new]).any(axis=0)]
        rivals = np.concatenate([kept, new])
        kept = rivals[Standing(results[rivals]).best(size)]
    return _ordered([trials[place] for place in kept.tolist()], Standing(results[kept]).keys, size)


def _ordered(trials: Sequence[Observation], keys: Matrix, size: int) -> Population:
    """The first trials in the order of their keys (`n x 2`)."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))[:size]
    steps = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    return Population(
        tuple(trials[place] for place in order.tolist()), np.cumsum(np.append(False, steps))[: len(order)]
    )


class Standing:
    """Who dominates whom among some results, and who has more room: NSGA-II (Deb et al. 2002).

    Beyond three objectives, reference directions take the place of room, as in NSGA-III (Deb and Jain 2014); trials that are nearest to the
    same direction compete by how far they have come along it, as in θ-DEA (Yuan et al. 2016), lest there be no pressure towards the front.
    """

    def __init__(self, results: Results) -> None:
        self._results, self._losses = results, results.losses

    @cached_property
    def fronts(self) -> Vector:
        """The front of each: 0 for those that none dominates, 1 for those that only front 0 dominates, and so on (`n`)."""
        fronts, waiting = np.full(len(self._results), -1.0), np.arange(len(self._results))
        above, front = self._dominators(waiting, waiting), 0
        while len(waiting):
            first = above[waiting] == 0
            now, waiting = waiting[first], waiting[~first]
            fronts[now] = front
            above[waiting] -= self._dominators(now, waiting)
            front += 1
        return fronts

    def _dominators(self, some: Indices, others: Indices) -> Indices:
        """How many of some dominate each of others (`k`), in blocks: all at once take n² of memory."""
        counts = np.zeros(len(others), dtype=np.int64)
        for start in range(0, len(some), BLOCK):
            block = some[start : start + BLOCK]
            counts += dominating(self._results[block], self._results[others]).sum(axis=0)
        return counts

    @cached_property
    def keys(self) -> Matrix:
        """What orders them, the smaller the better (`n x 2`): the front, and in it the lack of room."""
        return np.stack([self.fronts, self._lack], axis=1)

    @cached_property
    def _lack(self) -> Vector:
        """In each one's front, how near its neighbours are; or how many trials of its direction are ahead of it (`n`)."""
        lack = np.zeros(len(self._losses))
        for front in range(int(self.fronts.max(initial=-1)) + 1):
            members = np.flatnonzero(self.fronts == front)
            if self._losses.shape[1] <= FEW:
                lack[members] = -crowding(self._losses[members])
            else:
                lack[members] = _places(*self._associated(members))
        return lack

    def _associated(self, members: Indices) -> tuple[Indices, Vector]:
        return associate(self._losses[members], self._losses[self.fronts == 0])

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
            chosen = last[np.argsort(self._lack[last], kind="stable")[:wanted]]
        return np.sort(np.concatenate([whole, chosen]))

    def _niched(self, whole: Indices, last: Indices, wanted: int) -> Indices:
        """Of the last front those of the reference directions that have the fewest, the farthest along each first."""
        niches, penalties = self._associated(np.concatenate([whole, last]))
        counts = np.bincount(niches[: len(whole)], minlength=niches.max() + 1)
        own, ahead = niches[len(whole) :], _places(niches[len(whole) :], penalties[len(whole) :])
        # Every direction gives its best, then its second best, and so on, those with the fewest before the others.
        return last[np.lexsort((penalties[len(whole) :], counts[own] + ahead))[:wanted]]


def dominating(some: Results, others: Results) -> Mask:
    """Which of some results dominate which of others (`n x k`)."""
    shape = (len(some), len(others))
    no_worse, better = np.ones(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    # One objective after another: this is what takes the time, and three dimensions would take many times as long.
    for one, other in zip(some.losses.T, others.losses.T, strict=True):
        no_worse &= one[:, None] <= other
        better |= one[:, None] < other
    equal, less = some.violations[:, None] == others.violations, some.violations[:, None] < others.violations
    dominates: Mask = less | (equal & no_worse & better)
    return dominates


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


def _places(niches: Indices, penalties: Vector) -> Vector:
    """How many of the same niche have a smaller penalty (`n`)."""
    order = np.lexsort((penalties, niches))
    ranked = niches[order]
    places = np.empty(len(niches))
    places[order] = np.arange(len(niches)) - np.searchsorted(ranked, ranked)
    return places


def associate(losses: Matrix, front: Matrix) -> tuple[Indices, Vector]:
    """The reference direction nearest to each of the losses (`n`), and a penalty (`n`): the way from the ideal point along it and, times five,
    off it, in units of the front's range (the penalty-based boundary intersection of Zhang and Li 2007).
    """
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
    own = np.arange(len(losses)), niches
    return niches, along[own] + _OFF * np.sqrt(np.maximum(squares[own], 0.0))


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
        yield tuple(right - left - 1 for left, right in pairwise(edges))
