# ruff: noqa: E402 - the number of threads is set before NumPy starts them.
"""Shows what a warm start from an earlier study brings, alike and unlike: `make bench-transfer`, or `python -m benchmarks.transfer --help`."""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from asktell.server.domain.metric import MetricValue
from asktell.server.domain.policy import Decision, Observation, Source, SuggestRequest
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp
from benchmarks.course import Course
from benchmarks.meter import OwnMeter
from benchmarks.peers.in_process import METRIC, InProcess
from benchmarks.peers.random_search import RandomSearch
from benchmarks.problem import Configuration, Outcome, Param, Problem, Real
from benchmarks.problems import problem
from benchmarks.seeds import parsed as parse_seeds
from benchmarks.server import ROOT

NONE = "no source"
SYNTHETIC = ("branin", "hartmann6", "levy8", "quadratic8", "griewank6", "michalewicz5", "mixed_small", "mixed_medium")
ELSEWHERE: Mapping[str, str] = {
    "svm_wine": "svm_breast_cancer",
    "svm_breast_cancer": "svm_wine",
    "ridge_diabetes": "ridge_digits",
    "gbm_diabetes": "gbm_wine",
}
"""Real problems, and the same model on other data."""
WORST = 2.0
"""Scaled regrets count no worse than this, lest one run decides."""

app = cyclopts.App(name="python -m benchmarks.transfer", help_format="plaintext", version_flags=[])


def _alike(given: Problem, generator: np.random.Generator) -> Problem:
    """The problem with numbers shifted by up to a tenth of their range, and values scaled and shifted."""
    shifts = {param.name: float(generator.uniform(-0.1, 0.1)) for param in given.params}
    factor, offset = float(np.exp(generator.uniform(-1, 1))), float(10 * generator.normal())
    return _elsewhere(given, lambda param, unit: unit + shifts[param.name], lambda value: factor * value + offset)


def _mirrored(given: Problem, generator: np.random.Generator) -> Problem:  # noqa: ARG001 - as the others.
    """The problem with every number's range turned round: as smooth, and good elsewhere."""
    return _elsewhere(given, lambda _, unit: 1.0 - unit, lambda value: value)


def _negated(given: Problem, generator: np.random.Generator) -> Problem:  # noqa: ARG001 - as the others.
    """The problem upside down: its best is the worst."""
    return _elsewhere(given, lambda _, unit: unit, lambda value: -value)


SOURCES: Mapping[str, Callable[[Problem, np.random.Generator], Problem]] = {
    "alike": _alike,
    "mirrored": _mirrored,
    "negated": _negated,
}


def _elsewhere(given: Problem, move: Callable[[Real, float], float], scale: Callable[[float], float]) -> Problem:
    def outcome(configuration: Configuration) -> Outcome:
        moved = {param.name: _moved(param, configuration[param.name], move) for param in given.params}
        return Outcome((scale(given.outcome(moved).value),))

    return replace(given, several=outcome, truth=None, best=None, optimum=None)


def _moved(param: Param, value: Any, move: Callable[[Real, float], float]) -> Any:
    if not isinstance(param, Real):
        return value
    low, high = (math.log(param.low), math.log(param.high)) if param.log else (param.low, param.high)
    unit = ((math.log(value) if param.log else value) - low) / (high - low)
    there = low + min(max(move(param, unit), 0.0), 1.0) * (high - low)
    return min(max(math.exp(there) if param.log else there, param.low), param.high)


@dataclass(frozen=True, slots=True)
class Run:
    """The best values after each trial of one run; `best` is the least value known, `usual` what random search finds."""

    problem: str
    source: str
    seed: int
    y: tuple[float, ...]
    best: float
    usual: float

    @property
    def regrets(self) -> list[float]:
        """0 for the best known value, 1 for what random search finds with as many trials."""
        return [min((value - self.best) / max(self.usual - self.best, 1e-12), WORST) for value in self.y]


def _values(given: Problem, seed: int, trials: int, *, sources: tuple[Source, ...] = ()) -> list[Observation]:
    """The observations of one run of `gp`."""

    def suggest(request: SuggestRequest) -> Decision:
        return gp.suggest(replace(request, sources=sources))

    peer, seen = InProcess(given, seed, suggest), []
    for _ in range(trials):
        number, configuration = peer.ask()
        outcome = given.outcome(configuration)
        peer.tell(number, configuration, outcome)
        value = given.scored(configuration, outcome).value
        state = TrialState.SUCCEEDED if math.isfinite(value) else TrialState.FAILED
        seen.append(Observation(number, state, configuration, {METRIC: MetricValue(value)}))
    return seen


def _best_so_far(values: Sequence[float]) -> tuple[float, ...]:
    finite = np.where(np.isfinite(values), values, np.finfo(np.float64).max)
    return tuple(float(value) for value in np.minimum.accumulate(finite))


def _curve(seen: Sequence[Observation]) -> tuple[float, ...]:
    return _best_so_far([each.metrics[METRIC].value for each in seen])


def _usual(given: Problem, seed: int, trials: int) -> float:
    """What random search finds: the median of three."""
    found = []
    for number in range(3):
        course = Course(given, RandomSearch(given, 1_000 * number + seed), OwnMeter())
        course.run(trials=trials, workers=1, seed=seed, progress=lambda _done: None)
        found.append(min(value for value in course.values if math.isfinite(value)))
    return statistics.median(found)


