"""Which observations the model learns from, when there are too many for all."""

from __future__ import annotations

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Matrix

MAX_LEARNED = 1_000
MAX_FITTED = 250
"""To so many observations at most hyper-parameters are fitted; the posterior has up to MAX_LEARNED."""


def subset(rows: Matrix, labels: Vector, *, limit: int = MAX_LEARNED) -> list[int]:
    """Which observations, by their features (`n x D`) and labels (`n`), the model learns from: all if they are `limit` at most.

    Else they are the best, the latest and a space-filling rest, in order.
    """
    count = len(rows)
    if count <= limit:
        return list(range(count))
    best = [int(index) for index in np.argsort(labels, kind="stable")[: limit // 3]]
    kept = dict.fromkeys([*best, *range(count - limit // 3, count)])
    _fill(kept, rows, limit)
    return sorted(kept)


def spaced(count: int, limit: int) -> list[int]:
    """Indices below `count`, all or `limit` of them at even distances."""
    return list(range(count)) if count <= limit else [int(index) for index in np.linspace(0, count - 1, limit)]


def _fill(kept: dict[int, None], rows: Matrix, limit: int) -> None:
    """Add the row farthest from all kept ones until there are `limit`."""
    squares = (rows * rows).sum(axis=1)

    def distances(indices: list[int]) -> Vector:
        gaps: Vector = (squares[indices, None] + squares - 2.0 * rows[indices] @ rows.T).min(axis=0)
        return gaps

    nearest = distances(list(kept))
    # No distance is less, rounding included, so that it stays.
    nearest[list(kept)] = -1.0
    while len(kept) < limit:
        farthest = int(nearest.argmax())
        kept[farthest] = None
        np.minimum(nearest, distances([farthest]), out=nearest)
        nearest[farthest] = -1.0
