"""What the surrogate learns from: observations' objectives as standardised labels, smaller is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from asktell.server.domain.metric import Objective, OutcomeConstraint
from asktell.server.domain.policy import Observation
from asktell.server.domain.trial import Prediction
from asktell.server.policies.boxes import non_dominated
from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Mask, Matrix
from asktell.server.policies.results import Results

_TALLEST = 3.0
"""Spreads of the better half that losses of the worse half may rise at most."""
_FAILURE = 1.1
"""The label of a failure, where 0 is the best loss and 1 the worst."""
_AUGMENTATION = 0.05
"""The weight of the sum in the augmented Chebyshev scalarisation (Knowles 2006)."""
_LOUDEST = 1e6
"""Variances of labels above this are as good as none at all."""
_FARTHEST = 1e6
"""Of labels, which have a spread of 1."""
_THINNEST = 1e-305
"""Spreads below this share of the largest loss are none: nothing can be counted in units so small."""
_MEASURABLE = 1e300
"""How many times as large as the better half losses may be and still be told from larger ones."""
_LARGEST = np.finfo(np.float64).max


class Shape(Enum):
    """Which losses a warp presses together."""

    HALF = "half"
    """Those worse than the median, in units of the better half's spread: a soft half-rank warp (Song et al. 2024, section 4.1)."""
    FENCE = "fence"
    """Those beyond Tukey's outer fence, three times the interquartile range above the upper quartile, in units of that range."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Warp:
    """Losses are themselves up to a fence and logarithmic beyond; then 0 is the best and 1 the worst.

    Whatever lies beyond the fence, accuracies of 10 % or a loss of 1e300, costs the model no resolution where it matters. Unlike ranks
    the warp keeps distances and has an inverse.
    """

    magnitude: float
    fence: float
    width: float
    best: float
    span: float

    @classmethod
    def fitted(cls, losses: Vector, shape: Shape = Shape.HALF, *, least: float = -math.inf) -> tuple[Warp, Vector]:
        """The warp of a shape for some finite losses (`n`), and the losses warped. Up to `least` they are themselves in any case."""
        magnitude = float(np.abs(losses).max()) or 1.0
        own = float(np.abs(losses[losses <= median(losses)]).max()) or 1.0
        if magnitude / _MEASURABLE > own:
            # As penalties that are the largest number there is: in units of theirs the others would all be the same.
            magnitude = own
            losses = np.minimum(losses, magnitude * _MEASURABLE)
        scaled = losses / magnitude
        # In units of theirs what all are below may be infinitely far away.
        fence, width = _fence(scaled, shape, min(least / magnitude, float(scaled.max())))
        if width < _THINNEST:
            width = 1e-3 * float(np.ptp(scaled)) or 1.0
        fenced = _fenced(scaled, fence, width)
        best, span = float(fenced.min()), float(np.ptp(fenced)) or 1.0
        return cls(magnitude, fence, width, best, span), (fenced - best) / span

    def warped(self, loss: float) -> float:
        """The warped value of a finite loss."""
        return float(_fenced(np.array(loss / self.magnitude), self.fence, self.width) - self.best) / self.span

    def loss(self, warped: float) -> float:
        """The loss that has this warped value."""
        return float(np.clip(self._unfenced(warped) * self.magnitude, -_LARGEST, _LARGEST))

    def losses(self, warped: Vector) -> Vector:
        """The losses that have these warped values (`n`)."""
        values = self.best + warped * self.span
        excess = np.clip((values - self.fence) / self.width, 0.0, _TALLEST)
        unfenced = np.where(values > self.fence, self.fence + self.width * np.expm1(excess), values)
        return np.clip(unfenced * self.magnitude, -_LARGEST, _LARGEST)

    def slope(self, warped: float) -> float:
        """How much the loss changes with the warped value."""
        steep = np.exp(self._excess(warped)) * self.span
        return float(min(steep * self.magnitude, _LARGEST))

    def slopes(self, warped: Vector) -> Vector:
        """The same for many (`n`)."""
        return np.array([self.slope(float(each)) for each in warped])

    def _unfenced(self, warped: float) -> float:
        value = self.best + warped * self.span
        return self.fence + self.width * float(np.expm1(self._excess(warped))) if value > self.fence else value

    def _excess(self, warped: float) -> float:
        return float(np.clip((self.best + warped * self.span - self.fence) / self.width, 0.0, _TALLEST))


@dataclass(frozen=True, slots=True)
class Noise:
    """Variances of labels (`n`) that follow from told standard errors, 0 where none was told; and whether one was told for every result.

    The noise that a model learns comes on top: it has little left to explain where all errors are known.
    """

    variances: Vector
    complete: bool = False

    @classmethod
    def of(cls, errors: Vector, worth: Vector) -> Noise:
        """What a metric's standard errors (`n`, NaN where none was told) say of its labels, given how much of the metric a unit of each label
        is worth (`n`).
        """
        with np.errstate(all="ignore"):
            variances = np.where(errors > 0.0, np.minimum((errors / worth) ** 2, _LOUDEST), 0.0)
        return cls(variances, not np.isnan(errors).any())

    def padded(self, where: Mask) -> Noise:
        """The same for more labels, where these are those of the mask."""
        variances = np.zeros(len(where))
        variances[where] = self.variances
        return Noise(variances, self.complete)


@dataclass(frozen=True, slots=True)
class Labels:
    """Standardised losses of observations (`n`), with imputed ones for failures.

    `warp` leads back to the objective's unit; there is none for several objectives, whose labels are a scalarisation. `noise` are what is
    known of their variances.
    """

    values: Vector
    noise: Noise
    measured: Mask
    centre: float
    scale: float
    warp: Warp | None
    objective: Objective

    @property
    def unit(self) -> float:
        """What a label of 1 is worth, in units of the warped loss: the same for all warps of some losses, where these are themselves."""
        return self.scale * (self.warp.span if self.warp else 1.0)

    @property
    def reference(self) -> float | None:
        """The label of the objective's reference, if it has one; None for several objectives.

        It is finite, though in units of the smallest results a reference may be infinitely far away.
        """
        given = self.objective.reference
        if self.warp is None or given is None:
            return None
        label = (self.warp.warped(self.objective.loss(given)) - self.centre) / self.scale
        return float(np.clip(label, -_FARTHEST, _FARTHEST))

    def value(self, label: float) -> float | None:
        """The objective's value, in its unit, that has this label; None for several objectives."""
        return None if self.warp is None else self.objective.loss(self.warp.loss(self.centre + label * self.scale))

    def losses(self, labels: Vector) -> Vector:
        """The losses, in the objective's unit, that have these labels (`n`); the labels themselves for several objectives."""
        return labels if self.warp is None else self.warp.losses(self.centre + labels * self.scale)

    def prediction(self, mean: float, standard_deviation: float) -> Prediction | None:
        """A belief about a label as one about the objective, in its unit; None for several objectives."""
        value = self.value(mean)
        if value is None or self.warp is None:
            return None
        slope = self.warp.slope(self.centre + mean * self.scale)
        with np.errstate(over="ignore"):
            return Prediction(value, float(min(standard_deviation * self.scale * slope, _LARGEST)))


