"""How runs are scored, recorded and taken up again."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import records, seeds, tables
from benchmarks.ablation import paired_differences
from benchmarks.bench import main
from benchmarks.course import Course
from benchmarks.meter import OwnMeter
from benchmarks.problem import Outcome, Problem, reals
from benchmarks.records import Run
from benchmarks.running import Places, missing
from benchmarks.score import Board, cost, falls, mean_regret
from benchmarks.suites import SUITES


def run(peer: str, y: Iterable[float], *, problem: str = "branin", seed: int = 0, **rest: Any) -> Run:
    y = tuple(y)
    return Run(peer=peer, problem=problem, seed=seed, y=y, ask=tuple(0.1 for _ in y), **rest)


def board(*runs: Run, problems: tuple[str, ...] = ("branin",), seeds: tuple[int, ...] = (0,), trials: int = 3) -> Board:
    return Board.of(runs, problems=problems, seeds=seeds, trials=trials)


def test_regret_is_scaled_by_random_searchs_and_floored_by_the_known_optimum() -> None:
    one = board(run("random", [9, 5, 7], best=1.0), run("ours", [8, 3, 4], best=1.0))
    assert one.scaled("ours", "branin", 3) == [0.5]
    assert one.scaled("random", "branin", 3) == [1.0]
    assert one.scaled("ours", "branin", 1) == [7 / 8]


def test_without_a_known_optimum_the_floor_is_the_best_that_anybody_found() -> None:
    one = board(run("random", [9, 5, 7]), run("ours", [8, 3, 4]))
    assert one.scaled("ours", "branin", 3) == [0.0]


def test_where_random_search_found_the_best_the_scale_is_a_random_trials_regret() -> None:
    one = board(run("random", [9, 1, 5]), run("ours", [8, 3, 4]))
    assert one.scaled("random", "branin", 3) == [0.0]
    assert one.scaled("ours", "branin", 3) == [0.5]


def test_a_problem_that_is_the_same_for_every_seed_has_one_floor() -> None:
    runs = [
        run(peer, [value], problem="krr_diabetes", seed=seed)
        for peer, values in {"random": [5, 6], "ours": [4, 2]}.items()
        for seed, value in enumerate(values)
    ]
    one = board(*runs, problems=("krr_diabetes",), seeds=(0, 1), trials=1)
    assert one.floor("krr_diabetes", 0) == one.floor("krr_diabetes", 1) == 2


def test_a_shifted_problem_has_a_floor_for_each_seed() -> None:
    runs = [run(peer, [4 + seed + (peer == "random")], seed=seed) for peer in ("random", "ours") for seed in (0, 1)]
    one = board(*runs, seeds=(0, 1), trials=1)
    assert [one.floor("branin", seed) for seed in (0, 1)] == [4, 5]


def test_a_peer_with_missing_or_short_runs_is_left_out_and_named() -> None:
    one = board(run("random", [3, 2, 1]), run("short", [3, 2]), run("ours", [1, 1, 1]))
    assert one.peers == ("ours", "random")
    assert "short" not in one.missing
    two = board(run("random", [3, 2, 1]), run("half", [1, 1, 1], seed=1), seeds=(0, 1))
    assert two.missing == {"half": 1, "random": 1}


def test_equal_peers_share_their_places() -> None:
    one = board(run("random", [9]), run("a", [1]), run("b", [1]), trials=1)
    assert [one.mean_rank(peer, 1) for peer in ("a", "b", "random")] == [1.5, 1.5, 3]


def test_a_lost_run_counts_at_most_one_and_a_half_in_the_mean() -> None:
    one = board(run("random", [2], best=1.0), run("lost", [1000], best=1.0), trials=1)
    mean = mean_regret(one, "lost", 1)
    assert (mean.low, mean.mean, mean.high) == (1.5, 1.5, 1.5)


def test_costs_are_of_all_asks_and_processor_time_is_unknown_of_old_recordings() -> None:
    runs = [run("random", [1, 2], rss_mb=10), run("ours", [1, 2], cpu=(0.1, 0.3), rss_mb=20)]
    one = board(*runs, trials=2)
    assert cost(one, "random").cpu is None
    assert cost(one, "ours").cpu == pytest.approx(0.2)
    assert cost(one, "ours").memory == 20


def test_a_fall_is_measured_by_the_clean_problems_floor_and_scale() -> None:
    clean = [run(peer, [value], seed=seed, best=0.0) for peer, value in (("random", 4), ("ours", 1)) for seed in (0, 1)]
    cliffs = [run("ours", [2 + seed], problem="branin+cliff", seed=seed, best=0.0) for seed in (0, 1)]
    fall = falls(clean, cliffs, seeds=(0, 1), trials=1)["ours"]["branin+cliff"]
    assert (fall.clean, fall.cliff) == (0.25, 0.625)
    assert fall.error == pytest.approx(0.125)


def test_one_run_that_fell_far_is_in_the_mean_of_a_cliffs_cost_and_not_in_the_median() -> None:
    seeds = range(3)
    clean = [run(peer, [value], seed=seed, best=0.0) for peer, value in (("random", 4), ("ours", 1)) for seed in seeds]
    cliffs = [
        run("ours", [value], problem="branin+cliff", seed=seed, best=0.0)
        for seed, value in zip(seeds, (1, 1, 7), strict=True)
    ]
    found = falls(clean, cliffs, seeds=tuple(seeds), trials=1)
    fall = found["ours"]["branin+cliff"]
    assert (fall.clean_median, fall.cliff_median) == (0.25, 0.25)
    (said,) = tables.cliff_verdicts(found)
    assert "mean regret is 3.00 × that without, and 1.00 × by the medians" in said


def test_differences_are_paired_and_clipped() -> None:
    one = board(run("random", [1], best=0.0), run("a", [0.5], best=0.0), run("b", [900], best=0.0), trials=1)
    assert paired_differences(one, "b", "a", 1) == [1.0]


def test_verdicts_name_the_best_peer_and_where_random_search_wins() -> None:
    one = board(
        run("random", [2, 2], best=0.0), run("asktell", [5, 3], best=0.0), run("hebo", [4, 1], best=0.0), trials=2
    )
    said = list(tables.verdicts(one, SUITES["sequential"], 2))
    assert "3.00 × that of the best peer, hebo" in said[0]
    assert said[-1] == "Worse than random search on: branin."


def test_a_run_survives_its_line(tmp_path: Path) -> None:
    one = run("ours", [1.5, 2.25], seed=3, cpu=(0.1, 0.2), best=None, workers=8, engine="abc")
    records.append(tmp_path / "ours.jsonl", one)
    assert records.read(tmp_path) == [one]


def test_old_lines_and_lines_with_unknown_keys_are_read() -> None:
    line = '{"peer": "ax", "problem": "branin", "seed": 0, "y": [1, 2], "ask": [0.1, 0.1], "later": true}'
    assert Run.parse(line).y == (1, 2)


def test_a_torn_line_is_dropped_and_its_run_made_again(tmp_path: Path) -> None:
    path = tmp_path / "ours.jsonl"
    records.append(path, run("ours", [1.0]))
    with path.open("a") as file:
        file.write('{"peer": "ours", "prob')
    assert len(records.read_file(path)) == 1
    records.append(path, run("ours", [2.0], seed=1))
    assert [one.seed for one in records.read_file(path)] == [0, 1]


def test_later_directories_and_lines_win_and_compacting_keeps_the_last(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for directory, value in ((old, 1.0), (new, 2.0), (new, 3.0)):
        records.append(directory / "ours.jsonl", run("ours", [value]))
    assert [one.y for one in records.read(old, new)] == [(3.0,)]
    records.compact(new / "ours.jsonl")
    assert len((new / "ours.jsonl").read_text().splitlines()) == 1


def test_only_what_is_missing_too_short_or_of_another_engine_is_run(tmp_path: Path) -> None:
    suite = SUITES["sequential"]
    places = Places(tmp_path / "recorded", tmp_path / "fresh", tmp_path / "environments")
    recorded, fresh = places.recorded / suite.name, places.fresh / suite.name
    records.append(recorded / "random.jsonl", run("random", range(50)))
    records.append(recorded / "random.jsonl", run("random", range(50), problem="levy8", seed=1))
    records.append(fresh / "random.jsonl", run("random", range(10), problem="levy8"))
    records.append(fresh / "asktell.jsonl", run("asktell", range(50), engine="older"))
    jobs = list(missing(suite, places, peers=["random", "asktell", "hebo"], seeds=(0, 1), trials=50))
    left = {(job.peer, job.problem): job.seeds for job in jobs}
    assert left["random", "branin"] == (1,)
    assert left["random", "levy8"] == (0,)
    assert left["asktell", "branin"] == (0, 1)
    assert not any(peer == "hebo" for peer, _ in left), "no environment has it"


class Listener:
    """A peer that hears what is told and when."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def ask(self) -> tuple[int, dict[str, Any]]:
        number = sum(kind == "ask" for kind, _ in self.heard)
        self.heard.append(("ask", number))
        return number, {"x0": number / 100}

    def tell(self, token: int, configuration: Any, outcome: Outcome) -> None:
        assert outcome.value == configuration["x0"] == token / 100
        self.heard.append(("tell", token))


