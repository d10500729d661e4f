"""Bayesian optimisation with a Gaussian process: initial design first, or plain enumeration of a small space, then expected improvement.

With several objectives each trial maximises the improvement of another scalarisation of them (ParEGO, Knowles 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.ranking import MAX_FRONT
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.domain.trial import Origin, Prediction
from asktell.server.policies import warm_start
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.initial_design import (
    ENUMERATION,
    METHOD,
    Design,
    design_size,
    enumerable,
    lengthened,
    listed,
)
from asktell.server.policies.labels import measured
from asktell.server.policies.random_search import RandomDraw, seen_keys, too_late
from asktell.server.policies.recipe import STANDARD, Recipe
from asktell.server.policies.scope import Key
from asktell.server.policies.threads import one_thread

NAME = "gp"
MIN_LEARNED = 2

_TOO_FEW = f"fewer than {MIN_LEARNED} observations have finite objectives, too few for a model"
_REPEATS = "every promising point was a near-duplicate of an earlier trial"


@dataclass(frozen=True, slots=True)
class Choice:
    """A configuration that a model chose, what was expected of it, and why it is not the usual choice if it is not."""

    parameters: dict[str, ParameterValue]
    predictions: dict[str, Prediction]
    acquisition: float
    incumbent: float | None
    method: str
    fallback: str = ""


class Stage(Enum):
    """What chooses a candidate."""

    ENUMERATION = ENUMERATION
    INITIAL_DESIGN = METHOD
    MODEL = "acquisition"


class Chooser(Protocol):
    """Chooses candidates by a model, for one request."""

    def choose(self, number: int, *, pending: Sequence[Parameters], seen: Collection[Key]) -> Choice | None:
        """The choice for a trial, given what is pending and what has been tried; None if every good point is a near-duplicate."""
        ...

    def hint(self) -> bytes:
        """What makes the next request's choices faster."""
        ...

    def close(self) -> None:
        """Give back what is not this process's own, now that all is chosen."""
        ...


def suggest(request: SuggestRequest, *, recipe: Recipe = STANDARD) -> Decision:
    """Choose candidates one after another, each taking the ones before it as pending."""

    def chooser(deadline: Deadline) -> Chooser:
        # SciPy's optimisers take time and memory, which a server that only hands requests on can do without.
        from asktell.server.policies.front_based import FrontChooser  # noqa: PLC0415
        from asktell.server.policies.model_based import AnalyticChooser  # noqa: PLC0415

        several = recipe.hypervolume and 1 < len(request.objectives) <= MAX_FRONT
        return FrontChooser(request, deadline, recipe) if several else AnalyticChooser(request, deadline, recipe)

    return suggest_with(chooser, request, name=NAME)


def suggest_with(chooser: Callable[[Deadline], Chooser], request: SuggestRequest, *, name: str) -> Decision:
    """The decision of the policy of this name, whose model is behind `chooser`: it is only called where one is needed."""
    course = _Course(chooser, request, name)
    try:
        candidates = tuple(warm_start.credited(course.candidates(), request.sources))
    finally:
        course.close()
    return Decision(candidates, hint=course.hint(), timely=course.timely)


def stages(request: SuggestRequest) -> Iterator[Stage]:
    """What chooses each of the request's candidates, in turn."""
    if enumerable(request):
        yield from [Stage.ENUMERATION] * request.count
        return
    size = design_size(len(request.space), request.max_trials)
    started = len(request.observations) + len(request.pending)
    learned = int(measured(request.measurements, request.objectives).sum())
    for index in range(request.count):
        early = started + index < size or learned < MIN_LEARNED or lengthened(request, started + index)
        yield Stage.INITIAL_DESIGN if early else Stage.MODEL


def needs_model(request: SuggestRequest) -> bool:
    """Whether the request takes a surrogate, and so a process of its own; anything else takes milliseconds."""
    return Stage.MODEL in stages(request)


