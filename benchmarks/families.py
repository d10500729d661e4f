"""Families of problems outside the public set: to judge ingredients by, and to check that nothing was tuned to the public problems."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks import coco
from benchmarks.coco import SOME
from benchmarks.learning import gbm, krr, mlp, ridge, svm
from benchmarks.problem import (
    Choice,
    Configuration,
    Ordered,
    Param,
    Problem,
    Real,
    Seeded,
    Vector,
    Whole,
    reals,
    units,
    vector,
)

Function = Callable[[Vector], float]

BATCHES = (16.0, 32.0, 64.0, 128.0, 256.0)
TRAINING: Sequence[Param] = (
    Real("lr", 1e-5, 1e-1, log=True),
    Real("alpha", 1e-6, 1, log=True),
    Real("beta", 1e-2, 0.9, log=True),
    Whole("width", 4, 128, log=True),
    Whole("depth", 1, 3),
    Whole("batch", 8, 128, log=True),
)
ACTIVATIONS = ("a", "b", "c")
COCO = ("bbob", "bbob-mixint")


def mixed(size: int, name: str, seed: int) -> Problem:
    """Categoricals of which the first two choose a basin, integers, an ordinal and reals; the seed draws how many levels and where."""
    generator = np.random.default_rng([seed, size])
    choices = [Choice(f"c{index}", _levels(generator)) for index in range(size + 1)]
    numeric: list[Param] = [
        *(Real(f"x{index}", 0, 1) for index in range(size)),
        Real("rate", 1e-5, 1e-1, log=True),
        *(Whole(f"i{index}", 0, int(generator.integers(3, 30))) for index in range(size)),
        Whole("width", 1, 512, log=True),
        Ordered("batch", BATCHES),
    ]
    basin = _basins(choices[:2], generator, dimensions=len(numeric))
    penalties = [
        dict(zip(choice.values, generator.uniform(0, 0.5, len(choice.values)), strict=True)) for choice in choices
    ]
    weights = generator.uniform(0.3, 3, len(numeric))

    def function(configuration: Configuration) -> float:
        names = [configuration[choice.name] for choice in choices]
        offset = units(numeric, configuration) - basin[names[0], names[1]]
        penalty = sum(penalty[name] for penalty, name in zip(penalties, names, strict=True))
        return float(np.sum(weights * offset**2) + penalty * (1 + abs(offset[0])) + 0.1 * (1 - np.cos(9 * offset[1])))

    return Problem(name, [*choices, *numeric], function)


def _levels(generator: np.random.Generator) -> tuple[str, ...]:
    return tuple("abcdef"[: generator.integers(2, 7)])


def _basins(choices: list[Choice], generator: np.random.Generator, *, dimensions: int) -> dict[tuple[str, str], Vector]:
    first, second = choices
    return {(one, two): generator.uniform(0.15, 0.85, dimensions) for one in first.values for two in second.values}


def quadratic(dimensions: int, name: str, seed: int) -> Problem:
    """A rotated bowl whose axes differ by up to three orders of magnitude."""
    generator = np.random.default_rng([seed, dimensions])
    rotation, centre = _rotation(generator, dimensions), generator.uniform(0.2, 0.8, dimensions)
    scales = 10 ** generator.uniform(-1.5, 1.5, dimensions)

    def function(x: Vector) -> float:
        return float(np.sum(scales * (rotation @ (x - centre)) ** 2))

    return _on_cube(name, dimensions, function, best=0.0)


def rastrigin(dimensions: int, name: str, seed: int) -> Problem:
    """Rastrigin's regular grid of basins, five to an axis, on a bowl."""
    centre = np.random.default_rng(seed).uniform(0.2, 0.8, dimensions)

    def function(x: Vector) -> float:
        z = 5 * (x - centre)
        return float(np.sum(z**2 + 2 * (1 - np.cos(2 * np.pi * z))))

    return _on_cube(name, dimensions, function, best=0.0)


