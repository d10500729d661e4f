"""Record random search and the defaults with the demo's own objective: `python -m examples.digits.record_random`.

Five minutes or so on one core, no server. What it writes is committed, so that the demo can compare itself without repeating it.
"""

import json
import os
import platform
import statistics
from collections.abc import Mapping
from typing import Any

import sklearn
import torch
from rich.progress import track

from examples.digits import objective
from examples.digits.random_search import DECIMALS, RECORD, configurations
from examples.digits.space import DEFAULTS

SEEDS = range(5)
TRIALS = 40


def accuracy(parameters: Mapping[str, Any]) -> float:
    """The objective's value of a configuration, in [0, 1], to six places."""
    return round(statistics.fmean(objective.fold_accuracies(parameters)), DECIMALS)


def main() -> None:
    """Evaluate everything and write the record."""
    os.nice(10)
    record = {
        "about": "Random search and the defaults, by the demo's own objective.",
        "rerun": "python -m examples.digits.record_random",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "objective": {"folds": objective.FOLDS, "epochs": objective.EPOCHS},
        "defaults": {"parameters": DEFAULTS, "accuracy": accuracy(DEFAULTS)},
        "runs": [_run(seed) for seed in SEEDS],
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _run(seed: int) -> dict[str, Any]:
    drawn = track(configurations(seed=seed, count=TRIALS), total=TRIALS, description=f"seed {seed}")
    return {"seed": seed, "accuracies": [accuracy(parameters) for parameters in drawn]}


if __name__ == "__main__":
    main()
