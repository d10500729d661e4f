"""A Gaussian process over encoded configurations. Everything is float64 on the CPU.

The numbers are those of a BoTorch `SingleTaskGP`, which tests hold them to; computed here they cost a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from asktell.server.policies.deadline import Deadline

_LENGTHSCALES = (math.log(5e-3), 7.0)
_NOISES = (math.log(1e-6), 1.0)
_MEANS = (-10.0, 10.0)
_HOPELESS = 1e10
_LOG_TWO_PI = math.log(2.0 * math.pi)
_JITTERS = (0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1)
_FEW = 150
"""Up to so many observations the likelihood is climbed from two starts; beyond, one surface in nine being multimodal costs too much."""


def matern(squared: Tensor) -> Tensor:
    """Matérn-5/2 correlation of squared distances."""
    # Under the root a trifle keeps the gradient at distance zero from being 0 * infinity.
    scaled = 5.0 * squared
    root = torch.sqrt(scaled + 1e-18)
    return (1.0 + root + scaled / 3.0) * torch.exp(-root)


def squared_distances(left: Tensor, right: Tensor, lengthscales: Tensor, nominal: Tensor) -> Tensor:
    """Squared distances (`... x n x m`) of settled rows: Euclidean over numbers, Hamming over names, each column with its lengthscale (`d`)."""
    a, b = left[..., ~nominal] / lengthscales[~nominal], right[..., ~nominal] / lengthscales[~nominal]
    squared = (a * a).sum(-1)[..., :, None] + (b * b).sum(-1)[..., None, :] - 2.0 * a @ b.transpose(-1, -2)
    squared = squared.clamp_min(0.0)
    for index in nominal.nonzero().flatten().tolist():
        differ = left[..., :, None, index] != right[..., None, :, index]
        squared = squared + differ / lengthscales[index] ** 2
    return squared


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What is fitted: lengthscales (`d`), the noise's variance and the mean, both of standardised labels."""

    lengthscales: Tensor
    noise: float
    mean: float


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A prior density of a positive number, given its logarithm."""

    location: float
    scale: float

    def log_density(self, logarithm: Tensor) -> Tensor:
        """The log density of the number itself, summed."""
        squares = ((logarithm - self.location) / self.scale) ** 2
        return -(squares / 2 + logarithm + math.log(self.scale * math.sqrt(2 * math.pi))).sum()


NOISE_PRIOR = LogNormal(-4.0, 1.0)


def lengthscale_prior(dimensions: int) -> LogNormal:
    """The dimension-scaled prior of Hvarfner et al. (2024)."""
    return LogNormal(math.sqrt(2.0) + math.log(dimensions) / 2.0, math.sqrt(3.0))


class Likelihood:
    """The hyper-parameters' negative log posterior, per observation, for settled rows (`n x d`) and standardised labels (`n`).

    It is a function of log lengthscales (`d`), log noise and mean: in log space the climb takes a tenth of the steps.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, nominal: Tensor) -> None:
        gaps = inputs[:, None, :] - inputs[None, :, :]
        self._gaps = torch.where(nominal, (gaps != 0).double(), gaps * gaps)
        self._labels = labels
        self._identity = torch.eye(len(labels), dtype=labels.dtype)
        self._prior = lengthscale_prior(len(nominal))

    def __call__(self, point: Tensor) -> Tensor:
        """The value (a scalar) at a point (`d + 2`); infinite where the covariance is not positive definite in floating point."""
        lengthscales, noise, mean = point[:-2], point[-2], point[-1]
        covariance = matern(self._gaps @ torch.exp(-2.0 * lengthscales)) + torch.exp(noise) * self._identity
        factor, info = torch.linalg.cholesky_ex(covariance)
        if info.item():
            return point.sum() * math.inf
        whitened = torch.linalg.solve_triangular(factor, (self._labels - mean).unsqueeze(-1), upper=False)
        count = len(self._labels)
        evidence = -0.5 * (whitened * whitened).sum() - factor.diagonal().log().sum() - 0.5 * count * _LOG_TWO_PI
        prior = self._prior.log_density(lengthscales) + NOISE_PRIOR.log_density(noise)
        return -(evidence + prior) / count

    def with_gradient(self, point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """The value and its gradient (`d + 2`), for SciPy."""
        variable = torch.from_numpy(point.copy()).requires_grad_()
        value = self(variable)
        if not torch.isfinite(value):
            return _HOPELESS, np.zeros_like(point)
        (gradient,) = torch.autograd.grad(value, variable)
        return float(value.detach()), gradient.numpy()


def fit(inputs: Tensor, labels: Tensor, nominal: Tensor, *, deadline: Deadline) -> Hyperparameters:
    """Maximise the posterior of the hyper-parameters by L-BFGS from one or two starts. At the deadline the best so far is returned."""
    likelihood = Likelihood(inputs, labels, nominal)
    best: OptimizeResult | None = None
    for start in _starts(*inputs.shape):
        found = minimize(
            likelihood.with_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[_LENGTHSCALES] * len(nominal) + [_NOISES, _MEANS],
            callback=_stop_at(deadline),
            options={"maxiter": 60, "ftol": 1e-8},
        )
        if best is None or found.fun < best.fun - 1e-6:
            best = found
        if deadline.passed:
            break
    if best is None:
        raise ValueError("no start led to hyper-parameters")
    point = torch.from_numpy(best.x)
    return Hyperparameters(point[:-2].exp(), math.exp(point[-2]), float(point[-1]))


def _starts(count: int, dimensions: int) -> Iterator[npt.NDArray[np.float64]]:
    prior = lengthscale_prior(dimensions)
    mode = prior.location - prior.scale**2
    yield np.array([mode] * dimensions + [NOISE_PRIOR.location - NOISE_PRIOR.scale**2, 0.0])
    if count <= _FEW:
        yield np.array([math.log(dimensions) / 2.0] * dimensions + [-3.0, 0.0])


def _stop_at(deadline: Deadline) -> Callable[[npt.NDArray[np.float64]], None]:
    def check(_: npt.NDArray[np.float64]) -> None:
        if deadline.passed:
            raise StopIteration

    return check


class Posterior:
    """The Gaussian process given observations: its mean and standard deviation anywhere."""

    def __init__(self, hyper: Hyperparameters, *, inputs: Tensor, labels: Tensor, nominal: Tensor) -> None:
        self._hyper, self._inputs, self._labels, self._nominal = hyper, inputs, labels, nominal
        self._factor = _cholesky(self._covariance(inputs), hyper.noise)
        residual = (labels - hyper.mean).unsqueeze(-1)
        self._weights = torch.cholesky_solve(residual, self._factor).squeeze(-1)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (`m` each) of the noise-free label at settled rows (`m x d`)."""
        cross = self._covariance(rows)
        mean = self._hyper.mean + cross @ self._weights
        solved = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        variance = 1.0 - (solved * solved).sum(0)
        return mean, variance.clamp_min(1e-12).sqrt()

    def believing(self, rows: Tensor) -> Posterior:
        """The posterior had its own mean been observed at more rows (the kriging believer of Ginsbourger et al. 2010)."""
        mean, _ = self(rows)
        inputs, labels = torch.cat([self._inputs, rows]), torch.cat([self._labels, mean])
        return Posterior(self._hyper, inputs=inputs, labels=labels, nominal=self._nominal)

    @property
    def lengthscales(self) -> Tensor:
        """One lengthscale per parameter (`d`)."""
        return self._hyper.lengthscales

    def _covariance(self, rows: Tensor) -> Tensor:
        return matern(squared_distances(rows, self._inputs, self._hyper.lengthscales, self._nominal))


def _cholesky(covariance: Tensor, noise: float) -> Tensor:
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    for jitter in _JITTERS:
        factor, info = torch.linalg.cholesky_ex(covariance + (noise + jitter) * identity)
        if not info.item():
            return factor
    raise ArithmeticError(f"the covariance of {len(covariance)} observations is not positive definite")
