"""The covariance between configurations: Matérn-5/2 over all parameters at once, and for some models a smooth trend beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asktell.server.policies.columns import Vector

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

SQRT_HALF = math.sqrt(0.5)
SQRT_FIVE = math.sqrt(5.0)
"""So many of the units in which distances are measured here make a lengthscale: a Matérn-5/2 correlation is simplest in these."""
_CELLS = 8_192
"""Correlations computed at a time: intermediate results stay in the cache."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of feature rows (`n x D`) stand for.

    A number is one column, in [0, 1]. Names are one column for each name, `sqrt(1/2)` for the one that holds and 0 for the others, so that
    squared distances between two names are 1: the Hamming distance. `owners` (`D`) are the indices of the parameters, of which there are
    `dimensions`; `numeric` (`D`) tells numbers from names.
    """

    owners: Indices
    numeric: Mask
    dimensions: int


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What is fitted: lengthscales (`d`), the noise's variance and the mean, of standardised labels, and the trend's two variances, if any."""

    lengthscales: Vector
    noise: float
    mean: float
    trend: tuple[float, float] | None = None


def matern(squared: Matrix) -> Matrix:
    """Matérn-5/2 correlations of squared distances, which they take the place of (`... x n x m`)."""
    for some in _blocks(squared):
        # (1 + r + r^2 / 3) exp(-r), in few passes over memory.
        root = np.sqrt(some)
        np.divide(some, 3.0, out=some)
        np.add(some, root, out=some)
        np.add(some, 1.0, out=some)
        np.negative(root, out=root)
        np.multiply(some, np.exp(root, out=root), out=some)
    return squared


def matern_with_slope(squared: Matrix) -> tuple[Matrix, Matrix]:
    """Matérn-5/2 correlations of squared distances, which are lost, and minus six times their derivatives by the squared distance."""
    root = np.sqrt(squared)
    decay = np.negative(root)
    np.exp(decay, out=decay)
    root += 1.0
    root *= decay
    squared *= decay
    squared /= 3.0
    squared += root
    return squared, root


def by_lengthscales(pull: Matrix, rows: Matrix, inverse: Vector, layout: Layout) -> Vector:
    """Half the derivatives by each logarithm of a lengthscale (`d`) of covariances of rows (`n x D`), weighted.

    `pull` (`n x n`) is the weights times the slopes, `inverse` (`D`) what rows are multiplied by to measure distances.
    """
    columns = (pull.sum(axis=1) @ (rows * rows) - (rows * (pull @ rows)).sum(axis=0)) * (inverse**2 / 3.0)
    return np.bincount(layout.owners, columns, minlength=layout.dimensions).astype(np.float64, copy=False)


def squared_distances(left: Matrix, right: Matrix) -> Matrix:
    """Squared Euclidean distances between rows (`n x D`, `m x D`): `n x m`."""
    return distances(left, squares(left), right, squares(right))


def squares(rows: Matrix) -> Vector:
    """Squared norms of rows (`... x n x D`)."""
    norms: Vector = np.add.reduce(rows * rows, axis=-1)
    return norms


def distances(left: Matrix, left_squares: Vector, right: Matrix, right_squares: Vector) -> Matrix:
    """Squared distances (`... x n x m`) between rows (`... x n x D`, `... x m x D`) whose squared norms are known."""
    squared = (-2.0 * left) @ right.swapaxes(-1, -2)
    squared += left_squares[..., None]
    squared += right_squares[..., None, :]
    return np.maximum(squared, 0.0, out=squared)


