"""Climbs a function from many starts at once: projected L-BFGS over the unit cube, all starts in one call of the function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Indices, Mask, Matrix

Function = Callable[[Matrix, Indices], tuple[Vector, Matrix]]
"""Values (`m`) and gradients (`m x d`) at rows (`m x d`) that belong to these of the starts (`m`)."""
Chosen = Mask | slice
"""Which of the climbs: a slice of all is much faster than a mask."""
Within = Callable[[Matrix, Matrix, Indices], Matrix]
"""The rows to go to instead of rows that may not be allowed, from allowed ones, of these of the starts: allowed too."""

_MEMORY = 4
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


def ascend(function: Function, rows: Matrix, *, calls: int, within: Within | None = None) -> Matrix:
    """Rows (`m x d`) where the function is at least as high as at the given ones. A zero derivative keeps a coordinate where it is.

    Every start has its own curvature (Nocedal and Wright 2006, algorithm 7.4), its own line search by backtracking (Armijo) and its own
    end, and goes on with every one of the calls of the function; coordinates at a bound that the gradient points beyond stay there for
    the step (Bertsekas 1982). `within` keeps steps where they are allowed, as by a projection.
    """
    climbs = _Climbs(function, rows, within)
    for _ in range(calls - 1):
        if not len(climbs.going):
            break
        climbs.advance()
    return climbs.best


class _Climbs:
    """The climbs that still go on: which starts they are, where they are, their losses (to be minimised), gradients, directions."""

    def __init__(self, function: Function, rows: Matrix, within: Within | None) -> None:
        self._function, self._within = function, within
        self.best = rows.copy()
        self.going = np.arange(len(rows))
        self._rows = rows.copy()
        self._losses, self._gradients = self._evaluate(self._rows)
        # The last steps, the changes of the gradient along them, and their inverse inner products, 0 where not positive.
        self._steps = np.zeros((len(rows), _MEMORY, rows.shape[1]))
        self._changes = np.zeros_like(self._steps)
        self._weights = np.zeros((len(rows), _MEMORY))
        self._first_slot = _MEMORY
        self._free, self._direction = np.zeros_like(rows), np.zeros_like(rows)
        self._slope, self._length = np.zeros(len(rows)), np.ones(len(rows))
        self._aim(slice(None))
        self._drop(self._slope > _FLAT)

    def advance(self) -> None:
        """One call of the function: climbs that it shows to be lower there go on from there, the others try a shorter step."""
        tried = _moved(self._rows, self._length[:, None] * self._direction)
        if self._within is not None:
            tried = self._within(self._rows, tried, self.going)
        losses, gradients = self._evaluate(tried)
        expected = _inner(self._free, tried - self._rows)
        if self._within is not None:
            # A step that was led aside may go uphill.
            expected = np.minimum(expected, 0.0)
        lower = losses <= self._losses + 1e-4 * expected
        all_lower = bool(lower.all())
        gains = self._losses - losses
        if not all_lower:
            gains[~lower] = np.inf
        # A step that had to be shortened says little about what a next one, with another curvature, will gain.
        going = (gains > _SETTLED) | (self._length < 1.0)
        if all_lower:
            self._accept(slice(None), tried, losses, gradients)
            self._length = np.ones(len(lower))
            self._drop(going & (self._slope > _FLAT))
            return
        self._accept(lower, tried[lower], losses[lower], gradients[lower])
        self._length = np.where(lower, 1.0, self._length * _SHRINK)
        self._drop(going & (self._length > _SHORTEST) & (self._slope > _FLAT))

    def _evaluate(self, rows: Matrix) -> tuple[Vector, Matrix]:
        values, gradients = self._function(rows, self.going)
        return -values, -gradients

    def _accept(self, lower: Chosen, rows: Matrix, losses: Vector, gradients: Matrix) -> None:
        step, change = rows - self._rows[lower], gradients - self._gradients[lower]
        inner = _inner(step, change)
        curved = inner > 1e-12
        if not curved.all():
            change, inner = np.where(curved[:, None], change, 0.0), np.where(curved, inner, np.inf)
        self._first_slot = max(self._first_slot - 1, 0)
        _push(self._steps, lower, step)
        _push(self._changes, lower, change)
        _push(self._weights, lower, 1.0 / inner)
        self._rows[lower], self._losses[lower], self._gradients[lower] = rows, losses, gradients
        self.best[self.going[lower]] = rows
        self._aim(lower)

    def _aim(self, chosen: Chosen) -> None:
        """Set the directions of the chosen climbs."""
        rows, gradients = self._rows[chosen], self._gradients[chosen]
        low, high = rows <= 0.0, rows >= 1.0
        free = gradients
        if low.any() or high.any():
            free = np.where((low & (gradients > 0.0)) | (high & (gradients < 0.0)), 0.0, gradients)
        slope = np.maximum.reduce(np.abs(free), axis=1, initial=0.0)
        self._free[chosen], self._slope[chosen] = free, slope
        first = self._first_slot
        memory = self._steps[chosen, first:], self._changes[chosen, first:], self._weights[chosen, first:]
        self._direction[chosen] = _downhill(free, slope, *memory)

    def _drop(self, kept: Mask) -> None:
        if not kept.all():
            self.going, self._rows, self._losses = self.going[kept], self._rows[kept], self._losses[kept]
            self._gradients, self._free, self._direction = (
                self._gradients[kept],
                self._free[kept],
                self._direction[kept],
            )
            self._steps, self._changes, self._weights = self._steps[kept], self._changes[kept], self._weights[kept]
            self._slope, self._length = self._slope[kept], self._length[kept]


def _inner(left: Matrix, right: Matrix) -> Vector:
    """The inner product of each two rows."""
    products: Vector = np.add.reduce(left * right, axis=-1)
    return products


def _push(memory: Matrix, chosen: Chosen, latest: Matrix) -> None:
    memory[chosen, :-1] = memory[chosen, 1:]
    memory[chosen, -1] = latest


def _downhill(free: Matrix, slope: Vector, steps: Matrix, changes: Matrix, weights: Matrix) -> Matrix:
    """The gradients times the inverse curvature of the last steps (the two-loop recursion), reversed; steepest descent if that is uphill.

    `slope` are the gradients' largest coordinates; the memory (`m x k x d`, `m x k`) may be empty.
    """
    plain = (_FIRST_STEP / np.maximum(slope, 1e-300))[:, None]
    direction = -free
    if weights.shape[1]:
        direction = np.negative(_curved(free, plain, steps, changes, weights))
        still = free == 0.0
        if still.any():
            direction[still] = 0.0
    else:
        direction *= plain
    longest = np.maximum.reduce(np.abs(direction), axis=1, initial=0.0)
    direction *= np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, 1e-300))[:, None]
    uphill = _inner(direction, free) >= 0.0
    return np.where(uphill[:, None], -free * plain, direction) if uphill.any() else direction


def _curved(free: Matrix, plain: Matrix, steps: Matrix, changes: Matrix, weights: Matrix) -> Matrix:
    """The gradients times the inverse curvature of the last steps; times `plain` where there is none."""
    direction, slots = free.copy(), range(weights.shape[1])
    shares = np.empty_like(weights)
    for slot in reversed(slots):
        shares[:, slot] = weights[:, slot] * _inner(steps[:, slot], direction)
        direction -= shares[:, slot, None] * changes[:, slot]
    curvature = weights[:, -1] * _inner(changes[:, -1], changes[:, -1])
    direction *= np.where(curvature > 0.0, 1.0 / np.maximum(curvature, 1e-300), plain[:, 0])[:, None]
    for slot in slots:
        again = weights[:, slot] * _inner(changes[:, slot], direction)
        direction += (shares[:, slot] - again)[:, None] * steps[:, slot]
    return direction


def _moved(rows: Matrix, step: Matrix) -> Matrix:
    """Rows after a step, within the cube where they move: what stays may be the code of a name."""
    moved = np.minimum(np.maximum(rows + step, 0.0), 1.0)
    still = step == 0.0
    return np.where(still, rows, moved) if still.any() else moved
