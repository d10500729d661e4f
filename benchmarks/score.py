"""How peers compare on the problems that all of them ran.

A run's score is its **scaled regret**: the regret of its best value, divided by the median regret of random search with as many trials.
0 is the best value known, 1 is what random search gets.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.cliffs import SUFFIX
from benchmarks.problems import seedless
from benchmarks.records import Run

RANDOM = "random"
WORST = 1.5
"""A scaled regret counts at most so much in a mean: one lost run says no more than that it was lost."""
LEAST_SCALE = 1e-9
RESAMPLES = 500
INTERVAL = (0.05, 0.95)

Cell = tuple[str, int]
"""A problem and a seed."""


@dataclass(frozen=True, slots=True)
class Board:
    """The runs of peers that ran all of the problems with all of the seeds."""

    problems: tuple[str, ...]
    seeds: tuple[int, ...]
    peers: tuple[str, ...]
    missing: Mapping[str, int]
    """How many runs are missing of each peer that was left out."""
    runs: Mapping[tuple[str, str, int], Run]

    @classmethod
    def of(cls, runs: Iterable[Run], *, problems: Sequence[str], seeds: Sequence[int], trials: int) -> Board:
        """The runs that are long enough, sorted into peers that are complete and those that are not."""
        cells = [(problem, seed) for problem in problems for seed in seeds]
        long = {run.cell: run for run in runs if len(run.y) >= trials and run.cell[1:] in set(cells)}
        missing = {
            peer: sum((peer, *cell) not in long for cell in cells)
            for peer in sorted({peer for peer, _, _ in long} | {RANDOM})
        }
        peers = tuple(peer for peer, count in missing.items() if not count)
        left_out = {peer: count for peer, count in missing.items() if count}
        return cls(tuple(problems), tuple(seeds), peers, left_out, long)

    def of_peer(self, peer: str) -> list[Run]:
        """All runs of a peer."""
        return [self.runs[peer, problem, seed] for problem in self.problems for seed in self.seeds]

    def seeds_of(self, peer: str) -> tuple[int, ...]:
        """The seeds with which a peer ran all of the problems."""
        return tuple(
            seed for seed in self.seeds if all((peer, problem, seed) in self.runs for problem in self.problems)
        )

    def floor(self, problem: str, seed: int) -> float:
        """The best value known: of the function or by any peer, with any seed where the problem is the same for all."""
        seeds = self.seeds if seedless(problem) else (seed,)
        found = [min(self.runs[peer, problem, other].y) for peer in self.peers for other in seeds]
        known = self.runs[RANDOM, problem, seed].best
        return min(found if known is None else [*found, known])

    def scale(self, problem: str, trials: int) -> float:
        """Random search's median regret after so many trials; that of one random trial where random search found the best."""
        median = statistics.median(self.regret(RANDOM, problem, seed, trials) for seed in self.seeds)
        return median if median > LEAST_SCALE else max(self._typical_regret(problem), LEAST_SCALE)

    def _typical_regret(self, problem: str) -> float:
        return statistics.median(
            value - self.floor(problem, seed) for seed in self.seeds for value in self.runs[RANDOM, problem, seed].y
        )

    def regret(self, peer: str, problem: str, seed: int, trials: int) -> float:
        """How much worse than the best value known a run's best value is after so many trials."""
        return min(self.runs[peer, problem, seed].y[:trials]) - self.floor(problem, seed)

    def scaled(self, peer: str, problem: str, trials: int) -> list[float]:
        """The scaled regret with each seed."""
        scale = self.scale(problem, trials)
        return [self.regret(peer, problem, seed, trials) / scale for seed in self.seeds]

    def hypervolumes(self, peer: str, problem: str, trials: int) -> list[float]:
        """The share of the best known hypervolume that was found with each seed; of problems whose loss is `losses.Hypervolume`."""
        return [1 - min(1.0, *self.runs[peer, problem, seed].y[:trials]) for seed in self.seeds]

    def mean_rank(self, peer: str, trials: int) -> float:
        """The mean place among the peers, 1 the best, over problems and seeds; who is equal shares the mean of the places."""
        return statistics.mean(
            self._rank(peer, problem, seed, trials) for problem in self.problems for seed in self.seeds
        )

    def _rank(self, peer: str, problem: str, seed: int, trials: int) -> float:
        values = {other: min(self.runs[other, problem, seed].y[:trials]) for other in self.peers}
        places = [place for place, value in enumerate(sorted(values.values()), 1) if value == values[peer]]
        return statistics.mean(places)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its bootstrap interval over seeds."""

    mean: float
    low: float
    high: float


def mean_hypervolume(board: Board, peer: str, trials: int) -> Mean:
    """The mean share of the best known hypervolume, over problems."""
    return _mean(np.array([board.hypervolumes(peer, problem, trials) for problem in board.problems]))


def mean_regret(board: Board, peer: str, trials: int) -> Mean:
    """The mean scaled regret over problems, each run's at most `WORST`."""
    return _mean(np.minimum([board.scaled(peer, problem, trials) for problem in board.problems], WORST))


