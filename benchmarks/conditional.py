"""Conditional spaces with known optima: branches that have parameters of their own, and share others.

The seed draws where each branch has its optimum, and which branch is best. A branch that is worse is wider, so that first trials mislead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.problem import Choice, Configuration, Ordered, Param, Problem, Real, Seeded, When, Whole, unit

BRANCHES = ("linear", "forest", "network")
LEVELS = (0.0, 0.15, 0.3)
"""The least losses of the best, the second and the worst branch."""
WIDTHS = (2.0, 1.2, 0.6)
"""How fast their losses rise with the distance from there."""
DEEP = When("layers", (2, 3, 4))

TEN: Sequence[Param] = (
    Choice("model", BRANCHES),
    Real("rate", 1e-4, 1, log=True),
    Whole("size", 1, 256, log=True),
    Real("penalty", 1e-6, 1e2, log=True, when=When("model", ("linear",))),
    Choice("kernel", ("plain", "squared", "cosine"), when=When("model", ("linear",))),
    Whole("depth", 1, 32, when=When("model", ("forest",))),
    Real("share", 0.1, 1, when=When("model", ("forest",))),
    Whole("layers", 1, 4, when=When("model", ("network",))),
    Real("momentum", 0, 0.99, when=When("model", ("network",))),
    Real("dropout", 0, 0.8, when=DEEP),
)
"""Ten parameters, of which five or six exist at a time; `dropout` two levels deep."""


def branches(ripple: float, name: str, seed: int) -> Problem:
    """A bowl in each branch of `TEN`, with `ripple` high waves in it."""
    generator = np.random.default_rng([seed, 10])
    ranks = dict(zip(BRANCHES, generator.permutation(len(BRANCHES)), strict=True))
    best = min(ranks, key=lambda branch: int(ranks[branch]))
    shared = {"rate": generator.uniform(0.3, 0.7), "size": generator.uniform(0.3, 0.7)}
    bowls = {branch: _bowl(branch, shared, int(ranks[branch]), generator) for branch in BRANCHES}

    def function(configuration: Configuration) -> float:
        return bowls[configuration["model"]].loss(configuration, ripple)

    return Problem(name, TEN, function, 0.0, bowls[best].optimum)


@dataclass(frozen=True, slots=True)
class Bowl:
    """The loss of one branch: `level` at its optimum, rising with the distance of each parameter from there, weighted."""

    level: float
    width: float
    optimum: Configuration
    weights: Mapping[str, float]

    def loss(self, configuration: Configuration, ripple: float) -> float:
        """The loss of a configuration of the branch."""
        terms = (self._term(param, configuration, ripple) for param in TEN if param.name in self.optimum)
        return self.level + sum(terms)

    def _term(self, param: Param, configuration: Configuration, ripple: float) -> float:
        value, least = configuration.get(param.name), self.optimum[param.name]
        if isinstance(param, Choice):
            return 0.0 if value == least else 0.3
        if value is None:
            return 0.2
        offset = unit(param, value) - unit(param, least)
        return self.width * self.weights[param.name] * offset**2 + ripple * float(1 - np.cos(6 * np.pi * offset))


def _bowl(branch: str, shared: Mapping[str, float], rank: int, generator: np.random.Generator) -> Bowl:
    """The shared parameters' optima are near each other in all branches."""
    optimum: dict[str, float | str] = {"model": branch}
    weights: dict[str, float] = {}
    for param in TEN[1:]:
        weights[param.name] = float(generator.uniform(0.5, 2))
        near = shared.get(param.name, 0.5)
        place = float(np.clip(near + generator.uniform(-0.35, 0.35) * (0.5 if param.name in shared else 1), 0.1, 0.9))
        if param.when is None or param.when.parent != "model" or branch in param.when.values:
            optimum[param.name] = _at(param, place)
    if branch != "network":
        del optimum["dropout"]
    else:
        optimum["layers"] = max(int(optimum["layers"]), 2)
    return Bowl(LEVELS[rank], WIDTHS[rank], optimum, weights)


def _at(param: Param, place: float) -> float | str:
    """The value of a parameter at a place from 0 to 1."""
    if isinstance(param, Choice | Ordered):
        return param.values[int(place * len(param.values))]
    ratio = param.high / param.low if param.low else 0.0
    value = float(param.low * ratio**place) if param.log else param.low + place * (param.high - param.low)
    return round(value) if isinstance(param, Whole) else value


CONDITIONAL: Mapping[str, Seeded] = {
    "branches10": partial(branches, 0.01, "branches10"),
    "branches10_waves": partial(branches, 0.06, "branches10_waves"),
}
