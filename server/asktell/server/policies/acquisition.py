"""What a configuration promises: log expected improvement, averaged over models and fantasies, times the probability that it works."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx, log_ndtr

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.posterior import Posterior

_HALF_LOG_TWO_PI = math.log(2.0 * math.pi) / 2.0
_ROOT_HALF = math.sqrt(0.5)
_ROOT_HALF_PI = math.sqrt(math.pi / 2.0)
_FAR = -1e5
"""Below this the asymptotic expansion is exact in floating point, and the other one is not."""

Array = npt.NDArray[np.float64]


class Belief(Protocol):
    """What is believed at `m` rows: means (`m x s`), deviations (`m`), and the gradients of functions of them."""

    @property
    def mean(self) -> Matrix:
        """Means (`m x s`)."""
        ...

    @property
    def deviation(self) -> Vector:
        """Standard deviations (`m`)."""
        ...

    def gradient(self, by_mean: Matrix, by_deviation: Vector) -> Matrix:
        """The gradients (`m x D`) of a function of each row that has these derivatives."""
        ...


class Surrogate(Protocol):
    """What believes something of labels at feature rows (`m x D`)."""

    def moments(self, rows: Matrix) -> tuple[Matrix, Vector]:
        """Means (`m x s`) and standard deviations (`m`)."""
        ...

    def believe(self, rows: Matrix) -> Belief:
        """The same, ready for gradients."""
        ...


class Acquisition(Protocol):
    """A function of feature rows (`m x D`) to be maximised."""

    def __call__(self, rows: Matrix) -> Vector:
        """The values (`m`)."""
        ...

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        """The values and their gradients (`m x D`)."""
        ...


def log_improvement(units: Array) -> tuple[Array, Array]:
    """The logarithm of `phi(z) + z Phi(z)` for any `z`, without underflow (Ament et al. 2023, eq. 9), and its derivative."""
    log_density = -0.5 * units * units - _HALF_LOG_TWO_PI
    log_below = log_ndtr(units)
    near = units > -1.0
    if near.all():
        value = _near(units, log_density, log_below)
    elif near.any():
        value = np.where(near, _near(np.maximum(units, -1.0), log_density, log_below), _far(units, log_density))
    else:
        value = _far(units, log_density)
    return value, np.exp(log_below - value)


def _near(units: Array, log_density: Array, log_below: Array) -> Array:
    value: Array = np.log(np.exp(log_density) + units * np.exp(log_below))
    return value


def _far(units: Array, log_density: Array) -> Array:
    # 1 - |z| sqrt(pi/2) erfcx(|z| / sqrt(2)), which tends to 1 / z^2.
    below = np.minimum(units, -1.0)
    rest = 1.0 + below * _ROOT_HALF_PI * erfcx(below * -_ROOT_HALF)
    beyond = below < _FAR
    if beyond.any():
        rest = np.where(beyond, below**-2.0, rest)
    far: Array = log_density + np.log(rest)
    return far


@dataclass(frozen=True, slots=True)
class ExpectedImprovement:
    """LogEI (Ament et al. 2023) of labels below the incumbents (`s`), averaged over the posterior's sets of labels.

    Given the variance of a measurement's `noise`, it is not the label itself that improves but its posterior mean once it was measured there
    (Picheny et al. 2013, section 3.3, at the noise of one measurement): what noise would hide is worth nothing, and measuring again is
    worth what is still to be learned.

    Rows may have incumbents of their own (`m x s`). Of a stack of posteriors, with incumbents `p x 1 x s` or `p x m x s`, it is one for each:
    values `p x m`, gradients `p x m x D`.
    """

    posterior: Surrogate
    incumbents: Array
    noise: float = 0.0

    def __call__(self, rows: Matrix) -> Vector:
        mean, deviation = self.posterior.moments(rows)
        visible, _ = self._visible(deviation)
        values, _ = log_improvement((self.incumbents - mean) / visible[..., None])
        return log_mean(values) + np.log(visible)

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        belief = self.posterior.believe(rows)
        visible, steepness = self._visible(belief.deviation)
        units = (self.incumbents - belief.mean) / visible[..., None]
        values, slopes = log_improvement(units)
        total = log_mean(values)
        shares = np.exp(values - total[..., None]) / values.shape[-1]
        weighted = shares * slopes
        by_mean = -weighted / visible[..., None]
        by_visible = (1.0 - np.add.reduce(weighted * units, axis=-1)) / visible
        return total + np.log(visible), belief.gradient(by_mean, by_visible * steepness)

    def _visible(self, deviation: Vector) -> tuple[Vector, Vector | float]:
        """The standard deviations (`m`) that the means will have moved by after a measurement, and their slopes by the labels' own."""
        if not self.noise:
            return deviation, 1.0
        total = np.sqrt(deviation**2 + self.noise)
        share = deviation / total
        return deviation * share, share * (2.0 - share * share)


