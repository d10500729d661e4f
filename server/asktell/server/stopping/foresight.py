"""Where trials that were stopped, or are under way, will have ended, for the surrogate to learn from: an early value is no final one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from asktell.server.domain.curve import Curve
from asktell.server.domain.stopping import Folds, StoppingRule
from asktell.server.stopping.extrapolation import regression

ENOUGH = 5
"""Trials that went on from a step, to learn from."""
LATEST = 2_000
"""Trials that are looked at, the latest ones, so that an ask in a large study takes hundredths of a second."""
MOST = 200
"""Trials that are learned from at one stage."""


@dataclass(frozen=True, slots=True)
class Line:
    """Later losses as a linear function of earlier ones."""

    slope: float = 1.0
    shift: float = 0.0

    def at(self, loss: float) -> float:
        """The later loss."""
        return self.slope * loss + self.shift

    def after(self, first: Line) -> Line:
        """This function of the first one's value."""
        return Line(self.slope * first.slope, self.at(first.shift))


def foresee(rule: StoppingRule, curves: Mapping[int, Curve], partial: Collection[int]) -> dict[int, float]:
    """The expected last losses of trials of which only a part was measured, by their numbers, from the curves of all trials.

    How the losses at a step relate to those at the end is learned from the trials that went on: by a linear regression to the last step that
    at least five of them came to, and from there on again. Nobody is expected to end better than the best that came to the end, or than it
    stands if that is better still, nor worse than it stands. One whose last value is not finite is left out. With folds for steps, a
    trial's mean is what is expected.
    """
    judged = {
        number: curves[number] for number in partial if number in curves and math.isfinite(curves[number].losses[-1])
    }
    if isinstance(rule.kind, Folds):
        return {number: curve.mean(curve.steps[-1]) for number, curve in judged.items()}
    road = _Road([curves[number] for number in sorted(curves, reverse=True)])
    best = road.best()
    return {
        number: _within(road.from_step(curve.steps[-1]).at(curve.lowest[-1]), best, curve.lowest[-1])
        for number, curve in judged.items()
    }


def _within(expected: float, best: float, stood: float) -> float:
    return min(max(expected, best), stood)


@dataclass(frozen=True, slots=True)
class _Road:
    """What becomes of losses on the way to the end, which is the last step of any curve; the latest trials' curves come first."""

    curves: Sequence[Curve]
    _lines: dict[int, Line] = field(default_factory=dict)

    def best(self) -> float:
        """The least loss of those that came to the end."""
        end = max((curve.steps[-1] for curve in self.curves), default=0)
        return min((curve.lowest[-1] for curve in self.curves if curve.steps[-1] == end), default=math.inf)

    def from_step(self, step: int) -> Line:
        """From a step to the end. Few stages: from the second one on, fewer than five curves go on."""
        if step not in self._lines:
            ahead = [curve for curve in self.curves[:LATEST] if curve.reached(step) and curve.steps[-1] > step]
            self._lines[step] = self._stage(step, ahead) if ahead else Line()
        return self._lines[step]

    def _stage(self, step: int, ahead: Sequence[Curve]) -> Line:
        target = sorted((curve.steps[-1] for curve in ahead), reverse=True)[:ENOUGH][-1]
        there = [curve for curve in ahead if curve.steps[-1] >= target and math.isfinite(curve.best(step))][:MOST]
        fitted = _fitted([(curve.best(step), curve.best(target)) for curve in there])
        return self.from_step(target).after(fitted)


def _fitted(pairs: Sequence[tuple[float, float]]) -> Line:
    if not pairs:
        return Line()
    if len(pairs) < 3:
        return Line(1.0, math.fsum(last - now for now, last in pairs) / len(pairs))
    middle, final, slope = regression(pairs)
    return Line(slope, final - slope * middle)
