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
class When:
    """A parameter exists only where its parent, which comes before it, exists and has one of the values."""

    parent: str
    values: tuple[str | float, ...]

    def holds(self, configuration: Configuration) -> bool:
        """Whether the configuration, of the parents at least, has such a value."""
        return self.parent in configuration and configuration[self.parent] in self.values


@dataclass(frozen=True, slots=True)
class Real:
    """Real numbers from `low` to `high`."""

    name: str
    low: float
    high: float
    log: bool = False
    when: When | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`, both included."""

    name: str
    low: int
    high: int
    log: bool = False
    when: When | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Values with no order."""

    name: str
    values: tuple[str, ...]
    when: When | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """Values with an order but no distance of their own."""

    name: str
    values: tuple[float, ...]
    when: When | None = None


Param = Real | Whole | Choice | Ordered


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a configuration yields: objectives, all to be minimised, and constraints, each met where it is at most 0."""

    objectives: tuple[float, ...]
    constraints: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """The first objective."""
        return self.objectives[0]

    @property
    def violation(self) -> float:
        """By how much constraints are not met, all together; 0 where all are."""
        return sum(max(value, 0.0) for value in self.constraints)

    @property
    def feasible(self) -> bool:
        """Whether all constraints are met."""
        return self.violation == 0


Loss = Callable[[Sequence[Outcome]], float]
"""What is scored of the outcomes so far, the latest one last. Less is better, and more outcomes never make the least so far worse."""


def first_objective(outcomes: Sequence[Outcome]) -> float:
    """The latest outcome's first objective."""
    return outcomes[-1].value


@dataclass(frozen=True, slots=True)
class Problem:
    """A function of a configuration, to be minimised.

    `best` is its least value and `optimum` where it is, as far as they are known. A function that is not finite is a failed trial.
    Where the function is noisy, `truth` is what it is without the noise: that is recorded and scored, the function is told.

    With several objectives, or with constraints, `several` yields them all: `objectives` and `constraints` are their numbers, and
    `function` is the first objective. `loss` is what is scored, `best` its least value.
    """

    name: str
    params: Sequence[Param]
    function: Callable[[Configuration], float]
    best: float | None = None
    optimum: Configuration | None = None
    truth: Callable[[Configuration], float] | None = None
    several: Callable[[Configuration], Outcome] | None = None
    objectives: int = 1
    constraints: int = 0
    loss: Loss = first_objective

    def outcome(self, configuration: Configuration) -> Outcome:
        """What the peer is told."""
        return self.several(configuration) if self.several else Outcome((float(self.function(configuration)),))

    def scored(self, configuration: Configuration, told: Outcome) -> Outcome:
        """What is scored of a configuration whose outcome was told: without noise."""
        return Outcome((self.truth(configuration),)) if self.truth else told

    @property
    def conditional(self) -> bool:
        """Whether parameters depend on others."""
        return any(param.when for param in self.params)


Seeded = Callable[[int], Problem]
"""Makes a problem for a seed."""


def reals(dimensions: int, low: float, high: float, *, log: bool = False) -> list[Param]:
    """Parameters x0, x1, …, all of one range."""
    return [Real(f"x{index}", low, high, log) for index in range(dimensions)]


def vector(configuration: Configuration, dimensions: int) -> Vector:
    """The values of x0, x1, …: `dimensions` of them."""
    return np.array([configuration[f"x{index}"] for index in range(dimensions)], dtype=float)


def drawn(params: Sequence[Param], generator: np.random.Generator) -> dict[str, Any]:
    """A random configuration: uniform, on the logarithm where the parameter is logarithmic; parameters that do not exist are absent."""
    configuration: dict[str, Any] = {}
    for param in params:
        if param.when is None or param.when.holds(configuration):
            configuration[param.name] = _drawn(param, generator)
    return configuration


def _drawn(param: Param, generator: np.random.Generator) -> Any:
    if isinstance(param, Choice | Ordered):
        return param.values[generator.integers(len(param.values))]
    low, high = (math.log(param.low), math.log(param.high)) if param.log else (param.low, param.high)
    value = generator.uniform(low, high)
    value = math.exp(value) if param.log else value
    return round(value) if isinstance(param, Whole) else float(value)


def units(params: Sequence[Param], configuration: Configuration) -> Vector:
    """The numeric parameters' values, each from 0 to 1, on the logarithm where the parameter is logarithmic."""
    return np.array([unit(param, configuration[param.name]) for param in params if not isinstance(param, Choice)])


def unit(param: Real | Whole | Ordered, value: float) -> float:
    """The value of a numeric parameter, from 0 to 1."""
    if isinstance(param, Ordered):
        return param.values.index(value) / max(len(param.values) - 1, 1)
    low, high = (math.log(param.low), math.log(param.high)) if param.log else (param.low, param.high)
    return ((math.log(value) if param.log else value) - low) / (high - low)
