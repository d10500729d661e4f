"""Choices by the project's own numerics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.trial import Prediction
from asktell.server.policies.acquisition import Acquisition
from asktell.server.policies.choosing import AMBITION, STAGNANT, Known, ModelChooser
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.hints import Fits
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.learning import Lesson
from asktell.server.policies.models import Learned
from asktell.server.policies.recipe import Recipe
from asktell.server.policies.search import Ground, Optima, Search


class LessonChooser(ModelChooser[Known]):
    """Chooses candidates for one request by what this project's own numerics learn."""

    def __init__(self, request: SuggestRequest, deadline: Deadline, recipe: Recipe) -> None:
        super().__init__(request, deadline, recipe)
        self._fits = Fits(request.hint)

    def hint(self) -> bytes:
        """The fits that were used, for the next request."""
        return self._fits.hint()

    def _lesson(self, weights: Vector | None) -> Lesson:
        """What there is to learn from the observations. `weights` scalarise several objectives."""
        return Lesson.of(
            self._request,
            self._whole,
            recipe=self._recipe,
            fits=self._fits,
            deadline=self._deadline,
            weights=weights,
            settled=self._settled,
        )


def unlearned(request: SuggestRequest, omitted: Sequence[str]) -> list[str]:
    """What to say of outcome constraints that there was no time to learn of."""
    metrics = ", ".join(map(repr, omitted))
    return [f"the time limit of {request.time_limit:g} s left no time to learn of {metrics}"] if omitted else []


class AnalyticChooser(LessonChooser[Learned]):
    """Chooses by the expected improvement of one objective or of a scalarisation."""

    def __init__(self, request: SuggestRequest, deadline: Deadline, recipe: Recipe) -> None:
        super().__init__(request, deadline, recipe)
        self._ground: tuple[int, Ground] | None = None

    def learned(self) -> Learned:
        """What was learned, of a request with one objective."""
        return self._fit(None)

    def _fit(self, weights: Vector | None) -> Learned:
        return self._lesson(weights).learn()

    def _omitted(self, known: Learned) -> list[str]:
        return unlearned(self._request, known.omitted)

    def _imagine(self, known: Learned, pending: Matrix) -> Learned:
        rows = self._whole.features(pending)
        fantasies, seed = self._recipe.fantasies, self._request.seed
        return known.imagining(rows, fantasies=fantasies, seed=seed, deadline=self._deadline)

    def _score(self, known: Learned, settled: Matrix) -> Vector:
        return known.acquisition()(self._whole.features(settled))

    def _search(self, number: int, known: Learned, imagined: Learned) -> Optima:
        return self._searching(imagined).run(self._ground_for(number, known))

    def _search_both(self, number: int, known: Learned, imagined: Learned) -> tuple[Optima, Optima | None]:
        return self._searching(imagined).run_both(self._ground_for(number, known), ambition=AMBITION, bar=STAGNANT)

    def _searching(self, imagined: Learned) -> Search:
        def acquisition(ambition: Vector) -> Acquisition:
            return imagined.acquisition(ambition=ambition)

        return Search(self._encoder, self._whole, acquisition, self._deadline)

    def _ground_for(self, number: int, known: Learned) -> Ground:
        if self._ground is None or self._ground[0] != number:
            self._ground = number, self._ground_of(number, known)
        return self._ground[1]

    def _ground_of(self, number: int, known: Learned) -> Ground:
        model = known.models[0]
        raw = self._raw(
            number,
            inputs=self._whole.settled(model.posterior.inputs),
            means=known.ranks(),
            lengthscales=model.posterior.hyper.lengthscales,
        )
        return Ground.of(raw, self._encoder, self._whole)

    def _worth_again(self, imagined: Learned, settled: Matrix) -> Vector:
        rows = self._whole.features(settled)
        return np.array([float(imagined.acquisition(again=row[None])(row[None])[0]) for row in rows])

    def _scales(self, known: Learned) -> tuple[Vector, float]:
        model = known.models[0]
        return model.posterior.hyper.lengthscales, model.noise

    def _expect(self, known: Learned, settled: Matrix) -> dict[str, Prediction]:
        return known.predictions(self._whole.features(settled))

    def _incumbent(self, known: Learned) -> float | None:
        model = known.models[0]
        return model.labels.value(float(model.incumbents[0])) if model.eligible.any() else None
