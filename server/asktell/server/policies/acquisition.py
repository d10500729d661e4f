"""What a configuration promises: log expected improvement, averaged over models and fantasies, times the probability that it works."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Array, Matrix
from asktell.server.policies.posterior import Posterior

_HALF_LOG_TWO_PI = math.log(2.0 * math.pi) / 2.0
_DENSEST = 1.0 / math.sqrt(2.0 * math.pi)
_ROOT_HALF = math.sqrt(0.5)
_ROOT_HALF_PI = math.sqrt(math.pi / 2.0)
_FAR = -1e5
"""Below this the asymptotic expansion is exact in floating point, and the other one is not."""


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
    near = units > -1.0
    if near.all():
        return _near(units)
    if not near.any():
        return _far(units)
    value, slope = _near(np.maximum(units, -1.0))
    far, far_slope = _far(np.minimum(units, -1.0))
    return np.where(near, value, far), np.where(near, slope, far_slope)


def _near(units: Array) -> tuple[Array, Array]:
    below = ndtr(units)
    improvement = _DENSEST * np.exp(-0.5 * units * units) + units * below
    return np.log(improvement), below / improvement


def _far(units: Array) -> tuple[Array, Array]:
    # Mills' ratio Phi / phi; 1 - |z| times it tends to 1 / z^2.
    ratio = _ROOT_HALF_PI * erfcx(units * -_ROOT_HALF)
    rest = 1.0 + units * ratio
    beyond = units < _FAR
    if beyond.any():
        rest = np.where(beyond, units**-2.0, rest)
    return np.log(rest) - 0.5 * units * units - _HALF_LOG_TWO_PI, ratio / rest


@dataclass(frozen=True, slots=True)
class ExpectedImprovement:
    """LogEI (Ament et al. 2023) of labels below the incumbents (`s`), averaged over the posterior's sets of labels.

    Given the variance of a measurement's `noise`, it is not the label itself that improves but its posterior mean once it was measured there
    (Picheny et al. 2013, section 3.3, at the noise of one measurement): what noise would hide is worth nothing, and measuring again is
    worth what is still to be learned.

    The posterior's deviations are multiplied by `widening`. Rows may have incumbents of their own (`m x s`). Of a stack of posteriors, with
    incumbents `p x 1 x s` or `p x m x s` and a widening `p x 1`, it is one for each: values `p x m`, gradients `p x m x D`.
    """

    posterior: Surrogate
    incumbents: Array
    noise: float = 0.0
    widening: float | Array = 1.0

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
        weighted = slopes
        if values.shape[-1] > 1:
            weighted = slopes * np.exp(values - total[..., None]) / values.shape[-1]
        by_mean = -weighted / visible[..., None]
        by_visible = (1.0 - np.add.reduce(weighted * units, axis=-1)) / visible
        return total + np.log(visible), belief.gradient(by_mean, by_visible * steepness)

    def _visible(self, deviation: Vector) -> tuple[Vector, Array | float]:
        """The standard deviations (`m`) that the means will have moved by after a measurement, and their slopes by the posterior's."""
        wide = deviation * self.widening
        if not self.noise:
            return wide, self.widening
        total = np.sqrt(wide**2 + self.noise)
        share = wide / total
        return wide * share, self.widening * share * (2.0 - share * share)


@dataclass(frozen=True, slots=True)
class Feasibility:
    """The log probability that a latent label, or with `noise`, its variance, a measured one, is below a threshold, averaged over the
    posterior's sets of labels.
    """

    posterior: Posterior
    threshold: float
    noise: float = 0.0

    def __call__(self, rows: Matrix) -> Vector:
        mean, deviation = self.posterior.moments(rows)
        return log_mean(log_ndtr((self.threshold - mean) / self._spread(deviation)[:, None]))

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        belief = self.posterior.believe(rows)
        spread = self._spread(belief.deviation)
        units = (self.threshold - belief.mean) / spread[:, None]
        values = log_ndtr(units)
        total = log_mean(values)
        # Shares times the slopes of the logarithms: the densities over the probabilities' sum.
        slopes = np.exp(-0.5 * units * units - _HALF_LOG_TWO_PI - total[:, None]) / values.shape[1]
        by_mean = -slopes / spread[:, None]
        by_spread = (by_mean * units).sum(axis=1)
        return total, belief.gradient(by_mean, by_spread * belief.deviation / spread)

    def _spread(self, deviation: Vector) -> Vector:
        return np.sqrt(deviation**2 + self.noise) if self.noise else deviation


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
        total: Vector = np.logaddexp.reduce(self._shared(self.parts(rows)), axis=0)
        return total

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        values, gradients = self.parts.with_gradient(rows)
        shared = self._shared(values)
        total = np.logaddexp.reduce(shared, axis=0)
        return total, np.einsum("pm,pmd->md", np.exp(shared - total), gradients)

    def _shared(self, values: Matrix) -> Matrix:
        """The logarithms (`p x m`) of what the parts add to the mean."""
        return values + (self.log_weights - math.log(len(self.log_weights)))[:, None]


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
