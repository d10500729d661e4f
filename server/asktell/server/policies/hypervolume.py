"""What a configuration promises with several objectives: the log of the expected hypervolume that it adds to the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from asktell.server.policies.acquisition import Belief, log_improvement, log_mean
from asktell.server.policies.boxes import boxes
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.kernel import Array, Indices, Matrix
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.transfer import Transferred

_CELLS = 500_000
"""So many boxes are integrated over, and covariances computed, between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What is believed of one objective: posteriors of labels in one unit, weighted by numbers whose mean is 1, given as logarithms (`j`)."""

    posteriors: tuple[Posterior | Transferred, ...]
    log_weights: Vector

    @property
    def shares(self) -> Vector:
        """The weights, so that they sum to 1 (`j`)."""
        shares: Vector = np.exp(self.log_weights) / len(self.log_weights)
        return shares / shares.sum()

    @property
    def ways(self) -> int:
        """How many sets of labels the posteriors have (`s`)."""
        return int(self.posteriors[0].means.shape[1])

    def means(self, places: Matrix | None = None) -> Matrix:
        """The means at the inputs, which all posteriors have in common (`n x s`), or at other places (`m x D`)."""
        if places is None:
            return self._mean([posterior.means for posterior in self.posteriors])
        return self._mean([posterior.expect(places) for posterior in self.posteriors])

    def imagining(self, rows: Matrix, normals: Matrix) -> Mixture:
        """The belief after pending trials (`p x D`) have ended in as many ways as there are columns of normal numbers (`p x s`)."""
        draws = self._mean([posterior.sample(rows, normals) for posterior in self.posteriors])
        return Mixture(tuple(posterior.given(rows, draws) for posterior in self.posteriors), self.log_weights)

    def _mean(self, values: Sequence[Matrix]) -> Matrix:
        mean: Matrix = np.tensordot(self.shares, np.stack(values), axes=1)
        return mean


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes that fill what is yet to be won in each of `s` cases: `levels` are their corners' coordinates in each objective (`s x l`, the
    first -inf), `lower` and `upper` which of the levels each box lies between (`s x c`). An empty box is between -inf and -inf.
    """

    levels: tuple[Matrix, ...]
    lower: tuple[Indices, ...]
    upper: tuple[Indices, ...]

    @classmethod
    def beyond(cls, fronts: Sequence[Matrix], reference: Vector) -> Boxes:
        """Those that the fronts (`n x m` each) leave below the reference (`m`)."""
        corners = [boxes(front, reference) for front in fronts]
        columns = [_indexed([(lower[:, k], upper[:, k]) for lower, upper in corners]) for k in range(len(reference))]
        levels, lower, upper = zip(*columns, strict=True)
        return cls(levels, lower, upper)

    @property
    def count(self) -> int:
        """How many there are in all cases together."""
        return self.lower[0].size


def _indexed(intervals: Sequence[tuple[Vector, Vector]]) -> tuple[Matrix, Indices, Indices]:
    """The distinct ends of each case's intervals, and the intervals by them, padded to equal lengths."""
    levels = [np.unique(np.concatenate([[-np.inf], *ends])) for ends in intervals]
    most, longest = max(map(len, levels)), max(len(lower) for lower, _ in intervals)
    padded = np.full((len(intervals), most), -np.inf)
    indices = np.zeros((2, len(intervals), longest), dtype=np.intp)
    for case, (known, ends) in enumerate(zip(levels, intervals, strict=True)):
        padded[case, : len(known)] = known
        for side, values in enumerate(ends):
            indices[side, case, : len(values)] = np.searchsorted(known, values)
    return padded, indices[0], indices[1]


