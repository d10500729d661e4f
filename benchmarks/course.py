"""One optimisation from its first ask to its last tell, with simulated workers."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.meter import Meter
from benchmarks.peers import PEERS, Peer
from benchmarks.problem import Outcome, Problem
from benchmarks.records import Run

DIGITS = 5
"""Seconds are recorded to so many decimals."""
SHORTEST, LONGEST = 0.5, 2.0
"""Simulated training times, so that several workers finish out of order."""

_Running = list[tuple[float, int, Any, dict[str, Any], Outcome]]


@dataclass(slots=True)
class Course:
    """An optimisation under way: what was asked and told, and how long it took."""

    problem: Problem
    peer: Peer
    meter: Meter
    outcomes: list[Outcome] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    asks: list[float] = field(default_factory=list)
    tells: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, *, trials: int, workers: int, seed: int, progress: Callable[[int], None]) -> None:
        """Ask and tell; at most `workers` trials are asked and not yet told. The simulated clock depends on the seed alone."""
        clock, now = random.Random(seed), 0.0
        running: _Running = []
        for number in range(trials):
            while len(running) >= workers:
                now, _, token, configuration, outcome = heapq.heappop(running)
                self._tell(token, configuration, outcome)
            token, configuration = self._ask()
            outcome = self.problem.outcome(configuration)
            self._score(configuration, outcome)
            heapq.heappush(running, (now + clock.uniform(SHORTEST, LONGEST), number, token, configuration, outcome))
            progress(number + 1)
        while running:
            _, _, token, configuration, outcome = heapq.heappop(running)
            self.peer.tell(token, configuration, outcome)

    def _score(self, configuration: dict[str, Any], outcome: Outcome) -> None:
        self.outcomes.append(self.problem.scored(configuration, outcome))
        self.values.append(self.problem.loss(self.outcomes))

    def _ask(self) -> tuple[Any, dict[str, Any]]:
        cpu, began = self.meter.cpu(), time.perf_counter()
        answer = self.peer.ask()
        self.asks.append(round(time.perf_counter() - began, DIGITS))
        self.cpu.append(round(self.meter.cpu() - cpu, DIGITS))
        self.meter.peak()
        return answer

    def _tell(self, token: Any, configuration: dict[str, Any], outcome: Outcome) -> None:
        began = time.perf_counter()
        self.peer.tell(token, configuration, outcome)
        self.tells.append(round(time.perf_counter() - began, DIGITS))


def recorded(
    name: str,
    problem: Problem,
    *,
    seed: int,
    trials: int,
    workers: int,
    meter: Meter,
    engine: str = "",
    progress: Callable[[int], None] = lambda _done: None,
) -> Run:
    """Run a peer on a problem from the start to the end."""
    began = time.perf_counter()
    course = Course(problem, PEERS[name].load()(problem, seed), meter)
    setup = time.perf_counter() - began
    course.run(trials=trials, workers=workers, seed=seed, progress=progress)
    return Run(
        peer=name,
        problem=problem.name,
        seed=seed,
        y=tuple(course.values),
        outcomes=_several(problem, course.outcomes),
        ask=tuple(course.asks),
        tell=tuple(course.tells),
        cpu=tuple(course.cpu),
        best=problem.best,
        workers=workers,
        setup=round(setup, 3),
        rss_mb=meter.peak(),
        engine=engine,
    )


def _several(problem: Problem, outcomes: list[Outcome]) -> tuple[tuple[float, ...], ...]:
    """The outcomes as rows, objectives before constraints, where they are more than a value each."""
    return tuple((*outcome.objectives, *outcome.constraints) for outcome in outcomes) if problem.several else ()
