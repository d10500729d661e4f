"""What was measured of a trial along its steps, as stopping rules see it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

LARGEST = 1e100
"""The largest size of a loss."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What is expected of a trial's last loss, and the standard error of that; None if nothing says how far off it may be."""

    loss: float
    standard_error: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of a trial at its steps, which ascend: smaller is better, and infinite is what was not finite. Finite ones are at most
    1e100 in size: what is larger counts as that, so that squares are finite.

    `lowest` has the least loss up to each step. The three are of one length.
    """

    steps: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    lowest: tuple[float, ...] = ()

    @classmethod
    def of(cls, points: Mapping[int, float]) -> Curve:
        """The curve through losses by step, in any order."""
        steps = tuple(sorted(points))
        losses = tuple(_bounded(points[step]) for step in steps)
        return cls(steps, losses, tuple(accumulate(losses, min)))

    def merged(self, points: Mapping[int, float]) -> Curve:
        """The curve with more points; a step that is there is replaced."""
        return Curve.of({**dict(zip(self.steps, self.losses, strict=True)), **points})

    def upto(self, step: int) -> Curve:
        """The part of the curve at the steps up to one."""
        length = bisect_right(self.steps, step)
        return Curve(self.steps[:length], self.losses[:length], self.lowest[:length])

    def reached(self, step: int) -> bool:
        """Whether something was measured both at or before a step, and at or after it."""
        return bool(self.steps) and self.steps[0] <= step <= self.steps[-1]

    def best(self, step: int) -> float:
        """The least loss at the steps up to one; infinite if there is none."""
        length = bisect_right(self.steps, step)
        return self.lowest[length - 1] if length else math.inf

    def mean(self, step: int) -> float:
        """The mean loss at the steps up to one; infinite if there is none."""
        length = bisect_right(self.steps, step)
        return sum(self.losses[:length]) / length if length else math.inf

    def arrival(self, step: int) -> float | None:
        """The least loss when the curve first came to a step or went beyond it; None if it has not come so far."""
        place = bisect_left(self.steps, step)
        return self.lowest[place] if place < len(self.steps) else None


def _bounded(loss: float) -> float:
    return min(max(loss, -LARGEST), LARGEST) if math.isfinite(loss) else math.inf
