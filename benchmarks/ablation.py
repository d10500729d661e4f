# ruff: noqa: E402 - the number of threads is set before NumPy starts them.
"""Shows what each ingredient of the engine brings: `make bench-ablation`, or `python -m benchmarks.ablation --help`."""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import statistics
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np
from cyclopts import Parameter, validators
from loky import get_reusable_executor
from rich.console import Console
from rich.progress import Progress as Bars
from rich.table import Table

from asktell.server.policies import gp
from asktell.server.policies.labels import Shape
from asktell.server.policies.recipe import STANDARD, Member, Recipe
from benchmarks import records
from benchmarks.coco import coco_is_there
from benchmarks.course import Course
from benchmarks.families import COCO, FAMILIES
from benchmarks.meter import OwnMeter
from benchmarks.peers.in_process import InProcess
from benchmarks.peers.random_search import RandomSearch
from benchmarks.problems import PUBLIC, problem
from benchmarks.score import RANDOM, WORST, Board
from benchmarks.seeds import parsed as parse_seeds
from benchmarks.server import ROOT, engine_version

WHOLE = "standard"
HALF, TREND = STANDARD.members
INGREDIENTS: Mapping[str, Recipe] = {
    WHOLE: STANDARD,
    "first model alone": replace(STANDARD, members=(HALF,)),
    "trend model alone": replace(STANDARD, members=(TREND,)),
    "no trend": replace(STANDARD, members=(HALF, replace(TREND, trend=False))),
    "no warp": replace(STANDARD, members=(Member(Shape.NONE), Member(Shape.NONE, trend=True))),
    "equal weights": replace(STANDARD, temper=0.0),
    "full evidence": replace(STANDARD, temper=1.0),
    "no exploration": replace(STANDARD, explores=False),
    "one fantasy": replace(STANDARD, fantasies=1),
    "no failure model": replace(STANDARD, classifies=False),
    "divergences are losses": replace(STANDARD, divergences=False),
    "not widened": replace(STANDARD, widens=False),
}
"""The engine, and the engine with one ingredient taken away, added or exchanged."""
PUBLIC_FAMILY = "public"

app = cyclopts.App(
    name="python -m benchmarks.ablation",
    help_format="plaintext",
    help_epilogue="For example: python -m benchmarks.ablation --families mixed,steps --ingredients 'no warp' --seeds 100-102 --trials 30",
    version_flags=[],
)


@dataclass(frozen=True, slots=True)
class Case:
    """One run: an ingredient's name (or random), a problem and a seed."""

    recipe: str
    problem: str
    seed: int
    trials: int
    workers: int

    def run(self, engine: str) -> records.Run:
        """Run it in this process."""
        given = problem(self.problem, self.seed)
        peer = (
            RandomSearch(given, self.seed)
            if self.recipe == RANDOM
            else InProcess(given, self.seed, partial(gp.suggest, recipe=INGREDIENTS[self.recipe]))
        )
        course = Course(given, peer, OwnMeter())
        course.run(trials=self.trials, workers=self.workers, seed=self.seed, progress=lambda _done: None)
        return records.Run(
            peer=self.recipe,
            problem=self.problem,
            seed=self.seed,
            y=tuple(course.values),
            ask=tuple(course.asks),
            cpu=tuple(course.cpu),
            best=given.best,
            workers=self.workers,
            engine="" if self.recipe == RANDOM else engine,
        )


