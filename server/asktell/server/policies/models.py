"""What was learned from a study's observations, and the acquisition that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asktell.server.policies.acquisition import Acquisition, Average, ExpectedImprovement, Feasibility, Product
from asktell.server.policies.columns import Vector
from asktell.server.policies.draws import fantasy_normals
from asktell.server.policies.kernel import Mask, Matrix
from asktell.server.policies.labels import Labels
from asktell.server.policies.posterior import Posterior

_LEAST_WEIGHT = 1e-9
_CAUTION = 20.0
"""To which power the probability that a trial works counts in a search that explores."""


@dataclass(frozen=True, slots=True)
class Model:
    """A posterior of labels, and which of its inputs were measured."""

    labels: Labels
    posterior: Posterior
    measured: Mask

    @property
    def incumbents(self) -> Vector:
        """The best posterior means where something was measured, one for each set of labels (`s`)."""
        best: Vector = self.posterior.means[self.measured].min(axis=0)
        return best

    def imagining(self, rows: Matrix, normals: Matrix) -> Model:
        """The model after pending trials (`p x D`) have ended in as many ways as there are columns of normal numbers (`p x s`)."""
        draws = self.posterior.sample(rows, normals)
        flags = np.concatenate([self.measured, np.ones(len(rows), dtype=np.bool_)])
        return Model(self.labels, self.posterior.given(rows, draws), flags)

    def evidence(self) -> float:
        """Log density of the better half of the losses, each given all the others, up to a constant that all models of a study share.

        There all warps are the identity, so that their labels differ in the unit only.
        """
        values = self.labels.values
        better = self.measured & (values <= np.median(values[self.measured]))
        return float(self.posterior.leave_one_out()[better].sum() - better.sum() * np.log(self.labels.unit))


@dataclass(frozen=True, slots=True)
class Learned:
    """The models of the objective, the first of which makes the predictions, and the probability that a trial works, if that is learned.

    `log_weights` are what the models' improvements are weighted by.
    """

    models: tuple[Model, ...]
    log_weights: Vector
    feasibility: Feasibility | None = None

    def acquisition(self, *, ambition: float = 0.0) -> Acquisition:
        """What is maximised. `ambition` is how much more than the incumbent is asked for, in standard deviations of the labels."""
        parts = [ExpectedImprovement(model.posterior, model.incumbents - ambition) for model in self.models]
        value: Acquisition = parts[0] if len(parts) == 1 else Average(parts, self.log_weights)
        if self.feasibility is None:
            return value
        # What explores has hardly an improvement to lose by failing, and would go wherever nobody has been yet.
        return Product(value, self.feasibility, power=_CAUTION if ambition else 1.0)

    def imagining(self, rows: Matrix, *, fantasies: int, seed: int) -> Learned:
        """What would be known had pending trials (`p x D`) ended."""
        if not len(rows):
            return self
        normals = fantasy_normals(seed, points=len(rows), fantasies=fantasies)
        models = tuple(model.imagining(rows, normals) for model in self.models)
        return Learned(models, self.log_weights, self.feasibility)


def weigh(models: Sequence[Model], *, temper: float) -> Vector:
    """Logarithms of what the models' improvements are weighted by: evidence to a power, and their unit, so that all are losses."""
    evidence = temper * np.array([model.evidence() for model in models])
    weights = np.exp(evidence - evidence.max())
    units = np.array([model.labels.unit for model in models])
    logarithms: Vector = np.log(np.maximum(weights / weights.mean(), _LEAST_WEIGHT)) + np.log(units / units[0])
    return logarithms
