"""Divergences: losses so far beyond all others that they say no more of the objective than a failure does, as when training diverges."""

from __future__ import annotations

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Mask
from asktell.server.policies.labels import median
from asktell.server.policies.recipe import Recipe
from asktell.server.policies.results import Results

_FAR = 100.0
"""How many times as far from the best loss as the typical one,"""
_APART = 10.0
"""and as the next better one, the mildest divergence is: heavy tails have no such gap."""
_EARLY = 16
"""Typical is the median of so many losses, the earliest: later ones are ever closer to the best."""


def diverged(results: Results, recipe: Recipe) -> Mask:
    """Which observations, in the order of their numbers, diverged (`n`). With several objectives none do, nor where a recipe says so."""
    found = np.zeros(len(results.losses), dtype=np.bool_)
    where = np.flatnonzero(results.measured)
    if recipe.divergences and len(results.objectives) == 1 and len(where):
        found[where] = beyond(results.losses[where, 0])
    return found


def beyond(losses: Vector) -> Mask:
    """Which of finite losses (`n`), in the order in which they were asked for, are divergences."""
    scaled = losses / (float(np.abs(losses).max()) or 1.0)
    excesses: Vector = scaled - scaled.min()
    typical = median(excesses[:_EARLY])
    ordered = np.sort(excesses)
    gaps = (ordered[1:] > _APART * ordered[:-1]) & (ordered[1:] > _FAR * typical)
    if not typical or not gaps.any():
        return np.zeros(len(losses), dtype=np.bool_)
    found: Mask = excesses >= ordered[1:][gaps][0]
    return found
