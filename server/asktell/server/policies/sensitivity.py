"""Importance by variance: total Sobol indices of a function of configurations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Matrix

MOST_POINTS = 4_096
_FEWEST_POINTS = 128
_WORK = 50_000_000
"""So many covariances at most: about a second on one core."""


def total_indices(
    encoder: Encoder, function: Callable[[Matrix], Vector], *, cost: int, seed: np.random.Generator
) -> Vector:
    """The total Sobol index of each parameter (`d`), 0 to 1, of a function of settled rows (`m x d` to `m`, finite), over the whole space.

    Parameters vary independently, as candidates are drawn at random: numbers uniformly on their scale, discrete values alike. A parameter
    that is inactive has no effect, and so matters by how often it is active. The sum is above 1 where parameters interact. Estimated by
    the formula of Jansen (1999) on Saltelli's design of Sobol points (Saltelli et al. 2010), one parameter after another lest the designs fill
    the memory; `cost` is that of a row, in covariances.
    """
    # It takes a third of a second to import, which only who asks this shall pay.
    from scipy.stats import qmc  # noqa: PLC0415

    dimensions = len(encoder.columns)
    points = qmc.Sobol(2 * dimensions, rng=seed).random(points_for(dimensions, cost=cost))
    first, second = encoder.draw(points[:, :dimensions]), encoder.draw(points[:, dimensions:])
    base = np.stack([function(encoder.settle(first)), function(encoder.settle(second))])
    size = float(np.abs(base).max()) or 1.0  # Its square may be more than a float holds.
    variance = float(np.var(base / size))

    def index(place: int) -> float:
        exchanged = first.copy()
        exchanged[:, place] = second[:, place]
        changes = base[0] / size - function(encoder.settle(exchanged)) / size
        return float(np.mean(changes * changes)) / (2.0 * variance)

    if not variance > 0.0:
        return np.zeros(dimensions)
    return np.clip([index(place) for place in range(dimensions)], 0.0, 1.0)


def points_for(dimensions: int, *, cost: int) -> int:
    """How many points the design starts from, a power of 2: `dimensions + 2` times as many rows are computed."""
    points = MOST_POINTS
    while points > _FEWEST_POINTS and points * (dimensions + 2) * cost > _WORK:
        points //= 2
    return points
