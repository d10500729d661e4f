"""Random numbers that depend on the study's seed and a trial's number, and on nothing else."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass, field

import numpy as np

from asktell.server.policies.encoding import Matrix

_BLOCK = 1_024


def generator(seed: int, *, purpose: str, number: int = 0) -> np.random.Generator:
    """A generator of its own for a purpose and a trial. Any 64-bit seed will do."""
    return np.random.default_rng([seed % 2**64, zlib.crc32(purpose.encode()), number])


def sobol(seed: int, *, dimensions: int, purpose: str, first: int, count: int) -> Matrix:
    """Points `first`, `first + 1`, ... of a scrambled Sobol sequence in the unit cube (`count x dimensions`).

    Beyond 1,024 the sequence begins anew with another scrambling, so that a far index costs no more than a near one.
    """
    points: list[Matrix] = []
    while count > 0:
        block, start = divmod(first, _BLOCK)
        taken = min(count, _BLOCK - start)
        points.append(_block(seed, dimensions, purpose, block)[start : start + taken])
        first, count = first + taken, count - taken
    return np.concatenate(points)


@dataclass(slots=True)
class SobolPoints:
    """The points of `sobol` one at a time. A block of them is drawn once for all that follow one another."""

    seed: int
    dimensions: int
    purpose: str
    _drawn: dict[int, Matrix] = field(default_factory=dict)

    def point(self, index: int) -> Matrix:
        """One point (`1 x dimensions`)."""
        block, place = divmod(index, _BLOCK)
        if block not in self._drawn:
            self._drawn = {block: _block(self.seed, self.dimensions, self.purpose, block)}
        return self._drawn[block][place : place + 1]


def _block(seed: int, dimensions: int, purpose: str, block: int) -> Matrix:
    # SciPy's statistics take a second to import, which a first ask for the default point need not wait for.
    from scipy.stats import qmc  # noqa: PLC0415

    engine = qmc.Sobol(dimensions, scramble=True, rng=generator(seed, purpose=purpose, number=block))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points: Matrix = engine.random(_BLOCK)
    return points
