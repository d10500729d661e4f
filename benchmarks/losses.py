"""What is scored where a problem has several objectives or constraints, as one number of which less is better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from benchmarks.problem import Outcome

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Hypervolume:
    """How much of the best known hypervolume all outcomes so far lack, as a share of it: 0 lacks nothing, 1 all.

    Objectives are scaled to 0 at the ideal point and 1 at the nadir point; the hypervolume is what of this square is dominated.
    `best` is that of the best front known. Where somebody finds a better one the loss is below 0. While nothing dominates the nadir
    point, the loss is above 1 by the distance to the square, as in COCO's own indicator (Brockhoff et al. 2022, section 4.1).
    """

    ideal: tuple[float, ...]
    nadir: tuple[float, ...]
    best: float

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        """The loss after these outcomes."""
        points = [self._scaled(outcome) for outcome in outcomes]
        area = hypervolume(points)
        return 1 - area / self.best if area else 1 + min(_distance(point) for point in points)

    def _scaled(self, outcome: Outcome) -> Pair:
        ends = zip(outcome.objectives, self.ideal, self.nadir, strict=True)
        first, second = ((value - ideal) / (nadir - ideal) for value, ideal, nadir in ends)
        return first, second


def hypervolume(points: Iterable[Pair]) -> float:
    """The area of the unit square that is dominated by points, of which less is better in both coordinates."""
    area, ceiling = 0.0, 1.0
    for x, y in sorted(points):
        if x < 1 and y < ceiling:
            area += (1 - max(x, 0.0)) * (ceiling - max(y, 0.0))
            ceiling = max(y, 0.0)
    return area


def _distance(point: Pair) -> float:
    """How far a point is from the unit square, which it does not dominate the corner of."""
    return float(np.hypot(max(point[0] - 1, 0.0), max(point[1] - 1, 0.0)))


@dataclass(frozen=True, slots=True)
class BestFeasible:
    """The latest outcome's objective if it is feasible; else more than any random configuration's, and the more, the further from feasible.

    So an optimiser that has found nothing feasible is behind all that have, and ahead of those that came less near. `low` and `high`
    are the least and greatest objective, `violation` the median violation, of random configurations.
    """

    low: float
    high: float
    violation: float

    @classmethod
    def of(cls, drawn: Sequence[Outcome]) -> Self:
        """The loss for a problem of which these are random configurations' outcomes."""
        values = [outcome.value for outcome in drawn]
        violations = [outcome.violation for outcome in drawn if not outcome.feasible] or [1.0]
        return cls(min(values), max(values), float(np.median(violations)))

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        """The loss of the latest outcome."""
        latest = outcomes[-1]
        share = latest.violation / (latest.violation + self.violation)
        return latest.value if latest.feasible else self.high + share * (self.high - self.low)
