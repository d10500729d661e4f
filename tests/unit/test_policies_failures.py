"""Trials that fail, and losses that leap: the model learns where they are and keeps away, and never asks the same again."""

from __future__ import annotations

import math
import random
from itertools import cycle, islice
from statistics import mean, median

import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry

COST = Objective("cost", Goal.MINIMIZE)
SQUARE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
GRID = SearchSpace((Int(name="i", low=0, high=4), Categorical(name="c", choices=("a", "b", "c"))))
FAILURES = (TrialState.FAILED, TrialState.INFEASIBLE)
BRANIN_BEST = 0.397887


def branin(p):
    x, y = 15 * p["x"] - 5, 15 * p["y"]
    valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def bowl(p):
    return (p["x"] - 0.7) ** 2 + (p["y"] - 0.6) ** 2


def run(space, evaluate, trials, *, seed, policy="gp", max_trials=None):
    """Observations of a sequential study; `evaluate` gives a trial's cost, or the state of one that has none."""
    observations, hint = [], b""
    for number in range(1, trials + 1):
        request = SuggestRequest(
            space=space,
            objectives=(COST,),
            policy=policy,
            seed=seed,
            count=1,
            next_number=number,
            observations=tuple(observations),
            max_trials=max_trials,
            hint=hint,
        )
        decision = registry.suggest(request)
        (candidate,) = decision.candidates
        assert "Error" not in candidate.origin.fallback
        hint = decision.hint or hint
        result = evaluate(candidate.parameters)
        failed = isinstance(result, TrialState)
        metrics = {} if failed else {"cost": MetricValue(result)}
        state = result if failed else TrialState.SUCCEEDED
        observations.append(Observation(number, state, candidate.parameters, metrics))
    return observations


CUBE = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(4)))
NAMED = SearchSpace((*SQUARE, Categorical(name="c", choices=("a", "b", "c"))))


def waves(p):
    """A bowl with small waves, lowest beside a ball that crashes."""
    return sum((x - 0.66) ** 2 + 0.05 * math.sin(9.0 * x) for x in p.values())


def within_ball(p):
    return math.dist(p.values(), [0.4] * 4) < 0.5


def named(p):
    """Best by far in the one category of three that hardly ever works."""
    return bowl({"x": p["x"], "y": p["y"]}) + (0.0 if p["c"] == "a" else 0.3)


CRASHES = {
    "beyond a line far from the minimum": (SQUARE, branin, lambda p: p["x"] > 0.7),
    "beyond a line on the other side": (SQUARE, bowl, lambda p: p["x"] + p["y"] < 0.775),
    "beyond a line at the minimum": (SQUARE, bowl, lambda p: p["x"] > 0.7),
    "in a ball beside the minimum": (CUBE, waves, within_ball),
    "in nine tenths of a category": (NAMED, named, lambda p: p["c"] == "a" and p["x"] < 0.9),
}
"""Each crashes in 30 % of the space, up to a hundredth or two."""


def share_of_crashes(shape, *, seeds):
    """How many of the trials 21 to 60 crash, on average over the seeds; chance would be 0.3."""
    space, function, crashes = CRASHES[shape]

    def evaluate(p):
        return TrialState.FAILED if crashes(p) else function(p)

    runs = [run(space, evaluate, 60, seed=seed) for seed in seeds]
    return mean(mean(seen.state is TrialState.FAILED for seen in observations[20:]) for observations in runs)


@pytest.mark.parametrize("shape", CRASHES)
def test_the_regions_that_crash_are_three_tenths_of_their_spaces(shape):
    space, _, crashes = CRASHES[shape]
    request = SuggestRequest(space=space, objectives=(COST,), policy="random", seed=0, count=4_000, next_number=1)
    drawn = registry.suggest(request).candidates
    assert mean(crashes(candidate.parameters) for candidate in drawn) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("shape", CRASHES)
def test_a_model_keeps_out_of_a_region_that_crashes(shape):
    assert share_of_crashes(shape, seeds=range(4)) <= 0.1


@pytest.mark.parametrize("seed", [1, 3])
def test_failures_by_chance_do_not_hide_the_valley(seed):
    """Each trial fails with a probability of 0.2, wherever it is: what fails in the valley says nothing of it."""
    chance = random.Random(1_000 + seed)

    def evaluate(p):
        return TrialState.FAILED if chance.random() < 0.2 else branin(p)

    observations = run(SQUARE, evaluate, 50, seed=seed)
    assert 5 <= sum(seen.state is TrialState.FAILED for seen in observations) <= 15
    assert min(seen.metrics["cost"].value for seen in observations if seen.metrics) - BRANIN_BEST < 0.2


