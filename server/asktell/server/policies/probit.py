"""Gaussian process classification: where trials fail, by expectation propagation (Rasmussen and Williams 2006, section 3.6).

A latent function, a Gaussian process with the kernel of `kernel.py`, is positive where trials fail, but for chance: a trial fails with the
probability `Phi(f / s)`, where `s` squared is the variance of chance, the least there is where failures are none of it. What is known of
the function from so many yes and no is approximated by what a Gaussian process knows that was told labels of its own noise each, the sites:
with these it is a `Posterior` like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr

from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.kernel import (
    SQRT_FIVE,
    Hyperparameters,
    Kernel,
    Layout,
    Mask,
    Matrix,
    by_lengthscales,
    distances,
    matern_with_slope,
)
from asktell.server.policies.likelihood import Normal, stop_at
from asktell.server.policies.posterior import Posterior

_LENGTHSCALE = 0.35
"""The prior's median lengthscale, where the diagonal of the unit cube is 1,"""
_SPREAD = 1.0
"""and how far, as a logarithm, lengthscales are from it: a region may be any, or lie along some parameters only."""
_CHANCE = Normal(math.log(0.1), 2.5)
"""Of the logarithm of the variance of chance: sharp edges, and failures by chance, are both common."""
_MEAN = Normal(1.3, 0.5)
"""Of the number whose normal distribution function is the probability to work far from all trials: nine tenths, more or less."""
_LEAST_CHANCE = math.log(1e-3)
_BOUNDS = ((math.log(5e-3), 7.0), (_LEAST_CHANCE, math.log(100.0)), (-2.0, 3.0))
"""Between which values the logarithms of lengthscales and of chance, and that number, are."""
_FLOOR = 1e-6
"""The least noise variance of a site."""
_STEPS = 40
_SWEEPS, _DAMPING, _SETTLED = 60, 0.9, 1e-3
_FINAL_SWEEPS, _FINALLY_SETTLED = 100, 1e-5
_LEAST, _MOST = 1e-8, 1e8
"""Between which values precisions are."""
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True, slots=True)
class Sites:
    """What stands for the outcomes of trials (`n` each): Gaussian labels of the latent function by their `precisions` and these times their
    means, `shifts`; and the means and variances of the function at each trial given all others, the cavities.
    """

    precisions: Vector
    shifts: Vector
    means: Vector
    variances: Vector

    @classmethod
    def none(cls, count: int) -> Sites:
        """Where nothing is known yet."""
        return cls(np.full(count, _LEAST), np.zeros(count), np.zeros(count), np.ones(count))

    @property
    def labels(self) -> Vector:
        """The labels."""
        return self.shifts / self.precisions


