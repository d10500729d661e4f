"""scikit-learn's grids and distributions as asktell's parameters, and values of one as values of the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from scipy.stats.distributions import rv_continuous, rv_discrete

from asktell.client import Bool, Categorical, Float, Int, Ordinal, ParameterSpec, ParameterValue
from asktell.integrations.choices import MOST_CHOICES, are_plain, position, wire_name

Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | Sequence[ParameterSpec]

TAIL: Final = 0.001
"""What is left out at either end of a distribution that is searched by its quantiles."""

_SPECS = (Float, Int, Categorical, Bool, Ordinal)
_LARGEST_INTEGER = 2**53
_LONGEST_LABEL = 60


class Decoder(Protocol):
    """How asktell's value becomes the estimator's."""

    def __call__(self, value: ParameterValue) -> Any:
        """The estimator's value."""


@dataclass(frozen=True, slots=True)
class Itself:
    """The estimator gets the value as it is."""

    def __call__(self, value: ParameterValue) -> Any:
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Of several choices the very object that the user gave, by what asktell has in its place."""

    choices: Sequence[Any]
    offered: Sequence[ParameterValue]

    def __call__(self, value: ParameterValue) -> Any:
        return self.choices[position(value, self.offered, otherwise=0)]

    def __eq__(self, other: object) -> bool:
        """The same objects, or equal ones where asktell holds them as they are."""
        if not isinstance(other, Chosen) or self.offered != other.offered:
            return False
        pairs = list(zip(self.choices, other.choices, strict=True))
        return are_plain(_plained(self.choices)) or all(mine is yours for mine, yours in pairs)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Quantile:
    """The value at a quantile of a distribution."""

    distribution: Any

    def __call__(self, value: ParameterValue) -> Any:
        found = float(self.distribution.ppf(value))
        return int(found) if isinstance(self.distribution.dist, rv_discrete) else found


@dataclass(frozen=True, slots=True)
class Dial:
    """A parameter of the estimator, the one of asktell's that stands for it, and how its values are read."""

    name: str
    spec: ParameterSpec
    decode: Decoder = field(default_factory=Itself)

    def same(self, other: Dial) -> bool:
        """Whether two branches mean the same parameter."""
        return self.name == other.name and self.spec == other.spec and self.decode == other.decode


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the grids: what is fixed in it, and the dials by the names of their parameters at asktell."""

    label: str
    constants: Mapping[str, Any]
    dials: Mapping[str, Dial]

    def received(self, values: Mapping[str, ParameterValue]) -> dict[str, Any]:
        """asktell's values as the estimator's parameters."""
        chosen = {dial.name: dial.decode(values[wire]) for wire, dial in self.dials.items() if wire in values}
        return {**self.constants, **chosen}


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched. With several branches, or without a dial, one more parameter says which branch a trial is of."""

    parameters: Sequence[ParameterSpec]
    branches: Sequence[Branch]
    selector: str = ""

    @classmethod
    def of(cls, parameters: Parameters) -> Space:
        """The space of a grid, of several, or of asktell's own parameters. TypeError or ValueError, with the name, for what is none."""
        listed = [parameters] if isinstance(parameters, Mapping) else list(parameters)
        specs = [each for each in listed if isinstance(each, _SPECS)]
        grids = [each for each in listed if isinstance(each, Mapping)]
        if specs and len(specs) == len(listed):
            return cls(specs, [Branch("", {}, {spec.name: Dial(spec.name, spec) for spec in specs})])
        if not grids or len(grids) < len(listed):
            raise TypeError(
                "parameters must be a dict of names and choices or distributions, a list of such dicts, or a list of"
                f" asktell's parameters, not {parameters!r}"
            )
        return _joined([_branch(index, grid, alone=len(grids) == 1) for index, grid in enumerate(grids)])

    def received(self, values: Mapping[str, ParameterValue]) -> dict[str, Any]:
        """asktell's configuration as the estimator's parameters: of a choice the very object that the user gave."""
        label = values[self.selector] if self.selector else self.branches[0].label
        return next(branch for branch in self.branches if branch.label == label).received(values)


def _branch(index: int, grid: Mapping[str, Any], *, alone: bool) -> Branch:
    constants, dials = {}, {}
    for name, given in grid.items():
        if isinstance(given, _SPECS) and given.when is not None and not alone:
            raise ValueError(f"{name!r} has a condition of its own, in one of several dicts: the dict is its condition")
        choices = _choices(name, given)
        if choices is not None and len(choices) == 1:
            constants[name] = choices[0]
        else:
            dials[name] = _dial(name, given, choices)
    return Branch(f"{index}:{_title(constants)}"[:_LONGEST_LABEL], constants, dials)


def _joined(branches: Sequence[Branch]) -> Space:
    """The branches in one space. What several have alike is one parameter, so that each learns from the others' trials."""
    shared: list[tuple[Dial, list[int]]] = []
    for index, branch in enumerate(branches):
        for dial in branch.dials.values():
            users = next((users for other, users in shared if other.same(dial)), None)
            if users is None:
                shared.append((dial, [index]))
            else:
                users.append(index)
    names = _distinct(dial.spec.name for dial, _ in shared)
    wired = [
        Branch(
            branch.label, branch.constants, {n: d for n, (d, users) in zip(names, shared, strict=True) if i in users}
        )
        for i, branch in enumerate(branches)
    ]
    if len(branches) == 1 and shared:
        return Space([replace(dial.spec, name=name) for name, (dial, _) in zip(names, shared, strict=True)], wired)
    return _with_selector(names, shared, wired)


