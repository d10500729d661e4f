"""The problems that peers are compared on are what they were when the peers were recorded, and cliffs spare the optimum."""

import math

import numpy as np
import pytest

from benchmarks import forewarned
from benchmarks.families import COCO, FAMILIES
from benchmarks.peers.in_process import InProcess
from benchmarks.peers.random_search import RandomSearch
from benchmarks.peers.served import spec
from benchmarks.problem import Choice, Ordered, Outcome, Problem, Real, Whole, drawn, units
from benchmarks.problems import CLIFFS, PUBLIC, problem
from benchmarks.records import read_file
from benchmarks.server import ROOT
from benchmarks.synthetic import SYNTHETIC

RECORDED = {run.cell: run for run in read_file(ROOT / "benchmarks" / "results" / "sequential" / "random.jsonl")}
OWN = [name for family, problems in FAMILIES.items() if family not in (*COCO, "learning") for name in problems]


@pytest.mark.parametrize("name", SYNTHETIC)
@pytest.mark.parametrize("seed", [0, 4])
def test_random_search_repeats_its_recorded_values(name: str, seed: int) -> None:
    given = problem(name, seed)
    search = RandomSearch(given, seed)
    expected = RECORDED["random", name, seed].y
    assert [given.function(search.ask()[1]) for _ in expected] == pytest.approx(expected, rel=1e-12)


def test_a_recorded_trained_model_is_trained_to_the_same_loss() -> None:
    given = problem("gbm_breast_cancer", 0)
    value = given.function(RandomSearch(given, 0).ask()[1])
    assert value == pytest.approx(RECORDED["random", "gbm_breast_cancer", 0].y[0], rel=1e-6)


@pytest.mark.parametrize("name", [name for name in SYNTHETIC if name != "mixed8"])
def test_a_known_optimum_has_the_best_value_and_lies_in_the_space(name: str) -> None:
    for seed in range(10):
        given = problem(name, seed)
        assert given.optimum is not None
        assert given.best is not None
        assert given.function(given.optimum) == pytest.approx(given.best, abs=1e-5)
        assert ((units(given.params, given.optimum) >= 0) & (units(given.params, given.optimum) <= 1)).all()


@pytest.mark.parametrize("name", CLIFFS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_tenth_lies_below_the_cliff_a_thousand_times_worse_and_the_optimum_does_not(name: str, seed: int) -> None:
    cliff, plain = problem(name, seed), problem(name.removesuffix("+cliff"), seed)
    generator = np.random.default_rng(7)
    drawings = [drawn(plain.params, generator) for _ in range(1000)]
    values = np.array([plain.function(drawing) for drawing in drawings])
    falls = np.array([cliff.function(drawing) for drawing in drawings]) - values
    assert 0.05 < (falls > 0).mean() < 0.15
    assert falls[falls > 0].min() > 100 * np.std(values)
    assert plain.optimum is not None
    assert cliff.function(plain.optimum) == plain.function(plain.optimum)


def test_a_cliff_asks_where_the_optimum_is() -> None:
    from benchmarks.cliffs import with_cliff

    with pytest.raises(ValueError, match="does not say where its optimum is"):
        with_cliff(PUBLIC["krr_diabetes"])(0)


@pytest.mark.parametrize("name", OWN)
def test_a_family_depends_on_the_seed_alone_and_never_beats_its_best(name: str) -> None:
    one, same, other = problem(name, 3), problem(name, 3), problem(name, 4)
    assert one.name == name
    generator = np.random.default_rng(0)
    drawings = [drawn(one.params, generator) for _ in range(50)]
    values = [(one.truth or one.function)(drawing) for drawing in drawings]
    assert values == [(same.truth or same.function)(drawing) for drawing in drawings]
    assert one.best is None or min(values) >= one.best
    if [param.name for param in other.params] == [param.name for param in one.params] and "mixed" not in name:
        assert values != [(other.truth or other.function)(drawing) for drawing in drawings]


def test_a_noisy_problem_is_told_with_noise_and_scored_without() -> None:
    given = problem("noisy_quadratic6", 0)
    point = {param.name: 0.5 for param in given.params}
    assert given.truth is not None
    assert given.truth(point) == given.truth(point)
    assert given.function(point) != given.function(point)


def test_a_rough_problem_has_a_value_of_its_own_everywhere_and_always_the_same() -> None:
    given, calm = problem("rough6_15", 0), problem("rough6_5", 0)
    configuration = drawn(given.params, np.random.default_rng(0))
    beside = {**configuration, "lr": configuration["lr"] * (1 + 1e-6)}
    assert given.function(configuration) == given.function(dict(configuration))
    steps = [abs(math.log(each.function(beside) / each.function(configuration))) for each in (given, calm)]
    assert steps[0] > 1e-3
    assert steps[0] == pytest.approx(3 * steps[1], rel=0.01)
    assert 0.0 < given.function(configuration) < 10.0


def test_a_failing_problem_fails_for_a_fifth_of_the_space_at_most() -> None:
    given, generator = problem("failing6", 0), np.random.default_rng(0)
    failures = sum(math.isinf(given.function(drawn(given.params, generator))) for _ in range(500))
    assert 25 < failures < 150


def test_every_kind_of_parameter_becomes_the_sdks_and_the_engines() -> None:
    params = [
        Real("a", 1e-3, 1, log=True),
        Whole("b", 1, 64, log=True),
        Choice("c", ("x", "y")),
        Ordered("d", (16.0, 32.0, 64.0)),
    ]
    assert [type(spec(param)).__name__ for param in params] == ["Float", "Int", "Categorical", "Ordinal"]
    from asktell.server.policies import gp

    peer = InProcess(Problem("all kinds", params, lambda _: 0.0), 0, gp.suggest)
    for value in (1.0, math.inf, 0.5, 0.7):
        token, configuration = peer.ask()
        assert {"a", "b", "c", "d"} == set(configuration)
        assert isinstance(configuration["b"], int)
        peer.tell(token, configuration, Outcome((value,)))


def test_units_are_logarithmic_where_the_parameter_is() -> None:
    params = [Real("a", 1e-4, 1, log=True), Whole("b", 0, 10), Choice("c", ("x",)), Ordered("d", (16.0, 32.0, 64.0))]
    assert units(params, {"a": 1e-2, "b": 5, "c": "x", "d": 64.0}) == pytest.approx([0.5, 0.5, 1.0])


def test_an_unknown_problem_is_named() -> None:
    with pytest.raises(ValueError, match="there is no problem 'nope'"):
        problem("nope", 0)


def test_who_knows_the_cliff_enters_it_in_the_initial_design_at_most() -> None:
    inside = [value > 1e3 for value in forewarned.run("branin", forewarned.FOREWARNED, 7, 12).y]
    assert any(inside[:5])
    assert not any(inside[5:])
