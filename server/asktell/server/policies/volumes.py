"""Hypervolumes of Pareto fronts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from asktell.server.domain.ranking import Losses, Standing
from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Matrix

T = TypeVar("T")

_LARGEST = np.finfo(np.float64).max
_AFRESH = 100
"""So often at most a hypervolume is computed of all places: where results are averaged, nothing is left from one to the next."""


def hypervolumes(standings: Sequence[Standing], reference: Losses, *, most: int) -> list[tuple[int, float]]:
    """How much of the space below the reference is dominated, after those trials that changed the front, by their numbers.

    In the product of the losses' units; the largest number there is where that would be infinite. Of more than `most` changes they are that
    many, at even distances, with the last; fewer where places change.
    """
    units = _units(standings, reference)
    places = {standing.place for standing in standings}
    fronts = _grown(standings, units) if len(places) == len(standings) else _afresh(standings, units)
    corner = np.array(reference) / units
    return [(number, _volume(front, corner, units)) for number, front in _evenly(list(fronts), most)]


def _units(standings: Sequence[Standing], reference: Losses) -> Vector:
    """The largest magnitudes: losses may be so large that their differences overflow."""
    rows = np.array([reference, *(standing.losses for standing in standings if standing.losses)])
    largest = np.abs(rows).max(axis=0)
    return np.where(largest > 0.0, largest, 1.0)


def _grown(standings: Sequence[Standing], units: Vector) -> Iterator[tuple[int, Matrix]]:
    """The fronts, in these units, where each standing is another place."""
    front = np.empty((0, len(units)))
    for standing in standings:
        if standing.losses is None:
            continue
        own = np.array(standing.losses) / units
        if not (front <= own).all(axis=1).any():
            front = np.vstack([front[(front < own).any(axis=1)], own])
            yield standing.number, front


def _afresh(standings: Sequence[Standing], units: Vector) -> Iterator[tuple[int, Matrix]]:
    """All places that are feasible, in these units, after some of the standings and the last."""
    rows = {place: row for row, place in enumerate(dict.fromkeys(standing.place for standing in standings))}
    table = np.full((len(rows), len(units)), np.inf)
    chosen = {standing.number for standing in _evenly(standings, _AFRESH)}
    for standing in standings:
        table[rows[standing.place]] = np.inf if standing.losses is None else np.array(standing.losses) / units
        if standing.number in chosen:
            yield standing.number, table[np.isfinite(table[:, 0])]


def _volume(front: Matrix, corner: Vector, units: Vector) -> float:
    # It takes a while to load, which servers without such studies can do without.
    from moocore import hypervolume  # noqa: PLC0415

    share = float(hypervolume(front, ref=corner)) if len(front) else 0.0
    if share == 0.0:
        return 0.0
    with np.errstate(over="ignore"):
        # The smallest first: their product with the largest need not overflow.
        return float(min(np.multiply.reduce([share, *np.sort(units)]), _LARGEST))


def _evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """All items, or `most` of them at even distances with the last."""
    count = len(items)
    return items if count <= most else [items[(place + 1) * count // most - 1] for place in range(most)]
