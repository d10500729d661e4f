"""What the surrogate believes of configurations, given its hyper-parameters and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import blas, lapack

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Hyperparameters, Kernel, Layout, Matrix, Placed

_JITTERS = (0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1)
LEAST_VARIANCE = 1e-12
_FEW, _LARGE = 80, 4_000
"""Observations, and elements of a matrix, from which on a product with a triangle is worth its call: it takes half the arithmetic."""


@dataclass(frozen=True, slots=True)
class Belief:
    """Means (`m x s`, one column for each set of labels) and standard deviations (`m`) at `m` rows, with what their gradients take."""

    mean: Matrix
    deviation: Vector
    _posterior: Posterior
    _placed: Placed
    _slope: Matrix
    _solved: Matrix

    def gradient(self, by_mean: Matrix, by_deviation: Vector) -> Matrix:
        """The gradients (`m x D`) of a function of each row that has these derivatives by its mean (`m x s`) and its deviation (`m`)."""
        by_variance = by_deviation / (2.0 * self.deviation)
        weights = by_mean @ self._posterior.weights.T
        weights -= self._posterior.whitened(2.0 * by_variance[:, None] * self._solved, transposed=True)
        return self._posterior.kernel.gradient(self._placed, self._posterior.placed, self._slope, weights, by_variance)


class Posterior:
    """A Gaussian process given labels (`n`, or `n x s`: several sets with one variance) at feature rows (`n x D`).

    Their noise has the variance that was learned, plus what is known of each (`variances`, `n`).
    """

    def __init__(
        self,
        layout: Layout,
        hyper: Hyperparameters,
        *,
        inputs: Matrix,
        labels: Matrix | Vector,
        variances: Vector | None = None,
    ) -> None:
        self.layout, self.hyper, self.inputs = layout, hyper, inputs
        self.variances = np.zeros(len(inputs)) if variances is None else variances
        self.labels = labels.reshape(len(inputs), -1)
        self.kernel = Kernel(layout, hyper)
        self.placed = self.kernel.place(inputs)
        self._covariance = self.kernel.covariance(self.placed, self.placed)
        self._factor = _cholesky(self._covariance, hyper.noise + self.variances)
        self.weights, _ = lapack.dpotrs(self._factor, self.labels - hyper.mean, lower=1)
        self._known: tuple[Matrix, tuple[Matrix, Vector]] | None = None

    @cached_property
    def whitener(self) -> Matrix:
        """The inverse of the covariance's Cholesky factor (`n x n`)."""
        inverse: Matrix = lapack.dtrtri(self._factor, lower=1)[0]
        return inverse

    def whitened(self, rows: Matrix, *, transposed: bool = False) -> Matrix:
        """Rows (`m x n`) times the whitener's transpose; or, `transposed`, times the whitener itself."""
        if len(self.labels) < _FEW or rows.size < _LARGE:
            return rows @ (self.whitener if transposed else self.whitener.T)
        # The transpose of rows is in LAPACK's order as it is.
        product: Matrix = blas.dtrmm(1.0, self.whitener, rows.T, lower=1, trans_a=int(transposed)).T
        return product

    @property
    def innovations(self) -> Vector:
        """How far each label (`n`) of the first set is from what those before it foretell, in standard deviations, noise included."""
        innovations: Vector = self.whitener @ (self.labels[:, 0] - self.hyper.mean)
        return innovations

    @cached_property
    def means(self) -> Matrix:
        """The means at the inputs themselves (`n x s`)."""
        means: Matrix = self.hyper.mean + self._covariance @ self.weights
        return means

    def moments(self, rows: Matrix) -> tuple[Matrix, Vector]:
        """Means (`m x s`) and standard deviations (`m`) of the noise-free label at feature rows (`m x D`).

        Those of rows that cannot change are kept.
        """
        if self._known is not None and self._known[0] is rows:
            return self._known[1]
        placed = self.kernel.place(rows)
        cross = self.kernel.covariance(placed, self.placed)
        moments = self.hyper.mean + cross @ self.weights, self._deviation(placed, self.whitened(cross))
        if not rows.flags.writeable:
            self._known = rows, moments
        return moments

    def expect(self, rows: Matrix) -> Matrix:
        """The means alone."""
        expected: Matrix = self.hyper.mean + self.kernel.covariance(self.kernel.place(rows), self.placed) @ self.weights
        return expected

    def believe(self, rows: Matrix) -> Belief:
        """The same, ready for gradients."""
        placed = self.kernel.place(rows)
        cross, slope = self.kernel.covariance_with_slope(placed, self.placed)
        solved = self.whitened(cross)
        return Belief(
            self.hyper.mean + cross @ self.weights, self._deviation(placed, solved), self, placed, slope, solved
        )

    def sample(self, rows: Matrix, normals: Matrix) -> Matrix:
        """Joint draws of the noise-free labels at rows (`m x t`) for standard normal numbers of that shape; from the first set of labels."""
        placed = self.kernel.place(rows)
        cross = self.kernel.covariance(placed, self.placed)
        solved = self.whitened(cross)
        covariance = self.kernel.covariance(placed, placed) - solved @ solved.T
        mean = self.hyper.mean + cross @ self.weights[:, :1]
        draws: Matrix = mean + _cholesky(covariance, 1e-9) @ normals
        return draws

    def given(self, rows: Matrix, labels: Matrix) -> Posterior:
        """The posterior had labels (`m x s`) been observed at more rows; the first set of the present labels goes with each of them."""
        present = np.repeat(self.labels[:, :1], labels.shape[1], axis=1)
        return Posterior(
            self.layout,
            self.hyper,
            inputs=np.vstack([self.inputs, rows]),
            labels=np.vstack([present, labels]),
            variances=np.concatenate([self.variances, np.zeros(len(rows))]),
        )

    def leave_one_out(self) -> Vector:
        """Log densities (`n`) of the labels of the first set, each given all others (Sundararajan and Keerthi 2001)."""
        precision = (self.whitener * self.whitener).sum(axis=0)
        weights = self.weights[:, 0]
        return 0.5 * (np.log(precision) - weights * weights / precision - math.log(2.0 * math.pi))

    def left_out(self) -> tuple[Vector, Vector]:
        """Means and standard deviations (`n`) of the labels of the first set, noise included, each given all others.

        Equation 5.12 of Rasmussen and Williams (2006).
        """
        precision = (self.whitener * self.whitener).sum(axis=0)
        return self.labels[:, 0] - self.weights[:, 0] / precision, 1.0 / np.sqrt(precision)

    def _deviation(self, placed: Placed, solved: Matrix) -> Vector:
        variance = self.kernel.variances(placed) - (solved * solved).sum(axis=1)
        return np.sqrt(np.maximum(variance, LEAST_VARIANCE))


def _cholesky(covariance: Matrix, noise: float | Vector) -> Matrix:
    """The lower factor of the covariance with noise on its diagonal, and with as little more as it takes."""
    for jitter in _JITTERS:
        noisy = covariance.copy()
        noisy.flat[:: len(noisy) + 1] += noise + jitter
        factor, failed = lapack.dpotrf(noisy, lower=1, overwrite_a=1)
        if not failed:
            lower: Matrix = factor
            return lower
    raise ArithmeticError(f"the covariance of {len(covariance)} observations is not positive definite")
