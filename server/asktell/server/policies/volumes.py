"""Hypervolumes of Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asktell.server.domain.ranking import Losses
from asktell.server.policies.columns import Vector

_LARGEST = np.finfo(np.float64).max


def hypervolumes(fronts: Sequence[Sequence[Losses]], reference: Losses) -> list[float]:
    """How much of the space below the reference each front dominates, in the product of the losses' units; smaller losses are better.

    What is infinite as a product is the largest number there is.
    """
    # It takes a while to load, which servers without such studies can do without.
    from moocore import hypervolume  # noqa: PLC0415

    # Losses may be so large that their differences overflow.
    columns = zip(reference, *(losses for front in fronts for losses in front), strict=True)
    units = np.array([max(map(abs, column)) or 1.0 for column in columns])
    corner = np.array(reference) / units
    shares = [float(hypervolume(np.array(front) / units, ref=corner)) if front else 0.0 for front in fronts]
    return [_scaled(share, units) for share in shares]


def _scaled(share: float, units: Vector) -> float:
    # The smallest first: their product with the largest need not overflow.
    with np.errstate(over="ignore"):
        return float(min(np.multiply.reduce([share, *np.sort(units)]), _LARGEST)) if share else 0.0
