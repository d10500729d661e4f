"""Bounds on what a trial yields: the most accurate model that answers within 50 milliseconds, and a region that cannot be tried at all.

Run it with `python -m examples.constraints`: a server starts in this process on a new database.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from asktell.client import AtMost, Client, Float, Int, Maximize


def evaluate(width: int, depth: int, dropout: float) -> tuple[float, float]:
    """Accuracy and latency in milliseconds, which rise with the size. MemoryError for too large a model."""
    size = width * depth
    if size > 1500:
        raise MemoryError("does not fit into memory")
    accuracy = 0.97 - 0.4 * math.exp(-size / 250) - 0.2 * (dropout - 0.2) ** 2
    return accuracy, 5.0 + 0.1 * size


def main() -> None:
    """Search under a bound, and show the best that meets it."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = client.create_study(
            "constraints",
            parameters=[Int("width", 16, 256, log=True), Int("depth", 1, 8), Float("dropout", 0.0, 0.8)],
            objectives=[Maximize("accuracy")],
            outcome_constraints=[AtMost("latency", 50)],
            max_trials=30,
            seed=0,
        )
        for trial in study.trials():
            with trial:
                try:
                    accuracy, latency = evaluate(**trial.parameters)  # type: ignore[arg-type]
                except MemoryError as error:
                    trial.infeasible(str(error))
                else:
                    trial.tell(accuracy=accuracy, latency=latency)

        (best,) = study.optimal_trials()
        print(f"best: accuracy {best.metrics['accuracy'].value:.3f} in {best.metrics['latency'].value:.1f} ms")
        expected = study.get_trial(30).origin.predictions
        print("expected of the last trial:", ", ".join(f"{name} {each.mean:.3g}" for name, each in expected.items()))
        states = [trial.state.name for trial in study.list_trials()]
        print(f"{states.count('INFEASIBLE')} of {len(states)} trials did not fit into memory")


if __name__ == "__main__":
    main()
