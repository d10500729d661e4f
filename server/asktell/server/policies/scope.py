"""Which configurations an ask may choose from: the search space, narrowed by fixed parameters."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from asktell.server.domain.constraints import Inequality, Range
from asktell.server.domain.space import (
    Parameters,
    ParameterSpec,
    ParameterValue,
    SearchSpace,
    key,
    number_range,
    range_of,
)
from asktell.server.policies.columns import Column, Subset, Token, column, token

Key = tuple[tuple[str, str, Any], ...]
Agenda = tuple[ParameterSpec, "Agenda"] | None
"""A linked list of parameters: many share one tail."""

MAX_LISTED = 20_000
"""Finite spaces up to this size are listed; larger ones are walked lazily."""
MAX_BARREN = 50_000
"""After so many steps in a row that lead to no configuration a walk through a space with constraints ends: about a second."""


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
        climbed: set[str] = set()
        for name, value in fixed.items():
            _narrow(allowed, name, (value,))
            spec = specs[name]
            while spec.when is not None and spec.name not in climbed:
                climbed.add(spec.name)
                _narrow(allowed, spec.when.parent, spec.when.values)
                spec = specs[spec.when.parent]
        return cls(space, allowed)

    @property
    def empty(self) -> bool:
        """Whether the fixed parameters contradict each other, so that no configuration has them all."""
        return any(values is not None and not values for values in self.allowed.values())

    def columns(self) -> tuple[Column, ...]:
        """The columns of the space in its order, narrowed."""
        return tuple(self._column(spec) for spec in self.space)

    def range(self, name: str) -> Range:
        """The least and the greatest number that a numeric parameter may have."""
        values = self.allowed[name]
        known = number_range(self.space[name]) if values is None else range_of(values)
        if known is None:
            raise ValueError(f"{name} is no number")
        return known

    def _column(self, spec: ParameterSpec) -> Column:
        whole, values = column(spec), self.allowed[spec.name]
        return whole if values is None else Subset(whole, values)

    @property
    def finite(self) -> bool:
        """Whether no continuum is among the parameters."""
        return self._count() is not None

    def count(self) -> int | None:
        """How many distinct configurations there are, conditions and constraints taken into account; None if a continuum is among them.

        Where there are more than MAX_LISTED but for the constraints, these do not count.
        """
        count = self._count()
        if count is None or count > MAX_LISTED or not self.space.constraints:
            return count
        narrowed = ((name, values) for name, values in sorted(self.allowed.items()) if values is not None)
        return _allowed_count(self.space, tuple((name, tuple(map(token, values))) for name, values in narrowed))

    def _count(self) -> int | None:
        if self.empty:
            return 0
        forest = _Forest(self)
        return _product(forest.count(spec) for spec in forest.children(None))

    def configurations(self) -> Iterator[dict[str, ParameterValue]]:
        """Every distinct configuration that meets the constraints once, in the order of the space's values. Only for a finite scope.

        Of a scope in which MAX_BARREN steps in a row lead to none, the rest is left out.
        """
        if not self.empty:
            forest = _Forest(self)
            for values in forest.walk(forest.children(None)):
                yield {spec.name: values[spec.name] for spec in self.space if spec.name in values}

    def unseen(self, seen: Container[Key], *, limit: int) -> list[dict[str, ParameterValue]]:
        """Up to `limit` configurations that are not among `seen`, by their keys: an empty list means a finite scope is exhausted."""
        return list(Rest(self, limit=limit).unseen(seen))


class Rest:
    """What is left of a finite scope. The scope is walked once, however often it is asked for."""

    def __init__(self, scope: Scope, *, limit: int) -> None:
        self._walk, self._limit = scope.configurations(), limit
        self._fresh: list[dict[str, ParameterValue]] = []
        self._keys: list[Key] = []

    def unseen(self, seen: Container[Key]) -> Sequence[dict[str, ParameterValue]]:
        """Up to `limit` configurations that are not among `seen`, which must have all that it had the time before."""
        kept = [place for place, known in enumerate(self._keys) if known not in seen]
        if len(kept) < len(self._keys):
            self._fresh = [self._fresh[place] for place in kept]
            self._keys = [self._keys[place] for place in kept]
        while len(self._keys) < self._limit and (values := next(self._walk, None)) is not None:
            known = key(values)
            if known not in seen:
                self._fresh.append(values)
                self._keys.append(known)
        return self._fresh


def _narrow(allowed: dict[str, tuple[ParameterValue, ...] | None], name: str, values: Sequence[ParameterValue]) -> None:
    present = allowed[name]
    if present is None:
        allowed[name] = tuple(values)
    else:
        kept = set(map(token, values))
        allowed[name] = tuple(value for value in present if token(value) in kept)


class _Forest:
    """Parameters as trees: a condition names one parent, so that subtrees are independent."""

    def __init__(self, scope: Scope) -> None:
        self._bounds = _Bounds(scope)
        self._columns = dict(zip((spec.name for spec in scope.space), scope.columns(), strict=True))
        self._counts: dict[str, int | None] = {}
        self._children: dict[str | None, list[ParameterSpec]] = {}
        self._active: dict[str, dict[Token, list[ParameterSpec]]] = {}
        for spec in scope.space:
            self._children.setdefault(spec.when.parent if spec.when else None, []).append(spec)
            if spec.when:
                values = self._active.setdefault(spec.when.parent, {})
                for value in dict.fromkeys(map(token, spec.when.values)):
                    values.setdefault(value, []).append(spec)

    def children(self, parent: str | None) -> list[ParameterSpec]:
        """The parameters under a parent, or the roots."""
        return self._children.get(parent, [])

    def active(self, parent: str, value: ParameterValue) -> list[ParameterSpec]:
        """The parameters that are active when the parent has the value."""
        return self._active.get(parent, {}).get(token(value), [])

    def count(self, spec: ParameterSpec) -> int | None:
        """How many configurations the subtree of a parameter has. Counted once: a chain of conditions comes back to it time and again."""
        if spec.name not in self._counts:
            self._counts[spec.name] = self._count(spec)
        return self._counts[spec.name]

    def _count(self, spec: ParameterSpec) -> int | None:
        size = self._columns[spec.name].size
        if not self.children(spec.name) or size is None:
            return size
        if size > MAX_LISTED:
            return self._count_unlisted(spec, size)
        return _sum(self._count_under(spec.name, value) for value in self._columns[spec.name].values())

    def _count_unlisted(self, spec: ParameterSpec, size: int) -> int | None:
        """Of many values only those that a condition names have children: the others count one each."""
        named = self._active[spec.name]
        special = _sum(self._count_under(spec.name, value) for _, value in named)
        return None if special is None else size - len(named) + special

    def _count_under(self, name: str, value: ParameterValue) -> int | None:
        return _product(self.count(child) for child in self.active(name, value))

    def walk(self, specs: Sequence[ParameterSpec]) -> Iterator[dict[str, ParameterValue]]:
        """Every combination of the subtrees of independent parameters."""
        # On a stack of its own: there may be more parameters than Python's stack has room for.
        values: dict[str, ParameterValue] = {}
        stack = self._opened(_ahead(specs, None))
        barren = 0
        while stack and (barren < MAX_BARREN or self._bounds.free):
            name, options, rest = stack[-1]
            option = next(options, None)
            if option is None:
                stack.pop()
                values.pop(name, None)
                continue
            (values[name],) = option
            barren += self._bounds.effort(name)
            if not self._bounds.possible(name, values):
                continue
            opened = self._opened(_ahead(self.active(name, values[name]), rest))
            if not opened and self._bounds.met(values):
                barren = 0
                yield dict(values)
            stack += opened

    def _opened(self, agenda: Agenda) -> list[tuple[str, Iterator[tuple[ParameterValue]], Agenda]]:
        """The next parameter of an agenda with the values it may take and what comes after it; empty at the agenda's end."""
        if agenda is None:
            return []
        spec, rest = agenda
        return [(spec.name, zip(self._columns[spec.name].values(), strict=True), rest)]


