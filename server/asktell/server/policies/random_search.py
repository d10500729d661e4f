"""Independent draws, each from the study's seed and its trial's number."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import replace

import numpy as np

from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.space import Float, ParameterSpec, ParameterValue, key
from asktell.server.domain.trial import Origin
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.draws import generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.region import Region
from asktell.server.policies.scope import MAX_LISTED, Key, Rest, Scope

NAME = "random"
ATTEMPTS = 32
HASTY_ATTEMPTS = 2
"""When the time is up."""
_POOL = 32
_ALLOWED = 4
"""So many draws under constraints, where real numbers are among the values."""
MANY = 2**50
"""Of so many numbers a million draws take none twice, but for one chance in two thousand."""


def suggest(request: SuggestRequest) -> Decision:
    """Draw candidates that repeat no observed or pending configuration, as long as there are others."""
    deadline = Deadline.after(request.time_limit)
    draw = RandomDraw(request, deadline)
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
    """Draws configurations of a request's scope, all of which meet its constraints. What has been seen may grow from one draw to the next,
    but not shrink.
    """

    def __init__(self, request: SuggestRequest, deadline: Deadline = NEVER) -> None:
        self._request, self._seed, self._deadline = request, request.seed, deadline
        self._scope = Scope.of(request.space, request.fixed)
        self._finite = self._scope.finite
        self._encoder = Encoder.within(self._scope)
        self.region = Region(self._encoder, deadline)
        self._continuous = {spec.name for spec in request.space if continuous(spec) and spec.name not in request.fixed}
        self._rest: Rest | None = None

    @property
    def empty(self) -> bool:
        """Whether the fixed parameters contradict each other."""
        return self._scope.empty

    def at(self, unit: Matrix) -> dict[str, ParameterValue] | None:
        """The configuration at a point of the unit cube (`1 x d`), or, if constraints forbid it, an allowed one near it; None if none is
        found.
        """
        row = self._encoder.draw(unit)
        if self.region.unbounded:
            return self._encoder.decode(row[0])
        nearest, _ = self.region.nearest(row, generator(self._seed, purpose="repair"))
        return self.decoded(nearest[0])

    def decoded(self, row: Vector) -> dict[str, ParameterValue] | None:
        """The configuration of a latent row (`d`); None if constraints forbid it."""
        parameters = self._encoder.decode(row)
        return parameters if self._scope.space.allows(parameters) else None

    def spread(self, random: np.random.Generator, *, count: int) -> Matrix:
        """Up to `count` allowed latent rows, of many drawn each the farthest from those before it; fewer if fewer are found."""
        rows = self.region.draw(random, _POOL * count)
        return rows[farthest(self._encoder.settle(rows), count)]

    def configuration(
        self, number: int, seen: Container[Key], *, hasty: bool = False
    ) -> dict[str, ParameterValue] | None:
        """A configuration for the trial that is not among `seen`; None if a finite scope has no other."""
        if self._scope.empty:
            return None
        random = generator(self._seed, purpose="random", number=number)
        drawn = None
        for drawn in self._draws(random, HASTY_ATTEMPTS if hasty else ATTEMPTS):
            # Nobody draws the same real number twice; where one is among the values, the others need not be looked up. Constraints may
            # leave few points, also of real numbers.
            if (self.region.unbounded and not self._continuous.isdisjoint(drawn)) or key(drawn) not in seen:
                return drawn
        if not self._finite:
            return self._real(random, seen) or drawn
        if self._rest is None:
            self._rest = Rest(self._scope, limit=MAX_LISTED)
        fresh = self._rest.unseen(seen)
        return fresh[int(random.integers(len(fresh)))] if fresh else None

    def _real(self, random: np.random.Generator, seen: Container[Key]) -> dict[str, ParameterValue] | None:
        """A configuration in which a continuum is active, however rare that is; None if none is found."""
        for place in random.permutation(len(self._encoder.columns)):
            spec = self._scope.space.parameters[place]
            if spec.name not in self._continuous:
                continue
            value = self._encoder.columns[place].decode(float(random.random()))
            draw = RandomDraw(replace(self._request, fixed={**self._request.fixed, spec.name: value}), self._deadline)
            found = next(
                (each for each in ([] if draw.empty else draw._draws(random, 1)) if key(each) not in seen), None
            )
            if found is not None:
                return found
        return None

    def _draws(self, random: np.random.Generator, attempts: int) -> Iterator[dict[str, ParameterValue]]:
        if self.region.unbounded:
            units = (random.random((1, len(self._encoder.columns))) for _ in range(attempts))
            yield from (self._encoder.decode(self._encoder.draw(unit)[0]) for unit in units)
            return
        found = map(self.decoded, self.region.draw(random, attempts if self._finite else min(attempts, _ALLOWED)))
        yield from (parameters for parameters in found if parameters is not None)


def farthest(rows: Matrix, count: int) -> list[int]:
    """Places of up to `count` rows, the first and then each the farthest from all before it."""
    if not len(rows):
        return []
    chosen = [0]
    gaps = ((rows - rows[0]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(rows)):
        chosen.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    return chosen


def continuous(spec: ParameterSpec) -> bool:
    """Whether so many numbers can be drawn that none comes twice."""
    if not isinstance(spec, Float) or spec.size is not None:
        return False
    return spec.high - spec.low > MANY * math.ulp(max(abs(spec.low), abs(spec.high)))
