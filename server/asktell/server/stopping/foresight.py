"""Where stopped trials would have ended, for the surrogate to learn from: an early value is no final one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from asktell.server.domain.curve import Curve
from asktell.server.domain.stopping import Folds, StoppingRule
from asktell.server.stopping.extrapolation import regression

ENOUGH = 5
"""Trials that went on from a step, to learn from."""
MOST = 200
"""Trials that are learned from: the latest ones."""


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


def foresee(rule: StoppingRule, curves: Mapping[int, Curve], stopped: Collection[int]) -> dict[int, float]:
    """The expected last losses of stopped trials, by their numbers, from the curves of all trials that ended.

    How the losses at a step relate to those at the end is learned from the trials that went on: by a linear regression to the last step that
    at least five of them came to, and from there on again. Who was stopped is not expected to end better than the best that did not, nor
    worse than it stood. One whose last value is not finite is left out. With folds for steps, a trial's mean is what is expected.
    """
    judged = {
        number: curves[number] for number in stopped if number in curves and math.isfinite(curves[number].losses[-1])
    }
    if isinstance(rule.kind, Folds):
        return {number: curve.mean(curve.steps[-1]) for number, curve in judged.items()}
    known = [curves[number] for number in sorted(curves, reverse=True)]
    end = max((curve.steps[-1] for curve in known), default=0)
    best = min((curve.lowest[-1] for curve in known if curve.steps[-1] == end), default=math.inf)
    lines = _lines(known, {curve.steps[-1] for curve in judged.values()}, end)
    return {
        number: _within(lines[curve.steps[-1]].at(curve.lowest[-1]), best, curve.lowest[-1])
        for number, curve in judged.items()
    }


def _within(expected: float, best: float, stood: float) -> float:
    return min(max(expected, best), stood)


def _lines(known: Sequence[Curve], steps: Collection[int], end: int) -> dict[int, Line]:
    """What becomes of losses at steps, the last ones of some curves, until the end."""
    lasts = sorted({curve.steps[-1] for curve in known}, reverse=True)
    lines = {end: Line()}
    for step in sorted({*steps, *lasts}, reverse=True):
        later = [last for last in lasts if last > step]
        if later:
            target, pairs = _ahead(known, step, later)
            lines[step] = lines[target].after(_fitted(pairs))
    return lines


def _ahead(known: Sequence[Curve], step: int, later: Sequence[int]) -> tuple[int, list[tuple[float, float]]]:
    """The last step to which enough curves go on from a step, else the next one that any does, with the losses at both of these curves."""
    pairs: list[tuple[float, float]] = []
    for target in later:
        there = [curve for curve in known if curve.reached(step) and curve.steps[-1] >= target][:MOST]
        pairs = [(curve.best(step), curve.best(target)) for curve in there if math.isfinite(curve.best(step))]
        if len(pairs) >= ENOUGH:
            return target, pairs
    return later[-1], pairs


def _fitted(pairs: Sequence[tuple[float, float]]) -> Line:
    if not pairs:
        return Line()
    if len(pairs) < 3:
        return Line(1.0, math.fsum(last - now for now, last in pairs) / len(pairs))
    middle, final, slope = regression(pairs)
    return Line(slope, final - slope * middle)
