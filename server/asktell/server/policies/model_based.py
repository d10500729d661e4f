"""One model-based choice after another: labels, surrogate, acquisition, duplicate guard. Imports torch: import it only when it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.domain.trial import Prediction
from asktell.server.policies.acquisition import LogExpectedImprovement, Optima, Search, raw_points
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.draws import generator
from asktell.server.policies.encoding import Encoder, Matrix
from asktell.server.policies.labels import Labels, make_labels
from asktell.server.policies.scope import Key, Scope
from asktell.server.policies.surrogate import Hyperparameters, Posterior, fit

MAX_LEARNED = 500
MAX_BELIEVED = 200
"""So many pending trials at most are in the posterior, whose cost is cubic; the others are only not repeated."""
_CELLS = 5_000_000
"""Observations squared times parameters that a fit may hold in memory at once."""
_FITTED = 250
"""From so many observations the hyper-parameters are fitted; the posterior uses all."""
_SWEPT = 2_000
"""Finite scopes up to this size are scored whole."""
_SCORED = 1_000
"""Rows that are scored in memory at once."""
_LEADERS = 5
_STAGNANT = -3.5
"""The search is stagnant when no point promises more than this log expected improvement, of standardised labels."""
_AMBITION = 0.5
"""How much more than the incumbent, in standard deviations of the labels, a stagnant search asks for: it then explores."""
EXPLOITATION, EXPLORATION = "acquisition", "exploration"


@dataclass(frozen=True, slots=True)
class Choice:
    """A configuration, what was expected of it, and why it is not the usual choice if it is not."""

    parameters: dict[str, ParameterValue]
    predictions: dict[str, Prediction]
    acquisition: float
    incumbent: float | None
    method: str = EXPLOITATION
    fallback: str = ""


@contextmanager
def quiet_single_thread() -> Iterator[None]:
    """Numerics on one thread, which makes sums reproducible, without the libraries' warnings, for which there are fallbacks here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class Learned:
    """A surrogate and what it was fitted to: settled rows (`n x d`) and their labels."""

    labels: Labels
    inputs: Tensor
    hyper: Hyperparameters
    posterior: Posterior


class Chooser:
    """Chooses candidates for one request by expected improvement. It keeps the fit from one candidate to the next where it can."""

    def __init__(self, request: SuggestRequest, deadline: Deadline) -> None:
        self._request, self._deadline = request, deadline
        self._scope = Scope.of(request.space, request.fixed)
        self._encoder = Encoder.within(self._scope)
        self._whole = Encoder.of(request.space)
        self._nominal = torch.from_numpy(self._whole.nominal)
        self._observations = subset(request.observations, request, self._whole)
        tried = [trial.parameters for trial in request.observations]
        self._tried = self._whole.encode([*tried, *request.pending])
        self._learned: Learned | None = None

    def choose(self, number: int, *, pending: Sequence[Parameters], seen: Collection[Key]) -> Choice | None:
        """The choice for a trial, given what is pending and what has been tried; None if every good point is a near-duplicate."""
        learned = self._learn(number)
        posterior = learned.posterior
        incumbent = self._incumbent(learned)
        if pending:
            believed = self._believed(pending, LogExpectedImprovement(posterior, incumbent))
            posterior = posterior.believing(self._tensor(believed))
        acquisition = LogExpectedImprovement(posterior, incumbent)
        fresh = self._listed(seen)
        if fresh is not None:
            return self._best_listed(fresh, learned, acquisition)
        optima = self._search(number, learned, acquisition)
        # Every other trial of a stagnant search explores, lest it stays with the first categories that were any good.
        explores = number % 2 == 0 and optima.values[0] < _STAGNANT
        if explores:
            acquisition = LogExpectedImprovement(posterior, incumbent - _AMBITION)
            optima = self._search(number, learned, acquisition)
        choice = self._first_new(optima, learned, acquisition, pending=pending, seen=seen)
        return replace(choice, method=EXPLORATION) if choice and explores else choice

    def _learn(self, number: int) -> Learned:
        if self._learned is not None and len(self._request.objectives) == 1:
            return self._learned
        weights = _weights(self._request, number)
        labels = make_labels(self._observations, self._request.objectives, weights=weights)
        inputs, values = self._tensor([seen.parameters for seen in self._observations]), torch.from_numpy(labels.values)
        few = _fitted_rows(len(self._observations))
        hyper = fit(inputs[few], values[few], self._nominal, deadline=self._deadline)
        posterior = Posterior(hyper, inputs=inputs, labels=values, nominal=self._nominal)
        self._learned = Learned(labels, inputs, hyper, posterior)
        return self._learned

    def _believed(self, pending: Sequence[Parameters], acquisition: LogExpectedImprovement) -> list[Parameters]:
        """The pending trials that matter: the last of this request's own, and those which would else be chosen again."""
        if len(pending) <= MAX_BELIEVED:
            return sorted(pending, key=_order)
        earlier = len(self._request.pending)
        own = list(pending[earlier:][-MAX_BELIEVED:])
        others = sorted(pending[:earlier], key=_order)
        order = np.argsort(-self._scores(others, acquisition), kind="stable")[: MAX_BELIEVED - len(own)]
        return sorted([*own, *(others[index] for index in order)], key=_order)

    def _scores(self, configurations: Sequence[Parameters], acquisition: LogExpectedImprovement) -> Vector:
        with torch.no_grad():
            parts = [acquisition(rows).numpy() for rows in self._tensor(configurations).split(_SCORED)]
        scores: Vector = np.concatenate(parts)
        return scores

    def _tensor(self, configurations: Sequence[Parameters]) -> Tensor:
        return torch.from_numpy(self._whole.encode(configurations))

    @staticmethod
    def _incumbent(learned: Learned) -> float:
        """The best posterior mean where something was measured."""
        mean, _ = learned.posterior(learned.inputs[torch.from_numpy(learned.labels.measured)])
        return float(mean.min())

    def _listed(self, seen: Collection[Key]) -> list[dict[str, ParameterValue]] | None:
        count = self._scope.count()
        if count is None or count > _SWEPT:
            return None
        return self._scope.unseen(seen, limit=_SWEPT)

    def _best_listed(
        self, fresh: list[dict[str, ParameterValue]], learned: Learned, acquisition: LogExpectedImprovement
    ) -> Choice | None:
        if not fresh:
            return None
        with torch.no_grad():
            values = acquisition(self._tensor(fresh))
        best = int(values.argmax())
        return self._choice(fresh[best], float(values[best]), learned, acquisition)

    def _search(self, number: int, learned: Learned, acquisition: LogExpectedImprovement) -> Optima:
        raw = raw_points(
            self._encoder,
            leaders=self._leaders(learned),
            lengthscales=learned.posterior.lengthscales.numpy(),
            seed=self._request.seed,
            number=number,
        )
        return Search(self._encoder, acquisition, self._deadline).run(raw)

    def _leaders(self, learned: Learned) -> Matrix:
        with torch.no_grad():
            mean, _ = learned.posterior(learned.inputs)
        order = np.argsort(mean.numpy(), kind="stable")
        leaders: Matrix = learned.inputs.numpy()[order[:_LEADERS]]
        return leaders

    def _first_new(
        self,
        optima: Optima,
        learned: Learned,
        acquisition: LogExpectedImprovement,
        *,
        pending: Sequence[Parameters],
        seen: Collection[Key],
    ) -> Choice | None:
        own = pending[len(self._request.pending) :]
        taken = np.concatenate([self._tried, self._whole.encode(own)])
        settled = self._encoder.settle(optima.rows)
        for rank, row in enumerate(settled):
            parameters = self._encoder.decode(optima.rows[rank])
            if key(parameters) in seen or self._whole.near(row, taken).any():
                continue
            value = float(optima.values[rank])
            return self._choice(parameters, value, learned, acquisition, fallback=_why(self._request, optima, rank))
        return None

    def _choice(
        self,
        parameters: dict[str, ParameterValue],
        value: float,
        learned: Learned,
        acquisition: LogExpectedImprovement,
        *,
        fallback: str = "",
    ) -> Choice:
        with torch.no_grad():
            mean, deviation = acquisition.posterior(self._tensor([parameters]))
        prediction = learned.labels.prediction(float(mean[0]), float(deviation[0]))
        predictions = {} if prediction is None else {learned.labels.objective.metric: prediction}
        return Choice(parameters, predictions, value, learned.labels.value(acquisition.incumbent), fallback=fallback)


