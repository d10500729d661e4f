"""What was learned from a study's observations, and the acquisition that follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from asktell.server.domain.trial import Prediction
from asktell.server.policies.acquisition import (
    Acquisition,
    Average,
    ExpectedImprovement,
    Feasibility,
    Product,
    StackAverage,
)
from asktell.server.policies.aim import Aim
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.draws import fantasy_normals
from asktell.server.policies.excess import Excesses
from asktell.server.policies.failures import CAUTION
from asktell.server.policies.kernel import Array, Mask, Matrix
from asktell.server.policies.labels import Labels, median
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.stack import Stack
from asktell.server.policies.transfer import Transferred

_LEAST_WEIGHT = 1e-9
_WIDEST = 3.0
_TOLD = 8
"""Fewer surprises than this tell of chance."""
_CARE = 2.0
"""To which power the probability to meet an outcome constraint counts in a search that explores: the best is often at the bound."""


@dataclass(frozen=True, slots=True)
class Model:
    """A posterior of labels, which of its inputs were measured (`n`), and where the incumbent may be (`n x 1` or `n x s`).

    That is where a trial was measured and is feasible. `kept` are the observations that the first of the inputs belong to. Configurations
    are compared at the `aim`, whatever fidelity they were measured at. Standard deviations are those of the posterior times the `widening`.
    """

    labels: Labels
    posterior: Posterior | Transferred
    measured: Mask
    eligible: Mask
    kept: Sequence[int]
    aim: Aim | None = None
    widening: float = 1.0

    @property
    def standing(self) -> Matrix:
        """The means of the inputs' configurations, at the aim (`n x 1` or `n x s`)."""
        return self.posterior.means if self.aim is None else self.posterior.expect(self.places)

    @property
    def places(self) -> Matrix:
        """The inputs' configurations, at the aim (`n x D`)."""
        return self.posterior.inputs if self.aim is None else self.aim.raised(self.posterior.inputs)

    @property
    def incumbents(self) -> Vector:
        """The best posterior means where something was measured and is feasible, one for each set of labels (`s`).

        If nothing is, the worst means: improvement is then sure, and slowly rises with better labels, so that what decides is the
        probability to be feasible (Gelbart et al. 2014).
        """
        return self._incumbents(self.eligible)

    def rivals(self, row: Matrix) -> Vector:
        """What the incumbents would be without the trials of one configuration (`1 x D`)."""
        return self._incumbents(self.eligible & (self.posterior.inputs != row).any(axis=1)[:, None])

    @property
    def noise(self) -> float:
        """The variance that one more measurement is expected to have."""
        told = self.posterior.variances[: len(self.kept)][self.measured[: len(self.kept)]]
        return self.posterior.hyper.noise + float(told.mean())

    def _incumbents(self, eligible: Mask) -> Vector:
        means = self.standing
        best = np.where(eligible, means, np.inf).min(axis=0)
        worst = means[self.measured].max(axis=0)
        incumbents: Vector = np.where(np.isfinite(best), best, worst)
        return incumbents

    def imagining(self, rows: Matrix, normals: Matrix, feasible: Mask) -> Model:
        """The model after pending trials (`p x D`) have ended in as many ways as there are columns of normal numbers (`p x s`).

        `feasible` (`p x s`) tells in which of them each is.
        """
        posterior = self.posterior.given(rows, self.posterior.sample(rows, normals))
        measured = np.concatenate([self.measured, np.ones(len(rows), dtype=np.bool_)])
        before = np.broadcast_to(self.eligible, (len(self.eligible), normals.shape[1]))
        eligible = np.concatenate([before, feasible])
        return replace(self, posterior=posterior, measured=measured, eligible=eligible)

    def evidence(self) -> float:
        """Log density of the better half of the losses, each given all the others, up to a constant that all models of a study share.

        There all warps are the identity, so that their labels differ in the unit only.
        """
        values = self.labels.values
        better = self.measured & (values <= median(values[self.measured]))
        return float(self.posterior.leave_one_out()[better].sum() - better.sum() * np.log(self.labels.unit))


@dataclass(frozen=True, slots=True)
class Limit:
    """A posterior of an outcome constraint's labels at the inputs where its metric is known."""

    excesses: Excesses
    posterior: Posterior

    @property
    def metric(self) -> str:
        """The constrained metric."""
        return self.excesses.constraint.metric

    @property
    def feasibility(self) -> Feasibility:
        """The log probability that the constraint is met."""
        return Feasibility(self.posterior, self.excesses.threshold)

    def met(self, rows: Matrix) -> Mask:
        """Where the posterior means (`m x s`) at feature rows (`m x D`) meet the constraint."""
        means, _ = self.posterior.moments(rows)
        met: Mask = means <= self.excesses.threshold
        return met

    def imagining(self, rows: Matrix, normals: Matrix) -> tuple[Limit, Mask]:
        """The model after pending trials (`p x D`) have ended in some ways, and in which of these they meet the constraint (`p x s`)."""
        draws = self.posterior.sample(rows, normals)
        return Limit(self.excesses, self.posterior.given(rows, draws)), draws <= self.excesses.threshold

    def prediction(self, rows: Matrix) -> Prediction:
        """What is expected of the metric, in its unit, at a feature row (`1 x D`)."""
        mean, deviation = self.posterior.moments(rows)
        return self.excesses.prediction(float(mean[0, 0]), float(deviation[0]))