def _blocks(matrix: Matrix) -> Iterator[Matrix]:
    """Parts of a matrix (`... x n x m`) that fit into a processor's cache, as views."""
    rows = matrix.reshape(-1) if matrix.flags.c_contiguous else matrix
    size = max(1, _CELLS // max(rows[:1].size, 1))
    return (rows[start : start + size] for start in range(0, len(rows), size))


@dataclass(frozen=True, slots=True)
class Trend:
    """Legendre polynomials of degree 1 and 2 in every number, and a level for every name: features whose weights are unknown.

    A Gaussian process with them extrapolates the valley that most tuning problems are, where a stationary one falls back to its mean.
    `linear` and `quadratic` (`3 x D`) are the polynomials' coefficients of 1, x and x squared.
    """

    linear: Matrix
    quadratic: Matrix

    @classmethod
    def of(cls, layout: Layout, variances: tuple[float, float] = (1.0, 1.0)) -> Trend:
        """The polynomials, scaled so that inner products of their values are the trend's covariance."""
        numeric = layout.numeric
        zeros = np.zeros(len(numeric))
        linear = np.stack(
            [np.where(numeric, -math.sqrt(3.0), 0.0), np.where(numeric, 2.0 * math.sqrt(3.0), math.sqrt(2.0)), zeros]
        )
        quadratic = math.sqrt(5.0) * np.where(numeric, np.array([[1.0], [-6.0], [6.0]]), 0.0)
        return cls(math.sqrt(variances[0]) * linear, math.sqrt(variances[1]) * quadratic)

    def features(self, rows: Matrix) -> Matrix:
        """The features of rows (`n x D`), the linear ones first (`n x 2D`)."""
        count, columns = rows.shape
        features = np.empty((count, 2 * columns))
        linear, quadratic = features[:, :columns], features[:, columns:]
        np.multiply(rows, self.linear[1], out=linear)
        linear += self.linear[0]
        np.multiply(rows, self.quadratic[2], out=quadratic)
        quadratic += self.quadratic[1]
        quadratic *= rows
        quadratic += self.quadratic[0]
        return features

    def gradient(self, rows: Matrix, weights: Matrix) -> Matrix:
        """The derivatives by the rows (`n x D`) of the features' sum, weighted (`n x 2D`)."""
        columns = rows.shape[1]
        gradient = rows * (2.0 * self.quadratic[2])
        gradient += self.quadratic[1]
        gradient *= weights[:, columns:]
        gradient += weights[:, :columns] * self.linear[1]
        return gradient


class Kernel:
    """The covariance of feature rows under given hyper-parameters."""

    def __init__(self, layout: Layout, hyper: Hyperparameters) -> None:
        self.trend = None if hyper.trend is None else Trend.of(layout, hyper.trend)
        self.inverse = SQRT_FIVE / hyper.lengthscales[layout.owners]

    def place(self, rows: Matrix) -> Placed:
        """Rows made ready for covariances."""
        scaled = rows * self.inverse
        return Placed(rows, scaled, squares(scaled), self.trended(rows))

    def trended(self, rows: Matrix) -> Matrix | None:
        """The trend's features of rows, the linear ones first (`n x 2D`); None if there is no trend."""
        return None if self.trend is None else self.trend.features(rows)

    @staticmethod
    def covariance(left: Placed, right: Placed) -> Matrix:
        """Covariances (`n x m`)."""
        return _add_trend(matern(_distances(left, right)), left, right)

    @staticmethod
    def covariance_with_slope(left: Placed, right: Placed) -> tuple[Matrix, Matrix]:
        """Covariances, and the slopes that `gradient` needs (`n x m` each)."""
        correlation, slope = matern_with_slope(_distances(left, right))
        return _add_trend(correlation, left, right), slope

    @staticmethod
    def variances(rows: Placed) -> Vector:
        """Prior variances (`n`)."""
        ones = np.ones(len(rows.scaled))
        return ones if rows.trend is None else ones + (rows.trend * rows.trend).sum(axis=1)

    def gradient(self, left: Placed, right: Placed, slope: Matrix, weights: Matrix, self_weights: Vector) -> Matrix:
        """Derivatives by the left rows (`n x D`) of `sum(weights * covariance) + sum(self_weights * variances)`.

        Weights are `n x m`, those of the rows' own variances `n`.
        """
        pull = weights * slope
        result = (pull @ right.scaled - left.scaled * pull.sum(axis=1)[:, None]) * (self.inverse / 3.0)
        if left.trend is not None and right.trend is not None and self.trend is not None:
            steep = weights @ right.trend + 2.0 * self_weights[:, None] * left.trend
            result += self.trend.gradient(left.rows, steep)
        return result


@dataclass(frozen=True, slots=True)
class Placed:
    """Feature rows (`n x D`), the same in units of the lengthscales by `SQRT_FIVE`, the squares of their norms (`n`), and their weighted
    trend features (`n x 2D`), if there is a trend.
    """

    rows: Matrix
    scaled: Matrix
    squares: Vector
    trend: Matrix | None


def _distances(left: Placed, right: Placed) -> Matrix:
    return distances(left.scaled, left.squares, right.scaled, right.squares)


def _add_trend(covariance: Matrix, left: Placed, right: Placed) -> Matrix:
    if left.trend is not None and right.trend is not None:
        covariance += left.trend @ right.trend.T
    return covariance
