"""The first points, and small spaces that are simply enumerated."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp
from asktell.server.policies.initial_design import design_size

PLANE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=1e-4, high=1.0, log=True)))
OBJECTIVES = (Objective("cost", Goal.MINIMIZE),)


def ask(space, **changes):
    usual = {
        "space": space,
        "objectives": OBJECTIVES,
        "policy": "gp",
        "seed": 1,
        "count": 1,
        "next_number": 1,
    }
    return gp.suggest(SuggestRequest(**{**usual, **changes})).candidates


@pytest.mark.parametrize(
    ("dimensions", "max_trials", "size"),
    [(1, None, 4), (6, None, 7), (50, None, 10), (6, 100, 7), (6, 20, 4), (6, 5, 2), (6, 1, 2)],
)
def test_the_design_grows_with_the_dimension_and_never_eats_the_budget(dimensions, max_trials, size):
    assert design_size(dimensions, max_trials) == size


def test_the_first_point_is_the_centre():
    (candidate,) = ask(PLANE)
    assert candidate.parameters == {"x": 0.5, "y": pytest.approx(0.01)}
    assert candidate.origin.method == "initial-design"


def test_a_default_point_comes_first_even_after_trials_that_a_person_added():
    space = SearchSpace((Float(name="x", low=0.0, high=1.0, default=0.2, has_default=True), PLANE["y"]))
    seen = (Observation(1, TrialState.SUCCEEDED, {"x": 0.9, "y": 0.5}, {"cost": MetricValue(1.0)}),)
    (candidate,) = ask(space, observations=seen, next_number=2)
    assert candidate.parameters == {"x": 0.2, "y": pytest.approx(0.01)}
    (after,) = ask(space, observations=seen, next_number=3, pending=(candidate.parameters,))
    assert after.parameters != candidate.parameters


def test_points_fill_the_space_and_depend_on_the_trials_number_alone():
    together = ask(PLANE, count=4)
    apart = [
        ask(PLANE, next_number=number, pending=tuple(c.parameters for c in together[: number - 1]))[0]
        for number in (1, 2, 3, 4)
    ]
    assert [c.parameters for c in together] == [c.parameters for c in apart]
    assert len({key(c.parameters) for c in together}) == 4


def test_pending_trials_count_and_the_design_waits_for_nobody():
    pending = [c.parameters for c in ask(PLANE, count=4)]
    (candidate,) = ask(PLANE, next_number=5, pending=tuple(pending))
    assert candidate.origin.method == "initial-design"
    assert "too few for a model" in candidate.origin.fallback


def test_a_space_within_the_budget_is_enumerated_from_its_centre_on():
    space = SearchSpace((Int(name="i", low=0, high=4), Categorical(name="c", choices=("a", "b"))))
    candidates = ask(space, count=12, max_trials=12)
    assert len({key(c.parameters) for c in candidates}) == len(candidates) == 10
    assert {c.origin.method for c in candidates} == {"enumeration"}
    assert candidates[0].parameters == {"i": 2, "c": "a"}
    assert [c.parameters for c in candidates] != [c.parameters for c in ask(space, count=12, max_trials=12, seed=2)]


def test_first_asks_import_neither_torch_nor_botorch():
    code = """
import sys
from asktell.server.domain.metric import Goal, Objective
from asktell.server.domain.policy import SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.policies import registry, engine
request = SuggestRequest(space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), policy="auto", seed=0, count=4,
                         objectives=(Objective("y", Goal.MINIMIZE),), next_number=1)
assert len(registry.suggest(request).candidates) == 4
assert not {"torch", "botorch", "gpytorch"} & set(sys.modules), "imported"
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
