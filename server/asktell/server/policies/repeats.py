"""Configurations that a noisy study measures again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies.draws import generator
from asktell.server.policies.initial_design import fits
from asktell.server.policies.labels import measured
from asktell.server.policies.scope import MAX_LISTED, Key, Scope

REPEAT = "repeat"


def infeasible_keys(request: SuggestRequest) -> frozenset[Key]:
    """The keys of configurations that cannot work: nobody tries them again, however noisy the study."""
    return frozenset(key(seen.parameters) for seen in request.observations if seen.state is TrialState.INFEASIBLE)


def repeatable(request: SuggestRequest, ordered: Sequence[Observation]) -> list[dict[str, ParameterValue]]:
    """The configurations that were measured and may be again, each once, in the order of the observations."""
    barred = infeasible_keys(request)
    useful = measured(ordered, request.objectives)
    earlier = {
        key(seen.parameters): dict(seen.parameters) for seen, usable in zip(ordered, useful, strict=True) if usable
    }
    return [each for known, each in earlier.items() if known not in barred and fits(each, request.fixed)]


def repeats(request: SuggestRequest, taken: Sequence[Parameters]) -> Iterator[dict[str, ParameterValue]]:
    """Configurations of a finite space to try again, once all were tried: without end the one that was tried least often.

    `taken` are those that the decision has already. There are none if all are known to be infeasible.
    """
    again = Scope.of(request.space, request.fixed).unseen(infeasible_keys(request), limit=MAX_LISTED)
    order = generator(request.seed, purpose="repeats", number=request.next_number).permutation(len(again))
    tried = [*(seen.parameters for seen in request.observations), *request.pending, *taken]
    times, keys = Counter(map(key, tried)), list(map(key, again))
    while again:
        chosen = min(order, key=lambda index: times[keys[index]])
        times[keys[chosen]] += 1
        yield again[chosen]