def _runs(name: str, seed: int, trials: int) -> Iterator[Run]:
    """All runs of a problem: without a source, and from each."""
    given = problem(name, seed)
    if name in ELSEWHERE:
        earlier = {"other data": problem(ELSEWHERE[name], seed)}
    else:
        generator = np.random.default_rng(seed + 77)
        earlier = {kind: make(given, generator) for kind, make in SOURCES.items()}
    names = frozenset(param.name for param in given.params)
    curves = {NONE: _curve(_values(given, seed, trials))}
    for kind, source in earlier.items():
        lesson = Source(kind, names, tuple(_values(source, seed + 1_000, trials)))
        curves[kind] = _curve(_values(given, seed, trials, sources=(lesson,)))
    best = min(curve[-1] for curve in curves.values()) if given.best is None else given.best
    usual = _usual(given, seed, trials)
    for kind, curve in curves.items():
        yield Run(name, kind, seed, curve, best, usual)


@app.default
def main(
    *,
    problems: str = ",".join([*SYNTHETIC, *ELSEWHERE]),
    seeds: str = "0-4",
    trials: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 30,
    record: bool = False,
) -> int:
    """Compare studies that start from an earlier one with studies that start from nothing.

    The earlier study is `gp` on a shifted and scaled version of the problem (alike), on one with every range turned round (mirrored), on one
    upside down (negated), or on other data. A figure is the mean scaled regret, and in brackets its mean paired difference to no source with
    its standard error: below zero, the source helps.

    Parameters
    ----------
    problems
        Which.
    seeds
        Such as 0-4.
    trials
        Of the earlier study, and of the later one.
    record
        Keep the runs in benchmarks/results and the picture in docs/images.
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    runs: list[Run] = []
    for name in problems.split(","):
        for seed in parse_seeds(seeds):
            here = list(_runs(name, seed, trials))
            runs += here
            console.print(f"{name}, seed {seed}: " + ", ".join(f"{run.source} {run.regrets[-1]:.2f}" for run in here))
    for title, kinds in _panels(runs).items():
        console.print(_table(title, kinds, runs, trials))
    out = ROOT / "benchmarks" / ("results" if record else "out")
    out.mkdir(parents=True, exist_ok=True)
    (out / "transfer.jsonl").write_text("".join(json.dumps(asdict(run)) + "\n" for run in runs))
    picture = ROOT / "docs" / "images" / "transfer.png" if record else out / "transfer.png"
    draw(runs, picture)
    console.print(f"Runs: {out / 'transfer.jsonl'}; picture: {picture}")
    return 0


def _panels(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Which sources stand side by side."""
    there = {run.source for run in runs}
    panels = {"Synthetic problems": [NONE, *SOURCES], "Real problems": [NONE, "other data"]}
    return {title: kinds for title, kinds in panels.items() if there.intersection(kinds[1:])}


def _cells(runs: Sequence[Run], kinds: Sequence[str]) -> list[Mapping[str, Run]]:
    """The runs of each problem and seed that has all kinds, by kind."""
    cells: dict[tuple[str, int], dict[str, Run]] = {}
    for run in runs:
        cells.setdefault((run.problem, run.seed), {})[run.source] = run
    return [cell for cell in cells.values() if all(kind in cell for kind in kinds)]


def _table(title: str, kinds: Sequence[str], runs: Sequence[Run], trials: int) -> Table:
    cells = _cells(runs, kinds)
    moments = [moment for moment in (1, 5, 10, 15, 20, 30, 50, trials) if moment <= trials]
    table = Table(title=f"{title}: scaled regret of {len(cells)} pairs (difference to no source)")
    for header in ("source", *(f"{moment} trials" for moment in dict.fromkeys(moments))):
        table.add_column(header, justify="right" if header[0].isdigit() else "left")
    for kind in kinds:
        table.add_row(kind, *(_figure(cells, kind, moment) for moment in dict.fromkeys(moments)))
    return table


def _figure(cells: Sequence[Mapping[str, Run]], kind: str, moment: int) -> str:
    levels = np.array([cell[kind].regrets[moment - 1] for cell in cells])
    if kind == NONE:
        return f"{levels.mean():.2f}"
    gaps = levels - np.array([cell[NONE].regrets[moment - 1] for cell in cells])
    return f"{levels.mean():.2f} ({gaps.mean():+.2f} ± {gaps.std() / math.sqrt(len(gaps)):.2f})"


def draw(runs: Sequence[Run], path: Path) -> None:
    """Mean scaled regret over trials, with standard errors."""
    import matplotlib as mpl  # noqa: PLC0415 - only needed here, and slow

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    colours = {NONE: "grey", "alike": "green", "other data": "green", "mirrored": "orangered", "negated": "purple"}
    panels = _panels(runs)
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.6), squeeze=False, sharey=True)
    for panel, (title, kinds) in zip(axes[0], panels.items(), strict=True):
        cells = _cells(runs, kinds)
        for kind in kinds:
            levels = np.array([cell[kind].regrets for cell in cells])
            mean, error = levels.mean(axis=0), levels.std(axis=0) / math.sqrt(len(levels))
            steps = np.arange(1, len(mean) + 1)
            panel.plot(steps, mean, color=colours[kind], label=kind, linestyle="--" if kind == NONE else "-")
            panel.fill_between(steps, mean - error, mean + error, color=colours[kind], alpha=0.15, linewidth=0)
        panel.set_title(f"{title} ({len(cells)} pairs)", fontsize=10)
        panel.set_xlabel("trials")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(title="earlier study", frameon=False)
    axes[0][0].set_ylabel("scaled regret (1: random search)")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(app())
