"""One model-based choice after another: what is pending, where to look, the duplicate guard. Who computes the model is left to others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.domain.trial import Prediction, TrialState
from asktell.server.policies.aim import Aim
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.draws import generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.gp import Choice
from asktell.server.policies.kernel import SQRT_FIVE, Indices, Matrix, matern, squared_distances
from asktell.server.policies.recipe import Recipe
from asktell.server.policies.repeats import REPEAT, repeatable
from asktell.server.policies.scope import Key, Scope
from asktell.server.policies.search import Optima, raw_points

MAX_BELIEVED = 200
"""So many pending trials at most are in the posterior, whose cost is cubic; the others are only not repeated."""
MAX_WAITING = 32
"""Of configurations that stand below the highest fidelity so many, those that promise most, are taken for pending there."""
_SWEPT = 2_000
"""Finite scopes up to this size are scored whole."""
_LEADERS = 5
_LEAST_NOISE = 1e-12
STAGNANT = -3.5
"""The search is stagnant when no point promises more than this log expected improvement, of standardised labels."""
AMBITION = 0.5
"""How much more than the incumbent, in standard deviations of the labels, a stagnant search asks for: it then explores."""
_VAIN = -12.0
"""Under outcome constraints nothing is explored that promises less: the best is at a bound, and what lies beyond is known to."""
_TELLING = 0.1
"""In a noisy study configurations whose results are expected to differ by less than this share of the noise's deviation tell the same."""
_REPEATS = 0.25
"""Up to this share of a noisy study's trials repeat earlier ones, as long as there are other configurations."""
ACQUISITION, EXPLORATION = "acquisition", "exploration"

Known = TypeVar("Known")


