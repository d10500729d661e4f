"""Problems of COCO's public suites, from the package coco-experiment. The seed chooses the instance: 0 is COCO's first.

Hansen et al. (2021), COCO: a platform for comparing continuous optimizers in a black-box setting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.losses import BestFeasible, Hypervolume
from benchmarks.problem import Configuration, Outcome, Param, Problem, Real, Seeded, Vector, Whole, reals, vector
from benchmarks.references import references

SOME = (1, 2, 3, 6, 8, 10, 13, 15, 17, 20, 21, 24)
"""Functions of `bbob` and `bbob-mixint`, of each of COCO's five groups some."""
DIMENSIONS = (5, 10)
MIXED, BIOBJECTIVE, CONSTRAINED = "bbob-mixint", "bbob-biobj", "bbob-constrained"
BIOBJECTIVE_FUNCTIONS, CONSTRAINED_FUNCTIONS = range(1, 56), range(1, 55)
FEW = 5
"""Dimensions of the problems with two objectives, or with constraints."""
PART = re.compile(r"bbob_f(\d+)_i(\d+)_d\d+")
SAMPLES = 256


def coco_is_there() -> bool:
    """Whether COCO's functions can be had here."""
    return find_spec("cocoex") is not None


def of_suite(suite: str, functions: Sequence[int] = range(1, 25)) -> dict[str, Seeded]:
    """Functions of `bbob` or `bbob-mixint`, of five and ten dimensions."""
    cases = [(index, dimensions) for index in functions for dimensions in DIMENSIONS]
    return {
        name: partial(single, suite, index, dimensions, name)
        for index, dimensions in cases
        for name in [f"{suite}_f{index:02}_d{dimensions}"]
    }


def single(suite: str, index: int, dimensions: int, name: str, seed: int) -> Problem:
    """A function with one objective, of `bbob` or `bbob-mixint`. ValueError without the package."""
    found = _instance(suite, index, dimensions, seed)
    best = _known(suite, name, seed) if suite == MIXED else _bare(index, dimensions, seed + 1).best_value()
    whole = found.number_of_integer_variables
    params: list[Param] = [
        Whole(f"x{i}", int(low), int(high)) if i < whole else Real(f"x{i}", float(low), float(high))
        for i, (low, high) in enumerate(zip(found.lower_bounds, found.upper_bounds, strict=True))
    ]

    def function(configuration: Configuration) -> float:
        return float(found(vector(configuration, dimensions)))

    return Problem(name, params, function, best)


def biobjective(index: int, name: str, seed: int) -> Problem:
    """A pair of `bbob` functions, scored by the hypervolume of all trials between COCO's ideal and nadir points.

    The box is [-5, 5], where both functions' optima are. COCO's own, [-100, 100], has most of its volume far from anything of
    interest, and nearly everything of interest around its centre, which some optimisers try first.
    """
    best = _known(BIOBJECTIVE, name, seed)
    if best is None:
        raise ValueError(f"{name} has no seed {seed}: the best hypervolume is known of the first instances alone")
    found = _instance(BIOBJECTIVE, index, FEW, seed)
    ends = np.array([found(optimum) for optimum in _optima(found.name)])
    ideal, nadir = ends.min(axis=0), ends.max(axis=0)

    def several(configuration: Configuration) -> Outcome:
        first, second = found(vector(configuration, FEW))
        return Outcome((float(first), float(second)))

    loss = Hypervolume(ideal=tuple(ideal), nadir=tuple(nadir), best=best)
    return _several(name, several, loss=loss, best=0.0, objectives=2)


def _optima(name: str) -> list[Vector]:
    """Where the two functions of a pair, which its name spells out, have their optima."""
    parts = [(int(function), int(instance)) for function, instance in PART.findall(name)]
    return [np.array(_bare(function, FEW, instance).best_parameter()) for function, instance in parts]


def _known(suite: str, name: str, seed: int) -> float | None:
    """The best value or hypervolume that COCO's authors know; None for an instance that is not recorded."""
    known = references(suite)[name.removeprefix(f"{suite}_")]
    return known[seed] if seed < len(known) else None


def constrained(index: int, name: str, seed: int) -> Problem:
    """A function with constraints, scored by its best feasible value."""
    found = _instance(CONSTRAINED, index, FEW, seed)

    def several(configuration: Configuration) -> Outcome:
        return _outcome(found, vector(configuration, FEW))

    draws = np.random.default_rng([seed, index]).uniform(-5, 5, (SAMPLES, FEW))
    loss = BestFeasible.of([_outcome(found, draw) for draw in draws])
    best, constraints = _known(CONSTRAINED, name, seed), int(found.number_of_constraints)
    return _several(name, several, loss=loss, best=best, constraints=constraints)


def _outcome(found: Any, x: Vector) -> Outcome:
    return Outcome((float(found(x)),), tuple(float(value) for value in found.constraint(x)))


def _several(name: str, several: Callable[[Configuration], Outcome], **rest: Any) -> Problem:
    return Problem(name, reals(FEW, -5, 5), lambda given: several(given).value, several=several, **rest)


def _instance(suite: str, index: int, dimensions: int, seed: int) -> Any:
    cocoex = _package(f"{suite} f{index}")
    return cocoex.Suite(suite, f"instances: {seed + 1}", f"function_indices: {index} dimensions: {dimensions}")[0]


def _bare(index: int, dimensions: int, instance: int) -> Any:
    return _package(f"bbob f{index}").BareProblem("bbob", index, dimensions, instance)


def _package(what: str) -> Any:
    if not coco_is_there():
        raise ValueError(f"{what} needs the package coco-experiment (pip install --group dev)")
    import cocoex  # noqa: PLC0415 - an extra that few problems need.

    return cocoex


COCO: Mapping[str, Seeded] = {
    **of_suite("bbob"),
    **of_suite(MIXED),
    **{
        name: partial(biobjective, index, name)
        for index in BIOBJECTIVE_FUNCTIONS
        for name in [f"{BIOBJECTIVE}_f{index:02}_d{FEW}"]
    },
    **{
        name: partial(constrained, index, name)
        for index in CONSTRAINED_FUNCTIONS
        for name in [f"{CONSTRAINED}_f{index:02}_d{FEW}"]
    },
}
