"""Independent draws, each from the study's seed and its trial's number."""

from __future__ import annotations

import math
from collections.abc import Container

from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.space import Float, ParameterSpec, ParameterValue, key
from asktell.server.domain.trial import Origin
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.draws import generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.scope import MAX_LISTED, Key, Rest, Scope

NAME = "random"
ATTEMPTS = 32
HASTY_ATTEMPTS = 2
"""When the time is up."""
MANY = 2**50
"""Of so many numbers a million draws take none twice, but for one chance in two thousand."""


def suggest(request: SuggestRequest) -> Decision:
    """Draw candidates that repeat no observed or pending configuration, as long as there are others."""
    draw, deadline = RandomDraw(request), Deadline.after(request.time_limit)
    chosen: list[Candidate] = []
    seen = Seen(request)
    for number in range(request.next_number, request.next_number + request.count):
        late = bool(chosen) and deadline.passed
        parameters = draw.configuration(number, seen, hasty=late)
        if parameters is None:
            break
        seen.add(key(parameters))
        fallback = too_late(request) if late else ""
        chosen.append(Candidate(parameters, Origin(policy=NAME, method="random", fallback=fallback)))
    return Decision(tuple(chosen))


def too_late(request: SuggestRequest) -> str:
    """Why a candidate was drawn in haste."""
    return f"the time limit of {request.time_limit:g} s was reached before this candidate"


def seen_keys(request: SuggestRequest) -> frozenset[Key]:
    """The keys of all configurations that were tried or are being tried."""
    tried = (key(observation.parameters) for observation in request.observations)
    return frozenset(tried) | {key(parameters) for parameters in request.pending}


class Seen:
    """The keys of all configurations that were tried, are being tried, or were added: worked out when one is first looked for."""

    def __init__(self, request: SuggestRequest) -> None:
        self._request = request
        self._added: set[Key] = set()
        self._tried: frozenset[Key] | None = None

    def __contains__(self, sought: object) -> bool:
        if self._tried is None:
            self._tried = seen_keys(self._request)
        return sought in self._added or sought in self._tried

    def add(self, taken: Key) -> None:
        """Take in one more."""
        self._added.add(taken)


class RandomDraw:
    """Draws configurations of a request's scope. What has been seen may grow from one draw to the next, but not shrink."""

    def __init__(self, request: SuggestRequest) -> None:
        self._seed = request.seed
        self._scope = Scope.of(request.space, request.fixed)
        self._finite = self._scope.count() is not None
        self._encoder = Encoder.within(self._scope)
        self._continuous = {spec.name for spec in request.space if continuous(spec) and spec.name not in request.fixed}
        self._rest: Rest | None = None

    @property
    def empty(self) -> bool:
        """Whether the fixed parameters contradict each other."""
        return self._scope.empty

    def at(self, unit: Matrix) -> dict[str, ParameterValue]:
        """The configuration at a point of the unit cube (`1 x d`)."""
        return self._encoder.decode(self._encoder.draw(unit)[0])

    def configuration(
        self, number: int, seen: Container[Key], *, hasty: bool = False
    ) -> dict[str, ParameterValue] | None:
        """A configuration for the trial that is not among `seen`; None if a finite scope has no other."""
        if self._scope.empty:
            return None
        random = generator(self._seed, purpose="random", number=number)
        drawn: dict[str, ParameterValue] = {}
        for _ in range(HASTY_ATTEMPTS if hasty else ATTEMPTS):
            drawn = self.at(random.random((1, len(self._encoder.columns))))
            # Nobody draws the same real number twice; where one is among the values, the others need not be looked up.
            if not self._continuous.isdisjoint(drawn) or key(drawn) not in seen:
                return drawn
        if not self._finite:
            return drawn
        if self._rest is None:
            self._rest = Rest(self._scope, limit=MAX_LISTED)
        fresh = self._rest.unseen(seen)
        return fresh[int(random.integers(len(fresh)))] if fresh else None


def continuous(spec: ParameterSpec) -> bool:
    """Whether so many numbers can be drawn that none comes twice."""
    if not isinstance(spec, Float) or spec.size is not None:
        return False
    return spec.high - spec.low > MANY * math.ulp(max(abs(spec.low), abs(spec.high)))
