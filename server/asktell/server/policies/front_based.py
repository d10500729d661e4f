"""Choices for two to four objectives: a model of each, and the expected hypervolume that a candidate adds to the Pareto front."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.trial import Prediction
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.front import Front
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.model_based import LessonChooser, unlearned
from asktell.server.policies.recipe import Recipe
from asktell.server.policies.search import Ground, Optima, Search, raw_points

_LEADERS = 20


class FrontChooser(LessonChooser[Front]):
    """Chooses by the expected hypervolume improvement of two to four objectives."""

    def __init__(self, request: SuggestRequest, deadline: Deadline, recipe: Recipe) -> None:
        super().__init__(request, deadline, replace(recipe, members=recipe.front_members, explores=False))

    def learned(self) -> Front:
        """What was learned."""
        return self._learn(0)

    def _learn(self, number: int) -> Front:  # noqa: ARG002 - the models serve every trial
        if self._known is None:
            self._known = self._fit(None)
        return self._known

    def _fit(self, weights: Vector | None) -> Front:
        return Front.of(list(self._lesson(weights).learn_each()))

    def _omitted(self, known: Front) -> list[str]:
        return unlearned(self._request, known.omitted)

    def _imagine(self, known: Front, pending: Matrix) -> Front:
        if self._deadline.passed:
            return known
        rows = self._whole.features(pending)
        return known.imagining(rows, fantasies=self._recipe.fantasies, seed=self._request.seed)

    def _score(self, known: Front, settled: Matrix) -> Vector:
        return known.acquisition(self._deadline)(self._whole.features(settled))

    def _search(self, number: int, known: Front, imagined: Front) -> Optima:
        posteriors = [mixture.posteriors[0] for mixture in known.objectives]
        leaders = posteriors[0].inputs[np.argsort(known.ranks(), kind="stable")[:_LEADERS]]
        raw = raw_points(
            self._encoder,
            leaders=self._whole.settled(leaders),
            lengthscales=np.min([posterior.hyper.lengthscales for posterior in posteriors], axis=0),
            seed=self._request.seed,
            number=number,
        )
        ground = Ground.of(raw, self._encoder, self._whole)
        acquisition = imagined.acquisition(self._deadline)
        return Search(self._encoder, self._whole, lambda _: acquisition, self._deadline).run(ground)

    def _expect(self, known: Front, settled: Matrix) -> dict[str, Prediction]:
        return known.predictions(self._whole.features(settled))

    def _incumbent(self, known: Front) -> float | None:  # noqa: ARG002 - a front has none
        return None

    def _named(self, method: str) -> str:
        return f"{method} (EHVI)"
