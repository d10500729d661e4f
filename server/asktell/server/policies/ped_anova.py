"""Importance from observations alone: PED-ANOVA (Watanabe, Bansal and Hutter 2023).

A parameter matters as far as its values among the best observations are distributed otherwise than among all: the Pearson divergence of
the two densities is the variance, over all observations, of the chance to be among the best that the parameter alone explains (their
theorem 1). Both densities come from the same trials, so that it does not matter how these were chosen.

Other than there, what a divergence is on average if the best are drawn at random is taken off: of fifty trials the best five are few, and
parameters that do nothing would come to a share of a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asktell.server.domain.metric import Objective
from asktell.server.domain.policy import Observation
from asktell.server.policies.columns import Column, Vector
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Mask, Matrix
from asktell.server.policies.labels import measured

_BEST = 0.1
_FEWEST = 5
_CELLS = 64
_PRIOR = 1.0
"""So many observations' worth of the uniform distribution is mixed into every density: few observations have chance gaps."""


def ped_anova(encoder: Encoder, observations: Sequence[Observation], objective: Objective) -> Vector:
    """Each parameter's share (`d`), of sum 1; all 0 if the observations tell nothing, as when all results are equal.

    The best are a tenth, at least five, and all that equal the worst of these. Trials that failed are among the others. The share of a
    parameter that is not always active is what it tells beyond its being active, which is its parent's doing.
    """
    rows = encoder.encode([seen.parameters for seen in observations])
    best = _best(observations, objective)
    active = encoder.activity(rows)
    variances = np.array(
        [
            _variance(column, rows[active[:, place], place], best[active[:, place]], share=best.mean(), of=len(rows))
            for place, column in enumerate(encoder.columns)
        ]
    )
    return variances / (variances.sum() or 1.0)


def _best(observations: Sequence[Observation], objective: Objective) -> Mask:
    """Which observations are among the best (`n`)."""
    useful = measured(observations, [objective])
    losses = np.array(
        [
            objective.loss(seen.metrics[objective.metric].value) if usable else np.inf
            for seen, usable in zip(observations, useful, strict=True)
        ]
    )
    count = max(math.ceil(_BEST * len(losses)), _FEWEST)
    worst = np.sort(losses)[min(count, int(useful.sum())) - 1]
    best: Mask = losses <= worst
    return best


def _variance(column: Column, codes: Vector, best: Mask, *, share: float, of: int) -> float:
    """The variance, over `of` observations, that a parameter explains, given the codes and ranks of those where it is active.

    It is in units of the squared chance to be among the best, `share`. With P(best | active) in place of P(best), and only where the
    parameter is active, the divergence counts P(active | best)^2 / P(active) times.
    """
    if not best.any():
        return 0.0
    active_if_best = best.sum() / (share * of)
    return _divergence(_kernels(column, codes), best) * active_if_best**2 / (len(codes) / of)


def _divergence(kernels: Matrix, best: Mask) -> float:
    """The Pearson divergence of the best's density from that of all (kernels, `n x c`), beyond what as many drawn at random have on average.

    That is the bias of the estimate: the few best fill the cells unevenly even where they are like all others.
    """
    count, drawn = len(best), int(best.sum())
    everywhere = _density(kernels)
    there = _density(kernels[best])
    spread = kernels.var(axis=0) / drawn * (count - drawn) / max(count - 1, 1)  # Of a mean without replacement.
    weight = drawn / (drawn + _PRIOR)
    offset = weight * kernels.mean(axis=0) + (1.0 - weight) / kernels.shape[1] - everywhere
    by_chance = weight**2 * spread + offset**2
    return max(float((((there - everywhere) ** 2 - by_chance) / everywhere).sum()), 0.0)


def _cells(column: Column) -> Vector:
    """Codes at which densities are compared: the values themselves if they are few."""
    if column.nominal:
        return np.arange(column.size or 1, dtype=np.float64)
    if column.size is not None and column.size <= _CELLS:
        return np.unique(column.draw((np.arange(_CELLS * 8) + 0.5) / (_CELLS * 8)))
    return (np.arange(_CELLS) + 0.5) / _CELLS


def _density(kernels: Matrix) -> Vector:
    """The probability of each cell, above 0, of sum 1."""
    counts: Vector = kernels.sum(axis=0) + _PRIOR / kernels.shape[1]
    return counts / counts.sum()


def _kernels(column: Column, codes: Vector) -> Matrix:
    """What each observation adds to each cell (`n x c`), of sum 1 in each row: all to its name, or a normal density around a number.

    That is as wide as Scott (1992) has it, and no less than a cell.
    """
    cells = _cells(column)
    if column.nominal:
        return (codes[:, None] == cells).astype(np.float64)
    lower, upper = np.quantile(codes, [0.25, 0.75])
    spread = min(float(codes.std()), float(upper - lower) / 1.34) or float(codes.std())
    width = max(1.059 * spread * len(codes) ** -0.2, 0.5 / len(cells))
    gaps = (codes[:, None] - cells) / width
    heights = np.exp(-0.5 * (gaps * gaps - (gaps * gaps).min(axis=1, keepdims=True)))
    kernels: Matrix = heights / heights.sum(axis=1, keepdims=True)
    return kernels
