"""What every policy promises about parameters that exist only under others, several levels deep."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.encoding import Encoder

COST = Objective("cost", Goal.MINIMIZE)
LAYERS = SearchSpace(
    (
        Int(name="layers", low=1, high=3),
        Int(name="units_1", low=8, high=512, log=True),
        Int(name="units_2", low=8, high=512, log=True, when=Condition("layers", (2, 3))),
        Int(name="units_3", low=8, high=512, log=True, when=Condition("layers", (3,))),
    )
)
DEEP = SearchSpace(
    (
        Categorical(name="optimizer", choices=("sgd", "adam")),
        Bool(name="averaged", when=Condition("optimizer", ("sgd",))),
        Categorical(name="schedule", choices=("constant", "cosine"), when=Condition("averaged", (True,))),
        Float(name="floor", low=1e-4, high=1.0, log=True, when=Condition("schedule", ("cosine",))),
        Float(name="rate", low=0.0, high=1.0),
    )
)


@pytest.fixture(params=sorted(registry.POLICIES))
def policy(request):
    return request.param


def ask(of, policy, **changes):
    usual = {"objectives": (COST,), "seed": 3, "count": 1, "next_number": 1}
    return registry.suggest(SuggestRequest(**{"space": of, "policy": policy, **usual, **changes})).candidates


def observed(candidates, cost):
    return tuple(
        Observation(number, TrialState.SUCCEEDED, each.parameters, {"cost": MetricValue(cost(each.parameters))})
        for number, each in enumerate(candidates, 1)
    )


def study(of, policy, cost, trials, **changes):
    found = []
    while len(found) < trials:
        found += ask(of, policy, observations=observed(found, cost), next_number=len(found) + 1, **changes)
    return observed(found, cost)


def deep_cost(parameters):
    """Least at the deepest: averaged sgd with a cosine schedule whose floor is 0.01."""
    if "floor" not in parameters:
        return 1.0 + (parameters["rate"] - 0.2) ** 2
    return 0.2 * abs(math.log10(parameters["floor"]) + 2) + (parameters["rate"] - 0.7) ** 2


@pytest.mark.parametrize("of", [LAYERS, DEEP], ids=["layers", "deep"])
def test_candidates_have_the_parameters_that_are_active_and_no_others(policy, of):
    seen = observed(ask(of, "random", count=12), lambda parameters: 1.0 / len(parameters))
    candidates = [*ask(of, policy, count=6), *ask(of, policy, observations=seen, next_number=13, count=3)]
    assert len(candidates) == 9
    for candidate in candidates:
        assert key(of.check(candidate.parameters)) == key(candidate.parameters)
        assert "Error" not in candidate.origin.fallback


def test_units_of_a_layer_are_there_exactly_from_so_many_layers_on(policy):
    for candidate in ask(LAYERS, policy, count=12):
        layers = candidate.parameters["layers"]
        units = [name for name in candidate.parameters if name.startswith("units")]
        assert units == [f"units_{number}" for number in range(1, layers + 1)]


def test_a_fixed_parameter_three_levels_deep_brings_its_parents_with_it(policy):
    for candidate in ask(DEEP, policy, fixed={"floor": 0.01}, count=3):
        chosen = {name: value for name, value in candidate.parameters.items() if name != "rate"}
        assert chosen == {"optimizer": "sgd", "averaged": True, "schedule": "cosine", "floor": 0.01}


def test_what_is_inactive_is_the_same_to_the_model_whatever_it_might_have_been():
    encoder = Encoder.of(DEEP)
    latent = np.array([[1.0, code, other, number, 0.5] for code in (0, 1) for other in (0, 1) for number in (0.1, 0.9)])
    assert len(np.unique(encoder.features(encoder.settle(latent)), axis=0)) == 1


def test_the_model_learns_what_a_parameter_three_levels_deep_does():
    seen = study(DEEP, "gp", deep_cost, 30)
    best = min(seen, key=lambda each: each.metrics["cost"].value)
    assert best.parameters["schedule"] == "cosine"
    assert best.metrics["cost"].value < 0.05


def test_the_model_learns_the_units_of_the_third_layer():
    def cost(parameters):
        units = [math.log2(parameters[name] / 64) for name in parameters if name.startswith("units")]
        return 3 - len(units) + sum(number**2 for number in units)

    seen = study(LAYERS, "gp", cost, 30)
    assert min(each.metrics["cost"].value for each in seen) < 0.1