class _Approximation:
    """Sites for trials that failed (`signs` 1) or worked (-1), for a prior covariance (`n x n`), its mean and the variance of chance.

    All sites are improved at once, damped. B is `I + S K S`, where S squared are the precisions: its eigenvalues are at least 1.
    """

    def __init__(self, covariance: Matrix, signs: Vector, *, mean: float, chance: float) -> None:
        self._covariance, self._signs, self._mean, self._chance = covariance, signs, mean, chance

    def run(self, sites: Sites, *, sweeps: int, settled: float) -> Sites:
        """The sites after so many sweeps at most, or once none changes by more than a share of the most precise one."""
        sites = self._cavities(sites)
        for _ in range(sweeps):
            better = self._cavities(self._swept(sites))
            change = float(np.abs(better.precisions - sites.precisions).max())
            sites = better
            if change < settled * (1.0 + float(sites.precisions.max())):
                break
        return sites

    def _swept(self, sites: Sites) -> Sites:
        """Each site such that, with its cavity, it has the mean and the variance that the outcome gives."""
        units, spread, ratio = self._outcomes(sites)
        slope = self._signs * ratio / spread
        # The cavity's precision bounds what an outcome can tell.
        curvature = np.clip(ratio * (units + ratio) / spread**2, _LEAST, (1.0 - 1e-9) / sites.variances)
        precisions = curvature / (1.0 - curvature * sites.variances)
        shifts = precisions * (sites.means + slope / curvature)
        mixed = (1.0 - _DAMPING) * sites.precisions + _DAMPING * precisions
        shifts = (1.0 - _DAMPING) * sites.shifts + _DAMPING * shifts
        return Sites(np.clip(mixed, _LEAST, _MOST), shifts, sites.means, sites.variances)

    def _outcomes(self, sites: Sites) -> tuple[Vector, Vector, Vector]:
        """How far, in standard deviations, each cavity is on the side of the outcome, these deviations, and Mills' inverse ratio there."""
        spread = np.sqrt(self._chance + sites.variances)
        units = self._signs * sites.means / spread
        ratio = np.exp(-0.5 * units * units - _HALF_LOG_TWO_PI - log_ndtr(units))
        return units, spread, ratio

    def _cavities(self, sites: Sites) -> Sites:
        roots, factor = self._factor(sites)
        inverse, _ = lapack.dtrtri(factor, lower=1)
        # S Sigma S is I - B^-1, and Sigma times the weights' equation is K's.
        shares = 1.0 - (inverse * inverse).sum(axis=0)
        variances = np.maximum(shares / sites.precisions, 1.0 / _MOST)
        weights = roots * (inverse.T @ (inverse @ (roots * (sites.labels - self._mean))))
        means = self._mean + self._covariance @ weights
        precisions = np.maximum(1.0 / variances - sites.precisions, _LEAST)
        cavities = (means / variances - sites.shifts) / precisions
        return Sites(sites.precisions, sites.shifts, cavities, 1.0 / precisions)

    def _factor(self, sites: Sites) -> tuple[Vector, Matrix]:
        roots = np.sqrt(sites.precisions)
        scaled = roots[:, None] * self._covariance * roots
        scaled.flat[:: len(roots) + 1] += 1.0
        factor, _ = lapack.dpotrf(scaled, lower=1, overwrite_a=1)
        return roots, factor

    def evidence(self, sites: Sites) -> tuple[float, float, Matrix, Vector]:
        """The log evidence (eq. 3.65), its derivative by the logarithm of chance's variance, the inverse of the labels' covariance (`n x n`)
        and the weights (`n`). At sites that have settled it depends on prior and chance as if these did not change (section 5.5.2).
        """
        roots, factor = self._factor(sites)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse += np.tril(inverse, -1).T
        inverse *= roots[:, None]
        inverse *= roots
        residuals = sites.labels - self._mean
        weights = inverse @ residuals
        units, spread, ratio = self._outcomes(sites)
        total = 1.0 / sites.precisions + sites.variances
        terms = log_ndtr(units) + 0.5 * np.log(total * sites.precisions)
        terms += 0.5 * (sites.means - sites.labels) ** 2 / total
        value = float(terms.sum() - np.log(factor.diagonal()).sum() - 0.5 * residuals @ weights)
        by_chance = -0.5 * self._chance * float((ratio * units / spread**2).sum())
        return value, by_chance, inverse, weights


