# ruff: noqa: E402 - the number of threads is set before NumPy starts them.
"""Shows what of a cliff's cost is left to an engine that knows where the cliff is: `python -m benchmarks.forewarned`."""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np
from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.policies import gp
from asktell.server.policies.acquisition import Acquisition, Product
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Indices, Matrix
from asktell.server.policies.model_based import AnalyticChooser
from asktell.server.policies.models import Learned
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.safety import Policy
from benchmarks import records
from benchmarks.cliffs import Region, cliff_of, with_cliff
from benchmarks.course import Course
from benchmarks.meter import OwnMeter
from benchmarks.peers import Peer
from benchmarks.peers.in_process import InProcess
from benchmarks.peers.random_search import RandomSearch
from benchmarks.problem import Problem, Vector
from benchmarks.progress import Progress
from benchmarks.score import INTERVAL, RANDOM, RESAMPLES, Board
from benchmarks.seeds import parsed as parse_seeds
from benchmarks.server import ROOT, engine_version
from benchmarks.synthetic import SYNTHETIC

CLEAN, CLIFF, FOREWARNED = "clean", "cliff", "forewarned"
_NEVER = -60.0
"""The log probability that a trial below the cliff is worth anything."""

app = cyclopts.App(
    name="python -m benchmarks.forewarned",
    help_format="plaintext",
    version_flags=[],
    help_epilogue="For example: python -m benchmarks.forewarned --problems branin,levy8 --seeds 0-1",
)


@dataclass(frozen=True, slots=True)
class Known:
    """Where a cliff is, as an acquisition of feature rows (`m x D`): of whole numbers as near as their codes are to it."""

    region: Region
    numbers: Indices

    def __call__(self, rows: Matrix) -> Vector:
        scores = self.region.score(rows[:, self.numbers])
        return np.where((self.region.low <= scores) & (scores <= self.region.high), _NEVER, 0.0)

    def with_gradient(self, rows: Matrix) -> tuple[Vector, Matrix]:
        return self(rows), np.zeros_like(rows)


@dataclass(frozen=True)
class Forewarned(Learned):
    """What was learned, with a cliff that is known in place of what failures would tell."""

    known: Known | None = None

    def acquisition(self, *, ambition: float | Vector = 0.0, again: Matrix | None = None) -> Acquisition:
        """What is maximised: beside the cliff."""
        value = super().acquisition(ambition=ambition, again=again)
        return value if self.known is None else Product(value, self.known)


class _Chooser(AnalyticChooser):
    """The engine's chooser, that knows a region."""

    def __init__(self, request: SuggestRequest, deadline: Deadline, region: Region) -> None:
        super().__init__(request, deadline, replace(STANDARD, classifies=False))
        self._cliff = Known(region, np.flatnonzero(Encoder.of(request.space).layout.numeric))

    def _fit(self, weights: Vector | None) -> Learned:
        learned = super()._fit(weights)
        return Forewarned(learned.models, learned.log_weights, None, learned.limits, known=self._cliff)


def forewarned(region: Region) -> Policy:
    """The default policy, but that it knows the region, which only its initial design enters."""

    def suggest(request: SuggestRequest) -> Decision:
        return gp.suggest_with(lambda deadline: _Chooser(request, deadline, region), request, name=gp.NAME)

    return suggest


def run(
    name: str, peer: str, seed: int, trials: int, *, progress: Callable[[int], None] = lambda _done: None
) -> records.Run:
    """One run, recorded as if it were of the problem without the cliff, so that all are scored alike; `progress` gets the trials done."""
    clean, fallen = SYNTHETIC[name](seed), with_cliff(SYNTHETIC[name])(seed)
    given = fallen if peer in (CLIFF, FOREWARNED) else clean
    course = Course(given, _peer(peer, clean, given, seed), OwnMeter())
    course.run(trials=trials, workers=1, seed=seed, progress=progress)
    engine = "" if peer == RANDOM else engine_version()
    return records.Run(
        peer=peer,
        problem=name,
        seed=seed,
        y=tuple(course.values),
        ask=tuple(course.asks),
        best=clean.best,
        engine=engine,
    )


