"""Results that come out differently every time: standard errors, repeats, and what is best nevertheless.

Run it with `python -m examples.noise`: a server starts in this process on a new database.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path

from asktell.client import Client, Float, Minimize

FOLDS = 10


def fold(temperature: float, chance: random.Random) -> float:
    """The loss on one fold: least at 0.62, and far noisier where it is high."""
    return (temperature - 0.62) ** 2 + chance.gauss(0.0, 0.02 + 0.3 * temperature**4)


def main() -> None:
    """Tell means of folds with their standard errors; show what was measured again, and what is believed."""
    chance = random.Random(0)  # noqa: S311 - noise, not a secret
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        study = client.create_study(
            "noise",
            parameters=[Float("temperature", 0.0, 1.0)],
            objectives=[Minimize("loss")],
            noisy=True,
            max_trials=40,
            seed=0,
        )
        for trial in study.trials():
            with trial:
                losses = [fold(**trial.parameters, chance=chance) for _ in range(FOLDS)]  # type: ignore[arg-type]
                error = statistics.stdev(losses) / FOLDS**0.5
                trial.tell(loss=(statistics.mean(losses), error))

        methods = [trial.origin.method for trial in study.list_trials()]
        print(f"{methods.count('repeat')} of {len(methods)} trials measured an earlier configuration again")
        trials = study.list_trials()
        luckiest = min(trials, key=lambda trial: trial.metrics["loss"].value)
        means = [each["loss"].mean for each in study.predict([trial.parameters for trial in trials])]
        likeliest = trials[means.index(min(means))]
        for name, trial in [("luckiest", luckiest), ("likeliest", likeliest)]:
            (expected,) = study.predict([trial.parameters])
            print(
                f"{name}: {trial.parameters['temperature']:.3f}, told {trial.metrics['loss'].value:.3f}, "
                f"expected {expected['loss'].mean:.3f} ± {expected['loss'].standard_deviation:.3f}"
            )


if __name__ == "__main__":
    main()