class _Objective:
    """The hyper-parameters' negative log posterior, per trial, with its gradient: of log lengthscales (`d`), the logarithm of chance's variance
    and the number whose distribution function is the probability to work. Sites go on from one point to the next.
    """

    def __init__(self, inputs: Matrix, failed: Mask, layout: Layout) -> None:
        self._inputs, self._squares, self._layout = inputs, inputs * inputs, layout
        self._signs = signs_of(failed)
        self._sites = Sites.none(len(inputs))
        size = layout.dimensions
        self.start = np.array([math.log(_LENGTHSCALE * math.sqrt(size))] * size + [_CHANCE.location, _MEAN.location])
        self._scales = np.array([_SPREAD] * size + [_CHANCE.scale, _MEAN.scale])

    def __call__(self, point: Vector) -> tuple[float, Vector]:
        size, count = self._layout.dimensions, len(self._inputs)
        inverse = SQRT_FIVE * np.exp(-point[:size])[self._layout.owners]
        scaled, norms = self._inputs * inverse, self._squares @ inverse**2
        covariance, slope = matern_with_slope(distances(scaled, norms, scaled, norms))
        chance, unit = math.exp(point[size]), float(point[size + 1])
        spread = math.sqrt(1.0 + chance)
        approximation = _Approximation(covariance, self._signs, mean=-unit * spread, chance=chance)
        self._sites = approximation.run(self._sites, sweeps=_SWEEPS, settled=_SETTLED)
        evidence, by_chance, precision, weights = approximation.evidence(self._sites)
        pull = np.multiply.outer(weights, weights)
        pull -= precision
        pull *= slope
        by_mean = float(weights.sum())
        gradient = np.empty_like(point)
        gradient[:size] = by_lengthscales(pull, self._inputs, inverse, self._layout)
        gradient[size] = by_chance - by_mean * unit * 0.5 * chance / spread
        gradient[size + 1] = -by_mean * spread
        units = (point - self.start) / self._scales
        return -(evidence - 0.5 * float(units @ units)) / count, -(gradient - units / self._scales) / count


def signs_of(failed: Mask) -> Vector:
    """1 where trials failed and -1 where they worked (`n`)."""
    return np.where(failed, 1.0, -1.0)


def fit(inputs: Matrix, failed: Mask, layout: Layout, *, chance: bool, deadline: Deadline) -> Vector:
    """The most probable hyper-parameters (`d + 2`) that L-BFGS reaches from the prior's mode, given which trials at feature rows (`n x D`)
    failed (`n`), and whether `chance` may have had a part in it. At the deadline they are the best so far.
    """
    objective = _Objective(inputs, failed, layout)
    lengthscales, *others = _BOUNDS
    if not chance:
        others[0] = (_LEAST_CHANCE, _LEAST_CHANCE)
    found = minimize(
        objective,
        objective.start,
        jac=True,
        method="L-BFGS-B",
        bounds=[lengthscales] * layout.dimensions + others,
        callback=stop_at(deadline),
        options={"maxiter": _STEPS, "ftol": 1e-6, "gtol": 1e-3},
    )
    point: Vector = found.x
    return point


@dataclass(frozen=True, slots=True)
class Classifier:
    """The latent function's posterior, positive where trials fail, the variance of chance, and the probability that each trial would have
    failed (`n`) given all others.
    """

    posterior: Posterior
    chance: float
    left_out: Vector

    @classmethod
    def of(cls, point: Vector, inputs: Matrix, failed: Mask, layout: Layout) -> Classifier:
        """What follows from hyper-parameters (`d + 2`), given which trials at feature rows (`n x D`) failed (`n`)."""
        size = layout.dimensions
        chance = math.exp(point[size])
        mean = -float(point[size + 1]) * math.sqrt(1.0 + chance)
        hyper = Hyperparameters(np.exp(point[:size]), _FLOOR, mean)
        kernel = Kernel(layout, hyper)
        placed = kernel.place(inputs)
        # Rounded as in the fit.
        covariance, _ = kernel.covariance_with_slope(placed, placed)
        approximation = _Approximation(covariance, signs_of(failed), mean=mean, chance=chance)
        sites = approximation.run(Sites.none(len(inputs)), sweeps=_FINAL_SWEEPS, settled=_FINALLY_SETTLED)
        posterior = Posterior(layout, hyper, inputs=inputs, labels=sites.labels, variances=1.0 / sites.precisions)
        return cls(posterior, chance, ndtr(sites.means / np.sqrt(sites.variances + chance)))

    def failing(self, rows: Matrix) -> Vector:
        """The probability (`m`) that trials at feature rows (`m x D`) fail."""
        means, deviations = self.posterior.moments(rows)
        chances: Vector = ndtr(means[:, 0] / np.sqrt(deviations**2 + self.chance))
        return chances
