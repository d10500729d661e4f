"""The region that a Pareto front leaves to be won, cut into boxes: smaller is better in every objective."""

from __future__ import annotations

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Mask, Matrix


def non_dominated(points: Matrix) -> Mask:
    """Which of the points (`n x m`) no other is better than; of equal ones the first."""
    order = np.lexsort(points.T[::-1])
    front: list[int] = []
    for index in order:
        # Sorted, a point can only be dominated by one before it, and so by one of the front.
        if not front or not (points[front] <= points[index]).all(axis=1).any():
            front.append(int(index))
    mask = np.zeros(len(points), dtype=np.bool_)
    mask[front] = True
    return mask


def boxes(front: Matrix, reference: Vector) -> tuple[Matrix, Matrix]:
    """Lower and upper corners (`c x m` each) of disjoint boxes that fill what is below the reference (`m`) and not dominated by a front.

    The front (`n x m`) has points that are better than the reference and do not dominate one another; lower corners may be -inf. The
    search zones are bounded by the front's local upper bounds, whose union is decomposed by the same algorithm, mirrored (Lacour, Klamroth
    and Fonseca 2017, algorithm 1 and equation 2; Yang et al. 2019).
    """
    nowhere = np.full(len(reference), -np.inf)
    zones, _ = _local_upper_bounds(front, reference, nowhere)
    limits, definers = _local_upper_bounds(-zones, -nowhere, -reference)
    lower = np.empty_like(limits)
    upper = limits.copy()
    lower[:, 0], upper[:, 0] = definers[:, 0, 0], np.inf
    for column in range(1, len(reference)):
        lower[:, column] = definers[:, :column, column].max(axis=1)
    whole = (upper > lower).all(axis=1)
    return -upper[whole], -lower[whole]


def _local_upper_bounds(points: Matrix, reference: Vector, ideal: Vector) -> tuple[Matrix, Matrix]:
    """Corners (`u x m`), below one of which a point is exactly if it is below the reference and not dominated, and what defines each
    (`u x m x m`).
    """
    objectives = len(reference)
    corners = reference[None, :].copy()
    definers = np.repeat(ideal[None, None, :], objectives, axis=1)
    definers[0, range(objectives), range(objectives)] = reference
    for point in points:
        corners, definers = _cut(corners, definers, point)
    return corners, definers


def _cut(corners: Matrix, definers: Matrix, point: Vector) -> tuple[Matrix, Matrix]:
    """The corners after one more point: each that is above it gives way to one in every direction where that is not redundant."""
    above = (corners > point).all(axis=1)
    kept_corners, kept_definers = [corners[~above]], [definers[~above]]
    for direction in range(len(point)):
        others = np.arange(len(point)) != direction
        needed = point[direction] >= definers[above][:, others, direction].max(axis=1)
        moved, defined = corners[above][needed], definers[above][needed]
        moved[:, direction], defined[:, direction] = point[direction], point
        kept_corners.append(moved)
        kept_definers.append(defined)
    return np.concatenate(kept_corners), np.concatenate(kept_definers)
