"""Shows what preparing candidates ahead brings and costs: `make bench-speculation`, or `python -m benchmarks.speculation --help`.

Workers train for real seconds here, which the simulated clock of the other benchmarks does not give: only then is there time to prepare.
"""

from __future__ import annotations

import heapq
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asktell.client import Trial
from benchmarks import records
from benchmarks.peers.served import Served
from benchmarks.problems import problem
from benchmarks.score import WORST, Board
from benchmarks.seeds import parsed as parse_seeds
from benchmarks.server import ROOT, end_in_order, served
from benchmarks.synthetic import SYNTHETIC

ARMS: Mapping[str, str] = {"prepared ahead": "true", "chosen when asked": "false"}
RANDOM_RUNS = ROOT / "benchmarks" / "results" / "parallel" / "random.jsonl"
SHORTEST, LONGEST = 1.0, 4.0
"""Seconds that a training takes."""
QUICK = 0.01
"""Seconds within which an ask that finds a candidate should be met."""

app = cyclopts.App(
    name="python -m benchmarks.speculation",
    help="Compare asks that find prepared candidates with asks that wait for the engine: how good, and how quick.",
    help_epilogue="For example: python -m benchmarks.speculation --problems branin,levy8 --seeds 0-1 --workers 16",
    result_action="return_value",
)


@dataclass(slots=True)
class Seen:
    """What the asks of an arm took, and how many changes of the study their candidates did not know of."""

    asks: list[float] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)

    def note(self, trial: Trial, seconds: float) -> None:
        """Take in an ask."""
        self.asks.append(seconds)
        self.lags.append(trial.record.sequence - 1 - trial.record.origin.made_for)


def run(name: str, *, seed: int, workers: int, trials: int, arm: str, seen: Seen) -> records.Run:
    """One study whose workers each train for a random time; what it found, and into `seen` what its asks took."""
    made, clock, began = problem(name, seed), random.Random(seed), time.monotonic()
    peer = Served(made, seed)
    values: list[float] = []
    running: list[tuple[float, int, Trial, float]] = []
    for number in range(trials):
        while len(running) >= workers:
            _finish(heapq.heappop(running), began)
        asked = time.perf_counter()
        trial, configuration = peer.ask()
        seen.note(trial, time.perf_counter() - asked)
        values.append(float(made.function(configuration)))
        ends = time.monotonic() - began + clock.uniform(SHORTEST, LONGEST)
        heapq.heappush(running, (ends, number, trial, values[-1]))
    while running:
        _finish(heapq.heappop(running), began)
    return records.Run(
        peer=arm,
        problem=name,
        seed=seed,
        y=tuple(values),
        ask=tuple(seen.asks[-trials:]),
        best=made.best,
        workers=workers,
    )


def _finish(training: tuple[float, int, Trial, float], began: float) -> None:
    ends, _, trial, value = training
    time.sleep(max(ends - (time.monotonic() - began), 0.0))
    trial.tell({"y": value})


def compare(
    problems: Sequence[str], seeds: Sequence[int], *, workers: int, trials: int, console: Console
) -> tuple[list[records.Run], dict[str, Seen]]:
    """All runs of both arms, each on a server of its own, in turns."""
    runs: list[records.Run] = []
    seen = {arm: Seen() for arm in ARMS}
    cells = [(name, seed, arm) for name in problems for seed in seeds for arm in ARMS]
    for name, seed, arm in track(cells, description="studies", console=console, disable=not console.is_terminal):
        with _serving(arm):
            runs.append(run(name, seed=seed, workers=workers, trials=trials, arm=arm, seen=seen[arm]))
        if not console.is_terminal:
            console.print(f"{name}, seed {seed}, {arm}: best {min(runs[-1].y):.5g}")
    return runs, seen


@contextmanager
def _serving(arm: str) -> Iterator[None]:
    """A server that prepares candidates, or does not; the SDK finds it by the environment."""
    os.environ["ASKTELL_SPECULATE"] = ARMS[arm]
    with tempfile.TemporaryDirectory() as directory, served(Path(directory)) as server:
        os.environ["ASKTELL_TARGET"] = server.target
        yield


def table(runs: Iterable[records.Run], seen: Mapping[str, Seen], *, trials: int) -> Table:
    """The arms side by side."""
    runs = list(runs)
    problems, seeds = sorted({each.problem for each in runs}), sorted({each.seed for each in runs})
    recorded = [each for each in records.read_file(RANDOM_RUNS) if each.problem in problems and each.seed in seeds]
    board = Board.of([*runs, *recorded], problems=problems, seeds=seeds, trials=trials)
    shown = Table(
        "", *ARMS, title=f"{len(problems)} problems, {len(seeds)} seeds, {trials} trials", title_justify="left"
    )
    for name, row in _rows(board, seen, trials=trials):
        shown.add_row(name, *row)
    return shown


def _rows(board: Board, seen: Mapping[str, Seen], *, trials: int) -> Iterator[tuple[str, list[str]]]:
    for part in (trials // 2, trials):
        regrets = {arm: [_mean(board, arm, part, name) for name in board.problems] for arm in ARMS}
        yield f"mean scaled regret at {part}", [f"{statistics.mean(regrets[arm]):.3f}" for arm in ARMS]
    yield "ask, median", [f"{1e3 * statistics.median(seen[arm].asks):.1f} ms" for arm in ARMS]
    yield f"asks within {1e3 * QUICK:g} ms", [_share(ask <= QUICK for ask in seen[arm].asks) for arm in ARMS]
    yield "candidates that lack a result", [_share(lag > 0 for lag in seen[arm].lags) for arm in ARMS]
    found = [[ask for ask, lag in zip(seen[arm].asks, seen[arm].lags, strict=True) if lag > 0] for arm in ARMS]
    yield "their asks, median", [f"{1e3 * statistics.median(asks):.1f} ms" if asks else "-" for asks in found]


def _mean(board: Board, arm: str, trials: int, name: str) -> float:
    return statistics.mean(min(regret, WORST) for regret in board.scaled(arm, name, trials))


def _share(those: Iterable[bool]) -> str:
    listed = list(those)
    return f"{sum(listed) / len(listed):.0%}"


@app.default
def main(
    *,
    problems: str = ",".join(SYNTHETIC),
    seeds: str = "0-2",
    workers: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 8,
    trials: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 80,
) -> int:
    """Compare the two, and print the table.

    Parameters
    ----------
    problems
        Names, separated by commas.
    seeds
        Such as 0-2 or 0,2,5; of those that random search was recorded with.
    workers
        How many train at a time; with one, no candidate may lack a result.
    trials
        Asks in each study.
    """
    end_in_order()
    console = Console()
    runs, seen = compare(problems.split(","), parse_seeds(seeds), workers=workers, trials=trials, console=console)
    console.print(table(runs, seen, trials=trials))
    return 0


if __name__ == "__main__":
    sys.exit(app())
