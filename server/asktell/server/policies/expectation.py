"""What a surrogate expects of trials at the highest fidelity, whatever they were run at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from asktell.server.domain.metric import MetricValue
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.hints import Fits
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.learning import Lesson
from asktell.server.policies.models import Learned, Limit
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.threads import one_thread


class Expectation:
    """What is expected after the observations of a request that aims at a fidelity, by the models that `gp` chooses by."""

    def __init__(self, request: SuggestRequest, deadline: Deadline) -> None:
        self._request, self._deadline = request, deadline
        self._encoder, self._fits = Encoder.of(request.space), Fits(request.hint)
        with np.errstate(all="ignore"), one_thread():
            self._learned = self._learn()

    def of(self, trials: Sequence[Observation]) -> list[Observation]:
        """The trials as if they had ended at the aim with what is expected there; metrics that no model is of are what they were."""
        rows = self._encoder.features(
            self._encoder.encode([{**trial.parameters, **self._request.aim} for trial in trials])
        )
        with np.errstate(all="ignore"), one_thread():
            columns = dict(self._columns(rows))
        return [_told(trial, columns, place) for place, trial in enumerate(trials)]

    def hint(self) -> bytes:
        """The fits that were used, for the next request."""
        return self._fits.hint()

    def _learn(self) -> list[Learned]:
        several = len(self._request.objectives) > 1
        recipe = replace(STANDARD, members=STANDARD.front_members) if several else STANDARD
        lesson = Lesson.of(self._request, self._encoder, recipe=recipe, fits=self._fits, deadline=self._deadline)
        return list(lesson.learn_each()) if several else [lesson.learn()]

    def _columns(self, rows: Matrix) -> Iterator[tuple[str, list[float]]]:
        """The expected values of each metric at feature rows (`n x D`), in its unit."""
        for objective, learned in zip(self._request.objectives, self._learned, strict=True):
            yield objective.metric, [objective.loss(loss) for loss in _losses(learned, rows).tolist()]
        for limit in self._learned[0].limits:
            yield limit.metric, _bounded(limit, rows)


def _losses(learned: Learned, rows: Matrix) -> Vector:
    """The losses that the models expect at feature rows (`n`), weighted as their improvements are."""
    models = learned.models
    # The weights of improvements have units of labels in them; those of losses have none.
    logarithms = learned.log_weights - np.log([model.labels.unit for model in models])
    weights = np.exp(logarithms - logarithms.max())
    losses = np.stack([model.labels.losses(model.posterior.expect(rows)[:, 0]) for model in models])
    expected: Vector = (weights / weights.sum()) @ losses
    return expected


def _bounded(limit: Limit, rows: Matrix) -> list[float]:
    means, deviations = limit.posterior.moments(rows)
    pairs = zip(means[:, 0].tolist(), deviations.tolist(), strict=True)
    return [limit.excesses.prediction(mean, deviation).mean for mean, deviation in pairs]


def _told(trial: Observation, columns: Mapping[str, Sequence[float]], place: int) -> Observation:
    expected = {metric: MetricValue(values[place]) for metric, values in columns.items() if metric in trial.metrics}
    return replace(trial, metrics={**trial.metrics, **expected})
