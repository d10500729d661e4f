"""The one way from configurations to arrays and back, the same for every policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asktell.server.domain.space import Parameters, ParameterSpec, ParameterValue, SearchSpace
from asktell.server.policies.columns import Column, Token, Vector, column, token
from asktell.server.policies.kernel import SQRT_HALF, Layout, Mask, Matrix
from asktell.server.policies.scope import Scope

NEAR = 1e-4
"""Points closer than this in every number, and equal in every name, are one point to a duplicate guard."""


@dataclass(frozen=True)
class Encoder:
    """Codes of configurations, `n x d` with one column a parameter in the space's order.

    A *latent* row has a value for every parameter, active or not; `settle` rounds it to values and replaces what is inactive by a constant.
    Settled rows are what models see: equal configurations have equal rows.
    """

    space: SearchSpace
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, space: SearchSpace) -> Encoder:
        """The encoder of a whole space."""
        return cls(space, tuple(column(spec) for spec in space))

    @classmethod
    def within(cls, scope: Scope) -> Encoder:
        """The same codes, but drawn and rounded within a scope."""
        return cls(scope.space, scope.columns())

    @cached_property
    def nominal(self) -> Mask:
        """Which columns are names (`d`)."""
        return np.array([codes.nominal for codes in self.columns])

    @cached_property
    def continuous(self) -> Mask:
        """Which columns are continua (`d`)."""
        return np.array([codes.size is None for codes in self.columns])

    @cached_property
    def parents(self) -> Mask:
        """Which columns decide about others' activity (`d`)."""
        names = {spec.when.parent for spec in self.space if spec.when}
        return np.array([spec.name in names for spec in self.space])

    @property
    def conditional(self) -> bool:
        """Whether any parameter may be inactive."""
        return bool(self._conditions)

    @cached_property
    def _absent(self) -> Matrix:
        return np.array([codes.inactive for codes in self.columns])

    @cached_property
    def _conditions(self) -> list[tuple[int, int, Matrix]]:
        """Column, its parent's column and the parent's codes under which it is active; parents come first."""
        place = {spec.name: index for index, spec in enumerate(self.space)}
        conditions = []
        for spec in self.space.parents_first():
            if spec.when is not None:
                parent = place[spec.when.parent]
                codes = np.array([self.columns[parent].encode(value) for value in spec.when.values])
                conditions.append((place[spec.name], parent, codes))
        return conditions

    @cached_property
    def _conditional(self) -> list[tuple[ParameterSpec, str, frozenset[Token]]]:
        """Each conditional parameter, its parent's name and the values under which it is active; parents come first."""
        return [
            (spec, spec.when.parent, frozenset(map(token, spec.when.values)))
            for spec in self.space.parents_first()
            if spec.when is not None
        ]

    @cached_property
    def _names(self) -> list[tuple[int, float]]:
        """Each feature's parameter, and the code that it stands for; NaN for a number."""
        return [
            (index, code)
            for index, codes in enumerate(self.columns)
            for code in ([*range(codes.size or 0), codes.inactive] if codes.nominal else [np.nan])
        ]

    @cached_property
    def codes(self) -> Vector:
        """The codes that features stand for (`D`); NaN for a number."""
        return np.array([code for _, code in self._names])

    @cached_property
    def layout(self) -> Layout:
        """What the columns of features stand for."""
        owners, codes = zip(*self._names, strict=True)
        return Layout(np.array(owners), np.isnan(codes), len(self.columns))

    def features(self, settled: Matrix) -> Matrix:
        """Settled rows (`n x d`) as the surrogate sees them (`n x D`), of the encoder's `layout`. Only for the encoder of a whole space."""
        if self._numbers:
            return settled.copy()
        values: Matrix = settled[:, self.layout.owners]
        return np.where(self.layout.numeric, values, np.where(values == self.codes, SQRT_HALF, 0.0))

    @cached_property
    def _numbers(self) -> bool:
        """Whether no feature is a name."""
        return bool(self.layout.numeric.all())

    @cached_property
    def unit(self) -> bool:
        """Whether all codes from 0 to 1 stand for a value that is active."""
        return bool(self.continuous.all()) and not self._conditions

    def settled(self, features: Matrix) -> Matrix:
        """The settled rows (`n x d`) that have these features (`n x D`)."""
        if self._numbers:
            return features.copy()
        rows = np.zeros((len(features), len(self.columns)))
        np.add.at(
            rows.T,
            self.layout.owners,
            np.where(self.layout.numeric, features, np.where(features > 0.0, self.codes, 0.0)).T,
        )
        return rows

    def encode(self, configurations: Sequence[Parameters]) -> Matrix:
        """The settled rows of configurations."""
        rows = np.empty((len(configurations), len(self.columns)))
        if not len(configurations):
            return rows
        for index, (spec, codes) in enumerate(zip(self.space, self.columns, strict=True)):
            values = [parameters[spec.name] for parameters in configurations if spec.name in parameters]
            if len(values) == len(configurations):
                rows[:, index] = codes.encode_all(values)
            else:
                there = np.array([spec.name in parameters for parameters in configurations], dtype=np.bool_)
                rows[:, index] = codes.inactive
                rows[there, index] = codes.encode_all(values)
        return rows

    def decode(self, row: Matrix) -> dict[str, ParameterValue]:
        """The active parameters of a latent or settled row (`d`)."""
        values = zip(self.space, self.columns, row, strict=True)
        active = {spec.name: codes.decode(float(code)) for spec, codes, code in values}
        for spec, parent, holds in self._conditional:
            if parent not in active or token(active[parent]) not in holds:
                del active[spec.name]
        return active

    def draw(self, unit: Matrix) -> Matrix:
        """Latent rows for points of the unit cube (`n x d`)."""
        if self.unit:
            return self.snap(unit)
        return self._each(unit, [codes.draw for codes in self.columns])

    def snap(self, latent: Matrix) -> Matrix:
        """Latent rows rounded to values."""
        if self.unit:
            return np.minimum(np.maximum(latent, 0.0), 1.0)
        return self._each(latent, [codes.snap for codes in self.columns])

    @staticmethod
    def _each(rows: Matrix, functions: Sequence) -> Matrix:
        return np.stack([function(rows[:, index]) for index, function in enumerate(functions)], axis=1)

    def activity(self, snapped: Matrix) -> Mask:
        """Which parameters are active in rounded rows (`n x d`)."""
        active = np.ones(snapped.shape, dtype=np.bool_)
        for place, parent, codes in self._conditions:
            holds = (np.abs(snapped[:, parent, None] - codes) < 1e-12).any(axis=1)
            active[:, place] = active[:, parent] & holds
        return active

    def settle(self, latent: Matrix) -> Matrix:
        """Rows rounded to values, with constants for what is inactive."""
        snapped = self.snap(latent)
        if self.unit:
            return snapped
        return np.where(self.activity(snapped), snapped, self._absent)

    def near(self, row: Matrix, others: Matrix) -> Mask:
        """Which of the settled rows `others` are so near to `row` that trying both would tell nothing new."""
        gaps = np.abs(others - row)
        close: Mask = np.all(np.where(self.nominal, gaps == 0, gaps < NEAR), axis=1)
        return close
