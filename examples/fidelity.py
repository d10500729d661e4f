"""Trainings that start with three epochs: what does well goes on to nine, 27 and 81, from its checkpoint.

Run it with `python -m examples.fidelity`: a server starts in this process on a new database.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from asktell.client import Client, Fidelity, Float, Int, Minimize, Study, Trial

SAMPLES, DIMENSIONS = 1000, 20
TRIALS = 60
PARAMETERS: list[Float | Int] = [
    Float("learning_rate", 1e-3, 30.0, log=True),
    Float("momentum", 0.0, 0.95),
    Float("decay", 1e-4, 1.0, log=True),
    Int("epochs", 3, 81, log=True),
]
Vector: TypeAlias = npt.NDArray[np.float64]


class Training:
    """A logistic regression by gradient descent, whose state can be kept in a file."""

    def __init__(self, state: Path) -> None:
        generator = np.random.default_rng(1)
        scales = np.geomspace(1.0, 0.1, DIMENSIONS)
        self._inputs = generator.normal(size=(2 * SAMPLES, DIMENSIONS)) * scales
        self._labels = generator.random(2 * SAMPLES) < _sigmoid(
            self._inputs @ (generator.normal(size=DIMENSIONS) / scales)
        )
        kept = json.loads(state.read_text()) if state.is_file() else {}
        self.epoch = int(kept.get("epoch", 0))
        self._weights, self._velocity = (
            np.array(kept.get(part, [0.0] * DIMENSIONS)) for part in ("weights", "velocity")
        )

    def run(self, learning_rate: float, momentum: float, decay: float) -> None:
        """One epoch."""
        inputs, labels = self._inputs[:SAMPLES], self._labels[:SAMPLES]
        errors = _sigmoid(inputs @ self._weights) - labels
        self._velocity = momentum * self._velocity - learning_rate * (errors @ inputs / SAMPLES + decay * self._weights)
        self._weights = self._weights + self._velocity
        self.epoch += 1

    def loss(self) -> float:
        """The validation loss."""
        odds = _sigmoid(self._inputs[SAMPLES:] @ self._weights)
        return float(-np.mean(np.log(np.where(self._labels[SAMPLES:], odds, 1 - odds).clip(1e-9))))

    def save(self, state: Path) -> None:
        """Keep the state."""
        parts = {"weights": self._weights.tolist(), "velocity": self._velocity.tolist()}
        state.parent.mkdir(parents=True)
        state.write_text(json.dumps({"epoch": self.epoch, **parts}))


def _sigmoid(values: Vector) -> Vector:
    odds: Vector = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return odds


def train(trial: Trial, folder: Path) -> int:
    """Train a trial from its parent's checkpoint, if it has one, as many epochs as it says; how many it took."""
    epochs, others = int(str(trial.parameters["epochs"])), dict(trial.parameters)
    del others["epochs"]
    training = Training(Path(trial.checkpoint_uri.removeprefix("file://")))
    first = training.epoch
    while training.epoch < epochs:
        training.run(**others)  # type: ignore[arg-type]
    state = folder / str(trial.number) / "state.json"
    training.save(state)
    trial.tell(loss=training.loss(), checkpoint_uri=state.as_uri())
    return training.epoch - first


def tune(client: Client, folder: Path) -> tuple[Study, int]:
    """A study of trainings that are as long as they deserve, and how many epochs all took together."""
    study = client.create_study(
        "fidelity",
        parameters=[*PARAMETERS],
        objectives=[Minimize("loss")],
        fidelity=Fidelity("epochs", reduction_factor=3),
        max_trials=TRIALS,
        seed=0,
    )
    epochs = 0
    for trial in study.trials():
        with trial:
            epochs += train(trial, folder)
    return study, epochs


def main() -> None:
    """Tune, and say how far which trials came."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study, epochs = tune(client, Path(folder) / "checkpoints")
        trials = study.list_trials()
        rungs = Counter(int(str(trial.parameters["epochs"])) for trial in trials)
        print(f"trials at each rung: {dict(sorted(rungs.items()))}; {epochs} epochs in all")
        best = study.best_trial
        assert best is not None
        print(f"best: trial {best.number}, loss {best.metrics['loss'].value:.4f}, {best.parameters}")
        lineage = [best]
        while lineage[-1].parent:
            lineage.append(study.get_trial(lineage[-1].parent))
        print(
            "it came from",
            ", ".join(f"trial {each.number} ({each.parameters['epochs']} epochs)" for each in lineage[1:]),
        )
        print(f"why: {best.origin.reason}")


if __name__ == "__main__":
    main()
