"""What every policy promises about constraints between parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.region import Region

COST = Objective("cost", Goal.MINIMIZE)


def space(*specs, where):
    made = SearchSpace(specs, tuple(map(InputConstraint.parse, where)))
    made.validate()
    return made


def reals(count, low=0.0, high=1.0):
    return [Float(name=f"x{index}", low=low, high=high) for index in range(count)]


def wholes(count, high):
    return [Int(name=f"x{index}", low=0, high=high) for index in range(count)]


ORDERED = " <= ".join(f"x{index}" for index in range(5))
SUM = " + ".join(f"x{index}" for index in range(6))
NET = (
    Int(name="width", low=1, high=1024, log=True),
    Int(name="depth", low=1, high=64),
    Float(name="rate", low=1e-6, high=1.0, log=True),
    Float(name="decay", low=1e-6, high=1.0, log=True),
    Ordinal(name="batch", values=(16, 32, 64, 128)),
    Categorical(name="act", choices=("relu", "tanh")),
)
SPACES = {
    "simplex": space(*reals(6), where=[f"{SUM} <= 1"]),
    "order": space(*reals(5), where=[ORDERED]),
    "products": space(*NET, where=["width * depth <= 512", "decay <= rate", "batch * depth <= 256"]),
    "ball": space(*reals(4, -1.0), where=[" + ".join(f"x{index}**2" for index in range(4)) + " <= 0.01"]),
    "shell": space(*reals(3, -1.0), where=["0.98 <= x0**2 + x1**2 + x2**2 <= 1"]),
    "slab": space(*reals(3), where=["0.9999 <= x0 + x1 + x2 <= 1"]),
    "equation": space(*wholes(4, 1000), where=["500 <= x0 + x1 + x2 + x3 <= 500", "x0 <= x1"]),
    "conditional": space(
        Int(name="layers", low=1, high=3),
        Int(name="u1", low=1, high=512, log=True),
        Int(name="u2", low=1, high=512, log=True, when=Condition("layers", (2, 3))),
        Int(name="u3", low=1, high=512, log=True, when=Condition("layers", (3,))),
        where=["u1 >= u2 >= u3", "u1 * u2 <= 4096"],
    ),
}
FINITE = space(
    Int(name="a", low=0, high=6),
    Int(name="b", low=0, high=6),
    Bool(name="wide"),
    Float(name="c", low=0.0, high=1.0, step=0.5, when=Condition("wide", (True,))),
    where=["a + b <= 3", "a + 4 * c <= 4"],
)
FINITE_SIZE = 10 + sum(1 for a in range(4) for b in range(4 - a) for c in (0, 0.5, 1) if a + 4 * c <= 4)


@pytest.fixture(params=sorted(registry.POLICIES))
def policy(request):
    return request.param


def ask(of, policy, **changes):
    usual = {"objectives": (COST,), "seed": 3, "count": 1, "next_number": 1}
    return registry.suggest(SuggestRequest(**{"space": of, "policy": policy, **usual, **changes})).candidates


def study(of, policy, trials, *, together=1, **changes):
    """The candidates of a study in which each of them is told."""
    seen, found = (), []
    while len(found) < trials:
        candidates = ask(of, policy, observations=seen, next_number=len(seen) + 1, count=together, **changes)
        if not candidates:
            break
        found += candidates
        seen = observed(found)
    return found


def observed(candidates):
    """The candidates as told."""
    return tuple(
        Observation(number, TrialState.SUCCEEDED, each.parameters, {"cost": MetricValue(cost(each.parameters))})
        for number, each in enumerate(candidates, 1)
    )


def cost(parameters):
    numbers = [value for value in parameters.values() if isinstance(value, float | int)]
    return math.fsum(math.log1p(abs(value - 0.7)) for value in numbers)


def broken(of, parameters):
    """The constraints that a configuration breaks, as Python computes them: by no more than a grid of real numbers is rounded."""
    texts = [each.text for each in of.constraints if each.names <= parameters.keys()]
    if all(spec.size is None for spec in of if isinstance(spec, Float)):
        return [text for text in texts if not eval(text, {}, dict(parameters))]
    return [text for text in texts if not of.allows(parameters)]


@pytest.mark.parametrize("name", SPACES)
def test_every_candidate_meets_the_constraints(policy, name):
    of = SPACES[name]
    seen = observed(ask(of, "random", count=9))
    candidates = [*ask(of, policy, observations=seen, next_number=10, count=2), *ask(of, policy, seed=8, count=3)]
    assert len(candidates) == 5
    for candidate in candidates:
        assert key(of.check(candidate.parameters)) == key(candidate.parameters)
        assert not broken(of, candidate.parameters)
        assert "Error" not in candidate.origin.fallback


def test_of_ten_thousand_candidates_none_breaks_a_constraint():
    many = {"products": 5_000, "conditional": 4_200, "order": 600, "simplex": 100, "slab": 50, "equation": 50}
    found = [(SPACES[name], each) for name, count in many.items() for each in in_blocks(SPACES[name], count)]
    assert len(found) == 10_000
    assert not [(candidate, texts) for of, candidate in found if (texts := broken(of, candidate.parameters))]


def in_blocks(of, count):
    blocks = range(0, count, 50)
    return [each for first in blocks for each in ask(of, "random", seed=first, count=50, next_number=first + 1)]


# A member of a population has its parameters again.
@pytest.mark.parametrize("policy", sorted({*registry.POLICIES} - {"pbt"}))
def test_a_finite_space_is_tried_whole_and_then_exhausted(policy):
    candidates = study(FINITE, policy, 100, together=3)
    assert len(candidates) == FINITE_SIZE
    assert len({key(candidate.parameters) for candidate in candidates}) == FINITE_SIZE
    assert not [candidate for candidate in candidates if broken(FINITE, candidate.parameters)]
    limited = study(FINITE, policy, 100, together=3, max_trials=100)
    assert len({key(candidate.parameters) for candidate in limited}) == FINITE_SIZE


def test_fixed_parameters_and_constraints_are_met_together(policy):
    of = SPACES["products"]
    fixed = {"width": 256, "rate": 1e-5}
    seen = observed(ask(of, "random", count=9))
    candidates = [
        *ask(of, policy, fixed=fixed, observations=seen, next_number=10, count=2),
        *ask(of, policy, fixed=fixed),
    ]
    assert len(candidates) == 3
    for candidate in candidates:
        assert candidate.parameters["depth"] <= 2
        assert candidate.parameters["decay"] <= 1e-5
        assert (candidate.parameters["width"], candidate.parameters["rate"]) == (256, 1e-5)


@pytest.mark.parametrize(
    ("of", "fixed"),
    [
        (SPACES["simplex"], {"x0": 0.75, "x1": 0.5}),
        (SPACES["equation"], {"x0": 300, "x1": 100}),
        (SPACES["products"], {"depth": 32, "batch": 64}),
        (space(*wholes(3, 10), where=["x0 + x1 <= 3", "x1 + x2 >= 12", "x0 - x2 >= -7"]), {}),
        (space(*wholes(3, 10_000), where=["x0 + x1 <= 3000", "x1 + x2 >= 12000", "x0 - x2 >= -7000"]), {}),
    ],
)
def test_where_no_configuration_is_allowed_there_is_no_candidate(policy, of, fixed):
    assert not ask(of, policy, fixed=fixed)
    seen = observed(ask(replace(of, constraints=()), "random", count=8))
    assert not ask(of, policy, fixed=fixed, observations=seen, next_number=9, count=2)


def test_a_number_that_decides_what_is_active_moves_only_to_where_what_then_becomes_active_is_allowed_too():
    layers, whole = Int(name="layers", low=1, high=4), range(1, 5)
    units = [
        Int(name=f"units_{n}", low=1, high=1000, when=Condition("layers", tuple(k for k in whole if k >= n)))
        for n in whole
    ]
    thin = [f"units_{n} <= {4 + n}" for n in whole] + ["units_2 + units_3 + units_4 <= 6", "layers * units_1 <= 9"]
    of = space(layers, *units, where=thin)
    region = Region(Encoder.of(of))
    rows = region.draw(np.random.default_rng(0), 64)
    assert len(rows) == 64
    assert region.allows(rows).all()
    found = [Encoder.of(of).decode(row) for row in rows]
    assert not any(broken(of, parameters) for parameters in found)
    assert len({parameters["layers"] for parameters in found}) > 1


def test_the_default_point_comes_first_and_what_it_leaves_open_gives_way():
    first = Float(name="x0", low=0.0, high=1.0, default=0.9, has_default=True)
    of = space(first, Float(name="x1", low=0.0, high=1.0), where=["x0 + x1 <= 1"])
    (candidate,) = ask(of, "gp")
    assert candidate.parameters["x0"] == 0.9
    assert candidate.parameters["x1"] <= 0.1


def test_a_centre_that_is_not_allowed_gives_way_to_the_midst_of_what_is():
    of = space(*reals(2), where=["x0 + x1 >= 1.8"])
    (candidate,) = ask(of, "gp")
    assert min(candidate.parameters.values()) > 0.85


def test_the_optimum_on_the_boundary_is_found():
    """Of the points with a sum of at most 1 the one nearest to (0.5, 0.5, 0.5, 0.5, 0.5, 0.5) is a sixth in each."""
    of = SPACES["simplex"]
    seen: list[Observation] = []
    for number in range(1, 31):
        (candidate,) = ask(of, "gp", observations=tuple(seen), next_number=number)
        loss = math.fsum((value - 0.5) ** 2 for value in candidate.parameters.values())
        seen.append(Observation(number, TrialState.SUCCEEDED, candidate.parameters, {"cost": MetricValue(loss)}))
    best = min(seen, key=lambda each: each.metrics["cost"].value)
    assert best.metrics["cost"].value < 6 * (0.5 - 1 / 6) ** 2 + 0.01


def test_decisions_under_constraints_do_not_depend_on_the_order_of_observations(policy):
    of = SPACES["products"]
    seen = observed(ask(of, "random", count=9))
    usual = ask(of, policy, observations=seen, next_number=10, count=2)
    turned = ask(of, policy, observations=seen[::-1], next_number=10, count=2)
    assert [each.parameters for each in usual] == [each.parameters for each in turned]


@st.composite
def spaces(draw):
    """Spaces of numbers of all kinds with random constraints between them, as far as they make sense."""
    kinds = draw(
        st.lists(st.sampled_from(["real", "log", "grid", "whole", "logwhole", "ordinal"]), min_size=2, max_size=5)
    )
    specs = [_SPECS[kind](f"p{index}") for index, kind in enumerate(kinds)]
    numbers = st.integers(-3, 3).filter(bool)
    names = st.sampled_from([spec.name for spec in specs])
    terms = st.tuples(numbers, st.lists(names, min_size=1, max_size=2))
    texts = []
    for _ in range(draw(st.integers(1, 3))):
        sides = draw(st.lists(terms, min_size=1, max_size=3))
        left = " + ".join(f"{number} * {' * '.join(of)}" for number, of in sides)
        texts.append(f"{left} <= {draw(st.integers(-5, 20))}")
    try:
        return space(*specs, where=texts)
    except (InvalidArgument, ValueError):
        assume(False)


_SPECS = {
    "real": lambda name: Float(name=name, low=-1.0, high=2.0),
    "log": lambda name: Float(name=name, low=1e-3, high=10.0, log=True),
    "grid": lambda name: Float(name=name, low=0.0, high=2.0, step=0.1),
    "whole": lambda name: Int(name=name, low=-4, high=9),
    "logwhole": lambda name: Int(name=name, low=1, high=1000, log=True),
    "ordinal": lambda name: Ordinal(name=name, values=(1, 2.5, 0)),
}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(of=spaces(), seed=st.integers(0, 2**31), chosen=st.sampled_from(sorted(set(registry.POLICIES) - {"gp-botorch"})))
def test_whatever_the_space_and_its_constraints_no_candidate_breaks_them(of, seed, chosen):
    for candidate in study(of, chosen, 6, together=3, seed=seed):
        assert not broken(of, candidate.parameters)
        assert "Error" not in candidate.origin.fallback
        of.check(candidate.parameters)


def test_a_curved_edge_is_kept_in_whatever_order_its_terms_are_added():
    curved = space(
        Float(name="p0", low=-1.0, high=2.0),
        Int(name="p1", low=-4, high=9),
        where=["-1 * p1 + 2 * p0 + 3 * p0 * p0 <= 0"],
    )
    for candidate in study(curved, "sobol", 6, together=3, seed=1):
        assert not broken(curved, candidate.parameters)
