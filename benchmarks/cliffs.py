"""Problems with a cliff: in a tenth of the space the loss is a thousand times worse, as when training diverges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.problem import Configuration, Problem, Seeded, Vector, drawn, units

SUFFIX = "+cliff"
SHARE = 0.1
"""The share of the space that lies below the cliff."""
HEIGHT = 1000.0
"""How high the cliff is, in the typical regrets of random configurations."""
MARGIN = 0.05
"""The share of the space that lies between the cliff and the optimum at least."""
SAMPLES = 4096
TYPICAL = 256
ATTEMPTS = 1000


@dataclass(frozen=True, slots=True)
class Region:
    """The points of the unit cube whose score is from `low` to `high`."""

    score: Callable[[Vector], Vector]
    low: float
    high: float

    def __contains__(self, point: Vector) -> bool:
        return bool(self.low <= self.score(point) <= self.high)


@dataclass(frozen=True, slots=True)
class Cliff:
    """Where a problem's loss is worse, and by how much."""

    region: Region
    height: float


def cliff_of(problem: Problem, seed: int) -> Cliff:
    """The cliff that the seed chooses."""
    generator = np.random.default_rng([seed, len(problem.params)])
    region = _region(problem, generator)
    return Cliff(region, HEIGHT * _typical_regret(problem, generator))


def with_cliff(seeded: Seeded) -> Seeded:
    """The problem with a region, a slab or a ball chosen by the seed, that does not hold the optimum, and where the loss is worse."""

    def make(seed: int) -> Problem:
        problem = seeded(seed)
        cliff = cliff_of(problem, seed)

        def function(configuration: Configuration) -> float:
            value = problem.function(configuration)
            return value + cliff.height if units(problem.params, configuration) in cliff.region else value

        return replace(problem, name=problem.name + SUFFIX, function=function)

    return make


def _typical_regret(problem: Problem, generator: np.random.Generator) -> float:
    values = [problem.function(drawn(problem.params, generator)) for _ in range(TYPICAL)]
    return float(np.median(values)) - min(values if problem.best is None else [problem.best])


def _region(problem: Problem, generator: np.random.Generator) -> Region:
    """A tenth of the space that holds the optimum neither inside nor near its edge."""
    if problem.optimum is None:
        raise ValueError(f"{problem.name} does not say where its optimum is, which a cliff has to spare")
    optimum = units(problem.params, problem.optimum)
    points = generator.random((SAMPLES, len(optimum)))
    ball = bool(generator.random() < 0.5)
    for _ in range(ATTEMPTS):
        score = _distance(generator, len(optimum)) if ball else _height(generator, len(optimum))
        scores = score(points)
        start = 0.0 if ball else generator.uniform(0, 1 - SHARE)
        rank = float((scores < score(optimum)).mean())
        if not start - MARGIN <= rank <= start + SHARE + MARGIN:
            low, high = np.quantile(scores, [start, start + SHARE])
            return Region(score, -np.inf if ball else float(low), float(high))
    raise ValueError(f"no region of {problem.name} spares the optimum")


def _distance(generator: np.random.Generator, dimensions: int) -> Callable[[Vector], Vector]:
    """Scores `... x dimensions` points by how far they are from a random one."""
    centre = generator.random(dimensions)
    return lambda points: np.asarray(np.linalg.norm(points - centre, axis=-1))


def _height(generator: np.random.Generator, dimensions: int) -> Callable[[Vector], Vector]:
    """Scores `... x dimensions` points by how high they are in a random direction."""
    direction = generator.normal(size=dimensions)
    return lambda points: np.asarray(points @ direction)