def griewank(dimensions: int, name: str, seed: int) -> Problem:
    """Griewank's bowl with waves that multiply."""
    centre = np.random.default_rng(seed).uniform(0.2, 0.8, dimensions)
    roots = np.sqrt(np.arange(1, dimensions + 1))

    def function(x: Vector) -> float:
        z = 20 * (x - centre)
        return float(np.sum(z**2) / 100 - np.prod(np.cos(z / roots)) + 1)

    return _on_cube(name, dimensions, function, best=0.0)


def michalewicz(dimensions: int, name: str, seed: int) -> Problem:
    """Michalewicz's valleys, which cross where hardly anything leads to; shifted around the cube."""
    shift = np.random.default_rng(seed).uniform(0, 1, dimensions)
    order = np.arange(1, dimensions + 1)

    def function(x: Vector) -> float:
        z = np.pi * ((x + shift) % 1.0)
        return float(-np.sum(np.sin(z) * np.sin(order * z**2 / np.pi) ** 10))

    return _on_cube(name, dimensions, function)


def steps(dimensions: int, name: str, seed: int) -> Problem:
    """An error rate of two hundred examples: plateaus, flat at a half where nothing is learned."""
    generator = np.random.default_rng([seed, dimensions])
    rotation, centre = _rotation(generator, dimensions), generator.uniform(0.2, 0.8, dimensions)
    scales = generator.uniform(0.3, 3, dimensions)

    def function(x: Vector) -> float:
        distance = np.sum(scales * (rotation @ (x - centre)) ** 2)
        return float(np.round(200 * min(0.02 + 0.8 * math.tanh(distance), 0.5)) / 200)

    return _on_cube(name, dimensions, function, best=0.02)


def failing(dimensions: int, name: str, seed: int) -> Problem:
    """A rotated bowl where a fifth of the space, beyond a plane that passes by the optimum, fails."""
    plain = quadratic(dimensions, name, seed)
    generator = np.random.default_rng([seed, dimensions, 1])
    direction = generator.normal(size=dimensions)
    heights = generator.random((4096, dimensions)) @ direction
    centre = np.random.default_rng([seed, dimensions])
    _rotation(centre, dimensions)
    optimum = float(centre.uniform(0.2, 0.8, dimensions) @ direction)
    edge = max(float(np.quantile(heights, 0.8)), optimum + 0.05 * float(heights.std()))

    def function(configuration: Configuration) -> float:
        return math.inf if vector(configuration, dimensions) @ direction > edge else plain.function(configuration)

    return Problem(name, plain.params, function, 0.0)


def noisy(make: Callable[[str, int], Problem], share: float, name: str, seed: int) -> Problem:
    """A problem with noise, whose standard deviation is a share of the spread of random configurations' values."""
    plain = make(name, seed)
    generator = np.random.default_rng([seed, 7])
    dimensions = len(plain.params)
    samples = generator.random((256, dimensions))
    spread = float(np.std([plain.function({f"x{i}": x for i, x in enumerate(row)}) for row in samples]))

    def function(configuration: Configuration) -> float:
        return plain.function(configuration) + float(generator.normal(0, share * spread))

    return Problem(name, plain.params, function, plain.best, truth=plain.function)