def _mean(rows: npt.NDArray[np.float64]) -> Mean:
    """Of figures, `problems x seeds`."""
    generator = np.random.default_rng(0)
    resampled = [_resampled(rows, generator).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, INTERVAL)
    return Mean(float(rows.mean()), float(low), float(high))


def _resampled(rows: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.array([generator.choice(row, len(row)) for row in rows])


@dataclass(frozen=True, slots=True)
class Cost:
    """What a peer's asks took: seconds, and MiB of memory; None where it was not measured."""

    median: float
    slow: float
    cpu: float | None
    memory: int


def cost(board: Board, peer: str) -> Cost:
    """Of all asks: median and 95th percentile of the seconds, mean processor seconds, peak memory."""
    runs = board.of_peer(peer)
    asks = [seconds for run in runs for seconds in run.ask]
    cpu = [seconds for run in runs for seconds in run.cpu]
    median, slow = np.quantile(asks, [0.5, 0.95])
    return Cost(float(median), float(slow), statistics.mean(cpu) if cpu else None, max(run.rss_mb for run in runs))


@dataclass(frozen=True, slots=True)
class Fall:
    """What a cliff costs: the mean scaled regrets without and with it, the standard error of their paired difference, and the medians."""

    clean: float
    cliff: float
    error: float
    clean_median: float
    cliff_median: float


def falls(
    clean: Iterable[Run], cliffs: Iterable[Run], *, seeds: Sequence[int], trials: int
) -> dict[str, dict[str, Fall]]:
    """What a cliff costs each peer on each problem, of those that it ran with all seeds both ways.

    Both regrets are over the best value known of the problem without its cliff, and by the scale of random search without it.
    """
    with_cliff = {run.cell: run for run in cliffs if len(run.y) >= trials}
    found: dict[str, dict[str, Fall]] = {}
    known = list(clean)
    for problem in sorted({problem for _, problem, _ in with_cliff}):
        board = Board.of(known, problems=[problem.removesuffix(SUFFIX)], seeds=seeds, trials=trials)
        for peer in board.peers if RANDOM in board.peers else ():
            if all((peer, problem, seed) in with_cliff for seed in seeds):
                found.setdefault(peer, {})[problem] = _fall(
                    board, with_cliff, peer=peer, problem=problem, trials=trials
                )
    return found


def _fall(board: Board, cliffs: Mapping[tuple[str, str, int], Run], *, peer: str, problem: str, trials: int) -> Fall:
    plain = problem.removesuffix(SUFFIX)
    scale = board.scale(plain, trials)
    clean = np.array(board.scaled(peer, plain, trials))
    fallen = np.array(
        [(min(cliffs[peer, problem, seed].y[:trials]) - board.floor(plain, seed)) / scale for seed in board.seeds]
    )
    error = float((fallen - clean).std(ddof=1) / np.sqrt(len(clean))) if len(clean) > 1 else float("nan")
    medians = float(np.median(clean)), float(np.median(fallen))
    return Fall(float(clean.mean()), float(fallen.mean()), error, *medians)
