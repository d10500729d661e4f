"""Workers that train on a simulated clock, an epoch a tick, stop a training when they are told to, and go on with it if it comes again.

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
        """A token of the peer's own, and a configuration: one that was stopped goes on where it was left."""

    def report(self, token: Any, epoch: int, loss: float) -> bool:
        """Whether to stop after this epoch."""

    def tell(self, token: Any, loss: float, *, stopped: bool) -> None:
        """The last loss of a training."""


PEERS: Mapping[str, tuple[str, str]] = {
    "asktell": ("asktell_rules", "Asktell"),
    "rungs": ("asktell_rungs", "Asktell"),
    "optuna": ("optuna_pruners", "Optuna"),
}


@dataclass(slots=True)
class Run:
    """What came of it: epochs and trials, those that were stopped, the best training's loss without noise, and after how many epochs."""

    epochs: int = 0
    trials: int = 0
    stopped: int = 0
    best: float = WORST
    trace: list[tuple[int, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Training:
    """Of one configuration, in however many trials: how many epochs it has, and the last loss that was measured."""

    curve: Curve
    noise: np.random.Generator
    epochs: int = 0
    loss: float = WORST

    def train(self) -> float:
        """One epoch more; the loss after it, without noise."""
        self.epochs += 1
        truth = self.curve(self.epochs)
        self.loss = truth + NOISE * float(self.noise.standard_normal())
        return truth


@dataclass(frozen=True, slots=True)
class _Trial:
    token: Any
    training: _Training


class Simulation:
    """Four workers on one optimisation."""

    def __init__(self, peer: Stopper, family: Family, seed: int) -> None:
        self._peer, self._family, self._seed = peer, family, seed
        self._run, self._lowest = Run(), WORST + 1.0
        self._trainings: dict[tuple[object, ...], _Training] = {}

    def run(self, *, trials: int, epochs: int) -> Run:
        """Train until so many trials have ended, or so many epochs are spent if that is not 0."""
        busy: list[_Trial] = []
        while True:
            while len(busy) < WORKERS and (epochs or self._run.trials < trials):
                busy.append(self._begin())
            if not busy or (epochs and self._run.epochs >= epochs):
                return self._run
            # In turns: a worker is a little ahead of the next, as they would be.
            busy = [trial for trial in busy if self._goes_on(trial)]

    def _begin(self) -> _Trial:
        self._run.trials += 1
        token, configuration = self._peer.ask()
        return _Trial(token, self._training(configuration))

    def _training(self, configuration: Mapping[str, Any]) -> _Training:
        """That of the configuration, where it was left; a new one if it came to its end."""
        known = tuple(configuration.items())
        if known not in self._trainings or self._trainings[known].epochs == EPOCHS:
            noise = np.random.default_rng([self._seed, len(self._trainings) + 1])
            self._trainings[known] = _Training(self._family.curve(configuration), noise)
        return self._trainings[known]

    def _goes_on(self, trial: _Trial) -> bool:
        training = trial.training
        truth = training.train()
        epoch, loss = training.epochs, training.loss
        self._run.epochs += 1
        if loss < self._lowest:
            # What a user would pick is what was measured as best; what it is worth is its loss without noise.
            self._lowest, self._run.best = loss, truth
            self._run.trace.append((self._run.epochs, truth))
        stop = self._peer.report(trial.token, epoch, loss) and epoch < EPOCHS
        if not stop and epoch < EPOCHS:
            return True
        self._run.stopped += stop
        self._peer.tell(trial.token, loss, stopped=stop)
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
