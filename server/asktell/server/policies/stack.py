"""Several posteriors in one computation: of few observations an array operation costs more than its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asktell.server.policies.kernel import Array, Kernel, Matrix, Placed, Trend, matern, matern_with_slope
from asktell.server.policies.posterior import LEAST_VARIANCE, Posterior

MOST = 256
"""Observations beyond which arithmetic takes the time, and copies would take memory."""

_CELLS = 25_600
"""Covariances computed at a time: all that comes of them stays in the cache."""


@dataclass(frozen=True, slots=True)
class StackBelief:
    """As `Belief`, for each posterior: means (`p x m x s`) and standard deviations (`p x m`)."""

    mean: Array
    deviation: Matrix
    stack: Stack
    rows: Matrix
    trends: Sequence[Matrix]
    slope: Array
    solved: Array

    def gradient(self, by_mean: Array, by_deviation: Matrix) -> Array:
        """The gradients (`p x m x D`) of a function of each row that has these derivatives (`p x m x s`, `p x m`)."""
        return self.stack.gradient(self, by_mean, by_deviation)


class Stack:
    """Posteriors with as many inputs (`n`) and sets of labels (`s`) each. What it says of each is what that would say.

    The squared distances of a row from the inputs, and a trend's covariances with them, are linear in the row's coordinates and their
    squares. So one product gives all of them: forms (`f x (1 + 2D) x n`), those of the distances first, then one for each trend.
    """

    def __init__(self, posteriors: Sequence[Posterior]) -> None:
        self._count = len(posteriors)
        self._inverse = np.stack([each.kernel.inverse for each in posteriors])[:, None]
        self._scaled = np.stack([each.placed.scaled for each in posteriors])
        # In which places there are trends, and the inputs' features.
        self._trends = [
            (place, each.kernel.trend, each.placed.trend)
            for place, each in enumerate(posteriors)
            if each.kernel.trend is not None and each.placed.trend is not None
        ]
        distances = [_distance_form(each.kernel, each.placed) for each in posteriors]
        self._forms = np.stack([*distances, *(_trend_form(trend, inputs) for _, trend, inputs in self._trends)])
        self._prior_means = np.array([each.hyper.mean for each in posteriors])[:, None, None]
        # As their posteriors have them in memory, column by column.
        self._weights = np.stack([each.weights.T for each in posteriors]).swapaxes(1, 2)
        self._whiteners = np.stack([each.whitener.T for each in posteriors])
        self._size = max(1, _CELLS // (len(posteriors) * len(posteriors[0].labels)))
        self._known: tuple[Matrix, tuple[Array, Matrix]] | None = None

    @staticmethod
    def fits(posteriors: Sequence[Posterior]) -> bool:
        """Whether posteriors can and should be stacked."""
        shapes = {each.labels.shape for each in posteriors}
        return len(posteriors) > 1 and len(shapes) == 1 and len(posteriors[0].labels) <= MOST

    def moments(self, rows: Matrix) -> tuple[Array, Matrix]:
        """Means (`p x m x s`) and standard deviations (`p x m`) at feature rows (`m x D`). Those of rows that cannot change are kept."""
        if self._known is not None and self._known[0] is rows:
            return self._known[1]
        parts = [self._moments(rows[start : start + self._size]) for start in range(0, max(len(rows), 1), self._size)]
        means, deviations = zip(*parts, strict=True)
        moments = np.concatenate(means, axis=1), np.concatenate(deviations, axis=1)
        if not rows.flags.writeable:
            self._known = rows, moments
        return moments

    def _moments(self, rows: Matrix) -> tuple[Array, Matrix]:
        distances, covariances = self._formed(rows)
        cross = self._with_trends(matern(distances), covariances)
        mean = self._prior_means + cross @ self._weights
        return mean, self._deviations(cross @ self._whiteners, self._trended(rows))

    def believe(self, rows: Matrix) -> StackBelief:
        """The same, ready for gradients."""
        distances, covariances = self._formed(rows)
        correlation, slope = matern_with_slope(distances)
        cross, trends = self._with_trends(correlation, covariances), self._trended(rows)
        solved = cross @ self._whiteners
        mean = self._prior_means + cross @ self._weights
        return StackBelief(mean, self._deviations(solved, trends), self, rows, trends, slope, solved)

    def gradient(self, belief: StackBelief, by_mean: Array, by_deviation: Matrix) -> Array:
        """What the belief's `gradient` gives."""
        by_solved = (by_deviation / belief.deviation)[..., None]
        weights = by_mean @ self._weights.swapaxes(1, 2)
        weights -= (by_solved * belief.solved) @ self._whiteners.swapaxes(1, 2)
        pull = weights * belief.slope
        result: Array = pull @ self._scaled
        result -= belief.rows * self._inverse * np.add.reduce(pull, axis=-1)[..., None]
        result *= self._inverse / 3.0
        for (place, trend, right), left in zip(self._trends, belief.trends, strict=True):
            steep = weights[place] @ right
            steep += by_solved[place] * left
            result[place] += trend.gradient(belief.rows, steep)
        return result

    def _formed(self, rows: Matrix) -> tuple[Array, Array]:
        """Squared distances (`p x m x n`) of rows from the inputs, and the trends' covariances with them."""
        columns = rows.shape[1]
        powers = np.empty((len(rows), 1 + 2 * columns))
        powers[:, 0] = 1.0
        powers[:, 1 : columns + 1] = rows
        np.multiply(rows, rows, out=powers[:, columns + 1 :])
        formed = powers @ self._forms
        distances = formed[: self._count]
        return np.maximum(distances, 0.0, out=distances), formed[self._count :]

    def _trended(self, rows: Matrix) -> list[Matrix]:
        """The features (`m x 2D`) of the trends."""
        return [trend.features(rows) for _, trend, _ in self._trends]

    def _with_trends(self, correlations: Array, covariances: Array) -> Array:
        for (place, _, _), own in zip(self._trends, covariances, strict=True):
            correlations[place] += own
        return correlations

    def _deviations(self, solved: Array, trends: Sequence[Matrix]) -> Matrix:
        """Standard deviations (`p x m`)."""
        variances = 1.0 - np.vecdot(solved, solved)
        for (place, _, _), trend in zip(self._trends, trends, strict=True):
            variances[place] += np.vecdot(trend, trend)
        return np.sqrt(np.maximum(variances, LEAST_VARIANCE))


def _distance_form(kernel: Kernel, inputs: Placed) -> Matrix:
    """The squared distances from inputs (`n`) as coefficients of 1, a row's coordinates and their squares (`(1 + 2D) x n`)."""
    linear = -2.0 * kernel.inverse * inputs.scaled
    squares = np.broadcast_to(kernel.inverse**2, linear.shape)
    return np.concatenate([inputs.squares[:, None], linear, squares], axis=1).T


def _trend_form(trend: Trend, inputs: Matrix) -> Matrix:
    """The trend's covariances with inputs, given their features (`n x 2D`), as such coefficients."""
    linear, quadratic = np.hsplit(inputs, 2)
    constant = linear @ trend.linear[0] + quadratic @ trend.quadratic[0]
    first = linear * trend.linear[1] + quadratic * trend.quadratic[1]
    return np.concatenate([constant[:, None], first, quadratic * trend.quadratic[2]], axis=1).T
