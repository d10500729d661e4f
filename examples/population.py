"""A learning rate that falls while eight trainings go on: population based training, with checkpoints in a directory.

Run it with `python -m examples.population [PICTURE.png]`; a server starts in this process on a new database.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import cyclopts
import numpy as np

from asktell.client import Client, Float, Minimize, Population, Study, Trial

MEMBERS, INTERVALS, STEPS = 8, 20, 25
CURVATURES = np.geomspace(0.02, 1.0, 20)
"""What is trained: descent on a quadratic with noisy gradients. A high rate gains ground, a low one loses less of it to noise."""


def train(trial: Trial, folder: Path) -> None:
    """One interval: go on from the checkpoint, if there is one, save the state, and tell the loss and where the state lies."""
    parameters: dict[str, Any] = trial.parameters
    weights, momentum = np.full(20, 10.0), np.zeros(20)
    if trial.checkpoint_uri:
        saved = json.loads(Path(url2pathname(urlparse(trial.checkpoint_uri).path)).read_text())
        weights, momentum = np.array(saved["weights"]), np.array(saved["momentum"])
    noise = np.random.default_rng(trial.number)
    for _ in range(STEPS):
        gradient = CURVATURES * weights + np.sqrt(CURVATURES) * noise.normal(size=20)
        momentum = parameters["momentum"] * momentum + gradient
        weights = weights - parameters["learning_rate"] * momentum
    checkpoint = folder / f"{trial.number}.json"
    checkpoint.write_text(json.dumps({"weights": weights.tolist(), "momentum": momentum.tolist()}))
    trial.tell(loss=float(0.5 * (CURVATURES * weights**2).mean()), checkpoint_uri=checkpoint.as_uri())


def trained(client: Client, folder: Path) -> Study:
    """A population, trained until its budget is spent. As many workers as there are members could do so at once."""
    study = client.create_study(
        "falling",
        parameters=[Float("learning_rate", 1e-4, 1.0, log=True), Float("momentum", 0.0, 0.95)],
        objectives=[Minimize("loss")],
        policy="pbt",
        population=Population(size=MEMBERS),
        max_trials=MEMBERS * INTERVALS,
        seed=0,
    )
    for trial in study.trials():
        with trial:
            train(trial, folder)
    return study


def main(picture: Path | None = None, /) -> None:
    """Train, and show the schedule of the best training; draw it to a file if its name is given."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = trained(client, Path(folder))
        line = study.lineage()
        for trial in (line[0], line[len(line) // 2], line[-1]):
            rate, momentum = trial.parameters["learning_rate"], trial.parameters["momentum"]
            print(f"trial {trial.number}: learning rate {rate:.4f}, momentum {momentum:.2f}, loss {trial.value():.4f}")
        print(f"the best training came through members {' '.join(str(trial.member) for trial in line)}")
        if picture is not None:
            study.plot_lineage().savefig(picture)  # takes the extra `plot`


if __name__ == "__main__":
    cyclopts.run(main, result_action="return_value")
