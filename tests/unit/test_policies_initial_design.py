"""The first points, and small spaces that are simply enumerated."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import deadline, draws, gp, random_search
from asktell.server.policies.initial_design import design_size
from asktell.server.policies.scope import Scope

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


GRID = SearchSpace((Int(name="i", low=0, high=40), Int(name="j", low=0, high=40)))
LINE = SearchSpace((Int(name="i", low=0, high=39), Float(name="x", low=1.0, high=1.0)))
WIDE = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(20)))


@pytest.fixture
def clock(monkeypatch):
    """A clock of which every look takes a second."""
    now = iter(range(1_000_000))
    monkeypatch.setattr(deadline.time, "monotonic", lambda: float(next(now)))


def calls(monkeypatch, owner, name):
    """Count the calls of a function."""
    made, function = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments, **named: made.append(1) or function(*arguments, **named))
    return made


def test_an_enumerated_space_is_listed_once_for_an_ask_of_many(monkeypatch):
    walks = calls(monkeypatch, Scope, "configurations")
    assert len(ask(GRID, count=200, max_trials=2_000)) == 200
    assert len(walks) == 1


def test_points_of_an_ask_for_many_are_drawn_a_design_at_a_time(monkeypatch):
    spreads = calls(monkeypatch, draws, "even_spread")
    candidates = ask(WIDE, count=60, next_number=1_000)
    assert {c.origin.method for c in candidates} == {"initial-design"}
    assert len(spreads) == 60 // (design_size(len(WIDE), None) - 1) + 1


@pytest.mark.parametrize("dimensions", [1, 2, 7, 30])
def test_a_design_has_a_point_in_every_slice_of_every_dimension(dimensions):
    points = draws.Designs(3, 8, dimensions, "test")
    design = np.concatenate([points.point(index) for index in range(8, 16)])
    assert (np.sort(np.floor(design * 8), axis=0) == np.arange(8)[:, None]).all()
    assert (design != np.concatenate([points.point(index) for index in range(8)])).all()


@pytest.mark.parametrize("changes", [{"space": WIDE}, {"space": GRID, "max_trials": 2_000}], ids=["design", "listed"])
def test_what_is_asked_for_together_is_what_is_asked_for_one_by_one(changes):
    together = [c.parameters for c in ask(**changes, count=12, next_number=1_020)]
    apart = [
        ask(**changes, next_number=1_020 + index, pending=tuple(together[:index]))[0].parameters for index in range(12)
    ]
    assert together == apart


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("space", "max_trials", "method"), [(WIDE, None, "initial-design"), (GRID, 2_000, "enumeration")]
)
def test_when_the_time_is_up_chance_makes_up_the_number_and_says_so(space, max_trials, method):
    candidates = ask(space, count=50, max_trials=max_trials, time_limit=10.0)
    assert len({key(c.parameters) for c in candidates}) == 50
    methods = [c.origin.method for c in candidates]
    chosen = methods.index("random")
    assert chosen == 10
    assert set(methods[:chosen]) == {method}
    assert set(methods[chosen:]) == {"random"}
    assert not any(c.origin.fallback for c in candidates[:chosen])
    assert {c.origin.fallback for c in candidates[chosen:]} == {
        "the time limit of 10 s was reached before this candidate"
    }


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("policy", [gp, random_search])
def test_a_finite_space_is_exhausted_exactly_even_without_time(policy):
    request = SuggestRequest(
        space=LINE, objectives=OBJECTIVES, policy="", seed=1, count=50, next_number=1, max_trials=99, time_limit=3.0
    )
    candidates = policy.suggest(request).candidates
    assert len({key(c.parameters) for c in candidates}) == len(candidates) == 40
    assert "time limit of 3 s" in candidates[-1].origin.fallback


def test_random_draws_make_the_codes_once_and_list_what_is_left_once(monkeypatch):
    codes, walks = calls(monkeypatch, Scope, "columns"), calls(monkeypatch, Scope, "configurations")
    request = SuggestRequest(space=LINE, objectives=OBJECTIVES, policy="random", seed=1, count=40, next_number=1)
    assert len(random_search.suggest(request).candidates) == 40
    assert len(walks) == 1
    assert len(codes) <= 3
