"""What every policy promises, run over all of them."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.choosing import MAX_BELIEVED
from asktell.server.policies.initial_design import fits
from asktell.server.policies.labels import measured
from asktell.server.policies.scope import Scope

COST = Objective("cost", Goal.MINIMIZE)
GAIN = Objective("gain", Goal.MAXIMIZE)
TIME = Objective("time", Goal.MINIMIZE)

MIXED = SearchSpace(
    (
        Float(name="rate", low=1e-5, high=1e-1, log=True),
        Float(name="dropout", low=0.0, high=0.5, step=0.1),
        Int(name="width", low=4, high=128, log=True),
        Int(name="depth", low=1, high=3),
        Ordinal(name="batch", values=(16, 32, 64)),
        Categorical(name="optimizer", choices=("sgd", "adam", None)),
        Float(name="momentum", low=0.0, high=0.99, when=Condition("optimizer", ("sgd",))),
        Bool(name="nesterov", when=Condition("optimizer", ("sgd",))),
    )
)
FINITE = SearchSpace(
    (
        Int(name="i", low=0, high=3),
        Categorical(name="c", choices=("a", "b")),
        Bool(name="b", when=Condition("c", ("a",))),
    )
)
FINITE_SIZE = 4 * 3
METHODS = ("cma-es", "evolution", "grid", "sobol")


@pytest.fixture(params=sorted(registry.POLICIES))
def policy(request):
    return request.param


@pytest.fixture(params=sorted({*registry.POLICIES} - {"pbt"}))
def searcher(request):
    """A policy that tries each configuration once; a member of a population has its parameters again."""
    return request.param


def ask(space, policy, **changes):
    usual = {"objectives": (COST,), "seed": 3, "count": 1, "next_number": 1}
    return registry.suggest(SuggestRequest(**{"space": space, "policy": policy, **usual, **changes})).candidates


def cost(parameters):
    numbers = [value for value in parameters.values() if isinstance(value, float | int)]
    return math.fsum(math.log1p(abs(value)) for value in numbers) + 0.1 * len(parameters)


def history(space, count, *, policy="random", function=cost):
    """Observations of a random study, every fourth of them no success."""
    candidates = ask(space, policy, count=count)
    states = [TrialState.SUCCEEDED, TrialState.STOPPED, TrialState.FAILED, TrialState.SUCCEEDED]
    return tuple(
        Observation(number, states[number % 4], c.parameters, told(states[number % 4], function(c.parameters)))
        for number, c in enumerate(candidates, 1)
    )


def told(state, value):
    return {} if state is TrialState.FAILED else {"cost": MetricValue(value), "gain": MetricValue(2 - value)}


def modelled(policy, **changes):
    """A request in the midst of a study: 14 observations, 2 pending."""
    observations = history(MIXED, 14)
    pending = tuple(c.parameters for c in ask(MIXED, "random", count=2, next_number=15))
    return ask(MIXED, policy, **{"observations": observations, "pending": pending, "next_number": 17, **changes})


def parameters(candidates):
    return [candidate.parameters for candidate in candidates]


@pytest.mark.parametrize("count", [1, 3])
def test_candidates_are_in_the_space_and_active_exactly_where_they_should_be(policy, count):
    candidates = [*modelled(policy, count=count), *ask(MIXED, policy, count=count)]
    assert len(candidates) == 2 * count
    for candidate in candidates:
        checked = MIXED.check(candidate.parameters)
        assert key(checked) == key(candidate.parameters)
        assert not candidate.origin.fallback


def test_the_order_of_observations_and_pending_trials_does_not_matter(policy):
    observations = history(MIXED, 14)
    pending = tuple(parameters(ask(MIXED, "random", count=3, next_number=15)))
    usual = ask(MIXED, policy, observations=observations, pending=pending, next_number=18, count=2)
    turned = ask(MIXED, policy, observations=observations[::-1], pending=pending[::-1], next_number=18, count=2)
    assert parameters(usual) == parameters(turned)
    assert [c.origin.acquisition for c in usual] == [c.origin.acquisition for c in turned]


def test_the_seed_matters(policy):
    assert parameters(ask(MIXED, policy, count=4)) != parameters(ask(MIXED, policy, count=4, seed=4))


def test_a_decision_leaves_the_global_random_numbers_alone(policy):
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    first = parameters(modelled(policy))
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(6)
    assert parameters(modelled(policy)) == first


def test_another_process_gives_the_same_bits(policy, tmp_path):
    code = """
