"""Log expected improvement and the search for its maximum over a mixed space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from botorch.acquisition.analytic import _log_ei_helper
from botorch.optim.batched_lbfgs_b import fmin_l_bfgs_b_batched
from torch import Tensor

from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.draws import generator, sobol
from asktell.server.policies.encoding import Encoder, Mask, Matrix
from asktell.server.policies.surrogate import Posterior

SPREAD_POINTS = 512
LOCAL_POINTS = 256
STARTS = 8
KEPT = 5
_APART = 0.02


@dataclass(frozen=True, slots=True)
class LogExpectedImprovement:
    """LogEI (Ament et al. 2023) of labels below the incumbent."""

    posterior: Posterior
    incumbent: float

    def __call__(self, rows: Tensor) -> Tensor:
        """Values (`m`) at settled rows (`m x d`)."""
        mean, deviation = self.posterior(rows)
        value: Tensor = _log_ei_helper((self.incumbent - mean) / deviation) + deviation.log()
        return value


class OutOfTimeError(Exception):
    """The time limit was reached within a computation."""


@dataclass(frozen=True, slots=True)
class Optima:
    """Latent rows, best first, with their acquisition; `early` if the deadline ended the search."""

    rows: Matrix
    values: Vector
    early: bool


class Search:
    """Maximises an acquisition: raw points, ascents from the best, sweeps over discrete parameters, ascents over the continuous rest."""

    def __init__(self, encoder: Encoder, acquisition: Callable[[Tensor], Tensor], deadline: Deadline) -> None:
        self._encoder, self._acquisition, self._deadline = encoder, acquisition, deadline
        several = np.array([codes.size != 1 for codes in encoder.columns])
        self._movable = several & ~encoder.nominal & ~encoder.parents
        self._smooth = self._movable & encoder.continuous
        self._discrete = np.flatnonzero(several & ~encoder.continuous)

    def run(self, raw: Matrix) -> Optima:
        """The optima found from raw latent rows; the raw rows follow after them."""
        raw = self._encoder.snap(raw)
        values = self.score(raw)
        order = np.argsort(-values, kind="stable")
        rows, early = raw[self._distinct(raw, order)], False
        try:
            rows = self._improve(rows)
        except OutOfTimeError:
            early = True
        return self._ranked(np.concatenate([rows, raw[order]]), early=early)

    def score(self, latent: Matrix) -> Vector:
        """The acquisition (`m`) at latent rows."""
        with torch.no_grad():
            scores: Vector = self._acquisition(torch.from_numpy(self._encoder.settle(latent))).numpy()
        return scores

    def _ranked(self, rows: Matrix, *, early: bool) -> Optima:
        values = self.score(rows)
        order = np.argsort(-values, kind="stable")
        return Optima(rows[order], values[order], early)

    def _distinct(self, raw: Matrix, order: npt.NDArray[np.intp]) -> list[int]:
        settled, chosen = self._encoder.settle(raw), list[int]()
        for index in order[:200]:
            if all(np.abs(settled[index] - settled[other]).max() > _APART for other in chosen):
                chosen.append(int(index))
            if len(chosen) == STARTS:
                break
        return chosen

    def _improve(self, rows: Matrix) -> Matrix:
        rows = self._encoder.snap(self._ascend(rows, self._movable))
        if not len(self._discrete):
            return rows
        rows = rows[np.argsort(-self.score(rows), kind="stable")[:KEPT]]
        for _ in range(2):
            for index in self._discrete:
                rows = self._sweep(rows, int(index))
            rows = self._ascend(rows, self._smooth)
        return rows

    def _sweep(self, rows: Matrix, index: int) -> Matrix:
        """Each row with the best of a discrete parameter's alternatives."""
        self._check_time()
        codes = self._encoder.columns[index]
        options = [codes.alternatives(row[index]) for row in rows]
        owners = np.repeat(np.arange(len(rows)), [len(option) for option in options])
        varied = rows[owners]
        varied[:, index] = np.concatenate(options)
        scores = self.score(varied)
        best = [np.flatnonzero(owners == row)[np.argmax(scores[owners == row])] for row in range(len(rows))]
        return varied[best]

    def _ascend(self, rows: Matrix, columns: Mask) -> Matrix:
        """Rows after L-BFGS over some columns, those that are active; a relaxed discrete column is not rounded."""
        if not columns.any():
            return rows
        settled = self._encoder.settle(rows)
        free = columns & self._encoder.activity(self._encoder.snap(rows))

        def loss(points: Matrix, batch_indices: Sequence[int]) -> tuple[Vector, Matrix]:
            self._check_time()
            inputs = torch.from_numpy(points).requires_grad_()
            values = -self._acquisition(inputs)
            (gradient,) = torch.autograd.grad(values.sum(), inputs)
            return values.detach().numpy(), gradient.numpy() * free[batch_indices]

        bounds = [(0.0, 1.0) if moves else (None, None) for moves in columns]
        found, _, _ = fmin_l_bfgs_b_batched(
            loss, settled, bounds=bounds, maxiter=40, pgtol=1e-4, factr=1e9, pass_batch_indices=True
        )
        return np.where(free, found, rows)

    def _check_time(self) -> None:
        if self._deadline.passed:
            raise OutOfTimeError


def raw_points(encoder: Encoder, *, leaders: Matrix, lengthscales: Vector, seed: int, number: int) -> Matrix:
    """Latent rows to start a search from: Sobol points over the whole space, and perturbations of the leaders (settled rows)."""
    random = generator(seed, purpose="acquisition", number=number)
    dimensions = len(encoder.columns)
    unit = sobol(seed, dimensions=dimensions, purpose="acquisition", first=0, count=SPREAD_POINTS)
    spread = encoder.draw((unit + random.random(dimensions)) % 1.0)
    return np.concatenate([spread, _around(encoder, leaders, lengthscales, random)])


def _around(encoder: Encoder, leaders: Matrix, lengthscales: Vector, random: np.random.Generator) -> Matrix:
    parents = leaders[random.integers(len(leaders), size=LOCAL_POINTS)]
    fresh = encoder.draw(random.random(parents.shape))
    steps = np.exp(random.uniform(np.log(0.01), np.log(0.3), (LOCAL_POINTS, 1))) * np.minimum(lengthscales, 1.0)
    chosen = random.random(parents.shape) < np.maximum(0.2, random.random((LOCAL_POINTS, 1)))
    moved = np.clip(parents + random.normal(size=parents.shape) * steps * chosen, 0.0, 1.0)
    renamed = np.where(random.random(parents.shape) < 0.15, fresh, parents)
    local = np.where(encoder.nominal, renamed, moved)
    absent = ~encoder.activity(encoder.snap(parents))
    return np.where(absent, fresh, local)