@pytest.mark.parametrize("workers", [1, 8])
def test_no_more_trials_are_pending_than_there_are_workers_and_all_are_told(workers: int) -> None:
    peer, done = Listener(), []
    course = Course(Problem("line", reals(1, 0, 1), lambda c: float(c["x0"])), peer, OwnMeter())
    course.run(trials=30, workers=workers, seed=5, progress=done.append)
    pending, most = 0, 0
    for kind, _ in peer.heard:
        pending += 1 if kind == "ask" else -1
        most = max(most, pending)
    assert (pending, most, done) == (0, workers, list(range(1, 31)))
    assert sorted(token for kind, token in peer.heard if kind == "tell") == list(range(30))
    assert len(course.values) == len(course.asks) == len(course.cpu) == 30


def test_workers_finish_out_of_order_by_the_seeds_clock() -> None:
    peer, again = Listener(), Listener()
    for one in (peer, again):
        Course(Problem("line", reals(1, 0, 1), lambda c: float(c["x0"])), one, OwnMeter()).run(
            trials=20, workers=8, seed=1, progress=lambda _: None
        )
    told = [token for kind, token in peer.heard if kind == "tell"]
    clock = random.Random(1)
    durations = [clock.uniform(0.5, 2.0) for _ in range(8)]
    assert peer.heard == again.heard
    assert told != sorted(told)
    assert told[0] == min(range(8), key=durations.__getitem__)