@dataclass(frozen=True)
class Learned:
    """The models of the objective, the first of which makes the predictions, those of outcome constraints, and the probability that a
    trial works, if that is learned.

    `log_weights` are what the models' improvements are weighted by, `omitted` the metrics of outcome constraints that there was no time for.
    """

    models: tuple[Model, ...]
    log_weights: Vector
    feasibility: Acquisition | None = None
    limits: tuple[Limit, ...] = ()
    omitted: tuple[str, ...] = ()

    def acquisition(self, *, ambition: float | Vector = 0.0, again: Matrix | None = None) -> Acquisition:
        """What is maximised. `ambition` is how much more than the incumbent is asked for, in standard deviations of the labels, of all rows or
        of each (`m`).

        For measuring `again` a configuration (`1 x D`) the incumbent is the best of the others, and only what noise lets through counts.
        """
        bold = np.asarray(ambition) > 0.0
        value = self._improvement(np.asarray(ambition)[..., None]) if again is None else self._improvement_again(again)
        for limit in self.limits:
            value = Product(value, limit.feasibility, power=np.where(bold, _CARE, 1.0))
        if self.feasibility is None:
            return value
        return Product(value, self.feasibility, power=np.where(bold, CAUTION, 1.0))

    def _improvement(self, ambition: Array) -> Acquisition:
        """The improvement on incumbents less an ambition (`1` or `m x 1`)."""
        if self._stack is not None:
            widening = np.array([[each.widening] for each in self.models])
            improvements = ExpectedImprovement(self._stack, self._incumbents - ambition, widening=widening)
            return StackAverage(improvements, self.log_weights)
        return self._average(
            [
                ExpectedImprovement(each.posterior, each.incumbents - ambition, widening=each.widening)
                for each in self.models
            ]
        )

    def _improvement_again(self, row: Matrix) -> Acquisition:
        return self._average(
            [ExpectedImprovement(each.posterior, each.rivals(row), each.noise, each.widening) for each in self.models]
        )

    def _average(self, parts: Sequence[Acquisition]) -> Acquisition:
        return parts[0] if len(parts) == 1 else Average(parts, self.log_weights)

    @cached_property
    def _incumbents(self) -> Array:
        """The models' incumbents (`p x 1 x s`)."""
        return np.stack([model.incumbents for model in self.models])[:, None]

    @cached_property
    def _stack(self) -> Stack | None:
        """The models' posteriors together; None where one after another is as fast."""
        posteriors = [model.posterior for model in self.models if isinstance(model.posterior, Posterior)]
        return Stack(posteriors) if len(posteriors) == len(self.models) and Stack.fits(posteriors) else None

    def ranks(self) -> Vector:
        """How unpromising the first model's inputs are to start a search around (`n`).

        Feasible ones come first, by their means, then others, by the probability to be feasible.
        """
        model = self.models[0]
        means, eligible = model.standing[:, 0], model.eligible[:, 0]
        if not self.limits:
            return means
        chances = sum(limit.feasibility(model.places) for limit in self.limits)
        ranks: Vector = np.where(eligible, means, means.max() + 1.0 - chances)
        return ranks

    def predictions(self, rows: Matrix) -> dict[str, Prediction]:
        """What is expected, in their units, of a single objective and of constrained metrics at a feature row (`1 x D`)."""
        model = self.models[0]
        mean, deviation = model.posterior.moments(rows)
        own = model.labels.prediction(float(mean[0, 0]), float(deviation[0]) * model.widening)
        predictions = {} if own is None else {model.labels.objective.metric: own}
        return predictions | {limit.metric: limit.prediction(rows) for limit in self.limits}

    def imagining(self, rows: Matrix, *, fantasies: int, seed: int, deadline: Deadline = NEVER) -> Learned:
        """What would be known had pending trials (`p x D`) ended; of the outcome constraints, of as many as there is time for."""
        if not len(rows):
            return self
        normals = fantasy_normals(seed, points=len(rows), fantasies=fantasies)
        feasible = np.ones(normals.shape, dtype=np.bool_)
        limits = []
        for limit in self.limits:
            if deadline.passed:
                limits.append(limit)
                continue
            own = fantasy_normals(seed, points=len(rows), fantasies=fantasies, of=limit.metric)
            imagined, met = limit.imagining(rows, own)
            limits.append(imagined)
            feasible &= met
        models = tuple(model.imagining(rows, normals, feasible) for model in self.models)
        return replace(self, models=models, limits=tuple(limits))


def widening(innovations: Vector) -> float:
    """What deviations are to be multiplied by where results come as a surprise, given how far each was from what those before it foretold (`n`,
    in standard deviations, in their order): the root mean square of the later half, from 1 to `_WIDEST`; 1 of few.

    A search ends up where its first, scattered trials told least of, and there the ground may be rougher than they made it look.
    """
    later = innovations[len(innovations) // 2 :]
    if len(later) < _TOLD:
        return 1.0
    return min(max(1.0, math.sqrt(float(later @ later) / len(later))), _WIDEST)


def of_one_kind(useful: Mask, *, limited: bool, aimed: bool, noisy: bool) -> bool:
    """Whether rough ground is all that a surprise can tell of: every trial worked (`n`), and there are neither outcome constraints to learn of,
    nor fidelities, nor noise.
    """
    return bool(useful.all()) and not (limited or aimed or noisy)


def weigh(models: Sequence[Model], *, temper: float) -> Vector:
    """Logarithms of what the models' improvements are weighted by: evidence to a power, and their unit, so that all are losses."""
    evidence = temper * np.array([model.evidence() for model in models])
    weights = np.exp(evidence - evidence.max()) * _shares(models)
    units = np.array([model.labels.unit for model in models])
    logarithms: Vector = np.log(np.maximum(weights / weights.mean(), _LEAST_WEIGHT)) + np.log(units / units[0])
    return logarithms


def _shares(models: Sequence[Model]) -> Vector:
    """What models are worth before any evidence: one that starts from sources and the first, which does not, count as one."""
    shares = np.ones(len(models))
    if isinstance(models[-1].posterior, Transferred):
        shares[[0, -1]] = 0.5
    return shares
