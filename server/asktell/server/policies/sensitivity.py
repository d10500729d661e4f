"""Importance by variance: total Sobol indices of a function of configurations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.region import Region

MOST_POINTS = 4_096
_FEWEST_POINTS = 128
_TRIES = 32
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


def total_indices_within(
    region: Region, encoder: Encoder, function: Callable[[Matrix], Vector], *, cost: int, seed: np.random.Generator
) -> Vector:
    """The same over what constraints between parameters allow, where these depend on each other (Kucherenko et al. 2012).

    An index is the share of the variance that is left once all others are known: of a parameter that the others determine, none. Each
    allowed point is drawn anew in one parameter until it is allowed again; where that is hardly ever so, the parameter has no freedom.
    """
    dimensions = len(encoder.columns)
    rows = region.draw(seed, points_for(dimensions, cost=cost))
    if not len(rows):
        return np.zeros(dimensions)
    base = function(encoder.settle(rows))
    size = float(np.abs(base).max()) or 1.0
    variance = float(np.var(base / size))
    if not variance > 0.0:
        return np.zeros(dimensions)

    def index(place: int) -> float:
        changed = _redrawn(region, encoder, rows, place, seed)
        changes = base / size - function(encoder.settle(changed)) / size
        return float(np.mean(changes * changes)) / (2.0 * variance)

    return np.clip([index(place) for place in range(dimensions)], 0.0, 1.0)


def _redrawn(region: Region, encoder: Encoder, rows: Matrix, place: int, seed: np.random.Generator) -> Matrix:
    """Allowed latent rows with another allowed value of one parameter, each with the same chance."""
    changed, left = rows.copy(), np.arange(len(rows))
    for _ in range(_TRIES):
        changed[left, place] = encoder.columns[place].draw(seed.random(len(left)))
        left = left[~region.allows(changed[left])]
    changed[left, place] = rows[left, place]
    return changed


def points_for(dimensions: int, *, cost: int) -> int:
    """How many points the design starts from, a power of 2: `dimensions + 2` times as many rows are computed."""
    points = MOST_POINTS
    while points > _FEWEST_POINTS and points * (dimensions + 2) * cost > _WORK:
        points //= 2
    return points