def rough(size: int, share: float, name: str, seed: int) -> Problem:
    """A loss as of a small network's training: flat where nothing is learned, and rough, as the last digit of a learning rate makes it.

    Every configuration's loss has a factor of its own, whose logarithm is normal with the standard deviation `share`.
    """
    generator = np.random.default_rng([seed, size, 77])
    numeric = TRAINING[:size]
    rotation = 0.7 * np.eye(len(numeric)) + 0.3 * _rotation(generator, len(numeric))
    centre = generator.uniform(0.15, 0.85, len(numeric))
    weights = 10 ** generator.uniform(-1.2, 1, len(numeric))
    penalties = dict(zip(ACTIVATIONS, generator.uniform(0, 0.15, len(ACTIVATIONS)), strict=True))
    shifts = dict(zip(ACTIVATIONS, generator.normal(0, 0.1, (len(ACTIVATIONS), len(numeric))), strict=True))

    def function(configuration: Configuration) -> float:
        activation = configuration["act"]
        offset = rotation @ (units(numeric, configuration) - centre - shifts[activation])
        distance = float(np.sum(weights * offset**2)) ** 0.8
        loss = 0.06 + 2.2 * math.tanh(0.6 * distance + 0.3 * penalties[activation])
        return loss * math.exp(share * _roughness(configuration, str(seed)))

    return Problem(name, [*numeric, Choice("act", ACTIVATIONS)], function)


def _roughness(configuration: Configuration, salt: str) -> float:
    """A standard normal number of a configuration's own."""
    values = sorted(
        (name, f"{value:.10g}" if isinstance(value, float) else value) for name, value in configuration.items()
    )
    digest = hashlib.sha256((salt + repr(values)).encode()).digest()
    return statistics.NormalDist().inv_cdf((int.from_bytes(digest[:8], "big") + 0.5) / 2**64)


def _on_cube(name: str, dimensions: int, function: Function, *, best: float | None = None) -> Problem:
    return Problem(name, reals(dimensions, 0, 1), lambda c: function(vector(c, dimensions)), best)


def _rotation(generator: np.random.Generator, dimensions: int) -> npt.NDArray[np.float64]:
    rotation, _ = np.linalg.qr(generator.normal(size=(dimensions, dimensions)))
    return rotation


def _named(makers: Mapping[str, Callable[[str, int], Problem]]) -> dict[str, Seeded]:
    return {name: partial(make, name) for name, make in makers.items()}


FAMILIES: Mapping[str, Mapping[str, Seeded]] = {
    "mixed": _named(
        {"mixed_small": partial(mixed, 1), "mixed_medium": partial(mixed, 2), "mixed_large": partial(mixed, 3)}
    ),
    "quadratic": _named({f"quadratic{d}": partial(quadratic, d) for d in (4, 8, 16)}),
    "multimodal": _named(
        {
            "rastrigin5": partial(rastrigin, 5),
            "griewank6": partial(griewank, 6),
            "michalewicz5": partial(michalewicz, 5),
        }
    ),
    "steps": _named({f"steps{d}": partial(steps, d) for d in (3, 6, 10)}),
    "noisy": _named(
        {
            "noisy_quadratic6": partial(noisy, partial(quadratic, 6), 0.1),
            "noisy_griewank4": partial(noisy, partial(griewank, 4), 0.1),
            "noisier_quadratic4": partial(noisy, partial(quadratic, 4), 0.4),
        }
    ),
    "rough": _named(
        {f"rough{size}_{percent}": partial(rough, size, percent / 100) for size in (4, 6) for percent in (5, 15)}
    ),
    "failing": _named({f"failing{d}": partial(failing, d) for d in (3, 6)}),
    "learning": {
        "svm_wine": svm("wine"),
        "svm_digits": svm("digits"),
        "svm_breast_cancer": svm("breast_cancer"),
        "mlp_wine": mlp("wine"),
        "mlp_breast_cancer": mlp("breast_cancer"),
        "mlp_diabetes": mlp("diabetes"),
        "gbm_wine": gbm("wine"),
        "gbm_diabetes": gbm("diabetes"),
        "krr_wine": krr("wine"),
        "krr_breast_cancer": krr("breast_cancer"),
        "ridge_digits": ridge("digits"),
        "ridge_diabetes": ridge("diabetes"),
    },
    **{suite: coco.of_suite(suite, SOME) for suite in COCO},
}
OUTSIDE: Mapping[str, Seeded] = {name: make for family in FAMILIES.values() for name, make in family.items()}
