"""What the examples train on: scikit-learn's handwritten digits, in a training and a validation part, and a study of such trainings."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from asktell.client import Client, Float, Maximize, Study, SuccessiveHalvingRule, TrialState
from asktell.integrations.training import ReportingTrial

EPOCHS = 9
TRIALS = 9
PARAMETERS = [Float("learning_rate", 1e-4, 1.0, log=True, default=0.1), Float("momentum", 0.0, 0.95, default=0.9)]

Inputs: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]
Parameters: TypeAlias = Mapping[str, Any]
Objective: TypeAlias = Callable[[Parameters, ReportingTrial], dict[str, float]]


def digits() -> tuple[Inputs, Labels, Inputs, Labels]:
    """Inputs `n x 64` in [0, 1] and labels `n` of the training part, then those of the validation part."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.astype(np.float32) / 16, labels, test_size=0.3, stratify=labels, random_state=0)
    return split[0], split[2], split[1], split[3]


def tune(objective: Objective) -> None:
    """Evaluate the trials of a new study, and say what came of it. A server starts in this process."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = client.create_study(
            "digits",
            parameters=PARAMETERS,
            objectives=[Maximize("accuracy")],
            max_trials=TRIALS,
            seed=0,
            stopping_rule=SuccessiveHalvingRule(min_step=1, max_step=EPOCHS),
        )
        study.optimize(lambda trial: objective(trial.parameters, trial), on_error="raise")
        say(study)


def say(study: Study) -> None:
    """One line on the trials, one on the best of them."""
    trials = [study.get_trial(trial.number) for trial in study.list_trials()]
    stopped = sum(trial.state is TrialState.STOPPED for trial in trials)
    epochs = sum(len(trial.measurements) for trial in trials)
    print(f"{len(trials)} trials, {stopped} of them stopped: {epochs} epochs instead of {EPOCHS * len(trials)}")
    best = study.best_trial
    if best is None:
        sys.exit("no trial came to its end")
    print(f"best: trial {best.number}, accuracy {best.metrics['accuracy'].value:.3f}, {best.parameters}")
