"""How trials are ranked for evolution and CMA-ES."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.ranking import dominates
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies.standing import BLOCK, Results, Standing, crowding, population, ranks, references

SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0),))


def results(losses, violations=None):
    losses = np.array(losses, dtype=float)
    return Results(losses, np.zeros(len(losses)) if violations is None else np.array(violations, dtype=float))


def request(values, *, constraints=(), states=None, goals=None):
    """A study whose trials have these objective values and, last, the value of a constrained metric `c` if there are constraints."""
    count = len(values[0]) - bool(constraints)
    names = [f"m{index}" for index in range(count)]
    observations = tuple(
        Observation(
            number,
            states[number - 1] if states else TrialState.SUCCEEDED,
            {"x": number / 1e6},
            {name: MetricValue(value) for name, value in zip([*names, "c"], row, strict=False) if value is not None},
        )
        for number, row in enumerate(values, 1)
    )
    goals = goals or [Goal.MINIMIZE] * count
    return SuggestRequest(
        space=SPACE,
        objectives=tuple(map(Objective, names, goals)),
        outcome_constraints=constraints,
        policy="evolution",
        seed=0,
        count=1,
        next_number=len(values) + 1,
        observations=observations,
    )


def numbers(trials):
    return [trial.number for trial in trials]


@given(st.integers(1, 5).flatmap(lambda m: st.lists(st.tuples(*[st.integers(0, 4)] * m), min_size=1, max_size=25)))
@settings(deadline=None)
def test_a_front_is_what_only_earlier_fronts_dominate(rows):
    fronts = Standing(results(rows)).fronts
    for own, row in zip(fronts, rows, strict=True):
        above = [front for front, other in zip(fronts, rows, strict=True) if dominates(other, row)]
        assert own == max(above, default=-1) + 1


def test_what_meets_the_constraints_comes_before_what_does_not_and_then_what_misses_them_least():
    fronts = Standing(results([[1, 1], [9, 9], [0, 0], [5, 5]], [0, 0, 0.5, 0.2])).fronts
    assert fronts.tolist() == [0, 1, 3, 2]


def test_a_constrained_metric_that_is_missing_or_not_finite_counts_as_the_worst_of_those_known():
    at_most = (OutcomeConstraint("c", Relation.AT_MOST, 10.0),)
    study = request([(1.0, None), (2.0, 30.0), (3.0, 20.0), (4.0, 10.0), (0.5, math.nan)], constraints=at_most)
    assert numbers(population(study, 5).trials) == [4, 3, 5, 1, 2]


def test_failures_and_values_that_are_not_finite_rank_last_and_have_no_children():
    states = [TrialState.FAILED, TrialState.SUCCEEDED, TrialState.SUCCEEDED, TrialState.INFEASIBLE, TrialState.STOPPED]
    study = request([(0.0,), (2.0,), (math.nan,), (0.0,), (1.0,)], states=states)
    assert numbers(population(study, 5).trials) == [5, 2]
    assert ranks(study.observations, study).tolist() == [5, 1, 5, 5, 0]


def test_equal_trials_have_equal_ranks_and_a_goal_turns_them_round():
    assert ranks((study := request([(1.0,), (2.0,), (1.0,)])).observations, study).tolist() == [0, 1, 0]
    turned = request([(1.0,), (2.0,), (1.0,)], goals=[Goal.MAXIMIZE])
    assert ranks(turned.observations, turned).tolist() == [1, 0, 1]


@pytest.mark.parametrize("objectives", [2, 3, 5, 16])
def test_the_best_of_many_blocks_are_the_front_of_all_while_there_is_room(objectives):
    random = np.random.default_rng(objectives)
    values = random.random((3 * BLOCK, objectives)) + random.random((3 * BLOCK, 1))
    best = population(request(values.tolist()), 30)
    front = {place + 1 for place in np.flatnonzero(Standing(results(values)).fronts == 0).tolist()}
    assert len(best) == 30
    assert len(front & set(numbers(best.trials))) >= 0.9 * min(len(front), 30)
    assert best.ranks.tolist() == sorted(best.ranks)


def test_the_ends_of_a_front_and_lonely_trials_have_the_most_room():
    room = crowding(np.array([[0.0, 10.0], [1.0, 9.0], [1.1, 8.9], [6.0, 4.0], [10.0, 0.0]]))
    assert room[[0, 4]].tolist() == [math.inf, math.inf]
    assert room[3] > room[2] > room[1]


def test_beyond_three_objectives_survivors_spread_over_the_directions():
    """Of a front of which nine tenths lie in one corner, the few elsewhere are kept."""
    random = np.random.default_rng(1)
    spread = random.dirichlet(np.ones(5), size=12)
    corner = random.dirichlet([40.0, 1.0, 1.0, 1.0, 1.0], size=108)
    kept = Standing(results(np.vstack([corner, spread]))).best(40)
    assert sum(place >= 108 for place in kept) >= 10


@pytest.mark.parametrize("objectives", [2, 4, 8, 16])
def test_reference_directions_are_as_many_as_wanted_and_of_length_one(objectives):
    directions = references(objectives)
    assert objectives <= len(directions) <= 250
    assert np.allclose(np.linalg.norm(directions, axis=1), 1.0)
    assert (directions >= 0).all()
    assert len(np.unique(directions.round(9), axis=0)) == len(directions)


@pytest.mark.parametrize("extreme", [1e300, -1e300, 1.7e308])
def test_values_near_the_largest_float_do_no_harm(extreme):
    study = request([(extreme, 1.0, 0.0, -extreme), (-extreme, 2.0, 1.0, extreme), (0.0, 0.0, 0.0, 0.0)] * 20)
    assert len(population(study, 10)) == 10
