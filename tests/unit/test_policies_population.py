"""Population based training: who goes on, from whose state, and with which parameters."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.population import Population
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry

COST = Objective("cost", Goal.MINIMIZE)
GAIN = Objective("gain", Goal.MAXIMIZE)
RATE = Float(name="rate", low=1e-5, high=1.0, log=True)
LINE = SearchSpace((RATE,))
MIXED = SearchSpace(
    (
        RATE,
        Float(name="dropout", low=0.0, high=0.5),
        Float(name="step", low=0.0, high=1.0, step=0.25),
        Int(name="layers", low=1, high=4),
        Int(name="width", low=4, high=512, log=True),
        Ordinal(name="batch", values=(16, 32, 64)),
        Categorical(name="optimizer", choices=("sgd", "adam", None)),
        Float(name="momentum", low=0.0, high=0.99, when=Condition("optimizer", ("sgd",))),
        Bool(name="nesterov", when=Condition("optimizer", ("sgd",))),
    )
)
EIGHT = Population()
STAYING = Population(resample_probability=0.0)


def decide(space=LINE, **changes):
    usual = {"objectives": (COST,), "seed": 1, "count": 1, "policy": "pbt", "population": EIGHT}
    told = changes.get("observations", ())
    pending = changes.get("pending", ())
    numbered = {"next_number": len(told) + len(pending) + 1}
    request = SuggestRequest(space=space, **{**usual, **numbered, **changes})
    decision = registry.suggest(request)
    assert not any(candidate.origin.fallback for candidate in decision.candidates)
    return decision


def ended(number, candidate, cost=None, state=TrialState.SUCCEEDED):
    metrics = {} if cost is None else {"cost": MetricValue(cost), "gain": MetricValue(-cost)}
    return Observation(number, state, candidate.parameters, metrics, candidate.parent, candidate.member)


def generation(costs, *, space=LINE, before=(), **changes):
    """All members' next interval, each with the cost at its place."""
    candidates = decide(space, count=len(costs), observations=before, **changes).candidates
    assert sorted(candidate.member for candidate in candidates) == list(range(1, len(costs) + 1))
    numbered = enumerate(candidates, len(before) + 1)
    return (*before, *(ended(number, each, costs[each.member - 1]) for number, each in numbered))


def under_way(observations, *members):
    """What a request says of these members being trained."""
    last = {seen.member: seen for seen in observations}
    return {"pending": tuple(last[each].parameters for each in members), "pending_members": members}


def test_all_members_start_afresh_and_spread_out():
    candidates = decide(count=8).candidates
    assert [(each.member, each.parent) for each in candidates] == [(member, 0) for member in range(1, 9)]
    slices = Counter(int(8 * (math.log10(each.parameters["rate"]) + 5) / 5) for each in candidates)
    assert slices == dict.fromkeys(range(8), 1)


def test_the_first_member_starts_with_the_users_defaults():
    given_default = SearchSpace((replace(RATE, default=0.003, has_default=True), MIXED["layers"]))
    first, *others = decide(given_default, count=8).candidates
    assert first.parameters == {"rate": 0.003, "layers": 3}
    assert all(other.parameters["rate"] != 0.003 for other in others)


def test_who_asks_for_more_than_there_are_free_members_gets_fewer_and_the_policy_waits():
    decision = decide(count=20)
    assert (len(decision.candidates), decision.waits) == (8, True)
    told = generation(range(8))
    decision = decide(count=9, observations=told, **under_way(told, 2, 5))
    assert sorted(each.member for each in decision.candidates) == [1, 3, 4, 6, 7, 8]
    assert decision.waits
    everybody = decide(observations=told, **under_way(told, *range(1, 9)))
    assert (everybody.candidates, everybody.waits) == ((), True)
    assert not decide(count=6, observations=told, **under_way(told, 2, 5)).waits


def test_a_member_that_is_not_among_the_worst_goes_on_from_its_own_state_with_the_same_parameters():
    told = generation([0, 1, 2, 3, 4, 5, 6, 7], space=MIXED)
    for candidate in decide(MIXED, count=6, observations=told, **under_way(told, 7, 8)).candidates:
        own = told[candidate.parent - 1]
        assert (own.member, own.parameters) == (candidate.member, candidate.parameters)
        assert candidate.origin.method == "continue"


@pytest.mark.parametrize("objective", [COST, GAIN])
def test_the_worst_go_on_from_the_state_of_the_best_with_parameters_nearby(objective):
    told = generation([7, 6, 0, 1, 2, 3, 4, 5], population=STAYING)
    candidates = decide(count=8, observations=told, objectives=(objective,), population=STAYING).candidates
    worst = [each for each in candidates if each.member in (1, 2)]
    assert {told[each.parent - 1].member for each in worst} <= {3, 4}
    for each in worst:
        ratio = each.parameters["rate"] / told[each.parent - 1].parameters["rate"]
        assert ratio == pytest.approx(1.2) or ratio == pytest.approx(1 / 1.2)
        assert each.origin.method == "exploit"


