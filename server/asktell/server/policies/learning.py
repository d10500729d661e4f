"""From observations to models: labels, hyper-parameters, posteriors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from asktell.server.domain.metric import Objective, OutcomeConstraint
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.policies.acquisition import Acquisition
from asktell.server.policies.aim import Aim
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.divergence import diverged
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.excess import Excesses, known, make_excesses, met_by
from asktell.server.policies.failures import Failures, may_be_chance, telling
from asktell.server.policies.gp import MIN_LEARNED
from asktell.server.policies.hints import Fits, digest_of
from asktell.server.policies.kernel import Hyperparameters, Indices, Layout, Mask, Matrix
from asktell.server.policies.labels import Labels, Noise, dominance, labelled
from asktell.server.policies.likelihood import fit, unpack
from asktell.server.policies.models import Learned, Limit, Model, of_one_kind, weigh, widening
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.recipe import Member, Recipe
from asktell.server.policies.results import Results
from asktell.server.policies.subset import MAX_FITTED, spaced, subset
from asktell.server.policies.transfer import Accounts, Expert, Prior, Rest, Transferred, experts

_ALWAYS = 16
"""Up to so many observations every new one is a reason for a new fit;"""
_LIMITS_SHARE = 0.7
"""Of the time that there is, for learning of outcome constraints."""
_GROWTH = 1.1
"""beyond, so much growth is. A fit costs as much as all the rest of an ask, and a few observations seldom change it."""


def nobody(objectives: Sequence[Objective]) -> Iterator[Expert]:  # noqa: ARG001 - a study without sources.
    """No experts."""
    return iter(())


@dataclass(frozen=True, slots=True)
class _Works:
    """The places of observations that tell of objectives (`t`), which of them were measured and which of these are feasible (`t` each), and
    what is learned of whether trials will be; for the outcome constraints of the `omitted` metrics there was no time.
    """

    telling: Indices
    useful: Mask
    eligible: Mask
    limits: tuple[Limit, ...]
    omitted: tuple[str, ...]
    feasibility: Acquisition | None

    def learned(self, models: Sequence[Model], *, temper: float) -> Learned:
        """All that was learned, with models of what tells."""
        placed = tuple(replace(model, kept=[int(self.telling[place]) for place in model.kept]) for model in models)
        return Learned(placed, weigh(models, temper=temper), self.feasibility, self.limits, self.omitted)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Observations by number, what they tell of objectives, their features (`n x D`), and what it takes to learn from them.

    `pending` is how many trials have not ended; `weights` scalarise several objectives. In a `noisy` study it is the models' to say what is
    feasible. Configurations are compared at the `aim`.
    """

    observations: Sequence[Observation]
    results: Results
    rows: Matrix
    layout: Layout
    pending: int
    recipe: Recipe
    weights: Vector | None
    fits: Fits
    deadline: Deadline
    constraints: tuple[OutcomeConstraint, ...] = ()
    noisy: bool = False
    sources: Callable[[Sequence[Objective]], Iterator[Expert]] = nobody
    aim: Aim | None = None

    @classmethod
    def of(
        cls,
        request: SuggestRequest,
        encoder: Encoder,
        *,
        recipe: Recipe,
        fits: Fits,
        deadline: Deadline,
        weights: Vector | None = None,
        settled: Matrix | None = None,
    ) -> Lesson:
        """What there is to learn in a request's study. The encoder is that of its whole space.

        `settled` are the measurements' rows (`n x d`) in the order of their numbers, if they are known.
        """
        ordered = sorted(request.measurements, key=lambda seen: seen.number)
        if settled is None:
            settled = encoder.encode([seen.parameters for seen in ordered])

        def sources(objectives: Sequence[Objective]) -> Iterator[Expert]:
            return experts(request.sources, objectives, encoder, fits=fits, deadline=deadline)

        return cls(
            ordered,
            Results.of(ordered, request.objectives, constraints=request.outcome_constraints),
            encoder.features(settled),
            encoder.layout,
            len(request.pending),
            recipe,
            weights,
            fits,
            deadline,
            constraints=request.outcome_constraints,
            noisy=request.noisy,
            sources=sources,
            aim=Aim.of(encoder, request.aim),
        )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the observations are learned from for."""
        return self.results.objectives

    def learn(self) -> Learned:
        """Fit the recipe's models."""
        works, told = self._works()
        return works.learned(list(told.models(works.useful, works.eligible)), temper=self.recipe.temper)

    def learn_each(self) -> Iterator[Learned]:
        """Fit the recipe's models to each objective, all at the same inputs."""
        works, told = self._works(widens=False)
        kept = subset(told.rows, dominance(told.observations, self.objectives, works.eligible))
        for place in range(len(self.objectives)):
            own = replace(told, results=told.results.only(place))
            models = list(own.models(own.results.measured, works.eligible, kept=kept))
            yield works.learned(models, temper=self.recipe.temper)

    def _works(self, *, widens: bool = True) -> tuple[_Works, Lesson]:
        """What is learned of which trials work and are feasible, and the lesson that is left for the objectives.

        That is without failures that come by chance: imputed, they would tell of bad places where there are none. And it is without
        divergences, whatever is expected: a step so high would tell of roughness everywhere.
        """
        gone = diverged(self.results, self.recipe)
        useful = self.results.measured & ~gone
        limits = tuple(self._limits())
        eligible = useful & self._feasible(limits)
        failures = self._failures(~useful)
        places = telling([told & ~gone for told in self.results.told.T], failures.expected & ~gone)
        omitted = tuple(each.metric for each in self._limited()[len(limits) :])
        works = _Works(places, useful[places], eligible[places], limits, omitted, failures.feasibility)
        alike = of_one_kind(useful, limited=bool(limits), aimed=self.aim is not None, noisy=self.noisy)
        recipe = replace(self.recipe, widens=self.recipe.widens and widens and alike)
        return works, replace(self._at(places), recipe=recipe)

    def models(self, useful: Mask, eligible: Mask, *, kept: list[int] | None = None) -> Iterator[Model]:
        """The members' models of a single label, the first, and the others if there is time: of the observations kept, if that is decided."""
        for member in self.recipe.members:
            yield self._model(member, useful, eligible, kept)
            if self.deadline.passed:
                return
        if self.weights is None and (experts := tuple(self.sources(self.objectives))):
            yield from self._transferred(experts, useful, eligible, kept)

    def _transferred(
        self, experts: tuple[Expert, ...], useful: Mask, eligible: Mask, kept: list[int] | None
    ) -> Iterator[Model]:
        """A model whose prior is what the experts of earlier studies say; none if they explain nothing."""
        accounts = Accounts.of(experts, self.rows)
        shape = self.recipe.members[0].shape

        def label(places: Sequence[int]) -> Labels:
            return labelled(self.results.at(places), shape=shape)

        def leave(places: Sequence[int]) -> Rest:
            return accounts.at(places).rest(label(places))

        if kept is None:
            values = labelled(self.results, shape=shape).values
            kept = subset(self.rows, values + np.where(eligible, 0.0, np.ptp(values)))
        labels, rest = label(kept), leave(kept)
        if not rest.weights.any():
            return
        hyper = self._hyper(leave, useful=useful, trend=False)
        prior = Prior(experts, rest.weights, rest.scale)
        posterior = Transferred(prior, self._posterior(hyper, kept, rest))
        yield self._modelled(labels, posterior, eligible, kept)

    def _model(self, member: Member, useful: Mask, eligible: Mask, kept: list[int] | None) -> Model:
        def label(places: Sequence[int]) -> Labels:
            return labelled(self.results.at(places), weights=self.weights, shape=member.shape)

        labels = labelled(self.results, weights=self.weights, shape=member.shape)
        if kept is None:
            # The best are the best feasible ones.
            kept = subset(self.rows, labels.values + np.where(eligible, 0.0, np.ptp(labels.values)))
        if len(kept) < len(self.rows):
            labels = label(kept)
        hyper = self._hyper(label, useful=useful, trend=member.trend)
        return self._modelled(labels, self._posterior(hyper, kept, labels), eligible, kept)

    def _modelled(
        self, labels: Labels, posterior: Posterior | Transferred, eligible: Mask, kept: Sequence[int]
    ) -> Model:
        wide = widening(posterior.innovations[labels.measured]) if self.recipe.widens else 1.0
        return Model(labels, posterior, labels.measured, eligible[kept, None], kept, self.aim, wide)

    def _limits(self) -> Iterator[Limit]:
        """The models of the outcome constraints whose metrics are known often enough, as many as there is time for."""
        # What is left is for the objective and the search, which look at every model.
        end = self.deadline.earlier(_LIMITS_SHARE)
        for constraint in self._limited():
            if end.passed:
                return
            where = np.flatnonzero(known(self.observations, constraint))
            yield replace(self._at(where), weights=None).limit(constraint)

    def _limited(self) -> list[OutcomeConstraint]:
        """The outcome constraints whose metrics are known often enough to learn of."""
        return [each for each in self.constraints if known(self.observations, each).sum() >= MIN_LEARNED]

    def limit(self, constraint: OutcomeConstraint) -> Limit:
        """The model of an outcome constraint, of observations all of which tell its metric."""

        def label(places: Sequence[int]) -> Excesses:
            return make_excesses([self.observations[place] for place in places], constraint)

        excesses = make_excesses(self.observations, constraint)
        kept = subset(self.rows, np.abs(excesses.values - excesses.threshold))
        if len(kept) < len(self.rows):
            excesses = label(kept)
        everywhere = np.ones(len(self.rows), dtype=np.bool_)
        hyper = self._hyper(label, useful=everywhere, trend=self.recipe.limit_trend)
        return Limit(excesses, self._posterior(hyper, kept, excesses))

    def _feasible(self, limits: Sequence[Limit]) -> Mask:
        """Which observations meet the outcome constraints that can have models: were seen to, or, if noisy, are expected to (`n`)."""
        if self.noisy:
            met = [limit.met(self.rows)[:, 0] for limit in limits]
        else:
            met = [met_by(self.observations, constraint) for constraint in self._limited()]
        return np.logical_and.reduce([np.ones(len(self.observations), dtype=np.bool_), *met])

    def _failures(self, failed: Mask) -> Failures:
        """What is learned of where trials fail, given which did (`n`)."""
        early = spaced(self._reached, MAX_FITTED)
        return Failures.learned(
            self.rows,
            failed,
            self.layout,
            fickle=may_be_chance(self.observations),
            early=early,
            recipe=self.recipe,
            fits=self.fits,
            deadline=self.deadline,
        )

    def _posterior(self, hyper: Hyperparameters, kept: Sequence[int], labels: Learnable) -> Posterior:
        return Posterior(
            self.layout, hyper, inputs=self.rows[kept], labels=labels.values, variances=labels.noise.variances
        )

    def _at(self, places: Indices) -> Lesson:
        """The lesson of some of the observations."""
        those = [self.observations[place] for place in places.tolist()]
        return replace(self, observations=those, results=self.results.at(places), rows=self.rows[places])

    def _hyper(self, label: Callable[[Sequence[int]], Learnable], *, useful: Mask, trend: bool) -> Hyperparameters:
        """The hyper-parameters that fit the earliest observations, up to a milestone in their number.

        They depend on these alone, so that a fit can be kept from one ask to the next, and made again wherever it is not known.
        """
        early = self._early(useful)
        rows, labels = self.rows[early], label(early)
        values, noise = labels.values, labels.noise

        def compute() -> Vector:
            return fit(rows, values, self.layout, deadline=self.deadline, noise=noise, trend=trend)

        if self.weights is not None:
            return unpack(compute(), self.layout)  # Another scalarisation every time: nothing to recall.
        point = self.fits.recall(
            digest_of(rows, values, self.layout, noise=noise, trend=trend), compute, keep=self._in_time
        )
        return unpack(point, self.layout)

    def _in_time(self) -> bool:
        return not self.deadline.passed

    @property
    def _reached(self) -> int:
        """How many of the earliest observations hyper-parameters are fitted to: a milestone.

        As many as are pending, at most a quarter, are left out, for what ends late.
        """
        count = len(self.observations)
        return count if self.weights is not None else milestone(count - min(self.pending, count // 4))

    def _early(self, useful: Mask) -> list[int]:
        """Which observations an objective is fitted to: the earliest, or all useful ones if too few of those are among them."""
        early = spaced(self._reached, MAX_FITTED)
        if useful[early].sum() >= MIN_LEARNED:
            return early
        where = np.flatnonzero(useful)
        return [int(where[place]) for place in spaced(len(where), MAX_FITTED)]


class Learnable(Protocol):
    """Labels that a model can be made of."""

    @property
    def values(self) -> Vector:
        """The labels (`n`), standardised."""
        ...

    @property
    def noise(self) -> Noise:
        """What is known of their noise."""
        ...


def milestone(count: int) -> int:
    """The highest of the numbers 1 to 16, 18, 20, 22, 24, 26, 28, 30, 33, ... that is not above `count`."""
    reached = min(count, _ALWAYS)
    while (following := max(reached + 2, int(_GROWTH * reached))) <= count:
        reached = following
    return reached
