"""Studies with a history, of the sizes at which asks are timed."""

from __future__ import annotations

import uuid

import numpy as np

from asktell.client import Client, FinishedTrial, Minimize, Study
from benchmarks.peers.served import METRIC, PATIENCE, spec
from benchmarks.problem import Choice, Configuration, Ordered, Param, Problem, Real, Whole, drawn, reals, units, vector


def continuous(dimensions: int) -> Problem:
    """A wavy bowl in the unit cube, whose dimensions matter less and less."""
    generator = np.random.default_rng(dimensions)
    centre, weights = generator.uniform(0.2, 0.8, dimensions), 0.9 ** np.arange(dimensions)

    def function(configuration: Configuration) -> float:
        x = vector(configuration, dimensions) - centre
        return float(np.sum(weights * (x**2 + 0.03 * (1 - np.cos(9 * x)))))

    return Problem(f"bowl{dimensions}", reals(dimensions, 0, 1), function)


def mixed10() -> Problem:
    """Ten parameters: four reals, two of them logarithmic, two integers, an ordinal and three categoricals."""
    params: list[Param] = [
        Real("lr", 1e-5, 1e-1, log=True),
        Real("decay", 1e-6, 1e-1, log=True),
        Real("dropout", 0, 0.7),
        Real("momentum", 0, 0.99),
        Whole("layers", 1, 6),
        Whole("width", 8, 512, log=True),
        Ordered("batch", (16, 32, 64, 128, 256)),
        Choice("optimizer", ("sgd", "adam", "adamw", "rmsprop")),
        Choice("activation", ("relu", "tanh", "gelu", "sigmoid")),
        Choice("schedule", ("none", "cosine", "step")),
    ]
    numeric = len(params) - 3
    centre = np.random.default_rng(10).uniform(0.2, 0.8, numeric)
    penalties = {"sgd": 0.3, "rmsprop": 0.2, "sigmoid": 0.4, "tanh": 0.1, "none": 0.1}

    def function(configuration: Configuration) -> float:
        chosen = (configuration[name] for name in ("optimizer", "activation", "schedule"))
        bowl = np.sum((units(params, configuration) - centre) ** 2)
        return float(bowl + sum(penalties.get(name, 0.0) for name in chosen))

    return Problem("mixed10", params, function)


def loaded(client: Client, problem: Problem, *, observations: int, seed: int = 0, policy: str = "auto") -> Study:
    """A new study with so many random trials in it, imported as finished."""
    study = client.create_study(
        f"load-{problem.name}-{uuid.uuid4().hex[:8]}",
        parameters=[spec(param) for param in problem.params],
        objectives=[Minimize(METRIC)],
        policy=policy,
        seed=seed,
        lease_duration=3600,
    )
    generator = np.random.default_rng(seed)
    drawings = [drawn(problem.params, generator) for _ in range(observations)]
    study.import_trials(
        FinishedTrial(parameters=drawing, metrics={METRIC: _noisy(problem, drawing, generator)}) for drawing in drawings
    )
    return study


def client(target: str) -> Client:
    """A client that waits for whatever it asks."""
    return Client(target, timeout=PATIENCE)


def _noisy(problem: Problem, configuration: Configuration, generator: np.random.Generator) -> float:
    return problem.function(configuration) + float(generator.normal(0, 0.01))
