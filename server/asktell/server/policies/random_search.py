"""Independent draws, each from the study's seed and its trial's number."""

from __future__ import annotations

from collections.abc import Collection

from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.space import ParameterValue, key
from asktell.server.domain.trial import Origin
from asktell.server.policies.draws import generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.scope import MAX_LISTED, Key, Scope

NAME = "random"
ATTEMPTS = 32


def suggest(request: SuggestRequest) -> Decision:
    """Draw candidates that repeat no observed or pending configuration, as long as there are others."""
    draw = RandomDraw(request)
    chosen: list[Candidate] = []
    seen = set(seen_keys(request))
    for number in range(request.next_number, request.next_number + request.count):
        parameters = draw.configuration(number, seen)
        if parameters is None:
            break
        seen.add(key(parameters))
        chosen.append(Candidate(parameters, Origin(policy=NAME, method="random")))
    return Decision(tuple(chosen))


def seen_keys(request: SuggestRequest) -> frozenset[Key]:
    """The keys of all configurations that were tried or are being tried."""
    tried = (key(observation.parameters) for observation in request.observations)
    return frozenset(tried) | {key(parameters) for parameters in request.pending}


class RandomDraw:
    """Draws configurations of a request's scope."""

    def __init__(self, request: SuggestRequest) -> None:
        self._seed = request.seed
        self._scope = Scope.of(request.space, request.fixed)
        self._finite = self._scope.count() is not None

    def configuration(self, number: int, seen: Collection[Key]) -> dict[str, ParameterValue] | None:
        """A configuration for the trial that is not among `seen`; None if a finite scope has no other."""
        if self._scope.empty:
            return None
        random = generator(self._seed, purpose="random", number=number)
        encoder = Encoder.within(self._scope)
        drawn: dict[str, ParameterValue] = {}
        for _ in range(ATTEMPTS):
            drawn = encoder.decode(encoder.draw(random.random((1, len(encoder.columns))))[0])
            if key(drawn) not in seen:
                return drawn
        if not self._finite:
            return drawn
        fresh = self._scope.unseen(seen, limit=MAX_LISTED)
        return fresh[int(random.integers(len(fresh)))] if fresh else None
