"""Several posteriors in one computation: of few observations an array operation costs more than its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asktell.server.policies.kernel import Matrix, distances, matern, matern_with_slope, squares
from asktell.server.policies.posterior import LEAST_VARIANCE, Posterior

MOST = 256
"""Observations beyond which arithmetic takes the time, and copies would take memory."""

_CELLS = 25_600
"""Covariances computed at a time: all that comes of them stays in the cache."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Placed:
    """Feature rows (`m x D`), the same in units of each posterior's lengthscales (`p x m x D`), the squares of their norms (`p x m`), and each
    posterior's trend features (`m x 2D`), None where there is no trend.
    """

    rows: Matrix
    scaled: Array
    squares: Matrix
    trends: Sequence[Matrix | None]


@dataclass(frozen=True, slots=True)
class StackBelief:
    """As `Belief`, for each posterior: means (`p x m x s`) and standard deviations (`p x m`)."""

    mean: Array
    deviation: Matrix
    stack: Stack
    placed: _Placed
    slope: Array
    solved: Array

    def gradient(self, by_mean: Array, by_deviation: Matrix) -> Array:
        """The gradients (`p x m x D`) of a function of each row that has these derivatives (`p x m x s`, `p x m`)."""
        return self.stack.gradient(self, by_mean, by_deviation)


class Stack:
    """Posteriors with as many inputs (`n`) and sets of labels (`s`) each. What it says of each is what that would say."""

    def __init__(self, posteriors: Sequence[Posterior]) -> None:
        self._kernels = [each.kernel for each in posteriors]
        self._inverse = np.stack([each.kernel.inverse for each in posteriors])[:, None]
        self._scaled = np.stack([each.placed.scaled for each in posteriors])
        self._squares = np.stack([each.placed.squares for each in posteriors])
        self._trends = [each.placed.trend for each in posteriors]
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
        placed = self._place(rows)
        cross = self._with_trends(matern(self._distances(placed)), placed)
        solved = cross @ self._whiteners
        return self._prior_means + cross @ self._weights, self._deviations(placed, solved)

    def believe(self, rows: Matrix) -> StackBelief:
        """The same, ready for gradients."""
        placed = self._place(rows)
        correlation, slope = matern_with_slope(self._distances(placed))
        cross = self._with_trends(correlation, placed)
        solved = cross @ self._whiteners
        mean = self._prior_means + cross @ self._weights
        return StackBelief(mean, self._deviations(placed, solved.copy()), self, placed, slope, solved)

    def gradient(self, belief: StackBelief, by_mean: Array, by_deviation: Matrix) -> Array:
        """What the belief's `gradient` gives."""
        placed, by_variance = belief.placed, (by_deviation / (2.0 * belief.deviation))[..., None]
        weights = by_mean @ self._weights.swapaxes(1, 2)
        weights -= (2.0 * by_variance) * (belief.solved @ self._whiteners.swapaxes(1, 2))
        pull = weights * belief.slope
        result = (pull @ self._scaled - placed.scaled * np.add.reduce(pull, axis=-1)[..., None]) * self._inverse
        columns = placed.rows.shape[1]
        for place, (kernel, left, right) in enumerate(zip(self._kernels, placed.trends, self._trends, strict=True)):
            if kernel.trend is not None and left is not None and right is not None:
                steep = weights[place] @ right + 2.0 * by_variance[place] * left
                result[place] += kernel.trend.gradient(placed.rows, steep[:, :columns], steep[:, columns:])
        return result

    def _place(self, rows: Matrix) -> _Placed:
        scaled = rows * self._inverse
        return _Placed(rows, scaled, squares(scaled), [kernel.trended(rows) for kernel in self._kernels])

    def _distances(self, placed: _Placed) -> Array:
        return distances(placed.scaled, placed.squares, self._scaled, self._squares)

    def _with_trends(self, covariances: Array, placed: _Placed) -> Array:
        for place, (left, right) in enumerate(zip(placed.trends, self._trends, strict=True)):
            if left is not None and right is not None:
                covariances[place] += left @ right.T
        return covariances

    def _deviations(self, placed: _Placed, solved: Array) -> Matrix:
        """Standard deviations (`p x m`). What was solved is lost."""
        solved *= solved
        variances = -np.add.reduce(solved, axis=-1)
        for place, trend in enumerate(placed.trends):
            variances[place] += 1.0 if trend is None else 1.0 + np.add.reduce(trend * trend, axis=1)
        return np.sqrt(np.maximum(variances, LEAST_VARIANCE))