class ModelChooser(ABC, Generic[Known]):
    """Chooses candidates for one request by expected improvement. It keeps what is known from one candidate to the next where it can."""

    def __init__(self, request: SuggestRequest, deadline: Deadline, recipe: Recipe) -> None:
        self._request, self._deadline, self._recipe = request, deadline, recipe
        self._scope = Scope.of(request.space, request.fixed)
        self._encoder = Encoder.within(self._scope)
        self._whole = Encoder.of(request.space)
        self._tried = self._whole.encode([*(seen.parameters for seen in request.observations), *request.pending])
        measurements = request.measurements
        order = sorted(range(len(measurements)), key=lambda place: measurements[place].number)
        self._ordered = [measurements[place] for place in order]
        encoded = self._whole.encode([seen.parameters for seen in request.lessons]) if request.lessons else self._tried
        self._settled = encoded[order]
        self._aim = Aim.of(self._whole, request.aim)
        self._known: Known | None = None
        bounded = {constraint.metric for constraint in request.outcome_constraints}
        self._bounded = any(bounded & seen.metrics.keys() for seen in self._ordered)
        self._repeatable = repeatable(request, self._ordered) if request.noisy else []

    @abstractmethod
    def _fit(self, weights: Vector | None) -> Known:
        """What is known from the observations. `weights` scalarise several objectives."""

    @abstractmethod
    def _imagine(self, known: Known, pending: Matrix) -> Known:
        """What would be known had pending trials (settled rows, `p x d`) ended."""

    @abstractmethod
    def _score(self, known: Known, settled: Matrix) -> Vector:
        """The acquisition (`m`) at settled rows (`m x d`)."""

    @abstractmethod
    def _search(self, number: int, known: Known, imagined: Known) -> Optima:
        """Where the acquisition is highest."""

    @abstractmethod
    def _expect(self, known: Known, settled: Matrix) -> dict[str, Prediction]:
        """What is expected of metrics at a settled row (`1 x d`), in their units."""

    @abstractmethod
    def _incumbent(self, known: Known) -> float | None:
        """The best expectation where something was measured and is feasible, in the objective's unit; None if there is none."""

    def choose(self, number: int, *, pending: Sequence[Parameters], seen: Collection[Key]) -> Choice | None:
        """The choice for a trial, given what is pending and what has been tried; None if every good point is a near-duplicate."""
        known = self._learn(number)
        believed = self._whole.encode(sorted([*self._believed(pending, known), *self._waiting(known)], key=_order))
        imagined = self._imagine(known, believed) if len(believed) and not self._deadline.passed else known
        choice = self._new(number, known, imagined, pending=pending, seen=seen)
        if not self._replicates or (choice and choice.method in (EXPLORATION, REPEAT)):
            return choice
        return self._or_again(choice, known, imagined, pending)

    @property
    def _replicates(self) -> bool:
        """Whether the same configuration may come again."""
        return self._request.noisy and len(self._request.objectives) == 1

    def _new(
        self, number: int, known: Known, imagined: Known, *, pending: Sequence[Parameters], seen: Collection[Key]
    ) -> Choice | None:
        """The best configuration that was not tried."""
        fresh = self._listed(seen)
        if fresh is not None:
            return self._best_listed(fresh, known, imagined)
        optima, explores = self._sought(number, known, imagined)
        choice = self._first_new(optima, known, pending=pending, seen=seen)
        return (
            replace(choice, method=self._named(EXPLORATION))
            if choice and explores and choice.method != REPEAT
            else choice
        )

    def _sought(self, number: int, known: Known, imagined: Known) -> tuple[Optima, bool]:
        """Where the acquisition is highest, and whether that explores: as every other trial of a stagnant search does, lest it stays with
        the first categories that were any good.
        """
        if not self._recipe.explores or number % 2:
            return self._search(number, known, imagined), False
        usual, bold = self._search_both(number, known, imagined)
        if bold is None or not stagnant(usual) or (self._bounded and bold.values[0] <= _VAIN):
            return usual, False
        return bold, True

    def _search_both(self, number: int, known: Known, imagined: Known) -> tuple[Optima, Optima | None]:
        """Where the acquisition is highest, and where it is with an ambition; None if the search is not stagnant, or nothing is explored."""
        return self._search(number, known, imagined), None

    def _or_again(
        self, choice: Choice | None, known: Known, imagined: Known, pending: Sequence[Parameters]
    ) -> Choice | None:
        """The choice, unless measuring an earlier configuration again is worth more, and that was not done too often yet."""
        if not self._repeatable or (choice and self._often(pending)):
            return choice
        settled = self._whole.encode(self._repeatable)
        leaders = np.argsort(-self._score(imagined, settled), kind="stable")[:_LEADERS]
        values = self._worth_again(imagined, settled[leaders])
        best = int(values.argmax())
        if choice and values[best] <= choice.acquisition:
            return choice
        again = self._choice(self._repeatable[leaders[best]], float(values[best]), known)
        return replace(again, method=REPEAT)

    def _often(self, pending: Sequence[Parameters]) -> bool:
        """Whether as many trials are repeats as may be."""
        tried = [*(seen.parameters for seen in self._ordered), *pending]
        return len(tried) - len(set(map(key, tried))) >= _REPEATS * len(tried)

    def hint(self) -> bytes:
        """What makes the next request's choices faster; here nothing does."""
        return b""

    def close(self) -> None:
        """Give back what is not this process's own; here there is nothing."""

    def _worth_again(self, imagined: Known, settled: Matrix) -> Vector:
        """The acquisition (`m`) of measuring again where something was measured (settled rows, `m x d`)."""
        return self._score(imagined, settled)

    def _learn(self, number: int) -> Known:
        if self._known is None or len(self._request.objectives) > 1:
            self._known = self._fit(_weights(self._request, number))
        return self._known

    def _believed(self, pending: Sequence[Parameters], known: Known) -> list[Parameters]:
        """The pending trials that matter: the last of this request's own, and those which would else be chosen again."""
        if len(pending) <= MAX_BELIEVED:
            return list(pending)
        earlier = len(self._request.pending)
        own = list(pending[earlier:][-MAX_BELIEVED:])
        others = sorted(pending[:earlier], key=_order)
        scores = self._score(known, self._whole.encode(others))
        order = np.argsort(-scores, kind="stable")[: MAX_BELIEVED - len(own)]
        return [*own, *(others[index] for index in order)]

    def _waiting(self, known: Known) -> list[Parameters]:
        """The most promising of the configurations that may still come to the highest fidelity.

        Another one is worth what it is beyond them. Else, where the surrogate expects much and a low fidelity does not tell, it would choose
        near-duplicates of what already waits there, one after another.
        """
        if self._aim is None or len(self._request.objectives) > 1:
            return []
        there = {seen.number for seen in self._ordered if self._request.aim.items() <= seen.parameters.items()}
        waiting = [
            seen.parameters
            for seen in self._request.observations
            if seen.state is TrialState.SUCCEEDED and seen.number not in there
        ]
        if not waiting:
            return []
        waiting.sort(key=_order)
        scores = self._score(known, self._whole.encode(waiting))
        return [waiting[place] for place in np.argsort(-scores, kind="stable")[:MAX_WAITING]]

    def _listed(self, seen: Collection[Key]) -> list[dict[str, ParameterValue]] | None:
        count = self._scope.count()
        if count is None or count > _SWEPT:
            return None
        return self._scope.unseen(seen, limit=_SWEPT)

    def _best_listed(self, fresh: list[dict[str, ParameterValue]], known: Known, imagined: Known) -> Choice | None:
        if not fresh:
            return None
        values = self._score(imagined, self._whole.encode(fresh))
        best = int(values.argmax())
        late = f"the time limit of {self._request.time_limit:g} s was over" if self._deadline.passed else ""
        return self._choice(fresh[best], float(values[best]), known, fallback=late)

    def _raw(self, number: int, *, inputs: Matrix, means: Vector, lengthscales: Vector) -> Matrix:
        """Latent rows to start a search from: all over the scope, and around the best of the inputs (settled rows) by their means."""
        leaders = inputs[np.argsort(means, kind="stable")[:_LEADERS]]
        return raw_points(
            self._encoder, leaders=leaders, lengthscales=lengthscales, seed=self._request.seed, number=number
        )

    def _first_new(
        self, optima: Optima, known: Known, *, pending: Sequence[Parameters], seen: Collection[Key]
    ) -> Choice | None:
        own = pending[len(self._request.pending) :]
        taken = np.concatenate([self._tried, self._whole.encode(own)])
        settled = self._encoder.settle(optima.rows)
        spared = self._replicates and not self._often(pending)
        again = {key(each): each for each in self._repeatable} if spared else {}
        outside = 0
        for rank, row in enumerate(settled):
            parameters = self._encoder.decode(optima.rows[rank])
            value = float(optima.values[rank])
            alike = self._alike(known, row, taken)
            if len(alike) and (earlier := self._measured(alike, again)) is not None:
                return replace(self._choice(earlier, value, known), method=REPEAT)
            if key(parameters) in seen or len(alike):
                continue
            if not self._request.space.allows(parameters):
                # Numbers beyond 2^53 and products of such are rounded where the search looks at them.
                outside += 1
                continue
            reasons = [*self._omitted(known), *_why(self._request, optima, rank - outside, outside)]
            return self._choice(parameters, value, known, fallback="; ".join(reasons))
        return None

    def _omitted(self, known: Known) -> list[str]:  # noqa: ARG002 - here nothing is omitted
        """What there was no time to learn, for a person to read."""
        return []

    def _alike(self, known: Known, row: Vector, taken: Matrix) -> Indices:
        """Which of settled rows tell the same as another: nearly equal ones, and in a noisy study those that noise hides the difference from,
        the nearest first.
        """
        near = self._whole.near(row, taken)
        if not self._replicates:
            return np.flatnonzero(near)
        differences = self._differences(known, row, taken)
        alike = np.flatnonzero(near | (differences < _TELLING**2))
        return alike[np.argsort(differences[alike], kind="stable")]

    def _differences(self, known: Known, row: Vector, others: Matrix) -> Vector:
        """The variance (`m`) of what results at a settled row and at others are expected to differ by, as a share of the noise's variance."""
        lengthscales, noise = self._scales(known)
        units = lengthscales[self._whole.layout.owners] / SQRT_FIVE
        scaled = self._whole.features(np.vstack([row, others])) / units
        shares: Vector = 2.0 * (1.0 - matern(squared_distances(scaled[:1], scaled[1:])[0])) / max(noise, _LEAST_NOISE)
        return shares

    def _measured(
        self, places: Indices, again: Mapping[Key, dict[str, ParameterValue]]
    ) -> dict[str, ParameterValue] | None:
        """The first of the configurations in places of what was tried that is among those to be measured again."""
        earlier = (
            self._request.observations[place].parameters for place in places if place < len(self._request.observations)
        )
        return next((again[key(each)] for each in earlier if key(each) in again), None)

    def _scales(self, known: Known) -> tuple[Vector, float]:
        """The lengthscales (`d`) and the noise's variance of a single objective's labels, whose own variance is expected to be 1."""
        raise NotImplementedError

    def _choice(
        self, parameters: dict[str, ParameterValue], value: float, known: Known, *, fallback: str = ""
    ) -> Choice:
        predictions = self._expect(known, self._whole.encode([parameters]))
        incumbent, method = self._incumbent(known), self._named(ACQUISITION)
        return Choice(parameters, predictions, value, incumbent, method=method, fallback=fallback)

    def _named(self, method: str) -> str:
        """A method's name, with how several objectives were brought to one."""
        return f"{method} (ParEGO)" if len(self._request.objectives) > 1 else method


def stagnant(optima: Optima) -> bool:
    """Whether no point promises much."""
    return len(optima.values) > 0 and bool(optima.values[0] < STAGNANT)


def _weights(request: SuggestRequest, number: int) -> Vector | None:
    """Uniform on the simplex, another for every trial: over trials the whole Pareto front is aimed at."""
    objectives = len(request.objectives)
    if objectives == 1:
        return None
    weights: Vector = generator(request.seed, purpose="scalarisation", number=number).dirichlet(np.ones(objectives))
    return weights


def _order(parameters: Parameters) -> str:
    return repr(key(parameters))


def _why(request: SuggestRequest, optima: Optima, near: int, outside: int) -> Iterator[str]:
    if optima.early:
        yield f"the time limit of {request.time_limit:g} s ended the search early"
    if near:
        yield f"{near} better points were near-duplicates of earlier trials"
    if outside:
        yield f"{outside} better points were beyond an input constraint, by rounding"