class _Bounds:
    """What constraints say of configurations of which some values are chosen."""

    def __init__(self, scope: Scope) -> None:
        self._constraints = scope.space.constraints
        self._ranges: dict[str, Range] = {}
        self._telling: dict[str, list[Inequality]] = {}
        self._certain = {spec.name for spec in scope.space if spec.when is None}
        for inequality in (one for constraint in self._constraints for one in constraint.inequalities):
            for name in inequality.names:
                self._ranges.setdefault(name, scope.range(name))
                self._telling.setdefault(name, []).append(inequality)

    @property
    def free(self) -> bool:
        """Whether there are no constraints."""
        return not self._constraints

    def effort(self, name: str) -> int:
        """What it takes to look at a value of a parameter, in steps."""
        return 1 + sum(len(inequality.terms) for inequality in self._telling.get(name, ())) // 4

    def possible(self, name: str, values: Parameters) -> bool:
        """False if no choice of the other values can make up for those chosen, the latest of which is that of `name`."""
        telling = self._telling.get(name)
        if not telling:
            return True
        chosen = {each: (number, number) for each in self._ranges if (number := _number(values.get(each))) is not None}
        ranges = {**self._ranges, **chosen}
        # A constraint on what may yet turn out to be inactive says nothing.
        known = self._certain | chosen.keys()
        return all(inequality.possible(ranges) for inequality in telling if inequality.names <= known)

    def met(self, values: Parameters) -> bool:
        """Whether a whole configuration meets all constraints."""
        return all(constraint.holds(values) for constraint in self._constraints)


def _number(value: ParameterValue) -> float | int | None:
    return value if isinstance(value, int | float) else None


@lru_cache(maxsize=64)
def _allowed_count(space: SearchSpace, narrowed: tuple[tuple[str, tuple[Token, ...]], ...]) -> int:
    """Kept, because each ask of a study counts the same."""
    allowed: dict[str, tuple[ParameterValue, ...] | None] = dict.fromkeys(spec.name for spec in space)
    allowed |= {name: tuple(value for _, value in tokens) for name, tokens in narrowed}
    return sum(1 for _ in Scope(space, allowed).configurations())


def _ahead(specs: Sequence[ParameterSpec], rest: Agenda) -> Agenda:
    for spec in reversed(specs):
        rest = (spec, rest)
    return rest


def _product(counts: Iterator[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else math.prod(count for count in known if count is not None)


def _sum(counts: Iterator[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)
