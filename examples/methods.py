"""The search methods, one study each: `grid`, `sobol`, `evolution`, `cma-es`, and what `auto` makes of a budget.

Run it with `python -m examples.methods`: a server starts in this process on a new database.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

from asktell.client import Categorical, Client, Float, Int, Minimize, ParameterSpec
from asktell.client.spec import ParameterValue

LAYERS = Int("layers", 1, 4)
RATE = Float("rate", 1e-5, 1e-1, log=True)
OPTIMIZER = Categorical("optimizer", ["sgd", "adam"])
MOMENTUM = Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"]))


def loss(parameters: Mapping[str, ParameterValue]) -> float:
    """A training's loss, without the training: best at three layers, a rate of 0.003, and sgd with a momentum of 0.9."""
    numbers = {name: value for name, value in parameters.items() if isinstance(value, int | float)}
    rate = math.log10(numbers.get("rate", 0.01) / 0.003)
    momentum = numbers.get("momentum", 0.6) - 0.9
    return rate**2 + 0.3 * (numbers["layers"] - 3) ** 2 + momentum**2


def search(
    client: Client, policy: str, parameters: list[ParameterSpec], *, trials: int, budget: int | None = None
) -> str:
    """Try so many configurations of one study; what is best, and who chose the last."""
    study = client.create_study(
        f"{policy}-{trials}",
        parameters=parameters,
        objectives=[Minimize("loss")],
        policy=policy,
        seed=1,
        max_trials=budget or trials,
    )
    tried = []
    for trial in study.trials():
        with trial:
            trial.tell(loss=loss(trial.parameters))
        tried.append(trial)
        if len(tried) == trials:
            break
    best, origin = study.best_trial, tried[-1].origin
    assert best is not None
    why = f"; why: {origin.reason}" if origin.reason else ""
    return f"{policy}: {best.metrics['loss'].value:.4f} at trial {best.number}; the last by {origin.method}{why}"


def main() -> None:
    """One line a study."""
    whole: list[ParameterSpec] = [LAYERS, RATE, OPTIMIZER, MOMENTUM]
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        # Every cell of 4 layers x 3 rates x (adam, or sgd with 3 momenta): 48.
        print(search(client, "grid", whole, trials=48))
        print(search(client, "sobol", whole, trials=64))
        print(search(client, "evolution", whole, trials=100))
        print(search(client, "cma-es", whole, trials=100))
        print(search(client, "auto", whole, trials=20, budget=50_000))
        print(search(client, "auto", [LAYERS, OPTIMIZER], trials=8))


if __name__ == "__main__":
    main()
