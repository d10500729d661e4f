"""Workers that train on a simulated clock, an epoch a tick, and stop a training when they are told to.

A program of every peer's environment: `python -m benchmarks.simulation PEER FAMILY SEED TRIALS EPOCHS` prints what came of it as JSON. It
ends after so many trials, or, if EPOCHS is not 0, once so many epochs are spent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from benchmarks.problem import Problem
from benchmarks.trainings import EPOCHS, FAMILIES, NOISE, WORST, Curve, Family

WORKERS = 4


class Stopper(Protocol):
    """One optimisation under way, whose trainings may be stopped."""

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A token of the peer's own, and a configuration."""

    def report(self, token: Any, epoch: int, loss: float) -> bool:
        """Whether to stop after this epoch."""

    def tell(self, token: Any, loss: float, *, stopped: bool) -> None:
        """The last loss of a training."""


PEERS: Mapping[str, tuple[str, str]] = {"asktell": ("asktell_rules", "Asktell"), "optuna": ("optuna_pruners", "Optuna")}


@dataclass(slots=True)
class Run:
    """What came of it: epochs and trials, those that were stopped, the best training's loss without noise, and after how many epochs."""

    epochs: int = 0
    trials: int = 0
    stopped: int = 0
    best: float = WORST
    trace: list[tuple[int, float]] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)


@dataclass(slots=True)
class _Training:
    token: Any
    curve: Curve
    noise: np.random.Generator
    losses: list[float] = field(default_factory=list)


class Simulation:
    """Four workers on one optimisation."""

    def __init__(self, peer: Stopper, family: Family, seed: int) -> None:
        self._peer, self._family, self._seed = peer, family, seed
        self._run, self._lowest = Run(), WORST + 1.0

    def run(self, *, trials: int, epochs: int) -> Run:
        """Train until so many trials have ended, or so many epochs are spent if that is not 0."""
        busy: list[_Training] = []
        while True:
            while len(busy) < WORKERS and (epochs or self._run.trials < trials):
                busy.append(self._begin())
            if not busy or (epochs and self._run.epochs >= epochs):
                return self._run
            # In turns: a worker is a little ahead of the next, as they would be.
            busy = [training for training in busy if self._goes_on(training)]

    def _begin(self) -> _Training:
        self._run.trials += 1
        token, configuration = self._peer.ask()
        noise = np.random.default_rng([self._seed, self._run.trials])
        return _Training(token, self._family.curve(configuration), noise)

    def _goes_on(self, training: _Training) -> bool:
        epoch = len(training.losses) + 1
        truth = training.curve(epoch)
        loss = truth + NOISE * float(training.noise.standard_normal())
        training.losses.append(loss)
        self._run.epochs += 1
        if loss < self._lowest:
            # What a user would pick is what was measured as best; what it is worth is its loss without noise.
            self._lowest, self._run.best = loss, truth
            self._run.trace.append((self._run.epochs, truth))
        stop = self._peer.report(training.token, epoch, loss) and epoch < EPOCHS
        if not stop and epoch < EPOCHS:
            return True
        self._run.stopped += stop
        self._run.curves.append(training.losses)
        self._peer.tell(training.token, loss, stopped=stop)
        return False


def start(peer: str, problem: Problem, seed: int) -> Stopper:
    """A peer such as `asktell:median`: of its module, with an option."""
    name, _, option = peer.partition(":")
    module, cls = PEERS[name]
    made: Stopper = getattr(import_module(f"benchmarks.peers.{module}"), cls)(problem, seed, option)
    return made


def main(peer: str, name: str, seed: str, trials: str, epochs: str) -> None:
    """Run one, and print it."""
    family = FAMILIES[name](int(seed))
    simulation = Simulation(start(peer, family.problem, int(seed)), family, int(seed))
    print(json.dumps(asdict(simulation.run(trials=int(trials), epochs=int(epochs)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
