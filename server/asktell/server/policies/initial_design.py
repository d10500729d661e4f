"""The first points of a study, before there is a surrogate."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import compress

import numpy as np

from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key, middle, same
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.divergence import diverged
from asktell.server.policies.draws import Designs, generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.random_search import RandomDraw
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.region import Region
from asktell.server.policies.results import Results
from asktell.server.policies.scope import MAX_LISTED, Key, Scope

METHOD = "initial-design"
ENUMERATION = "enumeration"
_MIDST = 256
_FIRST = 1
"""The first trial's number."""


def design_size(dimensions: int, max_trials: int | None) -> int:
    """How many trials the initial design has: d + 1, from 4 to 10, but at most a fifth of the budget, and never below 2."""
    usual = min(max(dimensions + 1, 4), 10)
    return usual if max_trials is None else max(2, min(usual, max_trials // 5))


def lengthened(request: SuggestRequest, started: int) -> bool:
    """Whether, `started` trials being there, one more belongs to the design: in place of its first, which diverged."""
    due = started == design_size(len(request.space), request.max_trials) and not request.sources
    return due and any(seen.number == _FIRST for seen in _split(request)[1])


def _split(request: SuggestRequest) -> tuple[list[Observation], list[Observation]]:
    """The trials whose losses count, and those that diverged."""
    ordered = sorted(request.observations, key=lambda seen: seen.number)
    results = Results.of(ordered, request.objectives)
    gone = diverged(results, STANDARD)
    useful = results.measured & ~gone
    return list(compress(ordered, useful)), list(compress(ordered, gone))


def enumerable(request: SuggestRequest) -> bool:
    """Whether the whole space is so small that the budget tries all of it, so that a model can only waste time.

    Where results are noisy, one of each is not all that is to be known.
    """
    if request.max_trials is None or request.noisy:
        return False
    count = Scope.of(request.space, request.aim).count()
    return count is not None and count <= min(request.max_trials, MAX_LISTED)


def listed(request: SuggestRequest, seen: Collection[Key]) -> Iterator[dict[str, ParameterValue]]:
    """What is left of a space that is enumerated: the first point, then the others in an order shuffled by the seed.

    What the caller adds to `seen` in the meantime is left out.
    """
    scope = Scope.of(request.space, request.fixed)
    first = first_point(request)
    if fits(first, request.fixed) and key(first) not in seen and request.space.allows(first):
        yield first
    everything = list(scope.configurations())
    order = generator(request.seed, purpose="enumeration").permutation(len(everything))
    yield from (everything[index] for index in order if key(everything[index]) not in seen)


class Design:
    """One request's initial design."""

    def __init__(self, request: SuggestRequest, draw: RandomDraw) -> None:
        self._request, self._draw = request, draw
        self._due = any(spec.has_default for spec in request.space)
        size = design_size(len(request.space), request.max_trials)
        self._points = Designs(request.seed, size - 1, len(request.space), "initial-design")
        self._spreads: dict[int, Matrix] = {}

    @cached_property
    def _first(self) -> dict[str, ParameterValue]:
        return first_point(self._request)

    def point(self, number: int, *, started: int, seen: Collection[Key]) -> dict[str, ParameterValue] | None:
        """The point for a trial when `started` trials are there; None if a finite scope has no other.

        First comes the user's default point, or the centre if there is none, then the trial's point of a Latin hypercube of that size, or,
        under constraints, of as many allowed points that are far apart. Last comes what replaces a first trial that diverged.
        """
        due = started == 0 or self._due
        if (
            due
            and key(self._first) not in seen
            and fits(self._first, self._request.fixed)
            and self._allows(self._first)
        ):
            return self._first
        retreat = self._retreat() if lengthened(self._request, started) else None
        if retreat is not None and key(retreat) not in seen:
            return retreat
        if not self._draw.empty:
            point = self._planned(max(number - 2, 0))
            if point is not None and key(point) not in seen:
                return point
        return self._draw.configuration(number, seen)

    def _retreat(self) -> dict[str, ParameterValue] | None:
        """The point halfway from the first trial, which diverged, to the best one, whose names it has; None if that is not allowed."""
        objective = self._request.objectives[0]
        useful, gone = _split(self._request)
        best = min(useful, key=lambda seen: objective.loss(seen.metrics[objective.metric].value))
        encoder = Encoder.of(self._request.space)
        rows = encoder.encode([gone[0].parameters, best.parameters])
        halfway = encoder.decode(np.where(encoder.nominal, rows[1], rows.mean(axis=0)))
        others = {spec.name: middle(spec) for spec in self._request.space}
        point = self._request.space.active({**others, **halfway, **self._request.fixed})
        return point if fits(point, self._request.fixed) and self._allows(point) else None

    def _allows(self, point: Parameters) -> bool:
        return self._request.space.allows(point)

    def _planned(self, index: int) -> dict[str, ParameterValue] | None:
        if self._draw.region.unbounded:
            return self._draw.at(self._points.point(index))
        block, place = divmod(index, self._points.size)
        if block not in self._spreads:
            random = generator(self._request.seed, purpose="initial-design", number=block)
            self._spreads[block] = self._draw.spread(random, count=self._points.size)
        rows = self._spreads[block]
        return self._draw.decoded(rows[place]) if place < len(rows) else None


def first_point(request: SuggestRequest) -> dict[str, ParameterValue]:
    """The user's default point, or the centre, with the fixed parameters in place where they can be; where constraints forbid it, a point in
    the midst of what they allow, with as many of the user's values as can be. Forbidden only if no allowed point is found.
    """
    values = {spec.name: spec.default if spec.has_default else middle(spec) for spec in request.space}
    point = request.space.active({**values, **request.fixed})
    if request.space.allows(point):
        return point
    given = {name: value for name, value in point.items() if request.space[name].has_default}
    kept: list[Parameters] = [{**given, **request.fixed}, request.fixed]
    return next(filter(None, (_midst(request, fixed, point) for fixed in kept)), point)


def _midst(request: SuggestRequest, fixed: Parameters, centre: Parameters) -> dict[str, ParameterValue] | None:
    """Of many allowed configurations the one nearest to their mean, with the centre's names if it can be; None if there are none."""
    scope = Scope.of(request.space, fixed)
    if scope.empty:
        return None
    encoder = Encoder.within(scope)
    region = Region(encoder, Deadline.after(request.time_limit))
    rows = region.draw(generator(request.seed, purpose="centre"), _MIDST)
    settled, sought = encoder.settle(rows), Encoder.of(request.space).encode([centre])
    gaps = np.where(encoder.nominal, settled != sought, settled - settled.mean(axis=0) if len(settled) else settled)
    nearest = (encoder.decode(rows[place]) for place in np.argsort((gaps**2).sum(axis=1), kind="stable"))
    return next(filter(request.space.allows, nearest), None)


def fits(parameters: Parameters, fixed: Parameters) -> bool:
    """Whether a configuration has all the fixed parameters exactly so."""
    return all(name in parameters and same(parameters[name], value) for name, value in fixed.items())
