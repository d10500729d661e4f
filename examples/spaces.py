"""Three spaces that are no boxes: parameters under conditions, constraints between parameters, and a range that was too narrow.

    python examples/spaces.py [trials]

needs `pip install 'asktell[server]'`; each study has 30 trials by default.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from asktell.client import Categorical, Client, Float, Int, Maximize, Minimize, Study, Trial


def conditional(client: Client, trials: int) -> Study:
    """Momentum exists only under sgd, the units of a layer only where there are so many layers."""
    study = client.create_study(
        "conditional",
        parameters=[
            Categorical("optimizer", ["sgd", "adam"]),
            Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
            Int("layers", 1, 3),
            Int("units_1", 8, 512, log=True),
            Int("units_2", 8, 512, log=True, when=("layers", [2, 3])),
            Int("units_3", 8, 512, log=True, when=("layers", [3])),
        ],
        objectives=[Minimize("loss")],
        max_trials=trials,
        seed=0,
    )

    def loss(trial: Trial) -> dict[str, float]:
        # What is inactive is not there: no made-up momentum under adam, no units of a third layer of two.
        units, momentum = _numbers(trial, "units_1", "units_2", "units_3"), _numbers(trial, "momentum")
        size = math.fsum(math.log2(number / 64.0) ** 2 for number in units) / len(units)
        pull = (momentum[0] - 0.9) ** 2 if momentum else 0.05
        return {"loss": 0.1 * size + pull + 0.2 * (3 - len(units))}

    study.optimize(loss)
    return study


def constrained(client: Client, trials: int) -> Study:
    """Shares of a mixture that are at most all of it, and a network that fits into memory."""
    study = client.create_study(
        "constrained",
        parameters=[
            Float("web", 0.0, 1.0),
            Float("books", 0.0, 1.0),
            Int("width", 16, 1024, log=True),
            Int("depth", 1, 64, log=True),
        ],
        constraints=["web + books <= 1", "books <= web", "width * depth <= 2048"],
        objectives=[Maximize("score")],
        max_trials=trials,
        seed=0,
    )

    def score(trial: Trial) -> dict[str, float]:
        web, books, width, depth = _numbers(trial, "web", "books", "width", "depth")
        return {"score": math.sqrt(web * books) + 0.1 * math.log2(width) + 0.1 * math.log2(depth)}

    study.optimize(score)
    return study


def widened(client: Client, trials: int) -> Study:
    """A study whose best trials press against a bound, which then moves, and which gets one more choice."""
    schedules = ["constant", "cosine"]
    study = client.create_study(
        "widened",
        parameters=[Float("rate", 1e-5, 1e-3, log=True), Categorical("schedule", schedules)],
        objectives=[Minimize("loss")],
        max_trials=trials,
        seed=0,
    )

    def loss(trial: Trial) -> dict[str, float]:
        rate, schedule = _numbers(trial, "rate")[0], trial.parameters["schedule"]
        bonus = {"constant": 0.0, "cosine": 0.1, "linear": 0.2}[str(schedule)]
        return {"loss": (math.log10(rate) + 1.5) ** 2 - bonus}

    study.optimize(loss, count=trials // 2)
    print(f"at first:    {_best(study)}")
    study.update(
        parameters=[Float("rate", 1e-5, 1.0, log=True), Categorical("schedule", [*schedules, "linear"])],
    )
    study.optimize(loss)
    return study


def _numbers(trial: Trial, *names: str) -> list[float]:
    """The values of those of the parameters that are active."""
    values = [trial.parameters[name] for name in names if name in trial.parameters]
    return [float(value) for value in values if isinstance(value, int | float)]


def _best(study: Study) -> str:
    best = study.best_trial
    if best is None:
        return "nothing yet"
    parameters = ", ".join(f"{name}={_number(value)}" for name, value in best.parameters.items())
    return f"{best.value():.4g} at {parameters} (trial {best.number})"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(trials: int = 30) -> None:
    """Run the three studies on a server of their own, and print what they found."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "spaces.db") as client:
        for example in (conditional, constrained, widened):
            study = example(client, trials)
            print(f"{example.__name__ + ':':<12} {_best(study)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
