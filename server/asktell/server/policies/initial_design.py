"""The first points of a study, before there is a surrogate."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key, middle, same
from asktell.server.policies.draws import Designs, generator
from asktell.server.policies.random_search import RandomDraw
from asktell.server.policies.scope import MAX_LISTED, Key, Scope

METHOD = "initial-design"
ENUMERATION = "enumeration"


def design_size(dimensions: int, max_trials: int | None) -> int:
    """How many trials the initial design has: d + 1, from 4 to 10, but at most a fifth of the budget, and never below 2."""
    usual = min(max(dimensions + 1, 4), 10)
    return usual if max_trials is None else max(2, min(usual, max_trials // 5))


def enumerable(request: SuggestRequest) -> bool:
    """Whether the whole space is so small that the budget tries all of it, so that a model can only waste time.

    Where results are noisy, one of each is not all that is to be known.
    """
    if request.max_trials is None or request.noisy:
        return False
    count = Scope.of(request.space, {}).count()
    return count is not None and count <= min(request.max_trials, MAX_LISTED)


def listed(request: SuggestRequest, seen: Collection[Key]) -> Iterator[dict[str, ParameterValue]]:
    """What is left of a space that is enumerated: the first point, then the others in an order shuffled by the seed.

    What the caller adds to `seen` in the meantime is left out.
    """
    scope = Scope.of(request.space, request.fixed)
    first = first_point(request)
    if fits(first, request.fixed) and key(first) not in seen:
        yield first
    everything = list(scope.configurations())
    order = generator(request.seed, purpose="enumeration").permutation(len(everything))
    yield from (everything[index] for index in order if key(everything[index]) not in seen)


class Design:
    """One request's initial design."""

    def __init__(self, request: SuggestRequest, draw: RandomDraw) -> None:
        self._request, self._draw = request, draw
        self._first = first_point(request)
        self._due = any(spec.has_default for spec in request.space)
        size = design_size(len(request.space), request.max_trials)
        self._points = Designs(request.seed, size - 1, len(request.space), "initial-design")

    def point(self, number: int, *, started: int, seen: Collection[Key]) -> dict[str, ParameterValue] | None:
        """The point for a trial when `started` trials are there; None if a finite scope has no other.

        First comes the user's default point, or the centre if there is none, then the trial's point of a Latin hypercube of that size.
        """
        due = started == 0 or self._due
        if due and key(self._first) not in seen and fits(self._first, self._request.fixed):
            return self._first
        if not self._draw.empty:
            point = self._draw.at(self._points.point(max(number - 2, 0)))
            if key(point) not in seen:
                return point
        return self._draw.configuration(number, seen)


def first_point(request: SuggestRequest) -> dict[str, ParameterValue]:
    """The user's default point, or the centre, with the fixed parameters in place where they can be."""
    values = {spec.name: spec.default if spec.has_default else middle(spec) for spec in request.space}
    return request.space.active({**values, **request.fixed})


def fits(parameters: Parameters, fixed: Parameters) -> bool:
    """Whether a configuration has all the fixed parameters exactly so."""
    return all(name in parameters and same(parameters[name], value) for name, value in fixed.items())