@dataclass(frozen=True, slots=True)
class Feasibility:
    """The log probability that a latent label is below a threshold, averaged over the posterior's sets of labels."""

    posterior: Posterior
    threshold: float

    def __call__(self, rows: Matrix) -> Vector:
        mean, deviation = self.posterior.moments(rows)
        return log_mean(log_ndtr((self.threshold - mean) / deviation[:, None]))

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        belief = self.posterior.believe(rows)
        units = (self.threshold - belief.mean) / belief.deviation[:, None]
        values = log_ndtr(units)
        total = log_mean(values)
        # Shares times the slopes of the logarithms: the densities over the probabilities' sum.
        slopes = np.exp(-0.5 * units * units - _HALF_LOG_TWO_PI - total[:, None]) / values.shape[1]
        by_mean = -slopes / belief.deviation[:, None]
        return total, belief.gradient(by_mean, (by_mean * units).sum(axis=1))


@dataclass(frozen=True, slots=True)
class Average:
    """The logarithm of the mean of the parts' exponentials, weighted by numbers whose mean is 1, given as logarithms (`p`)."""

    parts: Sequence[Acquisition]
    log_weights: Vector

    def __call__(self, rows: Matrix) -> Vector:
        return log_mean(np.stack([part(rows) for part in self.parts], axis=1) + self.log_weights)

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        values, gradients = zip(*(part.with_gradient(rows) for part in self.parts), strict=True)
        return _blended(np.stack(values, axis=1) + self.log_weights, np.stack(gradients))


@dataclass(frozen=True, slots=True)
class StackAverage:
    """The same of the improvements over a stack of posteriors."""

    parts: ExpectedImprovement
    log_weights: Vector

    def __call__(self, rows: Matrix) -> Vector:
        return log_mean(np.ascontiguousarray(self.parts(rows).T) + self.log_weights)

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        values, gradients = self.parts.with_gradient(rows)
        return _blended(np.ascontiguousarray(values.T) + self.log_weights, gradients)


def _blended(values: Matrix, gradients: Matrix) -> tuple[Vector, Matrix]:
    """The logarithm of the mean of exponentials (`m x p`), and its gradient from theirs (`p x m x D`)."""
    total = log_mean(values)
    shares = np.exp(values - total[:, None]) / values.shape[1]
    return total, np.einsum("mp,pmd->md", shares, gradients)


@dataclass(frozen=True, slots=True)
class Product:
    """The logarithm of one acquisition times another one to a power (of all rows or `m`), all of which are logarithms."""

    first: Acquisition
    second: Acquisition
    power: float | Array = 1.0

    def __call__(self, rows: Matrix) -> Vector:
        return self.first(rows) + self.power * self.second(rows)

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        value, gradient = self.first.with_gradient(rows)
        other, other_gradient = self.second.with_gradient(rows)
        return value + self.power * other, gradient + np.asarray(self.power)[..., None] * other_gradient


def log_mean(values: Array) -> Array:
    """Log of the mean of the exponentials over the last axis (`... x s`)."""
    if values.shape[-1] == 1:
        return values[..., 0]
    highest = np.maximum.reduce(values, axis=-1)
    total = np.add.reduce(np.exp(values - highest[..., None]), axis=-1)
    means: Array = highest + np.log(total / values.shape[-1])
    return means
