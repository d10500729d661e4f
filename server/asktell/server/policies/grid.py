"""Every cell of a grid once, coarse grids before fine ones, in an order that the seed shuffles."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.space import Float, Int, ParameterSpec, ParameterValue
from asktell.server.policies.columns import column as column_of
from asktell.server.policies.columns import token
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.proposing import Offers, Proposal, suggest_by
from asktell.server.policies.scope import Scope

NAME = "grid"
FEW = 10
"""Whole numbers in a range with no more values than this are all levels from the start; ranges with more are refined."""
LISTED = 1_000
"""So many values that the user spelled out, choices or steps, are all levels from the start."""
_FINEST = 40
_SCANNED = 50_000
"""So many cells at most are looked at for one trial."""
_GLANCED = 64
"""After so many cells comes a look at the clock."""
_ROUNDS = 4


def suggest(request: SuggestRequest) -> Decision:
    """The next cells."""
    return suggest_by(Cells, request, name=NAME)


class Cells:
    """Proposes the cells of a request's scope that were not tried, the coarsest grid's first.

    Choices, truth values, ordinals, steps and short ranges of whole numbers have all their values in every grid. A continuum, or a long range
    of whole numbers, has its two ends and the middle (on its scale) in the first grid, and in each one after it also the middles between
    those before: every grid holds the cells of the one before. A trial looks in its number's place first, and then on and round, so that no
    cell is missed before the next grid begins, whatever else was tried and in whatever order results come.
    """

    def __init__(self, request: SuggestRequest, deadline: Deadline = NEVER) -> None:
        self._scope, self._deadline = Scope.of(request.space, request.fixed), deadline
        self._seed = request.seed
        self._fineness, self._grid = 1, Grid(self._scope, 1)

    def propose(self, number: int, offers: Offers) -> Proposal | None:
        """The first cell that is left, from the number's place on; None if so many were tried that looking for one would take too long."""
        scanned = 0
        while self._fineness <= _FINEST and scanned < _SCANNED:
            for place in self._places(number, _SCANNED - scanned):
                scanned += 1
                if scanned % _GLANCED == 0 and self._deadline.passed:
                    return None
                parameters = self._grid.cell(place)
                if offers.free(parameters):
                    return Proposal(parameters, f"grid of {self._grid.count}" if self._grid.count < 10**9 else NAME)
            finer = None if self._grid.whole else Grid(self._scope, self._fineness + 1)
            if finer is None or finer.count == self._grid.count:
                # A range of a few numbers that are next to each other has no middles.
                return None
            self._fineness, self._grid = self._fineness + 1, finer
        return None

    def _places(self, number: int, limit: int) -> Iterator[int]:
        count = self._grid.count
        return (shuffled((number - 1 + step) % count, count, self._seed) for step in range(min(count, limit)))


class Grid:
    """One grid over a scope, of which any cell can be had by its place."""

    def __init__(self, scope: Scope, fineness: int) -> None:
        self._space = scope.space
        self._levels = {spec.name: _levels(spec, scope.allowed[spec.name], fineness) for spec in scope.space}
        self._children: dict[str | None, list[ParameterSpec]] = {}
        for spec in scope.space:
            self._children.setdefault(spec.when.parent if spec.when else None, []).append(spec)
        self._counts: dict[str, list[int]] = {}
        for spec in reversed(scope.space.parents_first()):
            self._counts[spec.name] = [
                math.prod(sum(self._counts[child.name]) for child in self._active(spec.name, value))
                for value in self._levels[spec.name]
            ]
        self.count = math.prod(sum(self._counts[spec.name]) for spec in self._children.get(None, []))
        self.whole = all(_whole(spec, self._levels[spec.name], scope.allowed[spec.name]) for spec in scope.space)

    def cell(self, place: int) -> dict[str, ParameterValue]:
        """The configuration in a place from 0 to `count` - 1. Each place has another one."""
        values: dict[str, ParameterValue] = {}
        self._fill(values, self._children.get(None, []), place)
        return {spec.name: values[spec.name] for spec in self._space if spec.name in values}

    def _fill(self, values: dict[str, ParameterValue], specs: Sequence[ParameterSpec], place: int) -> None:
        """Give parameters the values of a place among all that they and what depends on them can have."""
        for spec in specs:
            counts = self._counts[spec.name]
            place, own = divmod(place, sum(counts))
            for value, count in zip(self._levels[spec.name], counts, strict=True):
                if own < count:
                    values[spec.name] = value
                    self._fill(values, self._active(spec.name, value), own)
                    break
                own -= count

    def _active(self, parent: str, value: ParameterValue) -> list[ParameterSpec]:
        return [
            child
            for child in self._children.get(parent, [])
            if child.when and (type(value), value) in child.when.members
        ]


def shuffled(place: int, count: int, seed: int) -> int:
    """Where a place from 0 to `count` - 1 comes in an order of its seed: a Feistel network, walked on until it ends below `count`.

    No list is made, so that there may be any number of places (Black and Rogaway 2002, cycle walking).
    """
    half = max(((count - 1).bit_length() + 1) // 2, 1)
    while True:
        left, right = divmod(place, 1 << half)
        for turn in range(_ROUNDS):
            left, right = right, left ^ _mixed(right, half, f"{seed} {turn} {count}")
        place = (left << half) | right
        if place < count:
            return place


def _mixed(number: int, bits: int, key: str) -> int:
    """A number of so many bits that depends on another in no way that shows."""
    size = (bits + 7) // 8
    digest = hashlib.shake_128(number.to_bytes(size, "big") + key.encode()).digest(size)
    return int.from_bytes(digest, "big") >> (8 * size - bits)


def _levels(spec: ParameterSpec, allowed: Sequence[ParameterValue] | None, fineness: int) -> Sequence[ParameterValue]:
    """The values of a parameter in the grid of a fineness, from 1."""
    if allowed is not None:
        return allowed
    column, size = column_of(spec), spec.size
    if size is not None and (size <= _listed(spec) or size <= 2**fineness + 1):
        return tuple(column.values())
    values = [column.decode(step / 2**fineness) for step in range(2**fineness + 1)]
    return tuple({token(value): value for value in values}.values())


def _listed(spec: ParameterSpec) -> int:
    """How many values a parameter may have to have all of them in the first grid."""
    ranged = isinstance(spec, Float | Int) and spec.step is None
    return FEW if ranged else LISTED


def _whole(spec: ParameterSpec, levels: Sequence[ParameterValue], allowed: Sequence[ParameterValue] | None) -> bool:
    """Whether the levels are all values that the parameter can have."""
    return allowed is not None or len(levels) == spec.size
