"""The public set's synthetic problems. The seed shifts each, so that no optimiser profits from an optimum at the centre or a round number.

Their values are compared with recorded ones: whatever changes a bit of them asks for every peer to be recorded anew.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.problem import Choice, Configuration, Outcome, Param, Problem, Real, Vector, Whole, reals, vector

BRANIN_MINIMA = ((-math.pi, 12.275), (math.pi, 2.275), (9.42478, 2.475))
HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
HARTMANN_MINIMUM = np.array([0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573])


def branin(seed: int) -> Problem:
    """Branin's function, in a shifted window."""
    shift_x, shift_y = np.random.default_rng(seed).uniform(-1, 1, 2)

    def function(configuration: Configuration) -> float:
        x, y = configuration["x0"] + shift_x, configuration["x1"] + shift_y
        valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
        return float(valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)

    x, y = BRANIN_MINIMA[1]
    return Problem(
        "branin",
        [Real("x0", -5, 10), Real("x1", 0, 15)],
        function,
        0.397887,
        {"x0": x - shift_x, "x1": y - shift_y},
    )


def hartmann6(seed: int) -> Problem:
    """Hartmann's function of six variables."""
    shift = np.random.default_rng(seed).uniform(-0.1, 0.1, 6)

    def function(configuration: Configuration) -> float:
        x = vector(configuration, 6) + shift
        return float(-np.sum(HARTMANN_ALPHA * np.exp(-np.sum(HARTMANN_A * (x - HARTMANN_P) ** 2, axis=1))))

    return Problem("hartmann6", reals(6, 0, 1), function, -3.32237, _named(HARTMANN_MINIMUM - shift))


def ackley10(seed: int) -> Problem:
    """Ackley's function of ten variables: many small basins in a large one."""
    dimensions = 10
    shift = np.random.default_rng(seed).uniform(-8, 8, dimensions)

    def function(configuration: Configuration) -> float:
        x = vector(configuration, dimensions) - shift
        bowl = -20 * np.exp(-0.2 * np.sqrt(np.mean(x**2)))
        return float(bowl - np.exp(np.mean(np.cos(2 * np.pi * x))) + 20 + math.e)

    return Problem("ackley10", reals(dimensions, -15, 20), function, 0.0, _named(shift))


def levy8(seed: int) -> Problem:
    """Levy's function of eight variables: waves across a valley."""
    dimensions = 8
    shift = np.random.default_rng(seed).uniform(-3, 3, dimensions)

    def function(configuration: Configuration) -> float:
        w = 1 + (vector(configuration, dimensions) - shift) / 4
        first = np.sin(np.pi * w[0]) ** 2
        middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2))
        last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
        return float(first + middle + last)

    return Problem("levy8", reals(dimensions, -10, 10), function, 0.0, _named(shift))


def rosen5_log(seed: int) -> Problem:
    """Rosenbrock's valley over logarithmic coordinates, as learning rates and regularisers are."""
    dimensions = 5
    shift = np.random.default_rng(seed).uniform(-0.5, 0.5, dimensions)

    def function(configuration: Configuration) -> float:
        # 1e-5 to 1e-1 are -2 to 2.
        x = np.array([math.log10(configuration[f"x{index}"]) + 3 for index in range(dimensions)]) + shift
        return float(math.log1p(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)))

    return Problem("rosen5_log", reals(dimensions, 1e-5, 1e-1, log=True), function, 0.0, _named(10 ** (-2 - shift)))


def mixed8(seed: int) -> Problem:
    """Two categoricals, of which one picks a basin, three integers and three reals."""
    generator = np.random.default_rng(seed)
    names = ["a", "b", "c", "d", "e"]
    offset = {name: generator.uniform(-0.3, 0.3, 6) for name in names}
    penalty = dict(zip(names, generator.permutation([0.0, 0.4, 0.8, 1.2, 1.6]), strict=True))
    second = dict(zip(["p", "q", "r"], generator.permutation([0.0, 0.5, 1.0]), strict=True))

    def function(configuration: Configuration) -> float:
        c0 = configuration["c0"]
        z = _mixed_units(configuration) - 0.5 - offset[c0]
        bowl = np.sum(z**2) * 4 + penalty[c0] * (1 + abs(z[0])) + second[configuration["c1"]]
        return float(bowl + 0.3 * (1 - np.cos(4 * np.pi * z[1])))

    params: list[Param] = [
        *(Real(f"f{index}", 0, 1) for index in range(3)),
        Whole("i0", 1, 32),
        Whole("i1", 0, 10),
        Whole("i2", 1, 1024, log=True),
        Choice("c0", tuple(names)),
        Choice("c1", ("p", "q", "r")),
    ]
    basin = min(penalty, key=lambda name: float(penalty[name]))
    optimum = _mixed_at(0.5 + offset[basin]) | {"c0": basin, "c1": min(second, key=lambda name: float(second[name]))}
    return Problem("mixed8", params, function, None, optimum)


def two_bowls6(seed: int) -> Problem:
    """Two wavy bowls of six variables, whose optima are apart: what asks with two objectives are timed on."""
    dimensions = 6
    centres = np.random.default_rng(seed).uniform(0.2, 0.8, (2, dimensions))

    def several(configuration: Configuration) -> Outcome:
        offsets = vector(configuration, dimensions) - centres
        first, second = np.sum(offsets**2 + 0.03 * (1 - np.cos(9 * offsets)), axis=1)
        return Outcome((float(first), float(second)))

    return Problem(
        "two_bowls6", reals(dimensions, 0, 1), lambda given: several(given).value, several=several, objectives=2
    )


def _mixed_units(configuration: Configuration) -> Vector:
    whole = [
        (configuration["i0"] - 1) / 31,
        configuration["i1"] / 10,
        math.log2(configuration["i2"]) / 10,
    ]
    return np.array([configuration["f0"], configuration["f1"], configuration["f2"], *whole])


def _mixed_at(point: Vector) -> dict[str, float | int | str]:
    """The configuration nearest to a point of the unit cube: `6`."""
    f0, f1, f2, i0, i1, i2 = (float(value) for value in point)
    whole = {"i0": 1 + round(31 * i0), "i1": round(10 * i1), "i2": round(2 ** (10 * i2))}
    return {"f0": f0, "f1": f1, "f2": f2, **whole}


def _named(point: Vector) -> dict[str, float]:
    return {f"x{index}": float(value) for index, value in enumerate(point)}


SYNTHETIC = {problem.__name__: problem for problem in (branin, hartmann6, ackley10, levy8, rosen5_log, mixed8)}
