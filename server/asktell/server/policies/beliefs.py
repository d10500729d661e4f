"""Answers to questions about what `gp` believes: of each objective, by the model that the policy's predictions come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np

from asktell.server.domain.beliefs import (
    CrossValidate,
    Importance,
    ImportanceMethod,
    LeftOut,
    Predict,
    Predictions,
    Question,
    RankParameters,
)
from asktell.server.domain.errors import OutOfTime
from asktell.server.domain.metric import Objective
from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.space import Parameters
from asktell.server.domain.trial import Prediction
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.draws import generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.hints import Fits
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.learning import Lesson
from asktell.server.policies.models import Learned, Model
from asktell.server.policies.ped_anova import ped_anova
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.region import Region
from asktell.server.policies.sensitivity import total_indices, total_indices_within
from asktell.server.policies.threads import one_thread
from asktell.server.policies.transfer import Transferred

T = TypeVar("T")

_ROWS = 4_096
"""So many rows are computed between two looks at the clock."""


class Beliefs:
    """What is believed after one request's observations."""

    def __init__(self, request: SuggestRequest) -> None:
        self._request, self._deadline = request, Deadline.after(request.time_limit)
        self._encoder = Encoder.of(request.space)
        self._ordered = sorted(request.measurements, key=lambda seen: seen.number)

    def answer(self, question: Question[T]) -> T:
        """The answer. Raises OutOfTime after the request's time limit."""
        with np.errstate(all="ignore"), one_thread():
            return cast("T", self._answer(question))

    def _answer(self, question: Question) -> object:
        match question:
            case Predict(points):
                return self._predictions(points)
            case CrossValidate():
                return self._cross_validation()
            case RankParameters(method):
                return tuple(self._rankings(method))
        raise TypeError(f"{question!r} is no question")

    def _predictions(self, points: Sequence[Parameters]) -> tuple[Predictions, ...]:
        rows = self._encoder.features(self._encoder.encode(points))
        learned = self._learned()
        columns = {
            metric: [_in_unit(model, *each) for each in _moments(model.posterior, rows)]
            for metric, model in ((each.models[0].labels.objective.metric, each.models[0]) for each in learned)
        }
        for limit in learned[0].limits:
            columns[limit.metric] = [limit.excesses.prediction(*each) for each in _moments(limit.posterior, rows)]
        return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))

    def _cross_validation(self) -> tuple[LeftOut, ...]:
        found = [
            (left.number, place, left)
            for place, learned in enumerate(self._learned())
            for left in self._left_out(learned.models[0])
        ]
        return tuple(left for _, _, left in sorted(found, key=lambda entry: entry[:2]))

    def _left_out(self, model: Model) -> Iterator[LeftOut]:
        """Of observations that are too many for the posterior, those that it has."""
        metric = model.labels.objective.metric
        for place, useful, *moments in zip(model.kept, model.measured, *model.posterior.left_out(), strict=True):
            if useful:
                seen, (mean, deviation) = self._ordered[place], moments
                yield LeftOut(seen.number, metric, seen.metrics[metric].value, _in_unit(model, mean, deviation))

    def _rankings(self, method: ImportanceMethod) -> Iterator[Importance]:
        objectives = self._request.objectives
        if method is ImportanceMethod.PED_ANOVA:
            found = [ped_anova(self._encoder, self._ordered, objective) for objective in objectives]
        else:
            found = [self._sobol(learned.models[0]) for learned in self._learned()]
        for objective, shares in zip(objectives, found, strict=True):
            yield from self._ranking(objective, shares)

    def _ranking(self, objective: Objective, shares: Vector) -> list[Importance]:
        found = [
            Importance(objective.metric, spec.name, float(share))
            for spec, share in zip(self._request.space, shares, strict=True)
        ]
        return sorted(found, key=lambda importance: -importance.share)

    def _sobol(self, model: Model) -> Vector:
        seed = generator(self._request.seed, purpose="importance")

        def means(settled: Matrix) -> Vector:
            pieces = [self._means(model, settled[start : start + _ROWS]) for start in range(0, len(settled), _ROWS)]
            return np.concatenate(pieces)

        cost = len(model.posterior.inputs) * len(self._request.objectives)
        region = Region(self._encoder)
        if region.unbounded:
            return total_indices(self._encoder, means, cost=cost, seed=seed)
        return total_indices_within(region, self._encoder, means, cost=cost, seed=seed)

    def _means(self, model: Model, settled: Matrix) -> Vector:
        self._refuse_lateness()
        expected = model.posterior.expect(self._encoder.features(settled))[:, 0]
        return model.labels.losses(expected)

    def _learned(self) -> list[Learned]:
        """What `gp` has learned of each objective, but only the first of its models."""
        several = len(self._request.objectives) > 1
        members = (STANDARD.front_members if several else STANDARD.members)[:1]
        lesson = Lesson.of(
            self._request,
            self._encoder,
            # What diverged is a loss to whoever asks what to expect, or which parameter matters.
            recipe=replace(STANDARD, members=members, divergences=False),
            fits=Fits(self._request.hint),
            deadline=self._deadline,
        )
        learned = list(lesson.learn_each()) if several else [lesson.learn()]
        self._refuse_lateness()  # A fit that was cut short is good enough for a candidate, but is not what the policy believes.
        return learned

    def _refuse_lateness(self) -> None:
        if self._deadline.passed:
            raise OutOfTime(f"the answer takes longer than {self._request.time_limit:.3g} s")


def _moments(posterior: Posterior | Transferred, rows: Matrix) -> Iterator[tuple[float, float]]:
    """Mean and standard deviation of the label at each feature row (`m x D`)."""
    means, deviations = posterior.moments(rows)
    return zip(means[:, 0].tolist(), deviations.tolist(), strict=True)


def _in_unit(model: Model, mean: float, deviation: float) -> Prediction:
    """A belief about a label as one about the objective."""
    prediction = model.labels.prediction(float(mean), float(deviation) * model.widening)
    if prediction is None:
        raise TypeError("the labels are a scalarisation of several objectives")
    return prediction