def measured(observations: Sequence[Observation], objectives: Sequence[Objective]) -> Mask:
    """Which observations say what the objectives are: succeeded or stopped, with finite values (`n`)."""
    return Results.of(observations, objectives).measured


def make_labels(
    observations: Sequence[Observation],
    objectives: Sequence[Objective],
    *,
    weights: Vector | None = None,
    shape: Shape = Shape.HALF,
    constraints: Sequence[OutcomeConstraint] = (),
) -> Labels:
    """Labels for observations of which at least one is measured. Several objectives need `weights`, one each, that sum to 1.

    Where the best losses are infeasible, the better half of the feasible ones keeps its resolution too.
    """
    return labelled(Results.of(observations, objectives, constraints=constraints), weights=weights, shape=shape)


def labelled(results: Results, *, weights: Vector | None = None, shape: Shape = Shape.HALF) -> Labels:
    """The same of what observations tell."""
    useful, objectives = results.measured, results.objectives
    fine = results.feasible[useful]
    warps, units = zip(*(_warped(losses, shape, fine) for losses in results.losses[useful].T), strict=True)
    good = units[0] if weights is None else scalarise(np.stack(units, axis=1), weights)
    labels = np.full(len(useful), _FAILURE)
    labels[useful] = good
    centre = float(labels.mean())
    spread = labels - centre
    scale = math.sqrt(float((spread * spread).mean())) or 1.0
    warp = warps[0] if len(objectives) == 1 else None
    noise = Noise(np.zeros(len(labels)))
    if warp:
        errors = results.errors[useful, 0]
        # What a label is worth takes longer than all the rest, and matters to told errors alone.
        worth = warp.slopes(good) * scale if (errors > 0.0).any() else np.ones(len(errors))
        noise = Noise.of(errors, worth).padded(useful)
    return Labels(spread / scale, noise, useful, centre, scale, warp, objectives[0])


