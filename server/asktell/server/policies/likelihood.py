"""Hyper-parameters of the surrogate: the most probable ones, given labels and priors (MAP)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import OptimizeResult, minimize

from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.kernel import (
    SQRT_FIVE,
    Hyperparameters,
    Layout,
    Matrix,
    Trend,
    by_lengthscales,
    distances,
    matern_with_slope,
)
from asktell.server.policies.labels import Noise

_LENGTHSCALES = (math.log(5e-3), 7.0)
_NOISES = (math.log(1e-6), 1.0)
_MEANS = (-10.0, 10.0)
_TRENDS = (-12.0, 3.0)
_STEPS = 60
_HOPELESS = 1e10
_LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A prior density of a positive number, given its logarithm."""

    location: float
    scale: float

    @property
    def log_mode(self) -> float:
        """The logarithm of the most probable number."""
        return self.location - self.scale**2


@dataclass(frozen=True, slots=True)
class Normal:
    """A prior density of a number."""

    location: float
    scale: float


NOISE_PRIOR = LogNormal(-4.0, 1.0)
EXTRA_NOISE_PRIOR = LogNormal(-9.0, 2.0)
"""Of what comes on top where all standard errors are known: its mode is at the floor."""
TREND_PRIOR = Normal(-4.0, 1.5)
"""Of the logarithms of the trend's variances."""


def noise_prior(known: Noise | None) -> LogNormal:
    """The prior of the learned noise beside what is known."""
    return EXTRA_NOISE_PRIOR if known is not None and known.complete else NOISE_PRIOR


def lengthscale_prior(dimensions: int) -> LogNormal:
    """The dimension-scaled prior of Hvarfner et al. (2024)."""
    return LogNormal(math.sqrt(2.0) + math.log(dimensions) / 2.0, math.sqrt(3.0))


class Likelihood:
    """The hyper-parameters' negative log posterior, per observation, for feature rows (`n x D`) and standardised labels (`n`).

    Some of their noise may be known. It is a function of log lengthscales (`d`), log noise, mean and, with a trend, two log variances: in
    log space the climb takes a tenth of the steps. One Cholesky factor and one inverse give the value and all the derivatives.
    """

    def __init__(
        self, inputs: Matrix, labels: Vector, layout: Layout, *, noise: Noise | None = None, trend: bool = False
    ) -> None:
        self._inputs, self._labels, self._layout = inputs, labels, layout
        self._variances = 0.0 if noise is None else noise.variances
        self._squares = inputs * inputs
        self._priors = _Priors.of(layout.dimensions, noise_prior(noise), trend=trend)
        parts = np.hsplit(Trend.of(layout).features(inputs), 2) if trend else ()
        self._trend = [part @ part.T for part in parts]

    def __call__(self, point: Vector) -> tuple[float, Vector]:
        """The value and its gradient at a point (`d + 2` or `d + 4`); hopeless where the covariance is not positive definite."""
        size, count = self._layout.dimensions, len(self._labels)
        inverse = SQRT_FIVE * np.exp(-point[:size])[self._layout.owners]
        scaled = self._inputs * inverse
        norms = self._squares @ inverse**2
        covariance, slope = matern_with_slope(distances(scaled, norms, scaled, norms))
        noise = math.exp(point[size])
        covariance.flat[:: count + 1] += noise + self._variances
        self._add_trend(covariance, point[size + 2 :])
        factor, failed = lapack.dpotrf(covariance, lower=1, overwrite_a=1)
        if failed:
            return _HOPELESS, np.zeros_like(point)
        residuals = self._labels - point[size + 1]
        weights, _ = lapack.dpotrs(factor, residuals, lower=1)
        evidence = -0.5 * residuals @ weights - np.log(factor.diagonal()).sum() - 0.5 * count * _LOG_TWO_PI
        gradient = np.empty_like(point)
        pull = np.multiply.outer(weights, weights)
        _subtract_inverse(pull, factor)
        gradient[size] = 0.5 * noise * pull.diagonal().sum()
        gradient[size + 1] = weights.sum()
        gradient[size + 2 :] = self._trend_gradient(pull, point[size + 2 :])
        pull *= slope
        gradient[:size] = by_lengthscales(pull, self._inputs, inverse, self._layout)
        prior, prior_gradient = self._priors.log_density(point)
        return -(evidence + prior) / count, -(gradient + prior_gradient) / count

    def _add_trend(self, covariance: Matrix, logarithms: Vector) -> None:
        for variance, part in zip(np.exp(logarithms), self._trend, strict=True):
            covariance += variance * part

    def _trend_gradient(self, pull: Matrix, logarithms: Vector) -> Sequence[float]:
        parts = zip(np.exp(logarithms), self._trend, strict=True)
        return [0.5 * variance * float(np.vdot(pull, part)) for variance, part in parts]


