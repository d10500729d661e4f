"""Where trials that were stopped, or are under way, will have ended, for the surrogate to learn from: an early value is no final one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from asktell.server.domain.curve import LARGEST, Curve, Ending
from asktell.server.domain.stopping import Folds, StoppingRule
from asktell.server.stopping.extrapolation import regression

ENOUGH = 5
"""Trials that went on from a step, to learn from."""
LATEST = 2_000
"""Trials that are looked at, the latest ones, so that an ask in a large study takes hundredths of a second."""
MOST = 200
"""Trials that are learned from at one stage."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Later losses as a linear function of earlier ones, fitted to `count` pairs.

    `variance` is that of what the line leaves over; `spread` the sum of the squared distances of the earlier losses from their mean, `now`.
    """

    count: int
    now: float
    later: float
    slope: float
    variance: float
    spread: float

    def after(self, loss: float, variance: float) -> tuple[float, float]:
        """The later loss and its variance, of an earlier one that is known with a variance (Gelman et al. 2013, section 14.3)."""
        away = loss - self.now
        leverage = 1 + 1 / self.count + (away / self.spread * away if self.spread > 0 else 0.0)
        return self.later + self.slope * away, self.slope * self.slope * variance + self.variance * leverage


def foresee(rule: StoppingRule, curves: Mapping[int, Curve], partial: Collection[int]) -> dict[int, Ending]:
    """The expected last losses of trials of which only a part was measured, by their numbers, from the curves of all trials.

    How the losses at a step relate to those at the end is learned from the trials that went on: by a linear regression to the last step that
    at least five of them came to, and from there on again. Nobody is expected to end better than the best that came to the end, or than it
    stands if that is better still, nor worse than it stands. One whose last value is not finite is left out. With folds for steps, a
    trial's mean is what is expected.

    The standard errors are those of the predictions: where early losses say little, as where they differ by less than their noise, an
    expectation must not count like a result.
    """
    judged = {
        number: curves[number] for number in partial if number in curves and math.isfinite(curves[number].losses[-1])
    }
    if isinstance(rule.kind, Folds):
        return {number: Ending(curve.mean(curve.steps[-1])) for number, curve in judged.items()}
    road = _Road([curves[number] for number in sorted(curves, reverse=True)])
    best = road.best()
    return {number: _ending(road, curve, best) for number, curve in judged.items()}


def _ending(road: _Road, curve: Curve, best: float) -> Ending:
    loss, variance, stages = curve.lowest[-1], 0.0, road.from_step(curve.steps[-1])
    for stage in stages:
        loss, variance = stage.after(loss, variance)
    return Ending(min(max(loss, best), curve.lowest[-1]), _root(variance) if stages else None)


def _root(variance: float) -> float:
    return math.sqrt(variance) if math.isfinite(variance) else LARGEST


@dataclass(frozen=True, slots=True)
class _Road:
    """What becomes of losses on the way to the end, which is the last step of any curve; the latest trials' curves come first."""

    curves: Sequence[Curve]
    _stages: dict[int, tuple[Stage, ...]] = field(default_factory=dict)

    def best(self) -> float:
        """The least loss of those that came to the end."""
        end = max((curve.steps[-1] for curve in self.curves), default=0)
        return min((curve.lowest[-1] for curve in self.curves if curve.steps[-1] == end), default=math.inf)

    def from_step(self, step: int) -> tuple[Stage, ...]:
        """The stages from a step to the end, few of them: from the second one on, fewer than five curves go on."""
        if step not in self._stages:
            ahead = [curve for curve in self.curves[:LATEST] if curve.reached(step) and curve.steps[-1] > step]
            self._stages[step] = self._onwards(step, ahead) if ahead else ()
        return self._stages[step]

    def _onwards(self, step: int, ahead: Sequence[Curve]) -> tuple[Stage, ...]:
        target = sorted((curve.steps[-1] for curve in ahead), reverse=True)[:ENOUGH][-1]
        there = [curve for curve in ahead if curve.steps[-1] >= target and math.isfinite(curve.best(step))][:MOST]
        fitted = _fitted([(curve.best(step), curve.best(target)) for curve in there])
        return (*fitted, *self.from_step(target))


def _fitted(pairs: Sequence[tuple[float, float]]) -> tuple[Stage, ...]:
    """The stage that pairs of earlier and later losses show; of fewer than three, the mean change. A single change may be off by its size."""
    if not pairs:
        return ()
    if len(pairs) < 3:
        changes = [last - now for now, last in pairs]
        change = math.fsum(changes) / len(changes)
        off = abs(change) if len(changes) == 1 else abs(changes[0] - changes[1])
        return (Stage(len(pairs), 0.0, change, 1.0, off * off, 0.0),)
    now, later, slope = regression(pairs)
    left = [last - later - slope * (early - now) for early, last in pairs]
    freedom = len(pairs) - (2 if slope > 0 else 1)
    # A Student distribution with so many degrees of freedom is wider than a normal one.
    wider = freedom / (freedom - 2) if freedom > 2 else 3.0
    variance = wider * math.fsum(each * each for each in left) / freedom
    spread = math.fsum((early - now) * (early - now) for early, _ in pairs) if slope > 0 else 0.0
    return (Stage(len(pairs), now, later, slope, variance, spread),)
