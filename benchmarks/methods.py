# ruff: noqa: E402 - the number of threads is set before NumPy starts them.
"""Compares asktell's own policies at large budgets: `make bench-methods`, or `python -m benchmarks.methods --help`."""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import cyclopts
from rich.console import Console
from rich.table import Table

from asktell.server.policies.registry import POLICIES
from benchmarks.course import Course
from benchmarks.meter import OwnMeter
from benchmarks.peers.in_process import InProcess
from benchmarks.problem import Problem
from benchmarks.problems import problem
from benchmarks.seeds import parsed as parse_seeds

RANDOM = "random"
SMALLEST = 1e-6
"""A regret counts as at least this share of random search's: beyond, one problem would outweigh all others."""
PROBLEMS = (
    *("bbob_f01_d5", "bbob_f02_d10", "bbob_f08_d10", "bbob_f10_d5", "bbob_f15_d5", "bbob_f20_d10", "bbob_f21_d5"),
    *("hartmann6", "rosen5_log", "mixed8", "rastrigin5", "quadratic8", "steps6", "failing6"),
)
"""Problems whose optimum is known: separable and not, one basin and many, mixed, flat, and failing in a fifth of the space."""

app = cyclopts.App(name="python -m benchmarks.methods", help_format="plaintext", version_flags=[])


@dataclass(frozen=True, slots=True)
class Curve:
    """One run: the regret of the best so far after each trial, and the median seconds of the last tenth of the asks."""

    regrets: Sequence[float]
    ask: float


@app.default
def main(
    *,
    policies: str = "sobol,evolution,cma-es",
    problems: str = ",".join(PROBLEMS),
    seeds: str = "0-2",
    budgets: str = "100,300,1000",
) -> None:
    """Run policies in this process, one trial after another, beside random search with as many trials.

    A figure is the geometric mean over problems and seeds of the regret, as a share of random search's; in brackets, how many runs
    were better than it.

    Parameters
    ----------
    policies
        Which, separated by commas.
    problems
        Which, of those whose optimum is known.
    seeds
        Such as 0-2.
    budgets
        After how many trials to look.
    """
    sizes = [int(size) for size in budgets.split(",")]
    names = policies.split(",")
    console = Console(width=100)
    shares: dict[tuple[str, int], list[float]] = {(name, size): [] for name in names for size in sizes}
    asks: dict[str, list[float]] = {name: [] for name in names}
    for one in problems.split(","):
        for seed in parse_seeds(seeds):
            chance = _curve(problem(one, seed), RANDOM, seed=seed, trials=max(sizes))
            for name in names:
                curve = _curve(problem(one, seed), name, seed=seed, trials=max(sizes))
                asks[name].append(curve.ask)
                for size in sizes:
                    shares[name, size].append(_share(curve.regrets[size - 1], chance.regrets[size - 1]))
        row = {name: _mean(shares[name, sizes[-1]][-len(parse_seeds(seeds)) :]) for name in names}
        console.print(one, *(f"{name} {share:.2g}" for name, share in row.items()), highlight=False)
    console.print(_table(names, sizes, shares, asks))


def _curve(given: Problem, policy: str, *, seed: int, trials: int) -> Curve:
    peer = InProcess(given, seed, POLICIES[policy].suggest)
    course = Course(given, peer, OwnMeter())
    course.run(trials=trials, workers=1, seed=seed, progress=lambda _done: None)
    least = given.best if given.best is not None else given.function(given.optimum or {})
    regrets = [value - least for value in accumulate(course.values, min)]
    return Curve(regrets, statistics.median(course.asks[-max(trials // 10, 1) :]))


def _share(regret: float, chance: float) -> float:
    # A random search that found the optimum leaves nothing to win.
    return max(regret, 1e-12) / max(chance, 1e-12) if regret > SMALLEST * chance else SMALLEST


def _mean(shares: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, shares)))


def _table(
    names: Sequence[str], sizes: Sequence[int], shares: dict[tuple[str, int], list[float]], asks: dict[str, list[float]]
) -> Table:
    table = Table("policy", *(f"{size} trials" for size in sizes), "ask")
    for name in names:
        cells = [
            f"{_mean(found):.2g} ({statistics.fmean(share < 1 for share in found):.0%})"
            for found in (shares[name, size] for size in sizes)
        ]
        table.add_row(name, *cells, f"{1000 * statistics.median(asks[name]):.1f} ms")
    return table


if __name__ == "__main__":
    app()
