"""Bayesian optimisation with a Gaussian process: initial design first, or plain enumeration of a small space, then expected improvement.

With several objectives each trial maximises the improvement of another scalarisation of them (ParEGO, Knowles 2006).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.domain.trial import Origin
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.initial_design import (
    ENUMERATION,
    METHOD,
    Design,
    design_size,
    enumerable,
    listed,
)
from asktell.server.policies.labels import measured
from asktell.server.policies.random_search import RandomDraw, seen_keys, too_late

if TYPE_CHECKING:
    from asktell.server.policies.model_based import Choice, Chooser

NAME = "gp"
MIN_LEARNED = 2

_TOO_FEW = f"fewer than {MIN_LEARNED} observations have finite objectives, too few for a model"
_REPEATS = "every promising point was a near-duplicate of an earlier trial"


class Stage(Enum):
    """What chooses a candidate."""

    ENUMERATION = ENUMERATION
    INITIAL_DESIGN = METHOD
    MODEL = "acquisition"


def suggest(request: SuggestRequest) -> Decision:
    """Choose candidates one after another, each taking the ones before it as pending."""
    return Decision(tuple(_Course(request).candidates()))


def stages(request: SuggestRequest) -> Iterator[Stage]:
    """What chooses each of the request's candidates, in turn."""
    if enumerable(request):
        yield from [Stage.ENUMERATION] * request.count
        return
    size = design_size(len(request.space), request.max_trials)
    started = len(request.observations) + len(request.pending)
    learned = int(measured(request.observations, request.objectives).sum())
    for index in range(request.count):
        yield Stage.INITIAL_DESIGN if started + index < size or learned < MIN_LEARNED else Stage.MODEL


def needs_model(request: SuggestRequest) -> bool:
    """Whether the request takes a surrogate, and so torch and seconds; anything else takes milliseconds."""
    return Stage.MODEL in stages(request)


class _Course:
    """One request's way from candidate to candidate."""

    def __init__(self, request: SuggestRequest) -> None:
        self._request = request
        self._deadline = Deadline.after(request.time_limit)
        self._seen = set(seen_keys(request))
        self._taken: list[Parameters] = list(request.pending)
        self._draw = RandomDraw(request)
        self._design = Design(request, self._draw)
        self._listed = listed(request, self._seen)
        self._chooser: Chooser | None = None
        self._broken = ""

    def candidates(self) -> Iterator[Candidate]:
        """Candidates until there are enough, or a finite space has no more."""
        first = self._request.next_number
        for number, stage in enumerate(stages(self._request), first):
            late = number > first and self._deadline.passed
            candidate = self._hasty(number) if late else self._candidate(number, stage)
            if candidate is None:
                return
            self._taken.append(candidate.parameters)
            self._seen.add(key(candidate.parameters))
            yield candidate

    def _hasty(self, number: int) -> Candidate | None:
        """Fewer candidates would say that the space is exhausted, so that chance makes up the number."""
        drawn = self._draw.configuration(number, self._seen, hasty=True)
        return plain(drawn, method="random", fallback=too_late(self._request))

    def _candidate(self, number: int, stage: Stage) -> Candidate | None:
        match stage:
            case Stage.ENUMERATION:
                return plain(next(self._listed, None), method=stage.value)
            case Stage.INITIAL_DESIGN:
                return self._initial(number)
            case Stage.MODEL:
                return self._modelled(number)

    def _initial(self, number: int) -> Candidate | None:
        started = len(self._request.observations) + len(self._taken)
        point = self._design.point(number, started=started, seen=self._seen)
        late = started >= design_size(len(self._request.space), self._request.max_trials)
        return plain(point, method=METHOD, fallback=_TOO_FEW if late else "")

    def _modelled(self, number: int) -> Candidate | None:
        choice, fallback = None, self._broken
        if self._deadline.passed:
            fallback = f"the time limit of {self._request.time_limit:g} s left no time for a model"
        elif not self._broken:
            choice, fallback = self._try(number)
        if choice is None:
            return plain(self._draw.configuration(number, self._seen), method="random", fallback=fallback)
        return Candidate(choice.parameters, self._origin(choice))

    def _try(self, number: int) -> tuple[Choice | None, str]:
        """The model's choice, or why there is none."""
        # torch takes seconds to import, and most requests of a short study do without it.
        from asktell.server.policies.model_based import Chooser, quiet_single_thread  # noqa: PLC0415

        try:
            with quiet_single_thread():
                self._chooser = self._chooser or Chooser(self._request, self._deadline)
                return self._chooser.choose(number, pending=self._taken, seen=self._seen), _REPEATS
        except Exception as error:  # noqa: BLE001 - an ask gets an answer whatever the numerics do
            self._broken = describe(error)
            return None, self._broken

    def _origin(self, choice: Choice) -> Origin:
        several = len(self._request.objectives) > 1
        return Origin(
            policy=NAME,
            method=f"{choice.method} (ParEGO)" if several else choice.method,
            fallback=choice.fallback,
            predictions=choice.predictions,
            acquisition=choice.acquisition,
            incumbent=choice.incumbent,
        )


def plain(parameters: dict[str, ParameterValue] | None, *, method: str, fallback: str = "") -> Candidate | None:
    """A candidate that no model chose; None for no parameters."""
    if parameters is None:
        return None
    return Candidate(parameters, Origin(policy=NAME, method=method, fallback=fallback))


def describe(error: BaseException) -> str:
    """An error's class and message, short enough for an origin."""
    return f"{type(error).__name__}: {error}"[:300]
