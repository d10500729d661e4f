"""Climbs a function from many starts at once: projected BFGS over the unit cube, all starts in one call of the function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Indices, Mask, Matrix

Function = Callable[[Matrix, Indices], tuple[Vector, Matrix]]
"""Values (`m`) and gradients (`m x d`) at rows (`m x d`) that belong to these of the starts (`m`)."""
Within = Callable[[Matrix, Matrix, Indices], Matrix]
"""The rows to go to instead of rows that may not be allowed, from allowed ones, of these of the starts: allowed too."""

_SHRINK = 0.3
_SHORTEST = 1e-3
"""A line search that gets below this share of its first step ends the climb."""
_FIRST_STEP = 0.1
"""How far a first step goes, in the coordinate that changes most."""
_LONGEST_STEP = 0.5
_FLAT = 1e-2
"""A climb ends where the function changes less than so much over the whole cube, in every coordinate,"""
_SETTLED = 1e-3
"""or when a step gains less than so much."""
_STRAIGHT = 1e-12
"""Steps along which the gradient falls by less than this, times the step, say nothing of the curvature."""


def ascend(function: Function, rows: Matrix, *, calls: int, within: Within | None = None) -> Matrix:
    """Rows (`m x d`) where the function is at least as high as at the given ones. A zero derivative keeps a coordinate where it is.

    Every start has its own curvature (BFGS; Nocedal and Wright 2006, equation 6.17), its own line search by backtracking (Armijo) and its
    own end, and goes on with every one of the calls of the function; coordinates at a bound that the gradient points beyond stay there for
    the step (Bertsekas 1982). `within` keeps steps where they are allowed, as by a projection.
    """
    climbs = _Climbs(function, rows, within)
    for _ in range(calls - 1):
        if not len(climbs.going):
            break
        climbs.advance()
    return climbs.best


class _Climbs:
    """The climbs that still go on: which starts they are, where they are, how high, gradients, directions and the lengths of their steps."""

    def __init__(self, function: Function, rows: Matrix, within: Within | None) -> None:
        self._function, self._within = function, within
        self.best = rows.copy()
        self.going = np.arange(len(rows))
        self._rows = rows
        # What stays outside of the cube is the code of a name.
        self._cubic = bool(((rows >= 0.0) & (rows <= 1.0)).all())
        self._heights, self._gradients = function(rows, self.going)
        # The curvatures' inverses, and which of them are known.
        self._inverses = np.tile(np.eye(rows.shape[1]), (len(rows), 1, 1))
        self._known = np.zeros(len(rows), dtype=np.bool_)
        self._lengths = np.ones(len(rows))
        self._aim()
        self._drop(self._slopes > _FLAT)

    def advance(self) -> None:
        """One call of the function: climbs that it shows to be higher there go on from there, the others try a shorter step."""
        tried = self._moved(self._lengths[:, None] * self._directions)
        if self._within is not None:
            tried = self._within(self._rows, tried, self.going)
        heights, gradients = self._function(tried, self.going)
        steps = tried - self._rows
        expected = np.vecdot(self._free, steps)
        if self._within is not None:
            # A step that was led aside may go downhill.
            expected = np.maximum(expected, 0.0)
        gains = heights - self._heights
        higher = gains >= 1e-4 * expected
        if higher.all():
            # A step that had to be shortened says little about what a next one, with another curvature, will gain.
            going = (gains > _SETTLED) | (self._lengths < 1.0)
            self._accept(steps, tried, heights, gradients)
            self._lengths = np.ones(len(going))
        else:
            going = ~higher | (gains > _SETTLED) | (self._lengths < 1.0)
            kept = higher[:, None]
            self._accept(
                np.where(kept, steps, 0.0),
                np.where(kept, tried, self._rows),
                np.where(higher, heights, self._heights),
                np.where(kept, gradients, self._gradients),
            )
            self._lengths = np.where(higher, 1.0, self._lengths * _SHRINK)
            going &= self._lengths > _SHORTEST
        self._drop(going & (self._slopes > _FLAT))

    def _moved(self, steps: Matrix) -> Matrix:
        """Rows after steps, within the cube where they move."""
        moved = np.minimum(np.maximum(self._rows + steps, 0.0), 1.0)
        return moved if self._cubic else np.where(steps == 0.0, self._rows, moved)

    def _accept(self, steps: Matrix, rows: Matrix, heights: Vector, gradients: Matrix) -> None:
        """Go on from rows, which such steps led to; those that stay have made none."""
        self._learn(steps, self._gradients - gradients)
        self._rows, self._heights, self._gradients = rows, heights, gradients
        self.best[self.going] = rows
        self._aim()

    def _learn(self, steps: Matrix, falls: Matrix) -> None:
        """Learn the curvature from how much the gradient falls along steps; where it rises, what was known of it is outdated."""
        # Coordinates that stay, as at a bound, are not part of it.
        falls = np.where(steps == 0.0, 0.0, falls)
        inner = np.vecdot(steps, falls)
        curved = inner > _STRAIGHT
        through = (self._inverses @ falls[..., None])[..., 0]
        # Before each update the curvature known so far is brought to the scale of the latest (Oren and Luenberger 1974).
        scales, weights = inner / np.vecdot(falls, through), 1.0 / inner
        if not curved.all():
            self._forget(~curved & (steps != 0.0).any(axis=1))
            scales, weights = np.where(curved, scales, 1.0), np.where(curved, weights, 0.0)
        self._known |= curved
        self._inverses *= scales[:, None, None]
        sides = weights[:, None] * (steps - scales[:, None] * through)
        products = steps[:, :, None] * sides[:, None, :]
        self._inverses += products
        self._inverses += products.swapaxes(1, 2)

    def _forget(self, lost: Mask) -> None:
        self._inverses[lost] = np.eye(self._inverses.shape[1])
        self._known[lost] = False

    def _aim(self) -> None:
        """Set the directions: the gradients times the inverse curvature, and steepest ascent where that is unknown or goes downhill."""
        free = self._gradients
        inside = (self._rows > 0.0) & (self._rows < 1.0)
        still = None
        if not inside.all():
            still = ~inside & ((self._rows <= 0.0) == (free < 0.0))
            free = np.where(still, 0.0, free)
        self._free, self._slopes = free, _longest(free)
        directions = (self._inverses @ free[..., None])[..., 0]
        if still is not None:
            directions[still] = 0.0
        directions *= np.minimum(1.0, _LONGEST_STEP / np.maximum(_longest(directions), 1e-300))[:, None]
        uphill = self._known & (np.vecdot(directions, free) > 0.0)
        if not uphill.all():
            plain = (_FIRST_STEP / np.maximum(self._slopes, 1e-300))[:, None] * free
            directions = np.where(uphill[:, None], directions, plain)
        self._directions = directions

    def _drop(self, kept: Mask) -> None:
        if not kept.all():
            self.going, self._rows, self._heights = self.going[kept], self._rows[kept], self._heights[kept]
            self._gradients, self._free, self._directions = (
                self._gradients[kept],
                self._free[kept],
                self._directions[kept],
            )
            self._inverses, self._known = self._inverses[kept], self._known[kept]
            self._slopes, self._lengths = self._slopes[kept], self._lengths[kept]


def _longest(rows: Matrix) -> Vector:
    """The largest coordinates of rows, either way."""
    longest: Vector = np.maximum.reduce(np.abs(rows), axis=1, initial=0.0)
    return longest
