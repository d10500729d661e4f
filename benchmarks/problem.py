"""What is to be minimised, in a form that belongs to no one system: every peer's adapter translates it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Configuration = Mapping[str, Any]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Real:
    """Real numbers from `low` to `high`."""

    name: str
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`, both included."""

    name: str
    low: int
    high: int
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Values with no order."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Values with an order but no distance of their own."""

    name: str
    values: tuple[float, ...]


Param = Real | Whole | Choice | Ordered


@dataclass(frozen=True, slots=True)
class Problem:
    """A function of a configuration, to be minimised.

    `best` is its least value and `optimum` where it is, as far as they are known. A function that is not finite is a failed trial.
    Where the function is noisy, `truth` is what it is without the noise: that is recorded and scored, the function is told.
    """

    name: str
    params: Sequence[Param]
    function: Callable[[Configuration], float]
    best: float | None = None
    optimum: Configuration | None = None
    truth: Callable[[Configuration], float] | None = None


Seeded = Callable[[int], Problem]
"""Makes a problem for a seed."""


def reals(dimensions: int, low: float, high: float, *, log: bool = False) -> list[Param]:
    """Parameters x0, x1, …, all of one range."""
    return [Real(f"x{index}", low, high, log) for index in range(dimensions)]


def vector(configuration: Configuration, dimensions: int) -> Vector:
    """The values of x0, x1, …: `dimensions` of them."""
    return np.array([configuration[f"x{index}"] for index in range(dimensions)], dtype=float)


def drawn(params: Sequence[Param], generator: np.random.Generator) -> dict[str, Any]:
    """A random configuration: uniform, on the logarithm where the parameter is logarithmic."""
    return {param.name: _drawn(param, generator) for param in params}


def _drawn(param: Param, generator: np.random.Generator) -> Any:
    if isinstance(param, Choice | Ordered):
        return param.values[generator.integers(len(param.values))]
    low, high = (math.log(param.low), math.log(param.high)) if param.log else (param.low, param.high)
    value = generator.uniform(low, high)
    value = math.exp(value) if param.log else value
    return round(value) if isinstance(param, Whole) else float(value)


def units(params: Sequence[Param], configuration: Configuration) -> Vector:
    """The numeric parameters' values, each from 0 to 1, on the logarithm where the parameter is logarithmic."""
    return np.array([_unit(param, configuration[param.name]) for param in params if not isinstance(param, Choice)])


def _unit(param: Real | Whole | Ordered, value: float) -> float:
    if isinstance(param, Ordered):
        return param.values.index(value) / max(len(param.values) - 1, 1)
    low, high = (math.log(param.low), math.log(param.high)) if param.log else (param.low, param.high)
    return ((math.log(value) if param.log else value) - low) / (high - low)