import pickle, sys
from asktell.server.policies import registry
from asktell.server.policies.choosing import MAX_BELIEVED
from asktell.server.policies.initial_design import fits
from asktell.server.policies.labels import measured
from asktell.server.policies.scope import Scope
request = pickle.load(open(sys.argv[1], "rb"))
print([(c.parameters, c.origin.acquisition) for c in registry.suggest(request).candidates])
"""
    request = SuggestRequest(
        space=MIXED,
        objectives=(COST,),
        policy=policy,
        seed=3,
        count=2,
        next_number=15,
        observations=history(MIXED, 14),
    )
    path = tmp_path / "request"
    path.write_bytes(pickle.dumps(request))
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True, timeout=120
    )
    here = [(c.parameters, c.origin.acquisition) for c in registry.suggest(request).candidates]
    assert done.stdout.strip() == str(here)


@pytest.mark.parametrize(
    "fixed",
    [
        {"depth": 2},
        {"optimizer": "adam", "rate": 0.001},
        {"momentum": 0.123456789},
        {"optimizer": None, "dropout": 0.30000000000000004, "batch": 64},
    ],
    ids=repr,
)
def test_fixed_parameters_are_exactly_so(policy, fixed):
    fixed = MIXED.check_fixed(fixed)
    for candidate in [*modelled(policy, fixed=fixed, count=2), *ask(MIXED, policy, fixed=fixed, count=3)]:
        assert {name: candidate.parameters[name] for name in fixed} == fixed
        assert not candidate.origin.fallback


def test_contradicting_fixed_parameters_have_no_candidates(policy):
    assert ask(MIXED, policy, fixed={"optimizer": "adam", "momentum": 0.5}) == ()


@pytest.mark.parametrize("max_trials", [None, 8, 100])
def test_a_finite_space_is_exhausted_exactly(searcher, max_trials):
    observations: list[Observation] = []
    for number in range(1, FINITE_SIZE + 1):
        (candidate,) = ask(
            FINITE, searcher, observations=tuple(observations), next_number=number, max_trials=max_trials
        )
        observations.append(
            Observation(number, TrialState.SUCCEEDED, candidate.parameters, told(None, cost(candidate.parameters)))
        )
    assert len({key(seen.parameters) for seen in observations}) == FINITE_SIZE
    after = FINITE_SIZE + 1
    assert ask(FINITE, searcher, observations=tuple(observations), next_number=after, max_trials=max_trials) == ()


@pytest.mark.parametrize("max_trials", [None, 100])
def test_a_noisy_finite_space_begins_anew_without_what_is_infeasible(searcher, max_trials):
    observations: list[Observation] = []
    for number in range(1, 3 * FINITE_SIZE):
        (candidate,) = ask(
            FINITE, searcher, observations=tuple(observations), next_number=number, max_trials=max_trials, noisy=True
        )
        impossible = candidate.parameters["i"] == 2
        state = TrialState.INFEASIBLE if impossible else TrialState.SUCCEEDED
        value = cost(candidate.parameters) + 0.3 * math.sin(number)
        observations.append(Observation(number, state, candidate.parameters, {} if impossible else told(None, value)))
    tried = Counter(key(seen.parameters) for seen in observations)
    assert len(tried) == FINITE_SIZE
    assert all(times == 1 for parameters, times in tried.items() if dict(told_of(parameters))["i"] == 2)


def told_of(parameters):
    """The names and values of a key."""
    return [(name, value) for name, _, value in parameters]


def test_a_noisy_space_of_which_all_is_infeasible_is_exhausted(policy):
    everything = parameters(ask(FINITE, "random", count=FINITE_SIZE))
    observations = tuple(Observation(number, TrialState.INFEASIBLE, p, {}) for number, p in enumerate(everything, 1))
    assert ask(FINITE, policy, observations=observations, next_number=FINITE_SIZE + 1, noisy=True) == ()


def test_an_ask_for_more_than_there_is_gets_all_there_is(searcher):
    pending = tuple(parameters(ask(FINITE, searcher, count=5)))
    rest = ask(FINITE, searcher, count=50, pending=pending, next_number=6)
    assert len({key(p) for p in [*pending, *parameters(rest)]}) == FINITE_SIZE
    assert len(rest) == FINITE_SIZE - 5
    assert len(ask(FINITE, searcher, count=50, pending=pending, next_number=6, fixed={"i": 1})) == 3 - sum(
        p["i"] == 1 for p in pending
    )


@pytest.mark.parametrize("method", METHODS)
def test_constraints_between_parameters_are_met(method):
    space = SearchSpace(
        (
            Float(name="a", low=0.0, high=1.0),
            Float(name="b", low=0.0, high=1.0),
            Int(name="width", low=1, high=512, log=True),
            Int(name="depth", low=1, high=8),
        ),
        tuple(map(InputConstraint.parse, ("a + b <= 1", "width * depth <= 512"))),
    )
    space.validate()
    told: tuple[Observation, ...] = ()
    for number in range(1, 241, 30):
        candidates = ask(space, method, observations=told, next_number=number, count=30)
        assert all(space.allows(candidate.parameters) and not candidate.origin.fallback for candidate in candidates)
        told += tuple(
            Observation(n, TrialState.SUCCEEDED, c.parameters, {"cost": MetricValue(-c.parameters["a"])})
            for n, c in enumerate(candidates, number)
        )
    assert len({key(seen.parameters) for seen in told}) == 240


@pytest.mark.parametrize("method", METHODS)
def test_the_users_default_point_comes_first_and_once(method):
    space = SearchSpace((replace(MIXED.parameters[0], default=0.003, has_default=True), *MIXED.parameters[1:]))
    first, second = parameters(ask(space, method, count=2))
    assert (first["rate"], second["rate"] == 0.003) == (0.003, False)
    assert parameters(ask(space, method, pending=(first,), next_number=2)) == [second]
    assert all(p["rate"] != 0.003 for p in parameters(ask(space, method, count=2, fixed={"rate": 0.01})))


def test_what_is_pending_is_not_offered_to_another_worker(policy):
    (first,) = parameters(modelled(policy))
    pending = tuple(parameters(ask(MIXED, "random", count=2, next_number=15)))
    (second,) = parameters(modelled(policy, pending=(*pending, first), next_number=18))
    assert key(second) != key(first)


@pytest.mark.parametrize("method", ["random", *METHODS])
def test_a_study_in_which_every_trial_fails_goes_on(method):
    failed: tuple[Observation, ...] = ()
    for number in range(1, 61, 5):
        candidates = ask(MIXED, method, observations=failed, next_number=number, count=5)
        assert not any(candidate.origin.fallback for candidate in candidates)
        failed += tuple(
            Observation(number + index, FAILURES[index % 2], candidate.parameters, {})
            for index, candidate in enumerate(candidates)
        )
    assert len({key(seen.parameters) for seen in failed}) == 60


def test_nothing_is_offered_twice_in_a_study(policy):
    observations: tuple[Observation, ...] = ()
    for number in range(1, 16, 3):
        candidates = ask(MIXED, policy, observations=observations, next_number=number, count=3)
        observations += tuple(
            Observation(
                number + index, TrialState.INFEASIBLE if index else TrialState.SUCCEEDED, c.parameters, told(None, 1.0)
            )
            for index, c in enumerate(candidates)
        )
    assert len({key(seen.parameters) for seen in observations}) == 15


def test_a_continuum_behind_a_rare_choice_is_found_when_all_else_has_failed(policy):
    """Only one choice of 40 has a number; the other 39 failed, and must not be offered again."""
    rare = Float(name="x", low=0.0, high=1.0, when=Condition("c", (0,)))
    space = SearchSpace((Categorical(name="c", choices=tuple(range(40))), rare))
    failed = tuple(Observation(choice, TrialState.FAILED, {"c": choice}, {}) for choice in range(1, 40))
    candidates = parameters(ask(space, policy, observations=failed, next_number=40, count=5))
    assert [p["c"] for p in candidates] == [0] * 5


LIMITS = (OutcomeConstraint("gain", Relation.AT_LEAST, 0.0), OutcomeConstraint("never", Relation.AT_MOST, 0.0))


def test_outcome_constraints_are_served_in_any_order_of_observations(policy):
    observations = history(MIXED, 14)
    usual = modelled(policy, outcome_constraints=LIMITS, count=2)
    turned = modelled(policy, outcome_constraints=LIMITS, count=2, observations=observations[::-1])
    assert parameters(usual) == parameters(turned)
    assert not any(candidate.origin.fallback for candidate in usual)


@pytest.mark.parametrize("objectives", [(COST,), (GAIN,), (COST, GAIN)], ids=len)
def test_several_objectives_and_both_goals_are_served(policy, objectives):
    (candidate,) = modelled(policy, objectives=objectives)
    assert not candidate.origin.fallback
    assert MIXED.check(candidate.parameters)


def test_random_draws_depend_on_the_trials_own_number_alone():
    together = parameters(ask(MIXED, "random", count=5, next_number=4))
    apart = [parameters(ask(MIXED, "random", next_number=number))[0] for number in range(4, 9)]
    assert together == apart


def test_auto_is_gp_where_gp_can_bear_it_and_evolution_where_not_and_says_why():
    (usual,) = modelled("auto")
    assert (usual.origin.policy, bool(usual.origin.reason)) == ("gp", True)
    wide = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(101)))
    (candidate,) = ask(wide, "auto")
    assert (candidate.origin.policy, candidate.origin.fallback) == ("evolution", "")
    assert "101 parameters" in candidate.origin.reason


def test_only_auto_has_reasons(policy):
    assert bool(modelled(policy)[0].origin.reason) == (policy == "auto")


def test_the_origin_says_what_was_expected_in_the_metrics_own_unit():
    (candidate,) = modelled("gp", objectives=(GAIN,))
    origin = candidate.origin
    assert (origin.policy, origin.method) == ("gp", "acquisition")
    gains = [seen.metrics["gain"].value for seen in history(MIXED, 14) if seen.metrics]
    spread = max(gains) - min(gains)
    assert min(gains) - spread < origin.predictions["gain"].mean < max(gains) + spread
    assert 0 < origin.predictions["gain"].standard_deviation < 2 * spread
    assert origin.incumbent == pytest.approx(max(gains), abs=0.5 * spread)
    assert origin.compute_duration.total_seconds() > 0


# Studies as they should not be: none may raise, repeat itself or leave the space.

VALUES = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e300, -1e300, 1.7e308, -1.7e308, 5e-324, math.nan, math.inf, -math.inf]),
    st.just(1.0),
)
# A study's trials take them in turn: one value is a constant objective, two states are half a study of failures.
TOLD = st.one_of(
    st.lists(VALUES, min_size=1, max_size=12),
    st.lists(st.floats(-10.0, 10.0), min_size=4, max_size=12),
    st.lists(VALUES, min_size=1, max_size=1),
    st.permutations([1e300, -1e300, 1.0, 2.0]),
    st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=3),
)
USEFUL = st.sampled_from([TrialState.SUCCEEDED, TrialState.STOPPED])
FAILURES = (TrialState.INFEASIBLE, TrialState.FAILED)
USELESS = st.sampled_from(FAILURES)
STATES = st.one_of(
    st.lists(USEFUL, min_size=1, max_size=2),
    st.lists(st.one_of(USEFUL, USEFUL, USELESS), min_size=1, max_size=6),
    st.lists(USELESS, min_size=1, max_size=2),
)
SEEDS = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.one_of(st.integers(0, 3), st.integers(4, 12), st.integers(4, 12), st.integers(13, 40))
PENDING = st.one_of(st.just(0), st.integers(1, 8), st.sampled_from([40, 250]))


SPECS = st.one_of(
    st.builds(
        Float, name=st.just("p"), low=st.sampled_from([-8e307, -1.0, 0.0, 1e-300]), high=st.sampled_from([1.0, 8e307])
    ),
    st.builds(
        Float,
        name=st.just("p"),
        low=st.sampled_from([1e-300, 1e-5]),
        high=st.sampled_from([1.0, 1e300]),
        log=st.just(True),
    ),
    st.just(Float(name="p", low=-0.3, high=0.7, step=0.1)),
    st.just(Float(name="p", low=2.0, high=2.0)),
    st.builds(Int, name=st.just("p"), low=st.just(1), high=st.sampled_from([1, 2, 7, 2**53]), log=st.booleans()),
    st.builds(Categorical, name=st.just("p"), choices=st.sampled_from([(1,), (1, 1.0), (1, 1.0, "1", True, None)])),
    st.just(Bool(name="p")),
    st.builds(Ordinal, name=st.just("p"), values=st.sampled_from([(16,), (16, 32, 64)])),
)


@st.composite
def spaces(draw):
    chosen = [
        replace(spec, name=f"p{index}") for index, spec in enumerate(draw(st.lists(SPECS, min_size=1, max_size=5)))
    ]
    for parent, child in pairwise(range(len(chosen))):
        if isinstance(chosen[parent], Bool | Categorical) and draw(st.booleans()):
            values = (True, False) if isinstance(chosen[parent], Bool) else chosen[parent].choices
            chosen[child] = replace(chosen[child], when=Condition(f"p{parent}", values[:1]))
    return SearchSpace(tuple(chosen))


@st.composite
def fixings(draw, space, tried):
    """Some values of one configuration; or conditional ones of one and the others of another, which may contradict each other."""
    one, other = draw(st.sampled_from(tried)), draw(st.sampled_from(tried))
    names = draw(st.sets(st.sampled_from(sorted(one)), max_size=3))
    if draw(st.booleans()):
        return {name: one[name] for name in names}
    conditional = {spec.name for spec in space if spec.when}
    inner = {name: value for name, value in one.items() if name in conditional}
    return inner | {name: value for name, value in other.items() if name not in conditional}


BOUNDS = st.one_of(
    st.floats(-10.0, 10.0), st.sampled_from([0.0, 1.0, 1e300, -1e300, 1.7e308, -1.7e308, 5e-324]), st.just(1.0)
)
ERRORS = st.sampled_from([None, None, 0.0, 5e-324, 1e-9, 0.1, 1e3, 1.7e308])
CONSTRAINTS = st.one_of(
    st.just(()),
    st.lists(
        st.builds(
            OutcomeConstraint, st.sampled_from(["limit", "other", "never"]), st.sampled_from(list(Relation)), BOUNDS
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda constraint: constraint.metric,
    ).map(tuple),
)


OBJECTIVES = st.tuples(
    st.sampled_from([(COST,), (GAIN,), (COST, GAIN), (COST, GAIN, TIME)]), st.lists(BOUNDS, min_size=1, max_size=2)
).flatmap(lambda drawn: st.sampled_from([drawn[0], referring(*drawn)]))


def referring(objectives, references):
    """The objectives, every other one with a reference."""
    given = [*references, None] * len(objectives)
    return tuple(
        replace(objective, reference=reference) for objective, reference in zip(objectives, given, strict=False)
    )


def metrics(cost, gain, limit, *, error):
    """What a trial tells; two constrained metrics may be missing, and a third always is."""
    told = {"cost": cost, "gain": gain, "time": gain / 2 + 1} | (
        {} if limit is None else {"limit": limit, "other": -limit}
    )
    return {name: MetricValue(value, error) for name, value in told.items()}


@st.composite
def requests(draw, policy):
    space = draw(spaces())
    space.validate()
    objectives = draw(OBJECTIVES)
    tried = parameters(ask(space, "random", count=draw(COUNTS), seed=draw(SEEDS)))
    if draw(st.booleans()):
        tried += tried[:3]
    states, costs, gains = draw(STATES), draw(TOLD), draw(TOLD)
    errors = draw(st.lists(ERRORS, min_size=1, max_size=3))
    constraints, limited = draw(CONSTRAINTS), draw(st.one_of(st.just([None]), TOLD, TOLD))
    observations = tuple(
        Observation(
            number,
            states[number % len(states)],
            p,
            metrics(
                costs[number % len(costs)],
                gains[number % len(gains)],
                limited[number % len(limited)],
                error=errors[number % len(errors)],
            ),
        )
        for number, p in enumerate(tried, 1)
    )
    pending = parameters(ask(space, "random", count=draw(PENDING), seed=draw(SEEDS)))
    if draw(st.booleans()):
        pending += tried[:2]
    return SuggestRequest(
        space=space,
        objectives=objectives,
        outcome_constraints=constraints,
        noisy=draw(st.booleans()),
        policy=policy,
        seed=draw(SEEDS),
        count=draw(st.integers(1, 3)),
        next_number=len(observations) + len(pending) + 1,
        observations=observations,
        pending=tuple(pending),
        fixed=draw(fixings(space, tried)) if tried and draw(st.booleans()) else {},
        max_trials=draw(st.sampled_from([None, None, 1, 30])),
        hint=draw(st.one_of(st.just(b""), st.binary(max_size=100))),
    )


def left_in_scope(request):
    """How many configurations with the fixed parameters have not been tried; None for a continuum."""
    count = Scope.of(request.space, request.fixed).count()
    tried = [*(seen.parameters for seen in request.observations), *request.pending]
    within = {key(p) for p in tried if fits(p, request.fixed)}
    return None if count is None else count - len(within)


def allowed_in_scope(request):
    """How many configurations with the fixed parameters are not known to be infeasible; None for a continuum."""
    count = Scope.of(request.space, request.fixed).count()
    barred = {key(seen.parameters) for seen in request.observations if seen.state is TrialState.INFEASIBLE}
    within = {key(seen.parameters) for seen in request.observations if fits(seen.parameters, request.fixed)}
    return None if count is None else count - len(within & barred)


def check_any_request(request):
    candidates = registry.suggest(request).candidates
    left = left_in_scope(request)
    if request.noisy:
        assert len(candidates) == (0 if allowed_in_scope(request) == 0 else request.count)
        barred = {key(seen.parameters) for seen in request.observations if seen.state is TrialState.INFEASIBLE}
        assert barred.isdisjoint(key(candidate.parameters) for candidate in candidates)
    else:
        assert len(candidates) == (request.count if left is None else min(request.count, left))
    if left is not None and not request.noisy:
        seen = {key(o.parameters) for o in request.observations} | {key(p) for p in request.pending}
        assert len({key(candidate.parameters) for candidate in candidates} - seen) == len(candidates)
    for candidate in candidates:
        origin = candidate.origin
        assert key(request.space.check(candidate.parameters)) == key(candidate.parameters)
        assert fits(candidate.parameters, request.fixed)
        assert not any(word in origin.fallback for word in ("Error", "Exception")), origin
        for prediction in origin.predictions.values():
            assert math.isfinite(prediction.mean)
            assert math.isfinite(prediction.standard_deviation)
            assert prediction.standard_deviation >= 0
        assert math.isfinite(origin.acquisition or 0.0)
        assert math.isfinite(origin.incumbent or 0.0)


FUZZ = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
}


def losses(request):
    """The objective's values as a model sees them."""
    useful = measured(request.observations, request.objectives)
    name = request.objectives[0].metric
    return [seen.metrics[name].value for seen, usable in zip(request.observations, useful, strict=True) if usable]


