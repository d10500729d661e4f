"""Configurations of your own: the favourite first, what is known already, and parameters that one worker holds fixed.

Run it with `python -m examples.enqueue`: a server starts in this process on a new database.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from asktell.client import Categorical, Client, FinishedTrial, Float, Minimize
from asktell.client.spec import ParameterValue

PAST = [(0.1, "cpu", 2.3), (0.01, "cpu", 0.9), (0.001, "gpu", 1.4)]


def main() -> None:
    """Add, ask, and show who chose what."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = client.create_study(
            "enqueue",
            parameters=[Float("learning_rate", 1e-4, 1.0, log=True), Categorical("device", ["cpu", "gpu"])],
            objectives=[Minimize("loss")],
            seed=0,
        )
        study.import_trials(
            FinishedTrial(parameters={"learning_rate": rate, "device": device}, metrics={"loss": loss})
            for rate, device, loss in PAST
        )
        study.enqueue({"learning_rate": 0.02, "device": "cpu"})
        study.enqueue_all({"learning_rate": rate, "device": "gpu"} for rate in (0.005, 0.03))

        asked: list[dict[str, ParameterValue]] = [{"device": "gpu"}, {}, {"device": "gpu"}, {"device": "gpu"}]
        for fixed in asked:
            (trial,) = study.ask(fixed=fixed)
            print(
                f"asked for {fixed or 'anything'}: trial {trial.number}, {trial.parameters}, by {trial.origin.policy}"
            )
            trial.tell(loss=1.0)


if __name__ == "__main__":
    main()
