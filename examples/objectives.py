"""Two objectives that pull apart: the error of a model, and how long it takes to answer.

Run it with `python -m examples.objectives`: a server starts in this process on a new database.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from asktell.client import Categorical, Client, Float, Int, Maximize, Minimize, Study, Trial
from asktell.client.spec import ParameterSpec

PARAMETERS: list[ParameterSpec] = [
    Int("width", 16, 1024, log=True),
    Int("layers", 1, 8),
    Float("learning_rate", 1e-4, 1e-1, log=True),
    Categorical("activation", ["relu", "gelu"]),
    Categorical("precision", ["float32", "int8"]),
]


def evaluate(trial: Trial) -> dict[str, float]:
    """Numbers that stand in for training and timing: larger networks are more accurate, and slower."""
    values: dict[str, Any] = dict(trial.parameters)
    size = values["layers"] * values["width"] ** 1.3
    rate = 0.05 * (math.log10(values["learning_rate"]) + 2.3) ** 2
    rounding = 0.012 if values["precision"] == "int8" else 0.0
    smooth = 0.004 if values["activation"] == "gelu" else 0.0
    accuracy = 0.97 - 0.9 * size**-0.3 - rate - rounding + smooth
    pace = (0.4 if values["precision"] == "int8" else 1.0) * (1.15 if values["activation"] == "gelu" else 1.0)
    return {"accuracy": accuracy, "latency_ms": 0.5 + pace * size / 900}


def show(study: Study) -> None:
    """Print the front, fastest first, and how its hypervolume grew."""
    for trial in sorted(study.optimal_trials(), key=lambda trial: trial.value("latency_ms")):
        words = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in trial.parameters.items()
        )
        print(f"{trial.value('latency_ms'):6.2f} ms  {trial.value('accuracy'):.3f}  {words}")
    found = study.hypervolume()
    if found is None:
        return
    print(
        f"hypervolume {found.value:.3f}, measured from {found.reference['latency_ms']:g} ms and {found.reference['accuracy']:g}"
    )
    most = next(number for number, value in found.history if value >= 0.9 * found.value)
    print(f"nine tenths of it by trial {most}, all of it by trial {found.history[-1][0]}")


def main() -> None:
    """Look for the trade-offs in 40 trials. What is slower than 30 ms or less accurate than 0.8 is of no use."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = client.create_study(
            "trade-off",
            parameters=PARAMETERS,
            objectives=[Maximize("accuracy", reference=0.8), Minimize("latency_ms", reference=30.0)],
            max_trials=40,
            seed=0,
        )
        study.optimize(evaluate)
        show(study)


if __name__ == "__main__":
    main()
