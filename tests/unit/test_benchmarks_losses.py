"""Several objectives and constraints are scored as they should be, and the problems that have them are what they claim."""

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.coco import BIOBJECTIVE, CONSTRAINED
from benchmarks.conditional import BRANCHES, CONDITIONAL
from benchmarks.losses import BestFeasible, Hypervolume, hypervolume
from benchmarks.peers.in_process import InProcess
from benchmarks.peers.random_search import RandomSearch
from benchmarks.problem import Outcome, Vector, drawn
from benchmarks.problems import PROBLEMS, problem
from benchmarks.records import Run
from benchmarks.score import Board, mean_hypervolume
from benchmarks.suites import SUITES

SQUARE = Hypervolume(ideal=(0.0, 0.0), nadir=(10.0, 2.0), best=0.5)


def outcomes(*pairs: tuple[float, float]) -> list[Outcome]:
    return [Outcome(pair) for pair in pairs]


def named(point: Vector) -> dict[str, float]:
    return {f"x{index}": float(value) for index, value in enumerate(point)}


def test_hypervolume_is_the_area_of_the_unit_square_that_points_dominate() -> None:
    assert hypervolume([]) == 0
    assert hypervolume([(0.5, 0.5)]) == 0.25
    assert hypervolume([(0.0, 0.5), (0.5, 0.0)]) == 0.75
    assert hypervolume([(0.25, 0.25), (0.5, 0.5), (0.25, 0.25)]) == 0.75**2
    assert hypervolume([(-3.0, 0.5), (0.5, -3.0)]) == 0.75
    assert hypervolume([(1.0, 0.0), (0.0, 1.0), (2.0, -1.0)]) == 0


def test_hypervolume_is_what_a_grid_counts_whatever_the_order() -> None:
    generator = np.random.default_rng(0)
    points = generator.uniform(0, 1.2, (12, 2))
    ticks = (np.arange(400) + 0.5) / 400
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 1, 2)
    counted = (points <= grid).all(axis=2).any(axis=1).mean()
    pairs = [(float(x), float(y)) for x, y in points]
    assert hypervolume(pairs) == pytest.approx(counted, abs=0.005)
    assert hypervolume(reversed(pairs)) == hypervolume(pairs)


def test_the_loss_is_the_share_of_the_best_hypervolume_that_is_lacking() -> None:
    assert SQUARE(outcomes((5.0, 1.0))) == pytest.approx(0.5)
    assert SQUARE(outcomes((5.0, 1.0), (9.0, 1.9))) == pytest.approx(0.5)
    assert SQUARE(outcomes((0.0, 1.0), (5.0, 0.0))) == pytest.approx(-0.5)


def test_while_nothing_dominates_the_nadir_the_loss_tells_how_far_it_is() -> None:
    assert SQUARE(outcomes((20.0, 1.0))) == pytest.approx(2.0)
    assert SQUARE(outcomes((20.0, 1.0), (15.0, 1.0))) == pytest.approx(1.5)
    assert SQUARE(outcomes((40.0, 10.0))) == pytest.approx(1 + 5)


def test_what_is_not_feasible_is_worse_than_all_that_is_and_the_nearer_the_better() -> None:
    drawings = [Outcome((value,), (value - 3,)) for value in (1.0, 2.0, 4.0, 6.0)]
    loss = BestFeasible.of(drawings)
    assert loss([drawings[1]]) == 2.0
    assert loss([drawings[3], drawings[0]]) == 1.0
    assert 6.0 < loss([drawings[2]]) < loss([drawings[3]]) < 6.0 + 5.0


def test_cocos_best_hypervolume_is_that_of_the_front_where_the_front_is_known() -> None:
    for seed in range(3):
        given = problem(f"{BIOBJECTIVE}_f01_d5", seed)
        loss = given.loss
        assert isinstance(loss, Hypervolume)
        generator = np.random.default_rng(seed)
        assert given.loss([given.outcome(drawn(given.params, generator)) for _ in range(60)]) > 0.1
    # Two spheres: the front is the curve that the segment between their optima is mapped to, sqrt(a) + sqrt(b) = 1.
    curve = [(share**2, (1 - share) ** 2) for share in np.linspace(0, 1, 2001)]
    assert loss.best == pytest.approx(hypervolume(curve), abs=1e-3)