def _peer(peer: str, clean: Problem, given: Problem, seed: int) -> Peer:
    if peer == RANDOM:
        return RandomSearch(given, seed)
    return InProcess(given, seed, forewarned(cliff_of(clean, seed).region) if peer == FOREWARNED else gp.suggest)


@app.default
def main(
    *,
    problems: str = ",".join(SYNTHETIC),
    seeds: str = "0-14",
    trials: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 50,
    output: Annotated[Path, Parameter(show_default=False)] = ROOT / "benchmarks" / "out" / "forewarned.jsonl",
) -> int:
    """Run the engine in this process without a cliff, with one, and with one that it knows after its initial design.

    A figure is the mean scaled regret, with its paired difference to that without a cliff and the standard error; below, the ratios of the
    means, and of the means over problems of the medians of seeds, with 90 % bootstrap intervals over seeds. What the last column leaves is
    no matter of finding out where the cliff is.

    Parameters
    ----------
    problems
        Which.
    seeds
        Such as 0-14.
    trials
        Asks in each run.
    output
        A file of the runs; what it has of this engine is not run again.
    """
    names, numbers = problems.split(","), parse_seeds(seeds)
    done = records.done(records.read_file(output), trials=trials, engine=engine_version())
    peers = (RANDOM, CLEAN, CLIFF, FOREWARNED)
    todo = [each for each in product(numbers, names, peers) if (each[2], each[1], each[0]) not in done]
    console = Console(width=None if sys.stdout.isatty() else 140)
    with Progress(console, runs=len(todo)) as progress:
        for seed, name, peer in todo:
            progress.begin(f"{peer} on {name}", runs=1, trials=trials)
            advance = partial(_advance, progress, seed, trials)
            records.append(output, run(name, peer, seed, trials, progress=advance))
    board = Board.of(records.read_file(output), problems=names, seeds=numbers, trials=trials)
    console.print(table(board, trials))
    return 0


def _advance(progress: Progress, seed: int, trials: int, done: int) -> None:
    progress.advance(seed, done, last=done == trials)


def table(board: Board, trials: int) -> Table:
    """What a cliff costs the engine, and one that knows it."""
    shown = Table(title=f"Scaled regret after {trials} trials, {len(board.seeds)} seeds")
    for header in ("problem", CLEAN, CLIFF, FOREWARNED):
        shown.add_column(header, justify="left" if header == "problem" else "right")
    regrets = {peer: np.array([board.scaled(peer, name, trials) for name in board.problems]) for peer in board.peers}
    for place, name in enumerate(board.problems):
        own = [_figure(regrets[peer][place], regrets[CLEAN][place]) for peer in (CLIFF, FOREWARNED)]
        shown.add_row(name, f"{regrets[CLEAN][place].mean():.3f}", *own)
    shown.add_section()
    for label, summary in (("times the clean", np.mean), ("by the medians of seeds", np.median)):
        ratios = [_ratio(regrets[peer], regrets[CLEAN], summary) for peer in (CLIFF, FOREWARNED)]
        shown.add_row(label, "1", *ratios)
    return shown


def _figure(regrets: Vector, clean: Vector) -> str:
    gaps = regrets - clean
    return f"{regrets.mean():.3f} ({gaps.mean():+.3f} ± {gaps.std(ddof=1) / np.sqrt(len(gaps)):.3f})"


def _ratio(regrets: Matrix, clean: Matrix, summary: Callable[..., Vector]) -> str:
    """Of the means over problems of a summary over seeds (`problems x seeds`); seeds are resampled for each problem, in pairs."""
    generator = np.random.default_rng(0)
    places = generator.integers(regrets.shape[1], size=(RESAMPLES, *regrets.shape))
    drawn = [summary(np.take_along_axis(each[None], places, axis=2), axis=2).sum(axis=1) for each in (regrets, clean)]
    low, high = np.quantile(drawn[0] / drawn[1], INTERVAL)
    ratio = summary(regrets, axis=1).sum() / summary(clean, axis=1).sum()
    return f"{ratio:.2f} ({low:.2f} – {high:.2f})"


if __name__ == "__main__":
    sys.exit(app())
