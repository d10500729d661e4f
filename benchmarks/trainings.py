"""Simulated trainings of 81 epochs: what a configuration's loss is epoch by epoch, in families of curves from the literature.

The losses that the curves end at are synthetic functions of the public set, scaled to 0.1 for the best configuration and 0.9 for the worst,
where every training begins. How fast a training is depends on its configuration in another way than how good it is. `crossing` is a family
of our own, against stopping rules: the better a configuration, the slower it is, so that early losses mislead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.problem import Choice, Configuration, Problem, Vector, unit
from benchmarks.synthetic import HARTMANN_A, HARTMANN_ALPHA, HARTMANN_P, branin, hartmann6, mixed8

EPOCHS = 81
BEST, WORST = 0.1, 0.9
NOISE = 0.005
"""Standard deviation of a measured loss."""
_BRANIN_RANGE, _HARTMANN_RANGE, _MIXED_SCALE = 308.0, 3.32237, 1.5

Curve = Callable[[float], float]
"""The loss, without noise, after so many epochs."""


@dataclass(frozen=True, slots=True)
class Family:
    """Trainings of the configurations of a problem; `curve` makes the curve of one."""

    name: str
    problem: Problem
    curve: Callable[[Configuration], Curve]


def power(seed: int) -> Family:
    """Power laws, `pow3` of Domhan et al. 2015, ending on Hartmann's function."""
    problem, speed = hartmann6(seed), _direction(seed, 6)

    def curve(configuration: Configuration) -> Curve:
        end = _scaled(_hartmann(problem, configuration))
        exponent = 0.4 + 1.2 * speed(_units(problem, configuration))
        return lambda epoch: end + (WORST - end) * (1 + epoch) ** -exponent

    return Family("power", problem, curve)


def exponential(seed: int) -> Family:
    """Exponential decays, as in freeze-thaw optimisation (Swersky et al. 2014), ending on Branin's function."""
    problem, speed = branin(seed), _direction(seed, 2)

    def curve(configuration: Configuration) -> Curve:
        above = max(problem.function(configuration) - 0.397887, 0.0)
        end = _scaled(math.log1p(above) / math.log1p(_BRANIN_RANGE))
        time = 3 * 13 ** speed(_units(problem, configuration))
        return lambda epoch: end + (WORST - end) * math.exp(-epoch / time)

    return Family("exponential", problem, curve)


def hill(seed: int) -> Family:
    """The Morgan-Mercer-Flodin curve (`MMF` of Domhan et al. 2015), ending on a mixed space's function."""
    problem, speed = mixed8(seed), _direction(seed, 6)

    def curve(configuration: Configuration) -> Curve:
        end = _scaled(1 - math.exp(-problem.function(configuration) / _MIXED_SCALE))
        time = 2 * 15 ** speed(_units(problem, configuration))
        return lambda epoch: end + (WORST - end) / (1 + (epoch / time) ** 1.5)

    return Family("hill", problem, curve)


def crossing(seed: int) -> Family:
    """Exponential decays on Hartmann's function, the slower the better they end: all curves cross."""
    problem = hartmann6(seed)

    def curve(configuration: Configuration) -> Curve:
        relative = _hartmann(problem, configuration)
        end, time = _scaled(relative), 3 * 8 ** (1 - relative)
        return lambda epoch: end + (WORST - end) * math.exp(-epoch / time)

    return Family("crossing", problem, curve)


def fidelity(seed: int) -> Family:
    """Hartmann's function of a lower fidelity at earlier epochs: MF-Hartmann (Kandasamy et al. 2017, appendix D.2), with one fidelity."""
    problem = hartmann6(seed)
    shift = np.random.default_rng(seed).uniform(-0.1, 0.1, 6)

    def curve(configuration: Configuration) -> Curve:
        x = np.array([configuration[f"x{index}"] for index in range(6)]) + shift
        bumps = np.exp(-np.sum(HARTMANN_A * (x - HARTMANN_P) ** 2, axis=1))

        def loss(epoch: float) -> float:
            alpha = HARTMANN_ALPHA - 0.1 * (1 - epoch / EPOCHS)
            return _scaled(1 - float(alpha @ bumps) / _HARTMANN_RANGE)

        return loss

    return Family("fidelity", problem, curve)


PUBLIC: Mapping[str, Callable[[int], Family]] = {
    family.__name__: family for family in (power, exponential, hill, fidelity)
}
"""Families of curves from the literature."""
FAMILIES = {**PUBLIC, crossing.__name__: crossing}


def _hartmann(problem: Problem, configuration: Configuration) -> float:
    """0 for the best, 1 for the worst."""
    return 1 + problem.function(configuration) / _HARTMANN_RANGE


def _scaled(relative: float) -> float:
    return BEST + (WORST - BEST) * min(max(relative, 0.0), 1.0)


def _units(problem: Problem, configuration: Configuration) -> Vector:
    return np.array(
        [unit(param, configuration[param.name]) for param in problem.params if not isinstance(param, Choice)]
    )


def _direction(seed: int, dimensions: int) -> Callable[[Vector], float]:
    """A function of the unit cube from 0 to 1 that rises along a random direction."""
    weights = np.random.default_rng([seed, dimensions, 3]).normal(size=dimensions)
    low, high = float(np.minimum(weights, 0).sum()), float(np.maximum(weights, 0).sum())
    return lambda point: (float(weights @ point) - low) / (high - low)