def test_in_a_small_start_nobody_takes_over_a_state():
    """Of three results none is among the worst quarter."""
    start = decide(count=8).candidates
    told = tuple(ended(each.member, each, each.member) for each in start[:3])
    pending = tuple(each.parameters for each in start[3:])
    decision = decide(count=3, observations=told, pending=pending, pending_members=(4, 5, 6, 7, 8))
    assert [each.origin.method for each in decision.candidates] == ["continue"] * 3


def test_results_are_compared_with_those_of_the_same_age():
    """The last of a generation to go on is a step behind all others, and no worse for that."""
    told = generation([3, 2, 1, 4, 5, 6, 7, 8])
    ahead = decide(count=8, observations=told).candidates
    others = [each for each in ahead if each.member != 1]
    further = (*told, *(ended(number, each, -100.0) for number, each in enumerate(others, 9)))
    (late,) = decide(observations=further).candidates
    assert (late.member, late.origin.method) == (1, "continue")
    worse = tuple(replace(seen, metrics={"cost": MetricValue(9.0)}) if seen.member == 1 else seen for seen in told)
    (late,) = decide(observations=(*worse, *further[8:])).candidates
    assert (late.origin.method, told[late.parent - 1].metrics["cost"].value) in [("exploit", 1.0), ("exploit", 2.0)]


def test_of_equals_nobody_takes_over_the_others_state():
    told = generation([1.0] * 8)
    assert all(each.origin.method == "continue" for each in decide(count=8, observations=told).candidates)


def test_the_member_that_is_furthest_behind_goes_on_first():
    told = generation(range(8), before=generation(range(8)))
    without = tuple(seen for seen in told if (seen.member, seen.number > 8) != (4, True))
    assert decide(observations=without, next_number=17).candidates[0].member == 4
    longest = min((seen for seen in told if seen.number > 8), key=lambda seen: seen.number)
    assert decide(observations=told).candidates[0].member == longest.member


@pytest.mark.parametrize(
    ("state", "cost"),
    [
        (TrialState.FAILED, None),
        (TrialState.INFEASIBLE, None),
        (TrialState.SUCCEEDED, math.nan),
        (TrialState.SUCCEEDED, math.inf),
        (TrialState.STOPPED, None),
    ],
)
def test_a_member_whose_trial_broke_takes_over_the_state_of_one_of_the_best(state, cost):
    told = generation(range(8))
    broken = tuple(ended(seen.number, seen, cost, state) if seen.member == 3 else seen for seen in told)
    (candidate,) = decide(observations=broken, **under_way(told, 1, 2, 4, 5, 6, 7, 8)).candidates
    assert (candidate.member, candidate.origin.method, told[candidate.parent - 1].member) == (3, "exploit", 1)


def test_while_nobody_has_a_result_a_broken_member_starts_afresh_elsewhere():
    start = decide(count=8).candidates
    told = tuple(ended(each.member, each, state=TrialState.FAILED) for each in start)
    again = decide(count=8, observations=told).candidates
    assert [(each.parent, each.origin.method) for each in again] == [(0, "restart")] * 8
    assert not {key(each.parameters) for each in again} & {key(each.parameters) for each in start}


def test_trials_that_a_person_added_are_nobodys():
    told = generation(range(8))
    added = Observation(9, TrialState.SUCCEEDED, {"rate": 0.5}, {"cost": MetricValue(-100.0)})
    with_it = decide(count=8, observations=(*told, added), next_number=10).candidates
    assert {each.parent for each in with_it} <= set(range(1, 9))


def test_an_interval_has_the_fixed_parameters_of_its_ask():
    told = generation(range(8), space=MIXED)
    for each in decide(MIXED, count=8, observations=told, fixed={"layers": 3, "momentum": 0.5}).candidates:
        assert (each.parameters["layers"], each.parameters["momentum"]) == (3, 0.5)
        own = told[each.parent - 1].parameters
        if each.origin.method == "continue":
            assert each.parameters["rate"] == pytest.approx(own["rate"])
            assert each.parameters["batch"] == own["batch"]
    impossible = decide(MIXED, observations=told, fixed={"optimizer": "adam", "momentum": 0.5})
    assert (impossible.candidates, impossible.waits) == ((), False)


def exploring(space, population, *, seed=0):
    """What the worst member's parameters are, beside those that it explores from."""
    told = generation([0, 1], space=space, population=population, seed=seed)
    (worst,) = decide(space, observations=told, population=population, seed=seed, **under_way(told, 1)).candidates
    assert worst.origin.method == "exploit"
    return told[worst.parent - 1].parameters, worst.parameters


PAIR = Population(size=2, exploit_fraction=0.5, resample_probability=0.0)