def repeats(request):
    """The losses of each configuration that was measured more than once."""
    by_key = {}
    for seen in request.observations:
        if seen.state is TrialState.SUCCEEDED:
            by_key.setdefault(key(seen.parameters), []).append(seen.metrics["cost"].value)
    return [values for values in by_key.values() if len(values) > 1]


ODDITIES = {
    "a constant objective": lambda r: len(losses(r)) > 5 and len(set(losses(r))) == 1,
    "duplicates": lambda r: len(repeats(r)) > 1,
    "contradicting repeats": lambda r: any(max(values) - min(values) > 1 for values in repeats(r)),
    "1e300 and -1e300": lambda r: {1e300, -1e300} <= set(losses(r)),
    "NaN and infinity": lambda r: {"nan", "inf"} <= {str(seen.metrics["cost"].value) for seen in r.observations},
    "a parameter of one value": lambda r: any(
        Scope.of(SearchSpace((s,)), {}).count() == 1 for s in r.space if not s.when
    ),
    "fewer than two observations": lambda r: len(r.observations) == 1,
    "failures alone": lambda r: len(r.observations) > 5 and all(seen.state in FAILURES for seen in r.observations),
    "failures enough for a model of their own": lambda r: (
        len(r.observations) - len(losses(r)) > 2 and len(losses(r)) > 2
    ),
    "more pending than are believed": lambda r: len(r.pending) > MAX_BELIEVED and bool(losses(r)),
    "several outcome constraints": lambda r: len(r.outcome_constraints) > 1 and len(losses(r)) > 5,
    "outcome constraints beside several objectives": lambda r: (
        r.outcome_constraints and len(r.objectives) > 1 and len(losses(r)) > 5
    ),
    "several objectives": lambda r: len(r.objectives) > 1 and len(losses(r)) > 5,
    "a condition": lambda r: any(spec.when for spec in r.space) and len(losses(r)) > 5,
    "fixed parameters": lambda r: len(r.fixed) > 1 and len(losses(r)) > 5,
    "fixed parameters that contradict": lambda r: Scope.of(r.space, r.fixed).empty,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("oddity", ODDITIES.values(), ids=ODDITIES)
def test_the_strange_studies_are_as_strange_as_they_should_be(oddity):
    """Each oddity is among them, most in a request that takes a model."""
    found = find(
        requests("gp"), oddity, settings=settings(max_examples=3_000, phases=[Phase.generate], database=None, **FUZZ)
    )
    assert oddity(found)


@pytest.mark.parametrize("method", ["random", *METHODS])
@given(data=st.data())
@settings(max_examples=150, **FUZZ)
def test_no_study_is_too_strange_for_a_policy_without_a_model(method, data):
    check_any_request(data.draw(requests(method)))


@pytest.mark.timeout(600)
@given(requests("gp"))
@settings(max_examples=300, **FUZZ)
def test_no_study_is_too_strange_for_gp(request):
    check_any_request(request)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@given(requests("gp"))
@settings(max_examples=12_000, derandomize=False, **FUZZ)
def test_no_study_of_twelve_thousand_is_too_strange_for_gp(request):
    check_any_request(request)