@app.default
def main(
    *,
    families: str = ",".join(["public", *FAMILIES]),
    ingredients: str = ",".join(INGREDIENTS),
    seeds: str = "100-104",
    trials: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 50,
    workers: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    jobs: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    output: Annotated[Path, Parameter(show_default=False)] = ROOT / "benchmarks" / "out" / "ablation",
) -> int:
    """Run the engine in this process with one ingredient taken away at a time, over families of problems.

    A figure is the mean of the paired differences in scaled regret, with the ingredient changed minus the engine as it is, and its
    standard error: above zero, the change does harm. Runs that were made by this very engine are not made again.

    Parameters
    ----------
    families
        Which, of public, mixed, quadratic, multimodal, steps, noisy, rough, failing, learning, bbob and bbob-mixint.
    ingredients
        Which, by the names in the table; the engine as it is always runs.
    seeds
        Such as 100-104; the public comparison uses 0-4.
    trials
        Asks in each run.
    workers
        Trials asked and not yet told at a time: what fantasies are for shows with 8.
    jobs
        Processes.
    output
        Directory of the runs; benchmarks/out/ablation if not given.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        chosen = {
            family: _problems(family)
            for family in _names(families, [PUBLIC_FAMILY, *FAMILIES])
            if _is_there(console, family)
        }
        names = list(dict.fromkeys([WHOLE, *_names(ingredients, INGREDIENTS)]))
        numbers = parse_seeds(seeds)
    except ValueError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    cases = [
        Case(name, one, seed, trials, workers)
        for family in chosen.values()
        for one in family
        for seed in numbers
        for name in [RANDOM, *names]
    ]
    path = output / f"workers-{workers}.jsonl"
    try:
        _run(cases, path, console, jobs=jobs)
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on where it was.")
        return 130
    table = differences(records.read_file(path), chosen, names, seeds=numbers, trials=trials)
    console.print(table)
    return 0


def differences(
    runs: Sequence[records.Run],
    families: Mapping[str, Sequence[str]],
    names: Sequence[str],
    *,
    seeds: Sequence[int],
    trials: int,
) -> Table:
    """Each change's mean paired difference to the engine as it is, with its standard error, of each family and of all."""
    last = {run.cell: run for run in runs}.values()
    boards = {
        family: Board.of(last, problems=problems, seeds=seeds, trials=trials) for family, problems in families.items()
    }
    table = Table(
        title=f"Scaled regret after {trials} trials, changed minus standard: above zero, the change does harm"
    )
    for header in ("", *boards, "all"):
        table.add_column(header, justify="right" if header else "left")
    table.add_row(f"{WHOLE}: regret", *_levels(boards), end_section=True)
    for name in names:
        if name != WHOLE:
            paired = {family: paired_differences(board, name, WHOLE, trials) for family, board in boards.items()}
            everything = [value for values in paired.values() for value in values]
            table.add_row(name, *(_mean_and_error(values) for values in [*paired.values(), everything]))
    table.add_section()
    for name in names:
        asks = [second for board in boards.values() for run in board.of_peer(name) for second in run.ask]
        table.add_row(f"{name}: ask, median", *[""] * len(boards), f"{statistics.median(asks) * 1e3:.0f} ms")
    return table


def paired_differences(board: Board, name: str, other: str, trials: int) -> list[float]:
    """Scaled regret of one minus that of another, each at most `WORST`, for each problem and seed."""
    return [
        min(one, WORST) - min(two, WORST)
        for problem_name in board.problems
        for one, two in zip(
            board.scaled(name, problem_name, trials), board.scaled(other, problem_name, trials), strict=True
        )
    ]


def _levels(boards: Mapping[str, Board]) -> Iterator[str]:
    means = []
    for board in boards.values():
        trials = min(len(run.y) for run in board.runs.values())
        values = [min(value, WORST) for name in board.problems for value in board.scaled(WHOLE, name, trials)]
        means += values
        yield f"{statistics.mean(values):.3f}"
    yield f"{statistics.mean(means):.3f}"


def _mean_and_error(values: Sequence[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):+.3f} ± {error:.3f}"


def _run(cases: Sequence[Case], path: Path, console: Console, *, jobs: int) -> None:
    engine = engine_version()
    known = [run for run in records.read_file(path) if run.workers == cases[0].workers] if cases else []
    left = [
        case
        for case in cases
        if (case.recipe, case.problem, case.seed) not in records.done(known, trials=case.trials, engine=engine)
    ]
    with Bars(console=console) as bars:
        task = bars.add_task("runs", total=len(left))
        for run in _finished(left, engine, jobs=jobs):
            records.append(path, run)
            bars.update(task, advance=1, description=f"{run.problem}, {run.peer}")


def _finished(cases: Sequence[Case], engine: str, *, jobs: int) -> Iterator[records.Run]:
    if jobs == 1:
        yield from (case.run(engine) for case in cases)
        return
    executor = get_reusable_executor(max_workers=jobs)
    futures = [executor.submit(case.run, engine) for case in cases]
    try:
        yield from (future.result() for future in as_completed(futures))
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _problems(family: str) -> list[str]:
    return list(PUBLIC if family == PUBLIC_FAMILY else FAMILIES[family])


def _is_there(console: Console, family: str) -> bool:
    there = family not in COCO or coco_is_there()
    if not there:
        console.print(f"{family} is left out: the package coco-experiment is not installed.")
    return there


def _names(text: str, known: Collection[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    return names


if __name__ == "__main__":
    sys.exit(app())
