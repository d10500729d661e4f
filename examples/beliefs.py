"""What the model of a study believes: expected results, what matters, and how far to trust it.

Run it with `python -m examples.beliefs`: a server starts in this process on a new database.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from asktell.client import Categorical, Client, Float, Int, Minimize, Study, Trial
from asktell.client.spec import ParameterSpec, ParameterValue

PARAMETERS: list[ParameterSpec] = [
    Float("learning_rate", 1e-5, 1e-1, log=True),
    Categorical("optimizer", ["adam", "sgd"]),
    Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
    Int("layers", 1, 4),
    Float("dropout", 0.0, 0.5),
]


def objective(trial: Trial) -> float:
    """A loss that stands in for training: dropout does nothing, and the best is sgd at 0.003 with momentum 0.8 and two layers."""
    values: dict[str, Any] = dict(trial.parameters)
    rate = 0.3 * (math.log10(values["learning_rate"]) + 2.5) ** 2
    choice = 0.4 if values["optimizer"] == "adam" else 2.0 * (values["momentum"] - 0.8) ** 2
    return float(0.1 + rate + choice + 0.05 * (values["layers"] - 2) ** 2)


def show(study: Study) -> None:
    """Print the three answers."""
    guess: dict[str, ParameterValue] = {"learning_rate": 1e-3, "optimizer": "adam", "layers": 2, "dropout": 0.1}
    (prediction,) = study.predict([guess])
    loss = prediction["loss"]
    print(f"expected with adam at 0.001: {loss.mean:.2f} ± {loss.standard_deviation:.2f} (in truth 0.57)")

    shares = study.importance()["loss"]
    print("importance:", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))

    left_out = study.cross_validate()
    within = [abs(each.observed - each.predicted.mean) <= each.predicted.standard_deviation for each in left_out]
    print(f"leave-one-out: {sum(within)} of {len(within)} results within one standard deviation")


def main() -> None:
    """Tune for 40 trials, then ask the model."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = client.create_study(
            "beliefs", parameters=PARAMETERS, objectives=[Minimize("loss")], max_trials=40, seed=0
        )
        study.optimize(objective)
        show(study)


if __name__ == "__main__":
    main()