@dataclass(frozen=True, slots=True)
class _Priors:
    """The priors of all coordinates of a point: normal with these locations and inverse scales, and, as those of numbers given by their
    logarithms are, times an exponential of `shares` of them (`k` each). The mean's is flat.
    """

    locations: Vector
    precisions: Vector
    shares: Vector
    constant: float

    @classmethod
    def of(cls, dimensions: int, noise: LogNormal, *, trend: bool) -> _Priors:
        """The priors of lengthscales, noise, mean and, with a trend, its variances."""
        scaled = [lengthscale_prior(dimensions)] * dimensions
        told: list[LogNormal | Normal | None] = [*scaled, noise, None, *[TREND_PRIOR] * (2 * trend)]
        return cls(
            np.array([0.0 if each is None else each.location for each in told]),
            np.array([0.0 if each is None else 1.0 / each.scale for each in told]),
            np.array([float(isinstance(each, LogNormal)) for each in told]),
            sum(math.log(each.scale) + _LOG_TWO_PI / 2.0 for each in told if each is not None),
        )

    def log_density(self, point: Vector) -> tuple[float, Vector]:
        """The log density and its derivatives."""
        units = (point - self.locations) * self.precisions
        return -float(units @ units / 2.0 + self.shares @ point + self.constant), -units * self.precisions - self.shares


def _subtract_inverse(matrix: Matrix, factor: Matrix) -> None:
    """Subtract the inverse of the matrix that has this lower Cholesky factor."""
    # LAPACK leaves zeros above the diagonal.
    lower, _ = lapack.dpotri(factor, lower=1)
    matrix -= lower
    matrix -= lower.T
    matrix.flat[:: len(matrix) + 1] += lower.diagonal()


def fit(
    inputs: Matrix,
    labels: Vector,
    layout: Layout,
    *,
    deadline: Deadline,
    noise: Noise | None = None,
    starts: Sequence[Vector] = (),
    trend: bool = False,
) -> Vector:
    """The best point that L-BFGS reaches from the starts, by default those of the prior. At the deadline it is the best so far."""
    likelihood = Likelihood(inputs, labels, layout, noise=noise, trend=trend)
    bounds = limits(layout.dimensions, trend=trend)
    best: OptimizeResult | None = None
    for start in starts or prior_starts(layout.dimensions, noise=noise, trend=trend):
        found = minimize(
            likelihood,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            callback=stop_at(deadline),
            options={"maxiter": _STEPS, "ftol": 1e-6, "gtol": 1e-3},
        )
        if best is None or found.fun < best.fun - 1e-6:
            best = found
        if deadline.passed:
            break
    if best is None:
        raise ValueError("no start led to hyper-parameters")
    point: Vector = best.x
    return point


def limits(dimensions: int, *, trend: bool = False) -> list[tuple[float, float]]:
    """Between which values each coordinate of the likelihood's points may be."""
    return [_LENGTHSCALES] * dimensions + [_NOISES, _MEANS] + [_TRENDS] * (2 * trend)


def unpack(point: Vector, layout: Layout) -> Hyperparameters:
    """The hyper-parameters at a point of the likelihood."""
    size = layout.dimensions
    trend = tuple(np.exp(point[size + 2 :]).tolist()) or None
    return Hyperparameters(np.exp(point[:size]), math.exp(point[size]), float(point[size + 1]), trend)


def prior_starts(dimensions: int, *, noise: Noise | None = None, trend: bool = False) -> Iterator[Vector]:
    """The mode of the prior, and longer lengthscales with more noise: one likelihood in nine has a second peak there."""
    quiet = max(noise_prior(noise).log_mode, _NOISES[0])
    yield np.array(
        [lengthscale_prior(dimensions).log_mode] * dimensions + [quiet, 0.0] + [TREND_PRIOR.location] * (2 * trend)
    )
    yield np.array([math.log(dimensions) / 2.0] * dimensions + [-3.0, 0.0] + [TREND_PRIOR.location + 2.0] * (2 * trend))


def stop_at(deadline: Deadline) -> Callable[[Vector], None]:
    """A callback that ends SciPy's `minimize` at the deadline."""

    def check(_: Vector) -> None:
        if deadline.passed:
            raise StopIteration

    return check