def dominance(observations: Sequence[Observation], objectives: Sequence[Objective], eligible: Mask) -> Vector:
    """Labels by which observations (`n`) may be ranked: 0 on the eligible ones' Pareto front, else the mean rank over the objectives.

    Those that are not eligible come last, and of these what was not measured.
    """
    losses = np.full((len(observations), len(objectives)), np.inf)
    for place in np.flatnonzero(eligible).tolist():
        metrics = observations[place].metrics
        losses[place] = [objective.loss(metrics[objective.metric].value) for objective in objectives]
    ranks = 1.0 + losses.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable").mean(axis=1)
    ranks[non_dominated(losses)] = 0.0
    others = 2.0 + len(observations) - measured(observations, objectives)
    ranked: Vector = np.where(eligible, ranks, others)
    return ranked


def scalarise(units: Matrix, weights: Vector) -> Vector:
    """Augmented Chebyshev scalarisation (ParEGO, Knowles 2006) of losses in [0, 1] (`n x m`), scaled to [0, 1] again."""
    weighted = units * weights
    values = weighted.max(axis=1) + _AUGMENTATION * weighted.sum(axis=1)
    return (values - values.min()) / (float(np.ptp(values)) or 1.0)


def _fenced(scaled: Vector, fence: float, width: float) -> Vector:
    """Losses as they are up to the fence and logarithmic beyond."""
    with np.errstate(over="ignore"):
        beyond = np.log1p(np.maximum(scaled - fence, 0.0) / width)
    return np.where(scaled > fence, fence + width * np.minimum(beyond, _TALLEST), scaled)


def _fence(losses: Vector, shape: Shape, least: float) -> tuple[float, float]:
    """Where the logarithm begins, and its unit."""
    if shape is Shape.NONE:
        return float(losses.max()), 0.0
    if shape is Shape.FENCE:
        ordered = np.sort(losses)
        lower, upper = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
        return max(upper + 3.0 * (upper - lower), least), upper - lower
    middle = max(median(losses), least)
    gains = middle - losses[losses <= middle]
    # Their squares may underflow, where a divergence made the magnitude.
    return middle, float(gains.max() * np.sqrt(np.mean((gains / (gains.max() or 1.0)) ** 2)))


def _warped(losses: Vector, shape: Shape, fine: Mask) -> tuple[Warp, Vector]:
    """The warp for losses, which of them are `fine` (`n` each), and the losses warped."""
    return Warp.fitted(losses, shape, least=median(losses[fine]) if fine.any() else -math.inf)


def median(values: Vector) -> float:
    """The median of some finite numbers. NumPy's takes ten times as long for few."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    # Halved before they are added: the sum may be infinite. Half of the least number there is is 0.
    return float(max(ordered[middle - 1], ordered[middle - 1] / 2.0 + ordered[middle] / 2.0))


def _quantile(ordered: Vector, share: float) -> float:
    """The number that a share of ordered ones is below, as far along between two neighbours as it takes."""
    place, rest = divmod(share * (len(ordered) - 1), 1.0)
    lower, upper = float(ordered[int(place)]), float(ordered[min(int(place) + 1, len(ordered) - 1)])
    return lower + (upper - lower) * rest
