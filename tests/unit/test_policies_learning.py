"""Which observations hyper-parameters are fitted to, and what models are worth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp, registry
from asktell.server.policies.learning import milestone

SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
COST = Objective("cost", Goal.MINIMIZE)


def request(observations, **changes):
    usual = {
        "space": SPACE,
        "objectives": (COST,),
        "policy": gp.NAME,
        "seed": 3,
        "count": 1,
        "next_number": len(observations) + 1,
    }
    return SuggestRequest(**{**usual, "observations": tuple(observations), **changes})


def failing_but(measured, count):
    """Observations at random points, of which only those with these numbers have a result."""
    points = np.random.default_rng(0).random((count, 2))
    return [
        Observation(number, TrialState.SUCCEEDED, {"x": x, "y": y}, {"cost": MetricValue((x - 0.3) ** 2 + y)})
        if number in measured
        else Observation(number, TrialState.FAILED, {"x": x, "y": y}, {})
        for number, (x, y) in enumerate(points.tolist(), 1)
    ]


def test_milestones_come_at_every_observation_at_first_and_then_with_growth():
    reached = [milestone(count) for count in range(400)]
    assert reached[:17] == list(range(17))
    assert all(before <= after for before, after in pairwise(reached))
    assert all(0.85 * count <= at <= count for count, at in enumerate(reached))
    assert len(set(reached[100:])) < 20


@pytest.mark.parametrize("count", [40, 600, 1_500])
@pytest.mark.parametrize("where", ["first", "last", "anywhere"])
def test_a_few_results_among_many_failures_still_make_a_model(count, where):
    numbers = np.random.default_rng(1).permutation(np.arange(1, count + 1))[:5].tolist()
    measured = {"first": range(1, 6), "last": range(count - 4, count + 1), "anywhere": numbers}[where]
    (candidate,) = registry.suggest(request(failing_but(set(measured), count))).candidates
    assert candidate.origin.method in ("acquisition", "exploration")
    assert candidate.origin.acquisition is not None


def test_a_thousand_names_cost_no_more_than_the_time_there_is():
    names = Categorical(name="name", choices=tuple(f"n{index}" for index in range(1_000)))
    space = SearchSpace((names, *SPACE))
    points = np.random.default_rng(2).random((60, 2))
    observations = [
        Observation(
            number,
            TrialState.SUCCEEDED,
            {"name": f"n{number * 16}", "x": x, "y": y},
            {"cost": MetricValue(x + y + (number != 7))},
        )
        for number, (x, y) in enumerate(points.tolist(), 1)
    ]
    (candidate,) = registry.suggest(request(observations, space=space)).candidates
    assert candidate.origin.method in ("acquisition", "exploration")
    assert candidate.parameters["name"] == "n112"


def test_a_scalarisation_leaves_no_hint():
    objectives = (COST, Objective("gain", Goal.MAXIMIZE))
    points = np.random.default_rng(3).random((20, 2))
    observations = [
        Observation(
            number, TrialState.SUCCEEDED, {"x": x, "y": y}, {"cost": MetricValue(x), "gain": MetricValue(x * y)}
        )
        for number, (x, y) in enumerate(points.tolist(), 1)
    ]
    assert registry.suggest(request(observations, objectives=objectives)).hint == b""
    assert registry.suggest(request(observations)).hint
