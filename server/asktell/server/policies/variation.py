"""How one configuration comes from others: crossover and mutation over mixed and conditional spaces."""

from __future__ import annotations

import numpy as np

from asktell.server.policies.columns import Column, Vector
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Mask, Matrix

MUTATIONS = 1.0
"""How many parameters of a child mutate, on average."""
DIFFERENTIAL = 0.8
"""The share of children that take a step along the difference of two others (differential evolution)."""
INHERITED = 0.7
"""The share of its parameters that such a step changes."""
SPREAD = 0.1
"""The scale of a number's mutations, in units of its range: half of them are smaller."""


class Family:
    """Some latent rows (`k x d`, the better first) and their children."""

    def __init__(self, encoder: Encoder, rows: Matrix, active: Mask) -> None:
        self._encoder, self._rows, self._active = encoder, rows, active

    def child(self, random: np.random.Generator, parents: tuple[int, int]) -> Vector:
        """A latent row (`d`) from two parents, of which the first is the one that it resembles."""
        rows = self._whole(random)
        first, second = (rows[parent] for parent in parents)
        numeric = ~self._encoder.nominal
        child = np.where(random.random(len(first)) < 0.5, first, second)
        if random.random() < DIFFERENTIAL and len(rows) >= 4:
            child = np.where(numeric, self._differential(random, rows, first), child)
        else:
            child = np.where(numeric, _blended(random, first, second), child)
        return self._mutated(random, child)

    def _whole(self, random: np.random.Generator) -> Matrix:
        """The rows with values for what is inactive: those that others have, or any."""
        rows = np.where(self._active, self._rows, self._encoder.draw(random.random(self._rows.shape)))
        for place in np.flatnonzero(~self._active.all(axis=0) & self._active.any(axis=0)):
            donors = self._rows[self._active[:, place], place]
            lacking = ~self._active[:, place]
            rows[lacking, place] = donors[random.integers(len(donors), size=int(lacking.sum()))]
        return rows

    def _differential(self, random: np.random.Generator, rows: Matrix, first: Vector) -> Vector:
        """A step from the first parent along the difference of two others (Storn and Price 1997)."""
        one, other = rows[random.choice(len(rows), size=2, replace=False)]
        scale = random.uniform(0.3, 0.9)
        moved = random.random(len(first)) < INHERITED
        moved[random.integers(len(first))] = True
        return _reflected(np.where(moved, first + scale * (one - other), first))

    def _mutated(self, random: np.random.Generator, child: Vector) -> Vector:
        chances = random.random(len(child)) < MUTATIONS / len(child)
        for place in np.flatnonzero(chances):
            child[place] = mutated(random, self._encoder.columns[place], float(child[place]))
        return child


def mutated(random: np.random.Generator, column: Column, code: float) -> float:
    """Another code of a column: near ones are likelier, where there is a distance, but any is possible."""
    if column.size is None:
        step = SPREAD * float(np.clip(random.standard_cauchy(), -10, 10))
        return float(_reflected(np.array([code + step]))[0])
    snapped = float(column.snap(np.array([code]))[0])
    others = column.alternatives(snapped)
    others = others[others != snapped]
    if not len(others):
        return snapped
    if column.nominal:
        return float(others[random.integers(len(others))])
    weights = 1.0 / (SPREAD**2 + (others - snapped) ** 2)
    return float(random.choice(others, p=weights / weights.sum()))


def _blended(random: np.random.Generator, first: Vector, second: Vector) -> Vector:
    """Simulated binary crossover (Deb and Agrawal 1995) with index 10, nearer to the first; half of the numbers are the first's own."""
    unit = random.random(len(first))
    spread = np.where(unit < 0.5, (2 * unit) ** (1 / 11), (1 / (2 * (1 - unit))) ** (1 / 11))
    crossed = 0.5 * ((1 + spread) * first + (1 - spread) * second)
    return _reflected(np.where(random.random(len(first)) < 0.5, first, crossed))


def _reflected(codes: Vector) -> Vector:
    """Codes thrown back from the ends of [0, 1]."""
    folded = np.abs(codes) % 2.0
    return np.where(folded > 1.0, 2.0 - folded, folded)