def test_cocos_constraints_are_met_at_the_point_that_coco_starts_from() -> None:
    import cocoex

    for name in SUITES["constrained"].problems:
        given = problem(name, 1)
        index = int(name.removeprefix(f"{CONSTRAINED}_f")[:2])
        start = cocoex.Suite(CONSTRAINED, "instances: 2", f"function_indices: {index} dimensions: 5")[
            0
        ].initial_solution
        outcome = given.outcome(named(start))
        assert (len(outcome.constraints), outcome.feasible) == (given.constraints, True)


@pytest.mark.parametrize("suite", ["mixint", "biobj", "constrained", "conditional"])
def test_a_suites_choice_is_of_what_it_has_and_depends_on_the_seed_alone(suite: str) -> None:
    assert set(SUITES[suite].problems) <= set(SUITES[suite].everything or SUITES[suite].problems) <= set(PROBLEMS)
    for name in SUITES[suite].problems:
        one, same, other = problem(name, 2), problem(name, 2), problem(name, 3)
        drawings = [drawn(one.params, np.random.default_rng(number)) for number in range(5)]
        values = [one.outcome(drawing) for drawing in drawings]
        assert [same.outcome(drawing) for drawing in drawings] == values
        assert [other.outcome(drawing) for drawing in drawings] != values
        assert {len(value.objectives) for value in values} == {one.objectives}


def test_a_seed_without_a_known_front_is_refused() -> None:
    with pytest.raises(ValueError, match="has no seed 10"):
        problem(f"{BIOBJECTIVE}_f01_d5", 10)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_branches_have_ten_parameters_and_nothing_is_better_than_the_optimum(name: str) -> None:
    best = set()
    for seed in range(12):
        given, generator = problem(name, seed), np.random.default_rng(seed)
        assert len(given.params) == 10
        assert given.optimum is not None
        assert given.function(given.optimum) == 0 == given.best
        best.add(given.optimum["model"])
        assert min(given.function(drawn(given.params, generator)) for _ in range(300)) > 0
    assert best == set(BRANCHES)


def test_a_drawn_configuration_has_the_parameters_that_exist() -> None:
    params, generator = problem("branches10", 0).params, np.random.default_rng(0)
    seen = {frozenset(drawn(params, generator)) for _ in range(200)}
    shared = {"model", "rate", "size"}
    assert seen == {
        frozenset(shared | own)
        for own in (
            {"penalty", "kernel"},
            {"depth", "share"},
            {"layers", "momentum"},
            {"layers", "momentum", "dropout"},
        )
    }


def test_the_engine_in_process_takes_conditional_parameters() -> None:
    from asktell.server.policies import gp

    given = problem("branches10", 0)
    peer = InProcess(given, 0, gp.suggest)
    for _ in range(3):
        token, configuration = peer.ask()
        peer.tell(token, configuration, given.outcome(configuration))
        assert configuration.keys() >= {"model", "rate", "size"}
        assert len(configuration) < 7


def test_hypervolumes_are_averaged_and_compared() -> None:
    def run(peer: str, *losses: float) -> Run:
        name = SUITES["biobj"].problems[0]
        return Run(peer=peer, problem=name, seed=0, y=losses, ask=(0.1,) * len(losses), best=0.0)

    runs = [run("random", 1.5, 1.2), run("asktell", 1.0, 0.25), run("optuna_gp", 0.5, 0.6)]
    board = Board.of(runs, problems=SUITES["biobj"].problems[:1], seeds=[0], trials=2)
    assert {peer: mean_hypervolume(board, peer, 2).mean for peer in board.peers} == {
        "asktell": 0.75,
        "optuna_gp": 0.5,
        "random": 0.0,
    }
    said = list(tables.verdicts(board, SUITES["biobj"], 2))
    assert (
        said[0]
        == "At 2 trials asktell's hypervolume is 0.750, that of the best peer, optuna_gp, 0.500 (the bar: more)."
    )
    assert tables.problems_table(board, SUITES["biobj"], 2).title.startswith("Hypervolume after 2 trials")


def test_random_search_takes_every_kind_of_problem() -> None:
    for suite in ("mixint", "biobj", "constrained", "conditional"):
        given = problem(SUITES[suite].problems[0], 0)
        search = RandomSearch(given, 0)
        token, configuration = search.ask()
        search.tell(token, configuration, given.outcome(configuration))
        assert given.loss([given.outcome(configuration)]) < np.inf