@pytest.mark.parametrize("seed", range(20))
def test_a_perturbation_moves_each_number_a_step_and_leaves_choices(seed):
    before, after = exploring(MIXED, PAIR, seed=seed)
    rates = min(before["rate"] * 1.2, 1.0), max(before["rate"] / 1.2, 1e-5)
    assert any(after["rate"] == pytest.approx(rate) != before["rate"] for rate in rates)
    dropouts = min(before["dropout"] + 0.05, 0.5), max(before["dropout"] - 0.05, 0.0)
    assert any(after["dropout"] == pytest.approx(dropout) != before["dropout"] for dropout in dropouts)
    assert abs(after["step"] - before["step"]) == 0.25
    assert abs(after["layers"] - before["layers"]) == 1
    assert after["width"] != before["width"]
    values = MIXED["batch"].values
    assert abs(values.index(after["batch"]) - values.index(before["batch"])) == 1
    assert after["optimizer"] == before["optimizer"]


def test_resampling_draws_each_parameter_anew_now_and_then():
    always = replace(PAIR, resample_probability=1.0)
    moves = [exploring(MIXED, always, seed=seed) for seed in range(60)]
    assert {after["optimizer"] for _, after in moves} == {"sgd", "adam", None}
    far = sum(not 0.8 < before["rate"] / after["rate"] < 1.25 for before, after in moves)
    assert far > 40


def test_an_exploring_member_keeps_away_from_what_is_infeasible():
    space = SearchSpace((Int(name="n", low=0, high=5),))
    first = generation([0, 1], space=space, population=PAIR)
    barred = tuple(
        Observation(number, TrialState.INFEASIBLE, {"n": n}, {})
        for number, n in enumerate(set(range(6)) - {first[0].parameters["n"]}, 3)
    )
    pending = under_way(first, 1)
    (candidate,) = decide(space, observations=first + barred, population=PAIR, next_number=9, **pending).candidates
    assert candidate.parameters == first[0].parameters


def test_a_finite_space_is_never_exhausted_for_a_population():
    space = SearchSpace((Bool(name="b"),))
    told = generation(range(8), space=space, before=generation(range(8), space=space))
    assert len(decide(space, count=8, observations=told).candidates) == 8


SPACES = st.sampled_from(
    [
        MIXED,
        LINE,
        SearchSpace(
            (Float(name="a", low=0.0, high=1.0), Float(name="b", low=0.0, high=1.0), Int(name="n", low=0, high=3)),
            (InputConstraint.parse("a + b <= 1"), InputConstraint.parse("a * n <= 2")),
        ),
        SearchSpace((Float(name="x", low=2.0, high=2.0), Int(name="n", low=1, high=1), Ordinal(name="o", values=(1,)))),
        SearchSpace((Float(name="x", low=1e-300, high=1e300, log=True), Int(name="n", low=1, high=2**53, log=True))),
    ]
)
ENDS = st.one_of(st.floats(), st.floats(-1.0, 1.0), st.sampled_from(["failed", "infeasible", "cancelled", "running"]))
POPULATIONS = st.builds(
    Population,
    size=st.sampled_from([4, 5, 8]),
    exploit_fraction=st.sampled_from([0.25, 0.4, 0.5]),
    resample_probability=st.sampled_from([0.0, 0.25, 1.0]),
    perturbation_factor=st.sampled_from([1.01, 1.2, 10.0]),
)


@given(space=SPACES, population=POPULATIONS, seed=st.integers(0, 2**63 - 1), data=st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_becomes_of_its_trials_a_population_goes_on_in_its_space(space, population, seed, data):
    told: list[Observation] = []
    running: dict[int, object] = {}
    number = 1
    for _ in range(data.draw(st.integers(1, 12))):
        count = data.draw(st.integers(1, 6))
        request = SuggestRequest(
            space=space,
            objectives=(COST,),
            policy="pbt",
            population=population,
            seed=seed,
            count=count,
            next_number=number,
            observations=tuple(told),
            pending=tuple(each.parameters for each in running.values()),
            pending_members=tuple(running),
        )
        decision = registry.suggest(request)
        turned = replace(
            request,
            observations=request.observations[::-1],
            pending=request.pending[::-1],
            pending_members=request.pending_members[::-1],
        )
        assert strip(registry.suggest(turned)) == strip(decision)
        assert len(decision.candidates) == min(count, population.size - len(running))
        assert decision.waits == (len(decision.candidates) < count)
        for candidate in decision.candidates:
            assert not candidate.origin.fallback
            assert space.allows(space.check(candidate.parameters))
            assert candidate.member not in running
            assert candidate.parent in {0, *(seen.number for seen in told if "cost" in seen.metrics)}
            running[candidate.member] = candidate
            end = data.draw(ENDS)
            if end == "infeasible" and space.size == 1:
                end = "failed"
            if end in ("failed", "infeasible"):
                told.append(ended(number, candidate, state=TrialState(end)))
            elif end not in ("cancelled", "running"):
                told.append(ended(number, candidate, end))
            if end != "running":
                del running[candidate.member]
            number += 1


def strip(decision):
    return [(each.parameters, each.parent, each.member, each.origin.method) for each in decision.candidates]
