"""Which configurations an ask may choose from: the search space, narrowed by fixed parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from asktell.server.domain.space import Condition, Parameters, ParameterSpec, ParameterValue, SearchSpace, key, same
from asktell.server.policies.columns import Column, Subset, column

Key = tuple[tuple[str, str, Any], ...]

MAX_LISTED = 20_000
"""Finite spaces up to this size are listed; larger ones are walked lazily."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A search space in which each parameter has all its values (None) or only the listed ones.

    A fixed parameter has one value. It has to be active to have it, so its parents keep only values under which it is.
    """

    space: SearchSpace
    allowed: Mapping[str, tuple[ParameterValue, ...] | None]

    @classmethod
    def of(cls, space: SearchSpace, fixed: Parameters) -> Scope:
        """The scope of an ask with some parameters fixed."""
        specs = {spec.name: spec for spec in space}
        allowed: dict[str, tuple[ParameterValue, ...] | None] = dict.fromkeys(specs)
        for name, value in fixed.items():
            _narrow(allowed, name, (value,))
            when = specs[name].when
            while when is not None:
                _narrow(allowed, when.parent, when.values)
                when = specs[when.parent].when
        return cls(space, allowed)

    @property
    def empty(self) -> bool:
        """Whether the fixed parameters contradict each other, so that no configuration has them all."""
        return any(values is not None and not values for values in self.allowed.values())

    def columns(self) -> tuple[Column, ...]:
        """The columns of the space in its order, narrowed."""
        return tuple(self._column(spec) for spec in self.space)

    def _column(self, spec: ParameterSpec) -> Column:
        whole, values = column(spec), self.allowed[spec.name]
        return whole if values is None else Subset(whole, values)

    def count(self) -> int | None:
        """How many distinct configurations there are, conditions taken into account; None if a continuum is among them."""
        if self.empty:
            return 0
        forest = _Forest(self)
        return _product(forest.count(spec) for spec in forest.children(None))

    def configurations(self) -> Iterator[dict[str, ParameterValue]]:
        """Every distinct configuration once, in the order of the space's values. Only for a scope that `count` says is finite."""
        if not self.empty:
            forest = _Forest(self)
            for values in forest.walk(forest.children(None)):
                yield {spec.name: values[spec.name] for spec in self.space if spec.name in values}

    def unseen(self, seen: Collection[Key], *, limit: int) -> list[dict[str, ParameterValue]]:
        """Up to `limit` configurations that are not among `seen`, by their keys: an empty list means a finite scope is exhausted."""
        fresh = (values for values in self.configurations() if key(values) not in seen)
        return list(islice(fresh, limit))


def _narrow(allowed: dict[str, tuple[ParameterValue, ...] | None], name: str, values: Sequence[ParameterValue]) -> None:
    present = allowed[name]
    if present is None:
        allowed[name] = tuple(values)
    else:
        allowed[name] = tuple(value for value in present if any(same(value, other) for other in values))


class _Forest:
    """Parameters as trees: a condition names one parent, so that subtrees are independent."""

    def __init__(self, scope: Scope) -> None:
        self._columns = dict(zip((spec.name for spec in scope.space), scope.columns(), strict=True))
        self._children: dict[str | None, list[ParameterSpec]] = {}
        for spec in scope.space:
            self._children.setdefault(spec.when.parent if spec.when else None, []).append(spec)

    def children(self, parent: str | None) -> list[ParameterSpec]:
        """The parameters under a parent, or the roots."""
        return self._children.get(parent, [])

    def active(self, parent: str, value: ParameterValue) -> list[ParameterSpec]:
        """The parameters that are active when the parent has the value."""
        return [spec for spec in self.children(parent) if spec.when and _holds(spec.when, value)]

    def count(self, spec: ParameterSpec) -> int | None:
        """How many configurations the subtree of a parameter has."""
        size = self._columns[spec.name].size
        if not self.children(spec.name) or size is None:
            return size
        if size > MAX_LISTED:
            return self._count_unlisted(spec, size)
        return _sum(self._count_under(spec.name, value) for value in self._columns[spec.name].values())

    def _count_unlisted(self, spec: ParameterSpec, size: int) -> int | None:
        """Of many values only those that a condition names have children: the others count one each."""
        named: dict[tuple[str, ParameterValue], ParameterValue] = {
            (type(value).__name__, value): value
            for child in self.children(spec.name)
            if child.when
            for value in child.when.values
        }
        special = _sum(self._count_under(spec.name, value) for value in named.values())
        return None if special is None else size - len(named) + special

    def _count_under(self, name: str, value: ParameterValue) -> int | None:
        return _product(self.count(child) for child in self.active(name, value))

    def walk(self, specs: Sequence[ParameterSpec]) -> Iterator[dict[str, ParameterValue]]:
        """Every combination of the subtrees of independent parameters."""
        if not specs:
            yield {}
            return
        first, *rest = specs
        for value in self._columns[first.name].values():
            for values in self.walk([*self.active(first.name, value), *rest]):
                yield {first.name: value, **values}


def _holds(condition: Condition, value: ParameterValue) -> bool:
    return any(same(value, other) for other in condition.values)


def _product(counts: Iterator[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else math.prod(count for count in known if count is not None)


def _sum(counts: Iterator[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)