class _Course:
    """One request's way from candidate to candidate."""

    def __init__(self, make_chooser: Callable[[Deadline], Chooser], request: SuggestRequest, name: str) -> None:
        self._make_chooser, self._request, self._name = make_chooser, request, name
        self._deadline = Deadline.after(request.time_limit)
        self._seen = set(seen_keys(request))
        self._taken: list[Parameters] = list(request.pending)
        self._draw = RandomDraw(request, self._deadline)
        self._design = Design(request, self._draw)
        self._listed = listed(request, self._seen)
        self._chooser: Chooser | None = None
        self._broken = ""
        self._chosen = self._timely = 0

    def candidates(self) -> Iterator[Candidate]:
        """Candidates until there are enough, or a finite space has no more."""
        first = self._request.next_number
        for number, stage in enumerate(stages(self._request), first):
            late = number > first and self._deadline.passed
            if not late:
                self._timely = self._chosen
            candidate = self._hasty(number) if late else self._candidate(number, stage)
            if candidate is None:
                return
            self._taken.append(candidate.parameters)
            self._seen.add(key(candidate.parameters))
            self._chosen += 1
            yield candidate

    @property
    def timely(self) -> int:
        """How many of the candidates there were before the time limit was over."""
        return self._timely if self._deadline.passed else self._chosen

    def close(self) -> None:
        """Close the chooser, if there is one."""
        if self._chooser is not None:
            self._chooser.close()

    def hint(self) -> bytes:
        """The chooser's hint; none if it was not needed."""
        return b"" if self._chooser is None else self._chooser.hint()

    def _hasty(self, number: int) -> Candidate | None:
        """Fewer candidates would say that the space is exhausted, so that chance makes up the number."""
        drawn = self._draw.configuration(number, self._seen, hasty=True)
        return self._plain(drawn, method="random", fallback=too_late(self._request))

    def _candidate(self, number: int, stage: Stage) -> Candidate | None:
        match stage:
            case Stage.ENUMERATION:
                return self._plain(next(self._listed, None), method=stage.value)
            case Stage.INITIAL_DESIGN:
                return self._initial(number)
            case Stage.MODEL:
                return self._modelled(number)

    def _initial(self, number: int) -> Candidate | None:
        started = len(self._request.observations) + len(self._taken)
        warm = warm_start.warm_point(self._request, self._taken, self._seen)
        if warm is not None:
            return self._plain(warm, method=warm_start.METHOD)
        # A source's point may have come first; the default or the centre is due all the same.
        point = self._design.point(number, started=0 if self._request.sources else started, seen=self._seen)
        size = design_size(len(self._request.space), self._request.max_trials)
        late = started >= size and not lengthened(self._request, started)
        hasty = too_late(self._request) if self._request.space.constraints and self._deadline.passed else ""
        return self._plain(point, method=METHOD, fallback=_TOO_FEW if late else hasty)

    def _modelled(self, number: int) -> Candidate | None:
        choice, fallback = None, self._broken
        if self._deadline.passed:
            fallback = f"the time limit of {self._request.time_limit:g} s left no time for a model"
        elif not self._broken:
            choice, fallback = self._try(number)
        if choice is None:
            return self._plain(self._draw.configuration(number, self._seen), method="random", fallback=fallback)
        return Candidate(choice.parameters, self._origin(choice))

    def _try(self, number: int) -> tuple[Choice | None, str]:
        """The model's choice, or why there is none."""
        try:
            with np.errstate(all="ignore"), one_thread():
                self._chooser = self._chooser or self._make_chooser(self._deadline)
                return self._chooser.choose(number, pending=self._taken, seen=self._seen), _REPEATS
        except Exception as error:  # noqa: BLE001 - an ask gets an answer whatever the numerics do
            self._broken = describe(error)
            return None, self._broken

    def _plain(
        self, parameters: dict[str, ParameterValue] | None, *, method: str, fallback: str = ""
    ) -> Candidate | None:
        """A candidate that no model chose; None for no parameters."""
        if parameters is None:
            return None
        return Candidate(parameters, Origin(policy=self._name, method=method, fallback=fallback))

    def _origin(self, choice: Choice) -> Origin:
        return Origin(
            policy=self._name,
            method=choice.method,
            fallback=choice.fallback,
            predictions=choice.predictions,
            acquisition=choice.acquisition,
            incumbent=choice.incumbent,
        )


def describe(error: BaseException) -> str:
    """An error's class and message, short enough for an origin."""
    return f"{type(error).__name__}: {error}"[:300]
