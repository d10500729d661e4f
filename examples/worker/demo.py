"""A command in any language, tuned in three slots: `python -m examples.worker.demo`.

A server starts in this process on a new database; `asktell work` runs train.sh; `asktell study logs` shows what the best trial wrote.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from asktell.client import Categorical, Client, Float, Minimize

ASKTELL = str(Path(sys.executable).with_name("asktell"))
HERE = Path(__file__).parent


def main() -> None:
    """Tune, and show the best trial's log."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = client.create_study(
            "shell",
            parameters=[
                Float("rate", 1e-4, 1.0, log=True),
                Categorical("optimizer", ["sgd", "adam", "lbfgs"]),
                Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
            ],
            objectives=[Minimize("loss")],
            max_trials=12,
            seed=0,
        )
        # Tried first: what chance alone might leave out, the one that says that it cannot work.
        study.enqueue({"rate": 0.01, "optimizer": "lbfgs"})
        place = ["--target", client.target, "--logs", str(Path(folder) / "logs")]
        options = ["--slots", "3", "--gpus", "none", "--infeasible-exit-code", "42", "--timeout", "60", "--quiet"]
        command = ["./train.sh", "{rate}", "{optimizer}", "[--momentum {momentum}]"]
        subprocess.run([ASKTELL, "work", "--study", study.id, *place, *options, "--", *command], cwd=HERE, check=True)  # noqa: S603
        study.refresh()
        print(study.counts)
        best = study.best_trial
        if best is not None:
            print(f"best: trial {best.number}, what it wrote:", flush=True)
            subprocess.run([ASKTELL, "study", "logs", study.id, str(best.number), *place], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