@dataclass(frozen=True, slots=True)
class HypervolumeImprovement:
    """The log of the expected hypervolume improvement, exact for independent objectives, averaged over the posteriors' sets of labels.

    Over a box the expectation is a product of one integral for each objective, the difference of two expected improvements (Emmerich et al.
    2011; Yang et al. 2019); each is averaged over the objective's posteriors, and all is summed in logarithms, as Ament et al. (2023) do.
    """

    objectives: tuple[Mixture, ...]
    boxes: Boxes
    deadline: Deadline = NEVER

    def __call__(self, rows: Matrix) -> Vector:
        """The values (`m`); minus infinity where time did not suffice."""
        inputs = sum(len(posterior.inputs) for mixture in self.objectives for posterior in mixture.posteriors)
        size, values = max(1, _CELLS // max(self.boxes.count, inputs)), np.full(len(rows), -np.inf)
        for start in range(0, len(rows), size):
            some = slice(start, start + size)
            values[some] = self._value(rows[some])
            if self.deadline.passed:
                break
        return values

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        beliefs = [[posterior.believe(rows) for posterior in mixture.posteriors] for mixture in self.objectives]
        sides = [
            [self._side(index, belief.mean, belief.deviation) for belief in given]
            for index, given in enumerate(beliefs)
        ]
        factors = [self._mixed(index, [side.factor for side in given]) for index, given in enumerate(sides)]
        logs = sum(factors[1:], start=factors[0])
        total = _log_sum(logs)
        shares = np.exp(logs - total[:, None, None])
        gradient = np.zeros_like(rows)
        for index, given in enumerate(sides):
            weights = self.objectives[index].log_weights - np.log(len(given))
            for side, belief, weight in zip(given, beliefs[index], weights, strict=True):
                part = shares * _finite_exp(side.factor + weight - factors[index])
                gradient += side.gradient(belief, part)
        return total - np.log(len(self.boxes.lower[0])), gradient

    def _value(self, rows: Matrix) -> Vector:
        logs: Array = np.zeros(1)
        for index, mixture in enumerate(self.objectives):
            moments = [posterior.moments(rows) for posterior in mixture.posteriors]
            logs = logs + self._mixed(index, [self._side(index, *each).factor for each in moments])
        return _log_sum(logs) - np.log(len(self.boxes.lower[0]))

    def _mixed(self, index: int, factors: Sequence[Array]) -> Array:
        """The log of the weighted mean of the posteriors' integrals over each box (`m x s x c`)."""
        weights = self.objectives[index].log_weights - np.log(len(factors))
        total = factors[0] + weights[0]
        for factor, weight in zip(factors[1:], weights[1:], strict=True):
            total = np.logaddexp(total, factor + weight)
        return total

    def _side(self, index: int, mean: Matrix, deviation: Vector) -> _Side:
        return _Side.of(self.boxes.levels[index], self.boxes.lower[index], self.boxes.upper[index], mean, deviation)


@dataclass(frozen=True, slots=True)
class _Side:
    """One objective's integrals over the boxes, under one posterior: the logs of `E[(u - y)+] - E[(l - y)+]` (`m x s x c`)."""

    factor: Array
    units: Array
    lower: Indices
    upper: Indices

    @classmethod
    def of(cls, levels: Matrix, lower: Indices, upper: Indices, mean: Matrix, deviation: Vector) -> _Side:
        units = (levels - mean[:, :, None]) / deviation[:, None, None]
        # What the -inf level yields has no part in any sum.
        values, _ = log_improvement(np.maximum(units, -1e100))
        gains = np.where(np.isinf(levels), -np.inf, values + np.log(deviation)[:, None, None])
        cases = np.arange(len(levels))[:, None]
        return cls(_log_difference(gains[:, cases, upper], gains[:, cases, lower]), units, lower, upper)

    def gradient(self, belief: Belief, shares: Array) -> Matrix:
        """The gradient of the sum of these factors, weighted by shares of the total."""
        cases = np.arange(len(self.lower))[:, None]
        below, density = log_ndtr(self.units), -0.5 * self.units * self.units - 0.5 * np.log(2.0 * np.pi)

        def slope(logs: Array) -> Array:
            at_upper = np.exp(logs[:, cases, self.upper] - self.factor)
            at_lower = np.exp(logs[:, cases, self.lower] - self.factor)
            return np.where(shares > 0.0, shares * (at_upper - at_lower), 0.0).sum(axis=2)

        return belief.gradient(-slope(below), slope(density).sum(axis=1))


def _log_difference(larger: Array, smaller: Array) -> Array:
    """The log of the difference of two exponentials, -inf where there is none."""
    ratio = -np.expm1(np.minimum(smaller - larger, 0.0))
    return np.where((larger > smaller) & (ratio > 0.0), larger + np.log(np.maximum(ratio, 1e-300)), -np.inf)


def _finite_exp(logs: Array) -> Array:
    return np.where(np.isfinite(logs), np.exp(logs), 0.0)


def _log_sum(logs: Array) -> Vector:
    """Log of the sum of the exponentials over all but the first axis."""
    flat = logs.reshape(len(logs), -1)
    return log_mean(flat) + np.log(flat.shape[1])
