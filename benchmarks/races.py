"""Asks of asktell and of peers, taking turns on the same problems in the same minutes: what counts is their ratio."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import records
from benchmarks.peers import ASKTELL
from benchmarks.progress import Progress
from benchmarks.running import Job, Places, run
from benchmarks.server import Broken
from benchmarks.suites import Suite
from benchmarks.timings import Row, Say, milliseconds, temporary_server

AROUND = 5
"""So many asks before and after the one that is named are taken."""


@dataclass(frozen=True, slots=True)
class Race:
    """What is asked, at how many observations, and which share of the peers' time asktell may take at most."""

    title: str
    suite: Suite
    observations: int
    bars: Mapping[str, float]

    @property
    def asks(self) -> slice:
        """The asks with about so many observations."""
        return slice(self.observations - AROUND, self.observations + AROUND)


def _suite(name: str, *problems: str, observations: int, peers: tuple[str, ...]) -> Suite:
    return Suite(name, "one worker", problems, trials=observations + AROUND, peers=(ASKTELL, *peers))


RACES: Mapping[str, Race] = {
    "race": Race(
        "n = 50, d = 6",
        _suite("race", "hartmann6", "griewank6", observations=50, peers=("optuna_gp", "ax")),
        observations=50,
        bars={"optuna_gp": 0.25, "ax": 0.05},
    ),
    "two-objectives": Race(
        "two objectives, n = 60, d = 6",
        _suite("two-objectives", "two_bowls6", observations=60, peers=("optuna_gp", "ax")),
        observations=60,
        bars={"ax": 0.5},
    ),
}


def runs_of(race: Race, places: Places, *, seeds: tuple[int, ...]) -> int:
    """How many runs the race takes with the peers that are installed."""
    return len(_racers(race, places)) * len(race.suite.problems) * len(seeds)


def raced(race: Race, say: Say, places: Places, progress: Progress, *, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Run the race, and say what each took."""
    racers = _racers(race, places)
    say(f"Racing {', '.join(racers)}")
    runs = _runs(race, places, progress, seeds=seeds)
    figures = {peer: _figures([run for run in runs if run.peer == peer], race.asks) for peer in racers}
    for peer in racers:
        row: dict[str, float | str] = {
            "median ms": milliseconds(figures[peer][0]),
            "mean CPU ms": milliseconds(figures[peer][1]),
        }
        if peer != ASKTELL:
            row["asktell / it"] = round(figures[ASKTELL][0] / figures[peer][0], 3)
            row["asktell / it, CPU"] = round(figures[ASKTELL][1] / figures[peer][1], 3)
        bar = f"asktell takes at most {race.bars[peer]:g} of it" if peer in race.bars else ""
        yield Row(f"{race.title}: {peer}", row, bar)


def _racers(race: Race, places: Places) -> list[str]:
    return [peer for peer in race.suite.peers if places.python(peer)]


def _runs(race: Race, places: Places, progress: Progress, *, seeds: tuple[int, ...]) -> list[records.Run]:
    """The runs, whose files are not kept: the seconds are of these minutes."""
    with tempfile.TemporaryDirectory(prefix="asktell-race-") as directory, temporary_server() as server:
        ours = Places(places.recorded, Path(directory), places.environments)
        jobs = [
            Job(race.suite, peer, problem, (seed,), race.suite.trials)
            for seed in seeds
            for problem in race.suite.problems
            for peer in _racers(race, places)
        ]
        failures = run(jobs, ours, server, progress)
        if failures:
            raise Broken("\n".join(failures))
        return records.read(Path(directory) / race.suite.name)


def _figures(runs: list[records.Run], asks: slice) -> tuple[float, float]:
    seconds = [second for run in runs for second in run.ask[asks]]
    return statistics.median(seconds), statistics.mean(second for run in runs for second in run.cpu[asks])