def _with_selector(names: Sequence[str], shared: Sequence[tuple[Dial, list[int]]], branches: Sequence[Branch]) -> Space:
    selector = _distinct([*names, "branch"])[-1]
    parameters: list[ParameterSpec] = [Categorical(selector, [branch.label for branch in branches])]
    for name, (dial, users) in zip(names, shared, strict=True):
        labels = [branches[index].label for index in users]
        when = None if len(users) == len(branches) else (selector, labels)
        parameters.append(replace(dial.spec, name=name, when=when))
    return Space(parameters, branches, selector)


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, those that come again with a number."""
    found: list[str] = []
    for name in names:
        count = 1
        while (made := name if count == 1 else f"{name}:{count}") in found:
            count += 1
        found.append(made)
    return found


def _choices(name: str, given: Any) -> list[Any] | None:
    """The choices of a list or one-dimensional array; None for a distribution or a parameter of asktell's."""
    if isinstance(given, _SPECS) or _is_distribution(given):
        return None
    listed = isinstance(given, Sequence) or (isinstance(given, np.ndarray) and given.ndim == 1)
    if isinstance(given, str | bytes) or not listed:
        raise TypeError(
            f"{name!r} needs a list of choices, a distribution of scipy.stats or a parameter of asktell's, not {given!r}"
        )
    if not len(given):
        raise ValueError(f"{name!r} has no choices: the list is empty")
    return list(given)


def _dial(name: str, given: Any, choices: Sequence[Any] | None) -> Dial:
    if choices is not None:
        return _dial_of_choices(name, choices)
    if isinstance(given, _SPECS):
        if given.name != name:
            raise ValueError(f"{name!r} has a parameter of another name: {given!r}")
        return _own(name, given)
    return _dial_of_distribution(name, given() if isinstance(given, rv_continuous | rv_discrete) else given)


def _own(name: str, spec: ParameterSpec) -> Dial:
    return Dial(name, replace(spec, name=wire_name(name)))


def _dial_of_choices(name: str, choices: Sequence[Any]) -> Dial:
    values, wire = _plained(choices), wire_name(name)
    if len(choices) > MOST_CHOICES:
        if not _ordered(values):
            raise ValueError(
                f"{name!r} has {len(choices):,} choices; at most {MOST_CHOICES:,} without an order are searched"
            )
        return Dial(name, Int(wire, 0, len(choices) - 1), Chosen(choices, range(len(choices))))
    if not are_plain(values):
        values = [f"{index}:{_label(choice)}"[:_LONGEST_LABEL] for index, choice in enumerate(choices)]
    elif _ordered(values):
        return Dial(name, Ordinal(wire, values), Chosen(choices, values))
    return Dial(name, Categorical(wire, values), Chosen(choices, values))


def _dial_of_distribution(name: str, distribution: Any) -> Dial:
    """Uniform ones as ranges; others by their quantiles, which are uniform."""
    wire = wire_name(name)
    kind, (low, high) = distribution.dist.name, map(float, distribution.support())
    bounded = math.isfinite(high - low) and low < high
    if kind == "randint" and bounded and max(abs(low), abs(high)) <= _LARGEST_INTEGER:
        return Dial(name, Int(wire, int(low), int(high)))
    if kind == "uniform" and bounded:
        return Dial(name, Float(wire, low, high))
    if kind in ("loguniform", "reciprocal") and bounded and low > 0 and _shift(distribution) == 0:
        return Dial(name, Float(wire, low, high, log=True))
    return Dial(name, Float(wire_name(f"{wire}:quantile"), TAIL, 1 - TAIL), Quantile(distribution))


def _is_distribution(given: Any) -> bool:
    """Whether it is one of scipy.stats, frozen or not: what has quantiles."""
    return isinstance(given, rv_continuous | rv_discrete) or all(
        hasattr(given, name) for name in ("ppf", "support", "dist")
    )


def _shift(distribution: Any) -> float:
    """The `loc` of a frozen distribution."""
    _, loc, _ = distribution.dist._parse_args(*distribution.args, **distribution.kwds)  # noqa: SLF001 - SciPy has no public way.
    return float(loc)


def _plained(choices: Sequence[Any]) -> list[Any]:
    """The choices with numpy's scalars as Python's."""
    return [choice.item() if isinstance(choice, np.generic) else choice for choice in choices]


def _ordered(values: Sequence[Any]) -> bool:
    """Whether at least three numbers ascend or descend: then neighbours are alike."""
    if len(values) < 3 or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        return False
    return all(a < b for a, b in pairwise(values)) or all(a > b for a, b in pairwise(values))


def _title(constants: Mapping[str, Any]) -> str:
    return ",".join(_label(constant) for constant in constants.values()) or "branch"


def _label(choice: Any) -> str:
    """A short name of an object, the same in every process."""
    if isinstance(choice, str | int | float | bool | None):
        return "".join(letter for letter in str(choice) if letter.isprintable())
    return str(getattr(choice, "__name__", type(choice).__name__))