@pytest.mark.parametrize("state", FAILURES)
@pytest.mark.parametrize("max_trials", [None, 15])
def test_what_failed_in_a_finite_space_is_never_offered_again(state, max_trials):
    """All 15 configurations come once, though the good ones are told after those that failed beside them."""

    def evaluate(p):
        return state if p["c"] == "b" else p["i"] / 4

    observations = run(GRID, evaluate, 15, seed=1, max_trials=max_trials)
    assert len({key(seen.parameters) for seen in observations}) == 15
    assert sum(seen.state is state for seen in observations) == 5


@pytest.mark.parametrize("state", FAILURES)
def test_what_failed_at_the_very_optimum_is_not_offered_again(state):
    """The best place fails, and only that: its neighbours pull the model towards it all the same."""
    space = SearchSpace((Float(name="x", low=0.0, high=1.0), Int(name="i", low=1, high=3)))

    def evaluate(p):
        centre = abs(p["x"] - 0.5) < 1e-3 and p["i"] == 2
        return state if centre else (p["x"] - 0.5) ** 2 + (p["i"] - 2) ** 2

    observations = run(space, evaluate, 30, seed=2)
    failed = [seen.parameters for seen in observations if seen.state is state]
    assert failed, "the first trial is the centre"
    for index, p in enumerate(failed):
        assert all(abs(p["x"] - q["x"]) >= 1e-4 for q in failed[:index])


@pytest.mark.parametrize("states", [FAILURES[:1], FAILURES[1:], FAILURES])
def test_a_study_of_failures_alone_gets_candidates_and_says_that_there_is_no_model(states):
    state = cycle(states)
    observations = run(SQUARE, lambda p: next(state), 25, seed=3)
    assert [seen.state for seen in observations] == list(islice(cycle(states), 25))
    assert len({key(seen.parameters) for seen in observations}) == 25
    request = SuggestRequest(
        space=SQUARE,
        objectives=(COST,),
        policy="gp",
        seed=3,
        count=2,
        next_number=26,
        observations=tuple(observations),
    )
    for candidate in registry.suggest(request).candidates:
        assert "fewer than 2 observations have finite objectives" in candidate.origin.fallback
        assert not candidate.origin.predictions


def test_a_model_is_made_as_soon_as_two_trials_have_worked():
    results = iter([TrialState.FAILED] * 20 + [0.3, 0.2])
    observations = run(SQUARE, lambda p: next(results), 22, seed=4)
    request = SuggestRequest(
        space=SQUARE,
        objectives=(COST,),
        policy="gp",
        seed=4,
        count=1,
        next_number=23,
        observations=tuple(observations),
    )
    (candidate,) = registry.suggest(request).candidates
    assert not candidate.origin.fallback
    assert candidate.origin.predictions["cost"].standard_deviation > 0


def regrets(function, *, policy):
    """What is missing to Branin's minimum after 30 trials, for thirty seeds."""
    runs = [run(SQUARE, function, 30, seed=seed, policy=policy) for seed in range(30)]
    return [min(seen.metrics["cost"].value for seen in observations) - BRANIN_BEST for observations in runs]


def test_a_cliff_does_not_hide_the_valley():
    """A tenth of the square costs a thousand times as much. Branin's values span 300; chance is left with more than 1.

    One seed in thirty finds the last valley late: a maximum of few seeds would tell of luck.
    """
    enough = 0.2

    def cliff(p):
        return branin(p) * (1_000 if p["x"] < 0.1 else 1)

    chance, steep = regrets(cliff, policy="random"), regrets(cliff, policy="gp")
    assert min(chance[:5]) > enough
    assert median(chance) > 1.0
    assert median(steep[:5]) < 0.02 * median(chance[:5])
    assert sum(regret >= enough for regret in steep) <= 1
    assert max(steep) < 0.25 * median(chance)
    assert sorted(steep)[26] < 0.02 * median(chance), "nine tenths of the seeds"
    assert median(steep) < 0.01 * median(chance)
    assert mean(steep) < 0.02 * mean(chance)
