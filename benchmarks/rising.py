"""Workers that train on a simulated clock, an epoch a tick, as many epochs as a trial says, and go on from what was trained before.

`python -m benchmarks.rising POLICY FAMILY SEED EPOCHS` prints what came of it as JSON, in the form of `benchmarks.simulation`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.peers.asktell_rungs import FIDELITY, Asktell
from benchmarks.simulation import WORKERS, Run
from benchmarks.trainings import FAMILIES, NOISE, WORST, Curve, Family


@dataclass(slots=True)
class _Training:
    """Of one configuration, at however many rungs: what was measured epoch by epoch."""

    curve: Curve
    noise: np.random.Generator
    losses: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Trial:
    number: int
    upto: int
    training: _Training


class Rise:
    """Four workers on one study with a fidelity."""

    def __init__(self, peer: Asktell, family: Family, seed: int) -> None:
        self._peer, self._family, self._seed = peer, family, seed
        self._run, self._lowest = Run(), WORST + 1.0
        self._trainings: dict[tuple[object, ...], _Training] = {}

    def run(self, *, epochs: int) -> Run:
        """Train until so many epochs are spent."""
        busy: list[_Trial] = []
        while self._run.epochs < epochs:
            while len(busy) < WORKERS:
                busy.append(self._begin())
            busy = [trial for trial in busy if self._goes_on(trial)]
        return self._run

    def _begin(self) -> _Trial:
        self._run.trials += 1
        number, parameters = self._peer.ask()
        upto = parameters.pop(FIDELITY.parameter)
        return _Trial(number, upto, self._training(parameters))

    def _training(self, parameters: Mapping[str, Any]) -> _Training:
        """That of the configuration, where it was left: its checkpoint."""
        known = tuple(parameters.items())
        if known not in self._trainings:
            noise = np.random.default_rng([self._seed, len(self._trainings) + 1])
            self._trainings[known] = _Training(self._family.curve(parameters), noise)
        return self._trainings[known]

    def _goes_on(self, trial: _Trial) -> bool:
        training = trial.training
        epoch = len(training.losses) + 1
        truth = training.curve(epoch)
        loss = truth + NOISE * float(training.noise.standard_normal())
        training.losses.append(loss)
        self._run.epochs += 1
        if loss < self._lowest:
            # As in `benchmarks.simulation`: what a user would pick is what was measured as best.
            self._lowest, self._run.best = loss, truth
            self._run.trace.append((self._run.epochs, truth))
        if epoch < trial.upto:
            return True
        self._peer.tell(trial.number, loss)
        return False


def main(policy: str, name: str, seed: str, epochs: str) -> None:
    """Run one, and print it."""
    family = FAMILIES[name](int(seed))
    print(
        json.dumps(asdict(Rise(Asktell(family.problem, int(seed), policy), family, int(seed)).run(epochs=int(epochs))))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
