"""Whether the model-based policy is worth its time: far better than chance on problems with known optima."""

from __future__ import annotations

import math
from statistics import median

import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, Int, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies.engine import ProcessPoolEngine

BRANIN = SearchSpace((Float(name="x", low=-5.0, high=10.0), Float(name="y", low=0.0, high=15.0)))
MIXED = SearchSpace(
    (
        Float(name="rate", low=1e-5, high=1.0, log=True),
        Int(name="width", low=1, high=64, log=True),
        Categorical(name="kind", choices=("a", "b", "c")),
    )
)


def branin(p):
    x, y = p["x"], p["y"]
    valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def mixed(p):
    penalty = {"a": 1.0, "b": 0.0, "c": 0.5}[p["kind"]]
    return (math.log10(p["rate"]) + 3.1) ** 2 + (math.log2(p["width"]) - 4) ** 2 / 4 + penalty


async def best(engine, space, function, *, policy, seed, trials=25):
    observations: list[Observation] = []
    for number in range(1, trials + 1):
        request = SuggestRequest(
            space=space,
            objectives=(Objective("cost", Goal.MINIMIZE),),
            policy=policy,
            seed=seed,
            count=1,
            next_number=number,
            observations=tuple(observations),
        )
        (candidate,) = (await engine.suggest(request)).candidates
        assert not candidate.origin.fallback.startswith(("none of", "no process"))
        cost = MetricValue(function(candidate.parameters))
        observations.append(Observation(number, TrialState.SUCCEEDED, candidate.parameters, {"cost": cost}))
    return min(seen.metrics["cost"].value for seen in observations)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("space", "function", "optimum", "enough"), [(BRANIN, branin, 0.398, 0.25), (MIXED, mixed, 0.0, 0.25)]
)
async def test_gp_comes_near_the_optimum_where_chance_does_not(space, function, optimum, enough):
    # In the engine's processes, whose linear algebra has one thread: in this one it would have many, which small matrices only slow down.
    engine = ProcessPoolEngine(workers=2, longest=600.0)
    try:
        modelled, drawn = [
            median([await best(engine, space, function, policy=policy, seed=seed) for seed in range(5)]) - optimum
            for policy in ("gp", "random")
        ]
    finally:
        await engine.close()
    assert modelled < enough
    assert modelled < 0.5 * drawn
