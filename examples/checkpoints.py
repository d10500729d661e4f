"""A training that saves its state, on a machine that dies under it.

Run it with `python -m examples.checkpoints`: a server starts in this process on a new database, and a worker that is killed in the midst of a
training; a second worker goes on where the state was saved.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

from asktell.client import Client, Float, Minimize, Study

EPOCHS = 40
SECONDS_AN_EPOCH = 0.1


class Place(Protocol):
    """What the training needs of its trial."""

    checkpoint_dir: Path


def objective(parameters: dict[str, Any], trial: Place) -> dict[str, float]:
    """Minimise (w - 3)^2 by gradient descent, an epoch a step. It need not know whether it is the first to try."""
    state = trial.checkpoint_dir / "state.json"
    saved = json.loads(state.read_text()) if state.exists() else {"epoch": 0, "w": 0.0}
    epoch, w, first = saved["epoch"], saved["w"], saved["epoch"]
    while epoch < EPOCHS:
        w -= parameters["learning_rate"] * 2 * (w - 3)
        epoch += 1
        time.sleep(SECONDS_AN_EPOCH)
        save(state, {"epoch": epoch, "w": w})
    return {"loss": (w - 3) ** 2, "first_epoch": first}


def save(path: Path, state: dict[str, float]) -> None:
    """Under another name first: a process that is killed while it writes leaves the state before."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(state))
    partial.replace(path)


def start_worker(study: Study, target: str, root: Path) -> subprocess.Popen[bytes]:
    """A worker as one would start it on any machine."""
    command = [sys.executable, "-m", "asktell.worker", "--study", study.id, "--target", target]
    return subprocess.Popen(  # noqa: S603
        [
            *command,
            "--checkpoints",
            str(root / "checkpoints"),
            "--logs",
            str(root / "logs"),
            "examples.checkpoints:objective",
        ]
    )


def wait_for_epoch(study: Study, root: Path, epoch: int) -> None:
    """Wait until the first trial has saved that epoch, and the service knows where."""
    state = root / "checkpoints" / "default" / study.id / "1" / "attempt-1" / "state.json"
    while not state.exists() or json.loads(state.read_text())["epoch"] < epoch or not study.get_trial(1).checkpoint_uri:
        time.sleep(SECONDS_AN_EPOCH)


def main() -> None:
    """Kill the first worker, and let a second one finish."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "study.db") as client:
        root = Path(folder)
        study = client.create_study(
            "checkpoints",
            parameters=[Float("learning_rate", 0.01, 0.2, log=True)],
            objectives=[Minimize("loss")],
            max_trials=2,
            lease_duration=2.0,
            seed=0,
        )
        doomed = start_worker(study, client.target, root)
        wait_for_epoch(study, root, epoch=10)
        doomed.kill()
        doomed.wait()
        start_worker(study, client.target, root).wait()
        for trial in study.list_trials():
            first = round(trial.value("first_epoch"))
            print(f"trial {trial.number}: attempt {trial.attempt} went on from epoch {first} of {EPOCHS}")


if __name__ == "__main__":
    main()
