"""Workers that end when they end: nothing is asked twice, and what is known counts, not when or in which order it came."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.encoding import NEAR, Encoder

COST = Objective("cost", Goal.MINIMIZE)
WORKERS = 8
TRIALS = 60
CONTINUOUS = SearchSpace(tuple(Float(name=f"x{index}", low=-1.0, high=2.0) for index in range(3)))
MIXED = SearchSpace(
    (
        Float(name="rate", low=1e-5, high=1e-1, log=True),
        Int(name="width", low=4, high=128, log=True),
        Categorical(name="optimizer", choices=("sgd", "adam", None)),
        Float(name="momentum", low=0.0, high=0.99, when=Condition("optimizer", ("sgd",))),
        Bool(name="nesterov", when=Condition("optimizer", ("sgd",))),
    )
)


def bowl(p):
    return math.fsum((value - 0.4) ** 2 for value in p.values())


def training(p):
    loss = (math.log10(p["rate"]) + 3) ** 2 + (math.log2(p["width"]) - 5) ** 2 / 4
    return loss + {"sgd": 0.0, "adam": 0.2, None: 1.0}[p["optimizer"]] + abs(p.get("momentum", 0.6) - 0.9)


PROBLEMS = pytest.mark.parametrize(
    ("space", "function"), [(CONTINUOUS, bowl), (MIXED, training)], ids=["continuous", "mixed"]
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the candidate that it got."""

    request: SuggestRequest
    candidate: object


def simulate(space, function, *, straggler=None):
    """What eight workers asked and told, in the order of the tells. The straggler's duration is longer than the study."""
    random = np.random.default_rng(5)
    running, asked, told, hint = [], [], [], b""
    for number in range(1, TRIALS + 1):
        now = heapq.heappop(running) if len(running) == WORKERS else (0.0, 0)
        if now[1]:
            parameters = asked[now[1] - 1].candidate.parameters
            cost = {"cost": MetricValue(function(parameters))}
            told.append(Observation(now[1], TrialState.SUCCEEDED, parameters, cost))
        request = SuggestRequest(
            space=space,
            objectives=(COST,),
            policy="gp",
            seed=7,
            count=1,
            next_number=number,
            observations=tuple(told),
            pending=tuple(asked[other - 1].candidate.parameters for _, other in running),
            hint=hint,
        )
        decision = registry.suggest(request)
        asked.append(Asked(request, decision.candidates[0]))
        hint = decision.hint or hint
        duration = math.inf if number == straggler else random.lognormal(0.0, 1.0)
        heapq.heappush(running, (now[0] + duration, number))
    return asked


@pytest.fixture(scope="module")
def studies():
    """Both studies; their third trial never ends."""
    return {
        len(space): simulate(space, function, straggler=3)
        for space, function in ((CONTINUOUS, bowl), (MIXED, training))
    }


def bits(decision):
    """What was decided, to the last bit, without the time that it took."""
    return [(key(c.parameters), replace(c.origin, compute_duration=None)) for c in decision.candidates]


def parameters(decision):
    return [key(candidate.parameters) for candidate in decision.candidates]


def turned(items, seed):
    """The items in another order."""
    order = np.random.default_rng(seed).permutation(len(items))
    return tuple(items[index] for index in order)


@PROBLEMS
def test_eight_workers_are_never_given_the_same_nor_nearly_the_same(studies, space, function):
    candidates = [each.candidate for each in studies[len(space)]]
    assert len({key(c.parameters) for c in candidates}) == TRIALS
    encoder = Encoder.of(space)
    rows = encoder.encode([c.parameters for c in candidates])
    assert NEAR > 0
    assert not any(encoder.near(rows[one], rows[[other]]).any() for one, other in combinations(range(TRIALS), 2))
    assert sum(c.origin.method in {"acquisition", "exploration"} for c in candidates) >= TRIALS - 10


@PROBLEMS
def test_eight_workers_come_near_the_optimum(studies, space, function):
    """They would not if a label went to another's configuration."""
    costs = [function(each.candidate.parameters) for each in studies[len(space)]]
    assert min(costs[20:]) < 0.2 * min(costs[:10])


@PROBLEMS
@pytest.mark.parametrize("asked", [20, 40, 60])
def test_the_order_of_the_tells_does_not_matter(studies, space, function, asked):
    request = studies[len(space)][asked - 1].request
    told = request.observations
    usual = bits(registry.suggest(replace(request, count=2)))
    for observations in (told[::-1], tuple(sorted(told, key=lambda seen: seen.number)), turned(told, 1)):
        other = replace(request, count=2, observations=observations, pending=turned(request.pending, 2))
        assert bits(registry.suggest(other)) == usual


@PROBLEMS
def test_labels_that_change_places_change_the_choice(studies, space, function):
    """So that the test above would see a label that goes to another's configuration."""
    request = studies[len(space)][39].request
    told = request.observations
    mixed_up = tuple(
        replace(seen, metrics=other.metrics) for seen, other in zip(told, (*told[1:], told[0]), strict=True)
    )
    usual = registry.suggest(request)
    assert parameters(registry.suggest(replace(request, observations=mixed_up))) != parameters(usual)
    assert bits(usual) == bits(registry.suggest(request))


@PROBLEMS
def test_a_straggler_that_ends_changes_nothing_for_who_does_not_know_of_it(studies, space, function):
    """Another replica has seen the end of trial 3, and left its hint; this one has not."""
    asked = studies[len(space)]
    unaware, candidate, straggler = asked[-1].request, asked[-1].candidate, asked[2].candidate.parameters
    assert straggler in unaware.pending
    for cost in (function(straggler), -1e300):
        end = Observation(3, TrialState.SUCCEEDED, straggler, {"cost": MetricValue(cost)})
        rest = tuple(p for p in unaware.pending if p != straggler)
        aware = registry.suggest(replace(unaware, observations=(*unaware.observations, end), pending=rest))
        assert not aware.candidates[0].origin.fallback.startswith("the time")
        again = registry.suggest(replace(unaware, hint=aware.hint))
        assert parameters(again) == [key(candidate.parameters)]
        assert again.candidates[0].origin.predictions == candidate.origin.predictions


@PROBLEMS
def test_a_straggler_counts_once_it_has_ended_as_if_it_had_ended_in_its_turn(studies, space, function):
    asked = studies[len(space)]
    request, straggler = asked[-1].request, asked[2].candidate.parameters
    end = Observation(3, TrialState.SUCCEEDED, straggler, {"cost": MetricValue(function(straggler))})
    rest = tuple(p for p in request.pending if p != straggler)
    late, early = (*request.observations, end), (end, *request.observations)
    known = [bits(registry.suggest(replace(request, observations=told, pending=rest))) for told in (late, early)]
    assert known[0] == known[1] != bits(registry.suggest(request))