def subset(observations: Sequence[Observation], request: SuggestRequest, encoder: Encoder) -> tuple[Observation, ...]:
    """The observations that the model learns from, by number: all if they are few, else the best, the recent and a space-filling rest."""
    ordered = sorted(observations, key=lambda seen: seen.number)
    limit = min(MAX_LEARNED, int((_CELLS / len(encoder.columns)) ** 0.5))
    if len(ordered) <= limit:
        return tuple(ordered)
    weights = _weights(request, 0)
    labels = make_labels(ordered, request.objectives, weights=weights).values
    best = [int(index) for index in np.argsort(labels, kind="stable")[: limit // 3]]
    kept = dict.fromkeys([*best, *range(len(ordered) - limit // 3, len(ordered))])
    rows = encoder.encode([seen.parameters for seen in ordered])
    _fill(kept, rows, encoder, limit)
    return tuple(ordered[index] for index in sorted(kept))


def _fill(kept: dict[int, None], rows: Matrix, encoder: Encoder, limit: int) -> None:
    """Add the row farthest from all kept ones until there are `limit`."""

    def distances(index: int) -> Vector:
        gaps = np.where(encoder.nominal, rows != rows[index], np.abs(rows - rows[index]))
        summed: Vector = gaps.sum(axis=1)
        return summed

    nearest = np.min([distances(index) for index in kept], axis=0)
    while len(kept) < limit:
        nearest[list(kept)] = -1.0
        farthest = int(nearest.argmax())
        kept[farthest] = None
        nearest = np.minimum(nearest, distances(farthest))


def _fitted_rows(count: int) -> list[int]:
    if count <= _FITTED:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, _FITTED)]


def _weights(request: SuggestRequest, number: int) -> Vector | None:
    """Uniform on the simplex, another for every trial: over trials the whole Pareto front is aimed at."""
    objectives = len(request.objectives)
    if objectives == 1:
        return None
    weights: Vector = generator(request.seed, purpose="scalarisation", number=number).dirichlet(np.ones(objectives))
    return weights


def _order(parameters: Parameters) -> str:
    return repr(key(parameters))


def _why(request: SuggestRequest, optima: Optima, rank: int) -> str:
    reasons = []
    if optima.early:
        reasons.append(f"the time limit of {request.time_limit:g} s ended the search early")
    if rank:
        reasons.append(f"{rank} better points were near-duplicates of earlier trials")
    return "; ".join(reasons)
