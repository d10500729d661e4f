# ruff: noqa: E402 - the number of threads is set before NumPy starts them.
"""Compares population based training with searches for constant parameters, all with as many steps of training: `make bench-pbt`."""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import cyclopts
import numpy as np
from rich.console import Console
from rich.table import Table

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Candidate, Observation, SuggestRequest
from asktell.server.domain.population import POLICY, Population
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from benchmarks.schedules import SCHEDULES, Schedule, State
from benchmarks.seeds import parsed as parse_seeds

LOSS = Objective("loss", Goal.MINIMIZE)
POLICIES = (POLICY, "random", "gp")

app = cyclopts.App(name="python -m benchmarks.populations", help_format="plaintext", version_flags=[])


@dataclass(slots=True)
class Course:
    """One study in which `workers` trials are always under way, which end in a random order. `intervals` of `steps` each make a training."""

    schedule: Schedule
    policy: str
    seed: int
    size: int
    intervals: int
    steps: int
    workers: int
    observations: list[Observation] = field(default_factory=list)
    running: dict[int, Candidate] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    number: int = 0
    least: float = math.inf

    def run(self) -> float:
        """The least loss at the end of an interval of any training. A trial of a population is an interval, any other a whole training."""
        population = self.policy == POLICY
        trials = self.size * (self.intervals if population else 1)
        order = np.random.default_rng([self.seed, 1])
        while len(self.observations) < trials:
            while len(self.running) < min(self.workers, trials - len(self.observations)) and self._ask(trials):
                pass
            self._end(int(order.choice(sorted(self.running))), intervals=1 if population else self.intervals)
        return self.least

    def _ask(self, trials: int) -> bool:
        """Whether there is another trial for now."""
        request = SuggestRequest(
            space=self.schedule.space,
            objectives=(LOSS,),
            policy=self.policy,
            population=Population(size=self.size) if self.policy == POLICY else None,
            seed=self.seed,
            count=1,
            next_number=self.number + 1,
            observations=tuple(sorted(self.observations, key=lambda seen: seen.number)),
            pending=tuple(each.parameters for each in self.running.values()),
            pending_members=tuple(each.member for each in self.running.values()),
            max_trials=trials,
        )
        candidates = registry.suggest(request).candidates
        for candidate in candidates:
            self.number += 1
            self.running[self.number] = candidate
        return bool(candidates)

    def _end(self, number: int, *, intervals: int) -> None:
        candidate = self.running.pop(number)
        random = np.random.default_rng([self.seed, 2, number])
        state, loss = self.states[candidate.parent] if candidate.parent else self.schedule.start(), math.inf
        for _ in range(intervals):
            state = self.schedule.trained(state, candidate.parameters, random, steps=self.steps)
            loss = self.schedule.loss(state)
            self.least = min(self.least, loss)
        self.states[number] = state
        told = {LOSS.metric: MetricValue(loss)}
        self.observations.append(
            Observation(number, TrialState.SUCCEEDED, candidate.parameters, told, candidate.parent, candidate.member)
        )


def losses(
    schedule: Schedule, policy: str, seeds: Sequence[int], *, size: int, intervals: int, steps: int
) -> list[float]:
    """The least loss by seed, with half as many workers as trainings."""
    workers = max(size // 2, 1)
    return [
        Course(schedule, policy, seed, size=size, intervals=intervals, steps=steps, workers=workers).run()
        for seed in seeds
    ]


@app.default
def compare(
    *,
    schedules: str = ",".join(SCHEDULES),
    policies: str = ",".join(POLICIES),
    seeds: str = "0-9",
    size: int = 8,
    intervals: int = 20,
    steps: int = 25,
) -> None:
    """Compare, by the median and the quartiles over seeds of the least loss.

    Parameters
    ----------
    schedules
        Trainings to compare on, separated by commas.
    policies
        What chooses parameters; all but pbt choose those of a whole training.
    seeds
        Such as 0-9.
    size
        Trainings.
    intervals
        Intervals of a training.
    steps
        Steps of an interval.
    """
    table = Table(
        title=f"least loss of {size} trainings of {intervals} x {steps} steps: median (quartiles) over seeds {seeds}"
    )
    for column in ("training", *policies.split(",")):
        table.add_column(column)
    for name in schedules.split(","):
        found = [
            losses(SCHEDULES[name], policy, parse_seeds(seeds), size=size, intervals=intervals, steps=steps)
            for policy in policies.split(",")
        ]
        table.add_row(name, *map(_summary, found))
    Console(file=sys.stdout, width=110).print(table)


def _summary(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4g}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.4g} ({low:.4g} - {high:.4g})"


if __name__ == "__main__":
    app()