@pytest.mark.parametrize(("text", "expected"), [("3", (3,)), ("0-2", (0, 1, 2)), ("5,0-1,1", (0, 1, 5))])
def test_seeds_are_numbers_and_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert seeds.parsed(text) == expected


@pytest.mark.parametrize("text", ["", "a", "2-1", "1-2-3", "-1"])
def test_what_is_no_seeds_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not seeds such as|ends before it begins"):
        seeds.parsed(text)


def test_the_recorded_peers_are_scored_without_running_anything(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(suites="sequential", problems="branin,levy8", seeds="0-4", score_only=True, output=tmp_path) == 0
    said = capsys.readouterr().out
    assert "optuna_gp" in said
    assert "2 problems, seeds 0–4, one worker" in said
    assert "| levy8" in (tmp_path / "sequential.md").read_text(encoding="utf-8")
    assert (tmp_path / "sequential.png").read_bytes().startswith(b"\x89PNG")


def test_a_peer_that_ran_some_seeds_is_compared_with_the_others_on_those(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    problems = "branin,levy8"
    assert main(suites="parallel", problems=problems, seeds="0-4", score_only=True, output=tmp_path) == 0
    page = (tmp_path / "parallel.md").read_text(encoding="utf-8")
    assert "hebo is left out: 8 of its runs are missing." in capsys.readouterr().out
    of_all, with_fewer = page.split("2 problems, seeds 0–4")[1], page.split("2 problems, seeds 0, ")[1]
    assert "| hebo" not in of_all.split("2 problems")[0]
    assert "| hebo" in with_fewer
    assert "| optuna_gp" in with_fewer


@pytest.mark.parametrize("suite", ["mixint", "biobj", "constrained", "conditional"])
def test_every_kind_of_problem_has_recorded_peers_a_page_and_a_picture(
    suite: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(suites=suite, seeds="0-4", score_only=True, output=tmp_path) == 0
    said = capsys.readouterr().out
    assert "is left out" not in said
    page = (tmp_path / f"{suite}.md").read_text(encoding="utf-8")
    for word in ("optuna_tpe", "optuna_gp", "optuna_nsga2", "random", *SUITES[suite].problems):
        assert f"| {word}" in page
    assert (tmp_path / f"{suite}.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(peers="nobody", score_only=True) == 1
    assert "there is no peer 'nobody'" in capsys.readouterr().err
