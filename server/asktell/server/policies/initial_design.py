"""The first points of a study, before there is a surrogate."""

from __future__ import annotations

from collections.abc import Collection

from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key, middle, same
from asktell.server.policies.draws import generator, sobol
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.random_search import RandomDraw
from asktell.server.policies.scope import MAX_LISTED, Key, Scope

METHOD = "initial-design"
ENUMERATION = "enumeration"


def design_size(dimensions: int, max_trials: int | None) -> int:
    """How many trials the initial design has: d + 1, from 4 to 10, but at most a fifth of the budget, and never below 2."""
    usual = min(max(dimensions + 1, 4), 10)
    return usual if max_trials is None else max(2, min(usual, max_trials // 5))


def enumerable(request: SuggestRequest) -> bool:
    """Whether the whole space is so small that the budget tries all of it, so that a model can only waste time."""
    if request.max_trials is None:
        return False
    count = Scope.of(request.space, {}).count()
    return count is not None and count <= min(request.max_trials, MAX_LISTED)


def next_listed(request: SuggestRequest, seen: Collection[Key]) -> dict[str, ParameterValue] | None:
    """The next configuration of a space that is enumerated: the first point, then the others in an order shuffled by the seed."""
    scope = Scope.of(request.space, request.fixed)
    first = first_point(request)
    if fits(first, request.fixed) and key(first) not in seen:
        return first
    listed = list(scope.configurations())
    order = generator(request.seed, purpose="enumeration").permutation(len(listed))
    return next((listed[index] for index in order if key(listed[index]) not in seen), None)


def next_point(
    request: SuggestRequest, *, number: int, started: int, seen: Collection[Key]
) -> dict[str, ParameterValue] | None:
    """The point for a trial when `started` trials are there; None if a finite scope has no other.

    First comes the user's default point, or the centre if there is none, then the scrambled Sobol point with the trial's number.
    """
    first = first_point(request)
    due = started == 0 or any(spec.has_default for spec in request.space)
    if due and key(first) not in seen and fits(first, request.fixed):
        return first
    encoder = Encoder.within(Scope.of(request.space, request.fixed))
    if not Scope.of(request.space, request.fixed).empty:
        unit = sobol(request.seed, dimensions=len(request.space), purpose="initial-design", first=number - 1, count=1)
        point = encoder.decode(encoder.draw(unit)[0])
        if key(point) not in seen:
            return point
    return RandomDraw(request).configuration(number, seen)


def first_point(request: SuggestRequest) -> dict[str, ParameterValue]:
    """The user's default point, or the centre, with the fixed parameters in place where they can be."""
    values = {spec.name: spec.default if spec.has_default else middle(spec) for spec in request.space}
    return request.space.active({**values, **request.fixed})


def fits(parameters: Parameters, fixed: Parameters) -> bool:
    """Whether a configuration has all the fixed parameters exactly so."""
    return all(name in parameters and same(parameters[name], value) for name, value in fixed.items())
