"""Random numbers that depend on the study's seed and a trial's number, and on nothing else."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from asktell.server.policies.kernel import Matrix

_HYPERCUBES = 30


def generator(seed: int, *, purpose: str, number: int = 0) -> np.random.Generator:
    """A generator of its own for a purpose and a trial. Any 64-bit seed will do."""
    return np.random.default_rng([seed % 2**64, zlib.crc32(purpose.encode()), number])


def fantasy_normals(seed: int, *, points: int, fantasies: int, of: str = "") -> Matrix:
    """Standard normal numbers (`points x fantasies`) in opposite pairs: in which ways pending trials are imagined to end.

    An odd one is zero, which is the mean (the kriging believer of Ginsbourger et al. 2010). Those `of` a constrained metric are its own.
    """
    half = generator(seed, purpose=f"fantasies of {of}" if of else "fantasies").normal(size=(points, fantasies // 2))
    return np.hstack([half, -half, np.zeros((points, fantasies % 2))])


def spread(random: np.random.Generator, *, count: int, dimensions: int) -> Matrix:
    """Points of the unit cube (`count x dimensions`), one in each of `count` slices of every dimension (a Latin hypercube)."""
    ranks = random.random((count, dimensions)).argsort(axis=0)
    points: Matrix = (ranks + random.random((count, dimensions))) / count
    return points


def even_spread(random: np.random.Generator, *, count: int, dimensions: int) -> Matrix:
    """The one of several Latin hypercubes whose closest two points are farthest apart (Morris and Mitchell 1995)."""
    return max((spread(random, count=count, dimensions=dimensions) for _ in range(_HYPERCUBES)), key=_closest)


def _closest(points: Matrix) -> float:
    gaps = ((points[:, None] - points) ** 2).sum(axis=-1)
    return float(gaps[np.triu_indices(len(points), 1)].min(initial=np.inf))


@dataclass(slots=True)
class Designs:
    """Points of the unit cube by index: even spreads of `size` points each, one after another. The one in use is kept."""

    seed: int
    size: int
    dimensions: int
    purpose: str
    _drawn: dict[int, Matrix] = field(default_factory=dict)

    def point(self, index: int) -> Matrix:
        """One point (`1 x dimensions`)."""
        block, place = divmod(index, self.size)
        if block not in self._drawn:
            random = generator(self.seed, purpose=self.purpose, number=block)
            self._drawn = {block: even_spread(random, count=self.size, dimensions=self.dimensions)}
        return self._drawn[block][place : place + 1]
