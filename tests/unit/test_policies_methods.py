"""What each policy without a model is for."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import qmc

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import cma_es, evolution, grid, registry
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.evolution import Evolution
from asktell.server.policies.grid import Cells, Grid, shuffled
from asktell.server.policies.perturbation import Explorer
from asktell.server.policies.population_based import Trainer
from asktell.server.policies.proposing import Offers
from asktell.server.policies.scope import Scope
from asktell.server.policies.sobol import SobolDraw

COST = Objective("cost", Goal.MINIMIZE)
NEVER = Deadline.after(None)
SQUARE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
MIXED = SearchSpace(
    (
        *(Float(name=f"x{index}", low=-1.0, high=1.0) for index in range(3)),
        Float(name="rate", low=1e-5, high=1e-1, log=True),
        Int(name="width", low=1, high=20),
        Categorical(name="kind", choices=("a", "b", "c", "d")),
        Float(name="extra", low=0.0, high=1.0, when=Condition("kind", ("b", "c"))),
    )
)


def request(space, policy, **changes):
    usual = {"objectives": (COST,), "seed": 1, "count": 1, "next_number": 1}
    return SuggestRequest(**{"space": space, "policy": policy, **usual, **changes})


def told(number, candidate, function):
    values = function(candidate.parameters)
    if values is None:
        return Observation(number, TrialState.FAILED, candidate.parameters, {})
    metrics = {name: MetricValue(value) for name, value in values.items()}
    return Observation(number, TrialState.SUCCEEDED, candidate.parameters, metrics)


def study(space, policy, function, *, trials, count=1, **changes):
    """The observations of a study with `count` workers who tell together."""
    observations: tuple[Observation, ...] = ()
    while len(observations) < trials:
        number = len(observations) + 1
        asked = request(space, policy, observations=observations, next_number=number, count=count, **changes)
        candidates = registry.suggest(asked).candidates
        assert not any(candidate.origin.fallback for candidate in candidates)
        observations += tuple(told(number + index, each, function) for index, each in enumerate(candidates))
    return observations


def best(observations, metric="cost"):
    return min(seen.metrics[metric].value for seen in observations if metric in seen.metrics)


def mixed_cost(parameters):
    bowl = sum((parameters[f"x{index}"] - 0.3) ** 2 for index in range(3))
    rate = (math.log10(parameters["rate"]) + 3.5) ** 2 / 4
    choice = {"a": 0.6, "b": 0.0, "c": 0.4, "d": 0.8}[parameters["kind"]]
    return {
        "cost": bowl + rate + (parameters["width"] - 13) ** 2 / 100 + choice + abs(parameters.get("extra", 0) - 0.7)
    }


# Evolution and CMA-ES.


@pytest.mark.parametrize("policy", ["cma-es", "evolution"])
@pytest.mark.parametrize("count", [1, 10])
def test_three_hundred_trials_come_nearer_to_the_optimum_than_three_thousand_at_random(policy, count):
    for seed in (1, 2):
        found = best(study(MIXED, policy, mixed_cost, trials=300, count=count, seed=seed))
        assert found < best(study(MIXED, "random", mixed_cost, trials=3_000, count=3_000, seed=seed))


def sphere(parameters):
    return {"cost": sum((value - 0.3) ** 2 for value in parameters.values())}


def test_cma_es_converges_where_random_search_only_samples():
    cube = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(5)))
    assert best(study(cube, "cma-es", sphere, trials=400)) < 1e-6
    assert best(study(cube, "random", sphere, trials=400, count=400)) > 1e-3


def test_cma_es_begins_anew_with_twice_the_population_when_it_has_converged():
    observations = study(SQUARE, "cma-es", sphere, trials=400)
    course = cma_es.Course()
    first, _ = cma_es.replayed(request(SQUARE, "cma-es", observations=observations), course, NEVER)
    assert first.restarts >= 1
    assert first.population_size == len(course.generations[0]) * 2**first.restarts


def test_what_cma_es_remembers_of_a_study_does_not_show():
    observations = study(MIXED, "cma-es", mixed_cost, trials=120)
    asked = request(MIXED, "cma-es", observations=observations, next_number=121)
    course = cma_es.Course()
    fresh, _ = cma_es.replayed(asked, cma_es.Course(), NEVER)
    # A result that comes late moves every later generation's edges.
    early = replace(asked, observations=tuple(seen for seen in observations if seen.number != 95))
    cma_es.replayed(early, course, NEVER)
    later, _ = cma_es.replayed(asked, course, NEVER)
    assert fresh.drawn(121, 0)[0].tolist() == later.drawn(121, 0)[0].tolist()
    assert len(course.generations) == 120 // len(course.generations[0])


def test_a_replay_that_has_no_time_says_so_and_goes_on_with_the_next_ask():
    observations = study(SQUARE, "sobol", sphere, trials=3_000, count=3_000)
    asked = request(SQUARE, "cma-es", observations=observations, next_number=3_001, time_limit=0.05)
    (hasty,) = registry.suggest(asked).candidates
    assert re.fullmatch(r"the time limit of 0.05 s left no time for \d+ trials", hasty.origin.fallback)
    (usual,) = registry.suggest(replace(asked, time_limit=None)).candidates
    assert not usual.origin.fallback
    assert registry.suggest(asked).candidates[0].parameters == usual.parameters


THIN = SearchSpace(
    tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(6)),
    tuple(InputConstraint.parse(f"x{index} + x{index + 1} <= 0.01") for index in range(5)),
)
"""So little of it is allowed that a draw has to be repaired."""


class NothingFree(Offers):
    """All is taken; `looked` counts how often that was found out."""

    looked = 0

    def free(self, parameters):
        self.looked += 1
        return False


@pytest.mark.parametrize(
    ("make", "earlier", "tries"),
    [(SobolDraw, 0, 16), (Evolution, 0, 16), (Evolution, 20, 16), (cma_es.Strategy, 20, 16), (Cells, 0, 50_000)],
)
def test_a_proposer_whose_time_is_up_tries_no_more_than_it_takes_to_notice(make, earlier, tries):
    observations = study(THIN, "random", sphere, trials=earlier)
    asked = request(THIN, "", observations=observations, next_number=earlier + 1)
    patient, hasty = NothingFree(asked), NothingFree(asked)
    assert make(asked, NEVER).propose(earlier + 1, patient) is None
    assert make(asked, Deadline.after(0.0)).propose(earlier + 1, hasty) is None
    assert patient.looked == tries
    assert hasty.looked < min(tries, 65)


def test_a_population_whose_time_is_up_explores_in_one_attempt(monkeypatch):
    attempts = []
    monkeypatch.setattr(Explorer, "explored", lambda *_: attempts.append(1))
    asked = request(THIN, "pbt", next_number=2)
    source = Observation(1, TrialState.SUCCEEDED, {spec.name: 0.0 for spec in THIN}, {"cost": MetricValue(1.0)})
    for deadline, most in [(NEVER, 16), (Deadline.after(0.0), 1)]:
        attempts.clear()
        found = Trainer(asked, deadline)._near(2, source)
        assert THIN.allows(found)
        assert len(attempts) == most


@pytest.mark.parametrize("policy", ["sobol", "evolution", "cma-es", "pbt"])
def test_candidates_for_which_there_is_no_time_are_allowed_and_say_so(policy):
    found = registry.suggest(request(THIN, policy, count=5, time_limit=0.0)).candidates
    assert len(found) == 5
    assert all(THIN.allows(candidate.parameters) for candidate in found)
    assert len({key(candidate.parameters) for candidate in found}) == 5
    assert all("the time limit of 0 s was reached" in candidate.origin.fallback for candidate in found[1:])


@pytest.mark.parametrize("policy", ["cma-es", "evolution"])
def test_a_region_that_fails_is_left(policy):
    def cost(parameters):
        return None if parameters["x"] > 0.6 else {"cost": abs(parameters["x"] - 0.55) + abs(parameters["y"] - 0.2)}

    observations = study(SQUARE, policy, cost, trials=150)
    failed = [seen.state is TrialState.FAILED for seen in observations]
    assert sum(failed[100:]) < 15
    assert best(observations) < 0.02


@pytest.mark.parametrize("policy", ["cma-es", "evolution"])
def test_where_constraints_leave_a_thousandth_of_the_space_it_is_searched_and_not_left_to_chance(policy):
    slab = InputConstraint.parse("0.999 <= a + b + c <= 1.001")
    space = SearchSpace(tuple(Float(name=name, low=0.0, high=1.0) for name in "abc"), (slab,))
    observations: tuple[Observation, ...] = ()
    for number in range(1, 101):
        asked = request(space, policy, observations=observations, next_number=number)
        (candidate,) = registry.suggest(asked).candidates
        assert candidate.origin.method != "random"
        observations += (told(number, candidate, lambda p: {"cost": (p["a"] - 0.6) ** 2 + (p["b"] - 0.1) ** 2}),)
    assert best(observations) < 2e-3


def test_evolution_meets_bounds_on_metrics_before_it_minds_the_cost():
    def outcome(parameters):
        return {"cost": parameters["x"] + parameters["y"], "latency": 100 * (1 - parameters["x"] * parameters["y"])}

    bound = OutcomeConstraint("latency", Relation.AT_MOST, 50.0)
    observations = study(SQUARE, "evolution", outcome, trials=200, outcome_constraints=(bound,))
    feasible = [seen for seen in observations if bound.met(seen.metrics)]
    assert sum(bound.met(seen.metrics) for seen in observations[100:]) > 40
    assert best(feasible) < 2 * math.sqrt(0.5) + 0.02


def hypervolume(points, reference):
    """Of two objectives."""
    area, bound = 0.0, reference[1]
    for one, other in sorted(points):
        if one < reference[0] and other < bound:
            area += (reference[0] - one) * (bound - other)
            bound = other
    return area


def test_evolution_spreads_over_the_front_of_two_objectives():
    cube = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(6)))

    def zdt1(parameters):
        first, *others = parameters.values()
        g = 1 + 9 * sum(others) / len(others)
        return {"a": first, "b": g * (1 - math.sqrt(first / g))}

    objectives = (Objective("a", Goal.MINIMIZE), Objective("b", Goal.MINIMIZE))

    def volume(policy, trials):
        observations = study(cube, policy, zdt1, trials=trials, count=20, objectives=objectives)
        return hypervolume([(seen.metrics["a"].value, seen.metrics["b"].value) for seen in observations], (1.1, 5.0))

    ideal = 1.1 * 5.0 - 1.0 + 2 / 3 - 0.1
    assert volume("evolution", 1_000) > 0.9 * ideal > volume("random", 5_000)


def test_evolution_keeps_all_of_five_objectives_in_view():
    names = "abcde"
    objectives = tuple(Objective(name, Goal.MINIMIZE) for name in names)
    cube = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(9)))

    def dtlz2(parameters):
        *angles, last, beyond = np.split(np.array(list(parameters.values())), [1, 2, 3, 4, 5])
        g = float(np.sum((np.append(last, beyond) - 0.5) ** 2))
        values, product = [], 1 + g
        for angle in angles:
            values.append(product * math.sin(float(angle[0]) * math.pi / 2))
            product *= math.cos(float(angle[0]) * math.pi / 2)
        return dict(zip(names, [product, *reversed(values)], strict=True))

    def radii(observations):
        """How far trials are from the front, where the squares sum to 1."""
        return sorted(math.hypot(*(each.value for each in seen.metrics.values())) for seen in observations)

    evolved = study(cube, "evolution", dtlz2, trials=1_000, count=50, objectives=objectives)
    drawn = study(cube, "random", dtlz2, trials=1_000, count=1_000, objectives=objectives)
    assert radii(evolved)[300] - 1 < 0.6 * (radii(drawn)[300] - 1)
    late = evolved[-300:]
    for name in names:
        assert max(seen.metrics[name].value for seen in late) > 0.8


def test_a_child_inherits_conditional_parameters_only_where_they_are_active():
    for seen in study(MIXED, "evolution", mixed_cost, trials=200, count=10):
        assert ("extra" in seen.parameters) == (seen.parameters["kind"] in ("b", "c"))


def test_an_ask_of_a_large_study_sorts_the_whole_and_encodes_only_the_population(monkeypatch):
    random = np.random.default_rng(0)
    observations = tuple(
        Observation(
            number, TrialState.SUCCEEDED, {"x": x, "y": y}, {"cost": MetricValue(x + y), "gain": MetricValue(x * y)}
        )
        for number, (x, y) in enumerate(random.random((10_000, 2)).tolist(), 1)
    )
    objectives = (COST, Objective("gain", Goal.MAXIMIZE))
    encoded = []
    usual = evolution.Encoder.encode
    monkeypatch.setattr(
        evolution.Encoder, "encode", lambda self, given: encoded.append(len(given)) or usual(self, given)
    )
    for chosen in ((COST,), objectives):
        asked = request(SQUARE, "evolution", observations=observations, next_number=10_001, objectives=chosen)
        assert registry.suggest(asked).candidates[0].origin.method == evolution.CHILD
    assert max(encoded) <= 100


# Grid and Sobol.


def cells(space, count, **changes):
    return [
        candidate.parameters
        for candidate in registry.suggest(request(space, "grid", count=count, **changes)).candidates
    ]


def test_a_coarse_grid_comes_before_a_finer_one_that_holds_it():
    points = [(p["x"], p["y"]) for p in cells(SQUARE, 25)]
    levels = (0.0, 0.5, 1.0)
    assert sorted(points[:9]) == [(x, y) for x in levels for y in levels]
    finer = (0.0, 0.25, 0.5, 0.75, 1.0)
    assert sorted(points) == [(x, y) for x in finer for y in finer]
    assert sorted(points[:9]) != points[:9]


def test_a_grid_takes_up_what_was_missed_before_it_becomes_finer():
    first = cells(SQUARE, 9)
    trials = tuple(Observation(n, TrialState.SUCCEEDED, p, {"cost": MetricValue(0.0)}) for n, p in enumerate(first, 1))
    left = [trial for trial in trials if trial.number not in (2, 5)]
    again = cells(SQUARE, 3, observations=tuple(left), next_number=30)
    assert {key(p) for p in again[:2]} == {key(first[1]), key(first[4])}
    assert again[2] not in first


def test_levels_are_on_the_parameters_scale_and_steps_and_choices_are_levels_of_their_own():
    space = SearchSpace(
        (
            Float(name="rate", low=1e-4, high=1e-2, log=True),
            Float(name="dropout", low=0.0, high=0.3, step=0.1),
            Int(name="layers", low=1, high=4),
            Int(name="width", low=16, high=4096, log=True),
            Ordinal(name="batch", values=(16, 32, 64, 128)),
            Bool(name="nesterov"),
            Float(name="momentum", low=0.0, high=1.0, when=Condition("nesterov", (True,))),
        )
    )
    grid = Grid(Scope.of(space, {}), 1)
    assert grid.count == 3 * 4 * 4 * 3 * 4 * (1 + 3)
    found = [grid.cell(place) for place in range(grid.count)]
    assert len({key(cell) for cell in found}) == grid.count
    assert sorted({round(cell["rate"], 12) for cell in found}) == [1e-4, 1e-3, 1e-2]
    assert sorted({cell["width"] for cell in found}) == [16, 256, 4096]
    assert {cell["dropout"] for cell in found} == {0.0, 0.1, 0.2, 0.30000000000000004} or len(
        {cell["dropout"] for cell in found}
    ) == 4
    for cell in found:
        space.check(cell)


def test_a_long_range_of_whole_numbers_is_refined_until_every_one_was_tried():
    space = SearchSpace((Int(name="i", low=1, high=100, log=True),))
    values = [p["i"] for p in cells(space, 200)]
    assert sorted(values[:3]) == [1, 10, 100]
    assert sorted(values) == list(range(1, 101))


def test_a_grid_of_more_cells_than_a_list_could_hold_is_no_trouble():
    space = SearchSpace(tuple(Categorical(name=f"c{index}", choices=tuple(range(10))) for index in range(200)))
    assert len({key(p) for p in cells(space, 100)}) == 100


def test_a_range_of_a_few_numbers_next_to_each_other_is_not_refined_for_ever(monkeypatch):
    made = []
    monkeypatch.setattr(grid, "Grid", lambda scope, fineness: made.append(fineness) or Grid(scope, fineness))
    space = SearchSpace((Float(name="a", low=1e16, high=1e16 + 8), Bool(name="b")))
    values = cells(space, 10)
    assert len({key(p) for p in values}) == 10
    trials = tuple(Observation(n, TrialState.SUCCEEDED, p, {"cost": MetricValue(0.0)}) for n, p in enumerate(values, 1))
    (again,) = cells(space, 1, observations=trials, next_number=11)
    assert space.check(again) == again
    assert max(made) <= 5


def test_cma_es_draws_seldom_again_where_nearly_all_draws_are_outside():
    space = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(200)))
    state, samples = cma_es.State(1, Encoder.of(space).columns), []
    sample = state._strategy._cma._sample_solution
    state._strategy._cma._sample_solution = lambda: samples.append(1) or sample()
    row, _ = state.drawn(1, 0)
    assert ((row >= 0.0) & (row <= 1.0)).all()
    assert len(samples) == 6


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1_000])
def test_shuffled_places_are_all_places(count):
    order = [shuffled(place, count, 7) for place in range(count)]
    assert sorted(order) == list(range(count))
    assert count < 10 or order not in ([*range(count)], [shuffled(place, count, 8) for place in range(count)])


def test_sobol_points_are_spread_more_evenly_than_chance_and_belong_to_their_numbers():
    def points(policy, count, **changes):
        found = registry.suggest(request(SQUARE, policy, count=count, **changes)).candidates
        return [list(candidate.parameters.values()) for candidate in found]

    sobol = points("sobol", 256)
    assert qmc.discrepancy(np.array(sobol)) < 0.1 * qmc.discrepancy(np.array(points("random", 256)))
    assert points("sobol", 6, next_number=251) == sobol[250:]
    taken = {"x": sobol[4][0], "y": sobol[4][1]}
    other = points("sobol", 1, next_number=5, pending=(taken,))
    assert other != [sobol[4]]


# What auto chooses.


def observed(count):
    return tuple(
        Observation(number, TrialState.SUCCEEDED, {"x": number / 2e4, "y": 0.5}, {"cost": MetricValue(1.0)})
        for number in range(1, count + 1)
    )


WIDE = SearchSpace(
    (*(Categorical(name=f"c{index}", choices=tuple(range(1_000))) for index in range(6)), Bool(name="b"))
)
FIVE = tuple(Objective(name, Goal.MINIMIZE) for name in "abcde")


@pytest.mark.parametrize(
    ("changes", "policy", "reason"),
    [
        ({}, "gp", "fewest trials"),
        ({"max_trials": 500}, "gp", "fewest trials"),
        ({"space": SearchSpace((Bool(name="b"),)), "max_trials": 2}, "gp", "every configuration"),
        ({"space": WIDE}, "evolution", "6,001 numbers and choices"),
        ({"max_trials": 20_000}, "evolution", "20,000 trials"),
        ({"observations": observed(10_001), "next_number": 10_002}, "evolution", "10,001 observations"),
        ({"pending": ({"x": 0.1, "y": 0.2},) * 300, "next_number": 301}, "evolution", "there are 300"),
        ({"objectives": FIVE, "max_trials": 2_000}, "evolution", "5 objectives"),
        ({"objectives": FIVE, "max_trials": 100}, "gp", "fewest trials"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_auto_chooses_by_size_budget_parallelism_and_objectives(changes, policy, reason):
    asked = request(**{"space": SQUARE, "policy": "auto", **changes})
    (candidate,) = registry.suggest(asked).candidates
    assert candidate.origin.policy == policy
    assert reason in candidate.origin.reason
    assert (registry.outlook(asked) is registry.Outlook.NO_MODEL) == (policy == "evolution" or "space" in changes)
