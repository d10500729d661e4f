"""Trainings that end early: a logistic regression by gradient descent, of which the service stops what falls behind.

Run it with `python -m examples.stopping`: a server starts in this process on a new database. With a file's name it also draws the curves:
`python -m examples.stopping curves.png`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cyclopts
import numpy as np
import numpy.typing as npt

from asktell.client import Client, Float, Minimize, Study, SuccessiveHalvingRule, TrialState

EPOCHS = 81
SAMPLES, DIMENSIONS = 1000, 20
TRIALS = 30
PARAMETERS = [
    Float("learning_rate", 1e-3, 30.0, log=True),
    Float("momentum", 0.0, 0.95),
    Float("decay", 1e-4, 1.0, log=True),
]
Vector: TypeAlias = npt.NDArray[np.float64]


def train(learning_rate: float, momentum: float, decay: float) -> Iterator[float]:
    """The validation loss of a logistic regression, epoch by epoch."""
    generator = np.random.default_rng(1)
    scales = np.geomspace(1.0, 0.1, DIMENSIONS)
    inputs = generator.normal(size=(2 * SAMPLES, DIMENSIONS)) * scales
    labels = generator.random(2 * SAMPLES) < _sigmoid(inputs @ (generator.normal(size=DIMENSIONS) / scales))
    weights, velocity = np.zeros(DIMENSIONS), np.zeros(DIMENSIONS)
    for _ in range(EPOCHS):
        errors = _sigmoid(inputs[:SAMPLES] @ weights) - labels[:SAMPLES]
        velocity = momentum * velocity - learning_rate * (errors @ inputs[:SAMPLES] / SAMPLES + decay * weights)
        weights = weights + velocity
        odds = _sigmoid(inputs[SAMPLES:] @ weights)
        yield float(-np.mean(np.log(np.where(labels[SAMPLES:], odds, 1 - odds).clip(1e-9))))


def _sigmoid(values: Vector) -> Vector:
    odds: Vector = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return odds


def tune(client: Client) -> Study:
    """A study whose trials report every epoch, and end when they are told to."""
    study = client.create_study(
        "stopping",
        parameters=PARAMETERS,
        objectives=[Minimize("loss")],
        max_trials=TRIALS,
        seed=0,
        stopping_rule=SuccessiveHalvingRule(min_step=3, max_step=EPOCHS),
    )
    for trial in study.trials():
        values: dict[str, Any] = dict(trial.parameters)
        best = float("inf")
        with trial:
            for epoch, loss in enumerate(train(**values), start=1):
                best = min(best, loss)
                if trial.report(step=epoch, loss=loss).should_stop:
                    break
            trial.tell(loss=best)  # as of the best checkpoint; a trial that was told to stop is told as stopped
    return study


def draw(curves: list[tuple[bool, list[float]]], path: Path) -> None:
    """The curves of all trials: those that were stopped end in a dot."""
    import matplotlib as mpl  # noqa: PLC0415 - only for the picture.

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for stopped, losses in sorted(curves, reverse=True):
        colour, width = ("#9aa5b1", 1.0) if stopped else ("#0b6e4f", 1.8)
        axes.plot(range(1, len(losses) + 1), losses, color=colour, linewidth=width)
        if stopped:
            axes.plot(len(losses), losses[-1], "o", color="#c0392b", markersize=4)
    for rung in (3, 9, 27):
        axes.axvline(rung, color="#d5dbe1", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xscale("log", base=3)
    axes.set_xticks([1, 3, 9, 27, 81], ["1", "3", "9", "27", "81"])
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss")
    axes.set_title("Stopped at a rung (red) and trained to the end (green)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(picture: Path | None = None, /) -> None:
    """Tune, and say what was saved; draw the curves to a file if its name is given."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = tune(client)
        trials = [study.get_trial(trial.number) for trial in study.list_trials()]
        stopped = [trial for trial in trials if trial.state is TrialState.STOPPED]
        epochs = sum(len(trial.measurements) for trial in trials)
        best = study.best_trial
        assert best is not None
        print(f"{len(stopped)} of {len(trials)} trials were stopped; {epochs} epochs instead of {EPOCHS * len(trials)}")
        print(f"trial {stopped[0].number}: {stopped[0].message}")
        print(f"best: trial {best.number}, loss {best.metrics['loss'].value:.4f}, {best.parameters}")
        if picture is not None:
            curves = [[float(each.metrics["loss"]) for each in trial.measurements] for trial in trials]
            states = [trial.state is TrialState.STOPPED for trial in trials]
            draw(list(zip(states, curves, strict=True)), picture)


if __name__ == "__main__":
    cyclopts.run(main, result_action="return_value")
