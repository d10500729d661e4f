"""What was learned of two to four objectives, the Pareto front so far, and the acquisition that follows from both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asktell.server.domain.trial import Prediction
from asktell.server.policies.acquisition import Acquisition, Product
from asktell.server.policies.aim import Aim
from asktell.server.policies.boxes import non_dominated
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.draws import fantasy_normals
from asktell.server.policies.hypervolume import Boxes, HypervolumeImprovement, Mixture
from asktell.server.policies.kernel import Mask, Matrix
from asktell.server.policies.labels import Labels
from asktell.server.policies.models import Learned, Limit

_MOST = {2: 100, 3: 60, 4: 30}
"""How many points of a front count, for so many objectives,"""
_FANTASIES = {2: 16, 3: 8, 4: 4}
"""and in how many ways pending trials are imagined to end at most: boxes are made for each of them."""


@dataclass(frozen=True, slots=True)
class Front:
    """A belief about each objective's labels, all at the same inputs, which of these may be on the front (`n x 1` or `n x s`), and the
    reference (`m`). Configurations are compared at the `aim`, whatever fidelity they were measured at. For the outcome constraints of the
    `omitted` metrics there was no time.
    """

    labels: tuple[Labels, ...]
    objectives: tuple[Mixture, ...]
    eligible: Mask
    reference: Vector
    limits: tuple[Limit, ...]
    works: Acquisition | None
    aim: Aim | None = None
    omitted: tuple[str, ...] = ()

    @classmethod
    def of(cls, learned: Sequence[Learned]) -> Front:
        """The front that follows from what was learned of each objective."""
        labels = tuple(each.models[0].labels for each in learned)
        mixtures = tuple(Mixture(tuple(model.posterior for model in each.models), each.log_weights) for each in learned)
        first, aim = learned[0], learned[0].models[0].aim
        means = _means(mixtures, aim)[:, 0]
        # Where nothing is feasible yet, whatever was measured tells which region matters.
        eligible = first.models[0].eligible
        measured = np.logical_and.reduce([each.models[0].measured for each in learned])
        reference = infer_reference(means[eligible[:, 0] if eligible.any() else measured], references(labels))
        return cls(labels, mixtures, eligible, reference, first.limits, first.feasibility, aim, first.omitted)

    def acquisition(self, deadline: Deadline = NEVER) -> Acquisition:
        """What is maximised. After the deadline it is minus infinity wherever it would take longer."""
        boxes = Boxes.beyond(list(self.fronts()), self.reference)
        value: Acquisition = HypervolumeImprovement(self.objectives, boxes, deadline)
        for factor in (*(limit.feasibility for limit in self.limits), self.works):
            value = value if factor is None else Product(value, factor)
        return value

    def fronts(self) -> Iterator[Matrix]:
        """The Pareto front of the posterior means, for each set of labels (`f x m` each)."""
        means = _means(self.objectives, self.aim)
        for case, where in zip(means.swapaxes(0, 1), np.broadcast_to(self.eligible, means.shape[:2]).T, strict=True):
            inside = case[where & (case < self.reference).all(axis=1)]
            yield thinned(inside[non_dominated(inside)], _MOST[len(self.objectives)])

    def ranks(self) -> Vector:
        """How unpromising the inputs are (`n`): by how many that are feasible each is dominated; those that are not feasible come last."""
        means, eligible = _means(self.objectives, self.aim)[:, 0], self.eligible[:, 0]
        better = np.array([(means[eligible] < own).all(axis=1).sum() for own in means], dtype=np.float64)
        places = _places(self.objectives, self.aim)
        chances = sum(limit.feasibility(places) for limit in self.limits)
        ranks: Vector = np.where(eligible, better, 1.0 + len(means) - chances)
        return ranks

    def predictions(self, rows: Matrix) -> dict[str, Prediction]:
        """What is expected, in their units, of objectives and constrained metrics at a feature row (`1 x D`)."""
        predictions: dict[str, Prediction] = {}
        for labels, mixture in zip(self.labels, self.objectives, strict=True):
            mean, deviation = mixture.posteriors[0].moments(rows)
            own = labels.prediction(float(mean[0, 0]), float(deviation[0]))
            if own is not None:
                predictions[labels.objective.metric] = own
        return predictions | {limit.metric: limit.prediction(rows) for limit in self.limits}

    def imagining(self, rows: Matrix, *, fantasies: int, seed: int) -> Front:
        """What would be known had pending trials (`p x D`) ended."""

        def normals(metric: str) -> Matrix:
            ways = min(fantasies, _FANTASIES[len(self.objectives)])
            return fantasy_normals(seed, points=len(rows), fantasies=ways, of=metric)

        objectives = tuple(
            mixture.imagining(rows, normals(labels.objective.metric))
            for labels, mixture in zip(self.labels, self.objectives, strict=True)
        )
        feasible = np.ones((len(rows), objectives[0].ways), dtype=np.bool_)
        limits = []
        for limit in self.limits:
            imagined, met = limit.imagining(rows, normals(limit.metric))
            limits.append(imagined)
            feasible &= met
        before = np.broadcast_to(self.eligible, (len(self.eligible), objectives[0].ways))
        eligible = np.concatenate([before, feasible])
        return replace(self, objectives=objectives, eligible=eligible, limits=tuple(limits))


def _means(objectives: Sequence[Mixture], aim: Aim | None) -> Matrix:
    """The means of all objectives at the inputs, raised to the aim (`n x s x m`)."""
    places = None if aim is None else _places(objectives, aim)
    return np.stack([mixture.means(places) for mixture in objectives], axis=-1)


def _places(objectives: Sequence[Mixture], aim: Aim | None) -> Matrix:
    inputs = objectives[0].posteriors[0].inputs
    return inputs if aim is None else aim.raised(inputs)


def references(labels: Sequence[Labels]) -> Vector:
    """The labels of the objectives' references (`m`), NaN for none."""
    return np.array([np.nan if each.reference is None else each.reference for each in labels])


def infer_reference(points: Matrix, given: Vector) -> Vector:
    """A reference for at least one point (`n x m`): as given (`m`), and where nothing is (NaN), the worst of the points.

    A reference near the present front's ends would leave nothing to be won beyond them, where the front is yet to be found.
    """
    reference: Vector = np.where(np.isnan(given), points.max(axis=0), given)
    return reference


def thinned(front: Matrix, most: int) -> Matrix:
    """The front (`f x m`), or of a larger one the ends and others that are far apart."""
    if len(front) <= most:
        return front
    scaled = (front - front.min(axis=0)) / np.maximum(np.ptp(front, axis=0), 1e-12)
    kept = list(dict.fromkeys(scaled.argmin(axis=0).tolist()))
    nearest = ((scaled[:, None] - scaled[kept]) ** 2).sum(axis=2).min(axis=1)
    while len(kept) < most:
        farthest = int(nearest.argmax())
        kept.append(farthest)
        nearest = np.minimum(nearest, ((scaled - scaled[farthest]) ** 2).sum(axis=1))
    return front[sorted(kept)]
