"""What models of outcome constraints learn from: how far metrics lie beyond their bounds, as standardised labels; the bound is one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asktell.server.domain.metric import OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation
from asktell.server.domain.trial import Prediction
from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Mask
from asktell.server.policies.labels import Noise
from asktell.server.policies.results import USEFUL

_NEAR = 3.0
"""Up to so many typical distances from the bound excesses are themselves."""
_FARTHEST = 3.0
"""So many typical distances more the logarithm beyond may add at most."""
_EQUAL = 1e-9
_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True, slots=True)
class Press:
    """Excesses are themselves near the bound, which is 0, and logarithmic farther away on either side, much as Eriksson and Poloczek's (2021)
    bilog: what lies a million beyond costs the model no resolution where feasible and infeasible meet.

    `width` is the median distance from the bound, of those that are not on it, in units of `magnitude`.
    """

    magnitude: float
    width: float

    @classmethod
    def fitted(cls, excesses: Vector) -> tuple[Press, Vector]:
        """The warp for some finite excesses (`n`), and the excesses warped."""
        magnitude = float(np.abs(excesses).max(initial=0.0)) or 1.0
        distances = np.abs(excesses) / magnitude
        away = distances[distances > 0.0]
        width = float(np.median(away)) if len(away) else 1.0
        fence = _NEAR * width
        with np.errstate(over="ignore"):
            beyond = np.minimum(np.log1p(np.maximum(distances - fence, 0.0) / width), _FARTHEST)
        pressed = np.minimum(distances, fence) / width + beyond
        return cls(magnitude, width), np.sign(excesses) * pressed

    def excess(self, pressed: float) -> float:
        """The excess that has this warped value."""
        distance = abs(pressed)
        scaled = min(distance, _NEAR) + math.expm1(self._beyond(distance))
        return math.copysign(self._length(scaled), pressed)

    def slope(self, pressed: float) -> float:
        """How much the excess changes with the warped value."""
        return self._length(math.exp(self._beyond(abs(pressed))))

    def _length(self, widths: float) -> float:
        # In this order: the magnitude may be the largest number there is.
        return float(np.clip(widths * self.width * self.magnitude, 0.0, _LARGEST))

    @staticmethod
    def _beyond(distance: float) -> float:
        return min(max(distance - _NEAR, 0.0), _FARTHEST)


@dataclass(frozen=True, slots=True)
class Excesses:
    """Standardised labels (`n`) of a constrained metric; what is below `threshold` is feasible. `noise` is what is known of their variances."""

    values: Vector
    noise: Noise
    centre: float
    scale: float
    press: Press
    constraint: OutcomeConstraint

    @property
    def threshold(self) -> float:
        """The label of the bound."""
        return -self.centre / self.scale

    def prediction(self, mean: float, standard_deviation: float) -> Prediction:
        """A belief about a label as one about the metric, in its unit."""
        pressed = self.centre + mean * self.scale
        excess = self.press.excess(pressed)
        sign = 1.0 if self.constraint.relation is Relation.AT_MOST else -1.0
        value = float(np.clip(self.constraint.bound + sign * excess, -_LARGEST, _LARGEST))
        with np.errstate(over="ignore"):
            spread = standard_deviation * self.scale * np.float64(self.press.slope(pressed))
        return Prediction(value, float(min(spread, _LARGEST)))


def known(observations: Sequence[Observation], constraint: OutcomeConstraint) -> Mask:
    """Which observations tell the constrained metric: succeeded or stopped, with a finite value (`n`)."""
    return np.array(
        [
            seen.state in USEFUL
            and constraint.metric in seen.metrics
            and math.isfinite(seen.metrics[constraint.metric].value)
            for seen in observations
        ],
        dtype=np.bool_,
    )


def met_by(observations: Sequence[Observation], constraint: OutcomeConstraint) -> Mask:
    """Which observations are seen to meet the constraint (`n`)."""
    return np.array([constraint.met(seen.metrics) for seen in observations], dtype=np.bool_)


def make_excesses(observations: Sequence[Observation], constraint: OutcomeConstraint) -> Excesses:
    """Labels for observations all of which are known."""
    raw = [constraint.excess(seen.metrics[constraint.metric].value) for seen in observations]
    press, pressed = Press.fitted(np.clip(np.array(raw, dtype=np.float64), -_LARGEST, _LARGEST))
    centre, scale = float(pressed.mean()), float(pressed.std())
    # Equal values may differ by rounding from their mean.
    scale = scale if scale > _EQUAL else 1.0
    errors = np.array([seen.metrics[constraint.metric].standard_error for seen in observations], dtype=np.float64)
    worth = scale * np.array([press.slope(float(each)) for each in pressed])
    return Excesses((pressed - centre) / scale, Noise.of(errors, worth), centre, scale, press, constraint)
