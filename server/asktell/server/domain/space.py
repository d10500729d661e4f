"""The search space: parameters, their ranges, which of them are active, and constraints between them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from asktell.server.domain.constraints import (
    MAX_CONSTRAINTS,
    InputConstraint,
    Range,
    opposite_sides,
    shown,
)
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.text import check_text, check_variable, excerpt

ParameterValue = float | int | str | bool | None
Parameters = Mapping[str, ParameterValue]
Members = frozenset[tuple[type, ParameterValue]]

MAX_PARAMETERS = 500
MAX_CHOICES = 1_000
MAX_INTEGER = 2**53
MAX_STRING = 1_024
MAX_DEPTH = 64


def same(left: ParameterValue, right: ParameterValue) -> bool:
    """Whether two values are the same value of the same kind: 1, 1.0, True and "1" are four values."""
    return type(left) is type(right) and left == right


def kinds(values: Iterable[ParameterValue]) -> Members:
    """The values with their kinds, to look one up in; Python alone holds 1, 1.0 and True for equal."""
    return frozenset((type(value), value) for value in values)


def key(parameters: Parameters) -> tuple[tuple[str, str, ParameterValue], ...]:
    """A hashable form of parameters; equal exactly for equal parameters, kinds included. -0.0 counts as 0.0."""
    return tuple((name, type(value).__name__, value) for name, value in sorted(parameters.items()))


@dataclass(frozen=True, slots=True)
class Condition:
    """A parameter is active when `parent` is active and has one of `values`."""

    parent: str
    values: tuple[ParameterValue, ...]
    members: Members = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", kinds(self.values))

    def holds(self, parameters: Parameters) -> bool:
        """Whether `parameters` meet the condition; an inactive parent is absent and meets none."""
        return self.parent in parameters and (type(parameters[self.parent]), parameters[self.parent]) in self.members


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec(ABC):
    name: str
    default: ParameterValue = None
    has_default: bool = False
    when: Condition | None = None

    @abstractmethod
    def check(self, value: ParameterValue) -> ParameterValue:
        """Return the value as this parameter keeps it, or raise ValueError that says what is allowed."""

    @abstractmethod
    def validate(self) -> None:
        """Raise InvalidArgument, relative to the parameter spec, if the range makes no sense."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """How many values the parameter has; None for a continuum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Float(_Spec):
    """Real numbers from `low` to `high`, both included; on a grid `low + k * step` if there is a step."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def check(self, value: ParameterValue) -> float:
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise ValueError(f"{describe(value)} is not a number")
        number = float(value) + 0.0
        if not self.low <= number <= self.high:
            raise ValueError(f"{number!r} is outside [{self.low!r}, {self.high!r}]")
        if self.step is None:
            return number
        snapped = self.low + round((number - self.low) / self.step) * self.step
        if not math.isclose(snapped, number, rel_tol=1e-9, abs_tol=1e-9 * self.step):
            raise ValueError(f"{number!r} is not {self.low!r} plus a multiple of {self.step!r}")
        return min(snapped, self.high)

    def validate(self) -> None:
        _finite("float_spec.low", self.low)
        _finite("float_spec.high", self.high)
        _ordered("float_spec", self.low, self.high)
        _finite("float_spec.high", self.high - self.low)
        if self.log and self.low <= 0:
            raise InvalidArgument("float_spec.low", f"must be above 0 on a log scale, not {self.low!r}")
        if self.step is not None:
            _finite("float_spec.step", self.step)
            _step("float_spec.step", self.step, self.high - self.low, on_log=self.log)

    @property
    def size(self) -> int | None:
        if self.low == self.high:
            return 1
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Int(_Spec):
    """Whole numbers from `low` to `high`, both included; on a grid `low + k * step` if there is a step."""

    low: int
    high: int
    log: bool = False
    step: int | None = None

    def check(self, value: ParameterValue) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{describe(value)} is not a whole number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is outside [{self.low}, {self.high}]")
        if (value - self.low) % (self.step or 1):
            raise ValueError(f"{value} is not {self.low} plus a multiple of {self.step}")
        return value

    def validate(self) -> None:
        for path, bound in (("int_spec.low", self.low), ("int_spec.high", self.high)):
            if abs(bound) > MAX_INTEGER:
                raise InvalidArgument(path, f"{bound} is more than 2^53 away from zero")
        _ordered("int_spec", self.low, self.high)
        if self.log and self.low < 1:
            raise InvalidArgument("int_spec.low", f"must be at least 1 on a log scale, not {self.low}")
        if self.step is not None:
            _step("int_spec.step", self.step, self.high - self.low, on_log=self.log)

    @property
    def size(self) -> int:
        return (self.high - self.low) // (self.step or 1) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical(_Spec):
    """Choices with no order."""

    choices: tuple[ParameterValue, ...]
    members: Members = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", kinds(self.choices))

    def check(self, value: ParameterValue) -> ParameterValue:
        return _member(value, self.members, self.choices)

    def validate(self) -> None:
        _validate_choices("categorical_spec.choices", self.choices)

    @property
    def size(self) -> int:
        return len(self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bool(_Spec):
    """True or false."""

    def check(self, value: ParameterValue) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{describe(value)} is not a truth value")
        return value

    def validate(self) -> None:
        """There is nothing to get wrong."""

    @property
    def size(self) -> int:
        return 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordinal(_Spec):
    """Values with an order, such as 16, 32, 64; neighbours are equally far apart."""

    values: tuple[ParameterValue, ...]
    members: Members = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", kinds(self.values))

    def check(self, value: ParameterValue) -> ParameterValue:
        return _member(value, self.members, self.values)

    def validate(self) -> None:
        _validate_choices("ordinal_spec.values", self.values)

    @property
    def size(self) -> int:
        return len(self.values)


ParameterSpec = Float | Int | Categorical | Bool | Ordinal


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The parameters of a study, in the order in which they were given, and the constraints that every configuration meets."""

    parameters: tuple[ParameterSpec, ...]
    constraints: tuple[InputConstraint, ...] = ()

    def __iter__(self) -> Iterator[ParameterSpec]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __getitem__(self, name: str) -> ParameterSpec:
        for spec in self.parameters:
            if spec.name == name:
                return spec
        raise KeyError(name)

    def validate(self) -> None:
        """Raise InvalidArgument with a path that starts at `parameters` or `input_constraints` if the space makes no sense."""
        if not 1 <= len(self.parameters) <= MAX_PARAMETERS:
            raise InvalidArgument(
                "parameters", f"has {len(self.parameters):,} parameters; 1 to {MAX_PARAMETERS} are allowed"
            )
        seen: set[str] = set()
        for index, spec in enumerate(self.parameters):
            try:
                check_variable("name", spec.name)
                if spec.name in seen:
                    raise InvalidArgument("name", f"{spec.name!r} is the name of an earlier parameter")
                seen.add(spec.name)
                spec.validate()
                _validate_default(spec)
            except InvalidArgument as error:
                raise error.within(f"parameters[{index}]") from None
        self._validate_conditions()
        self._validate_constraints()

    def _validate_conditions(self) -> None:
        names = {spec.name: spec for spec in self.parameters}
        for index, spec in enumerate(self.parameters):
            if spec.when is None:
                continue
            field = f"parameters[{index}].when"
            if spec.when.parent not in names:
                raise InvalidArgument(f"{field}.parent", f"{excerpt(spec.when.parent)} is not a parameter of the study")
            if not spec.when.values:
                raise InvalidArgument(f"{field}.values", "is empty: the parameter would never be active")
            for position, value in enumerate(spec.when.values):
                _validate_allowed(f"{field}.values[{position}]", names[spec.when.parent], value)
            self._refuse_cycle(field, spec.name, names)

    def _validate_constraints(self) -> None:
        if len(self.constraints) > MAX_CONSTRAINTS:
            raise InvalidArgument(
                "input_constraints", f"has {len(self.constraints):,} constraints; at most {MAX_CONSTRAINTS} are allowed"
            )
        names = {spec.name: spec for spec in self.parameters}
        for index, constraint in enumerate(self.constraints):
            field = f"input_constraints[{index}]"
            ranges = {name: _numeric_range(field, constraint, names, name) for name in sorted(constraint.names)}
            if not all(inequality.possible(ranges) for inequality in constraint.inequalities):
                raise InvalidArgument(field, f"{excerpt(constraint.text)} is met nowhere in the parameters' ranges")
        self._refuse_contradictions(names)
        self._refuse_bad_defaults()

    def _refuse_contradictions(self, names: Mapping[str, ParameterSpec]) -> None:
        """Of pairs of inequalities; what several of them exclude together shows only when configurations are sought."""
        placed = ((index, one) for index, each in enumerate(self.constraints) for one in each.inequalities)
        for index, one, gap in opposite_sides(placed):
            field, text = f"input_constraints[{index}]", excerpt(self.constraints[index].text)
            if gap < 0:
                raise InvalidArgument(field, f"{text} contradicts another constraint")
            if gap == 0 and any(names[name].size is None for name in one.names):
                raise InvalidArgument(
                    field,
                    f"{text} and another constraint make an equation of real numbers:"
                    " leave one of its parameters out and compute it from the others",
                )

    def _refuse_bad_defaults(self) -> None:
        given = self._own_defaults()
        for index, constraint in enumerate(self.constraints):
            if not constraint.holds(given):
                raise InvalidArgument(
                    f"input_constraints[{index}]",
                    f"{excerpt(constraint.text)} is not met by the default values {shown(constraint.names, given)}",
                )

    def _own_defaults(self) -> dict[str, ParameterValue]:
        """The default values that were given, of those parameters that are active under them and the middles of the others."""
        return {name: value for name, value in (self.defaults() or {}).items() if self[name].has_default}

    @staticmethod
    def _refuse_cycle(field: str, start: str, names: Mapping[str, ParameterSpec]) -> None:
        visited = {start: None}
        condition = names[start].when
        while condition is not None and condition.parent in names:
            if condition.parent in visited:
                cycle = " -> ".join([*visited, condition.parent])
                raise InvalidArgument(f"{field}.parent", f"conditions form a cycle: {cycle}")
            visited[condition.parent] = None
            if len(visited) > MAX_DEPTH:
                raise InvalidArgument(f"{field}.parent", f"conditions nest more than {MAX_DEPTH} deep")
            condition = names[condition.parent].when

    def parents_first(self) -> Sequence[ParameterSpec]:
        """The parameters in an order in which each comes after its parent, otherwise as given."""
        ordered: dict[str, ParameterSpec] = {}
        waiting = list(self.parameters)
        while waiting:
            ready = [spec for spec in waiting if spec.when is None or spec.when.parent in ordered]
            ordered |= {spec.name: spec for spec in ready}
            waiting = [spec for spec in waiting if spec.name not in ordered]
        return list(ordered.values())

    def active(self, values: Parameters) -> dict[str, ParameterValue]:
        """Only those of `values` (one for every parameter) that are active, in the order of the space."""
        kept: dict[str, ParameterValue] = {}
        for spec in self.parents_first():
            if spec.when is None or spec.when.holds(kept):
                kept[spec.name] = values[spec.name]
        return {spec.name: kept[spec.name] for spec in self.parameters if spec.name in kept}

    def check(self, parameters: Parameters) -> dict[str, ParameterValue]:
        """Return exactly the active parameters as the space keeps them, or raise InvalidArgument for unknown, missing, inactive or bad
        ones, and for a constraint that they do not meet.
        """
        checked = self.check_fixed(parameters)
        kept: dict[str, ParameterValue] = {}
        for spec in self.parents_first():
            if spec.when is not None and not spec.when.holds(kept):
                if spec.name in checked:
                    raise InvalidArgument(
                        f"parameters[{spec.name}]", f"is inactive: {spec.when.parent!r} has another value"
                    )
                continue
            if spec.name not in checked:
                raise InvalidArgument(f"parameters[{spec.name}]", "is missing")
            kept[spec.name] = checked[spec.name]
        return {spec.name: kept[spec.name] for spec in self.parameters if spec.name in kept}

    def check_fixed(self, parameters: Parameters, *, path: str = "parameters") -> dict[str, ParameterValue]:
        """Return some of the parameters as the space keeps them, or raise InvalidArgument below `path` for unknown or bad ones, and at
        `path` for a constraint that these, whatever the others are, do not meet.
        """
        names = {spec.name: spec for spec in self.parameters}
        checked: dict[str, ParameterValue] = {}
        for name, value in parameters.items():
            if name not in names:
                raise InvalidArgument(f"{path}[{name[:64]}]", f"{excerpt(name)} is not a parameter of the study")
            try:
                checked[name] = names[name].check(_whole(names[name], value))
            except ValueError as error:
                raise InvalidArgument(f"{path}[{name}]", str(error)) from None
        for constraint in self.constraints:
            if not constraint.holds(checked):
                raise InvalidArgument(
                    path, f"{shown(constraint.names, checked)} does not meet the constraint {excerpt(constraint.text)}"
                )
        return checked

    def allows(self, parameters: Parameters) -> bool:
        """Whether a configuration, whose values the parameters have, meets all constraints."""
        return all(constraint.holds(parameters) for constraint in self.constraints)

    def difference(self, other: SearchSpace) -> str | None:
        """In which parameter or constraint another space differs, for an error message; None if it is the same.

        Python holds 1, 1.0 and True for equal; their written forms differ.
        """
        for mine, its in zip_longest(self.parameters, other.parameters):
            if repr(mine) != repr(its):
                named = mine is not None and its is not None and mine.name == its.name
                return f"another parameter {mine.name!r}" if named else "other parameters"
        for one, another in zip_longest(self.constraints, other.constraints):
            if one is None or another is None or one.inequalities != another.inequalities:
                return f"{len(self.constraints)} input constraints" if one is None else f"input constraint {one.text!r}"
        return None

    @property
    def size(self) -> int | None:
        """How many distinct configurations there are, at most; None for a continuum. Conditions are not taken into account."""
        total = 1
        for spec in self.parameters:
            size = spec.size
            if size is None:
                return None
            total *= size
        return total

    def defaults(self) -> dict[str, ParameterValue] | None:
        """The default values of the active parameters, if any parameter has one; the others take the middle of their range."""
        if not any(spec.has_default for spec in self.parameters):
            return None
        return self.active({spec.name: spec.default if spec.has_default else middle(spec) for spec in self.parameters})


def middle(spec: ParameterSpec) -> ParameterValue:
    """The value in the middle of a parameter's range, on its scale."""
    match spec:
        case Float():
            centre = math.sqrt(spec.low) * math.sqrt(spec.high) if spec.log else spec.low / 2 + spec.high / 2
            if spec.step is not None:
                centre = spec.low + round((centre - spec.low) / spec.step) * spec.step
            return min(max(centre, spec.low), spec.high)
        case Int():
            centre = math.sqrt(spec.low * spec.high) if spec.log else (spec.low + spec.high) / 2
            step = spec.step or 1
            return min(spec.low + round((centre - spec.low) / step) * step, spec.low + (spec.size - 1) * step)
        case Categorical():
            return spec.choices[0]
        case Bool():
            return False
        case Ordinal():
            return spec.values[len(spec.values) // 2]


def _numeric_range(field: str, constraint: InputConstraint, names: Mapping[str, ParameterSpec], name: str) -> Range:
    """The least and the greatest value of a parameter that a constraint mentions, or InvalidArgument if it has none."""
    spec = names.get(name)
    if spec is None:
        raise InvalidArgument(field, f"{excerpt(constraint.text)}: {excerpt(name)} is not a parameter of the study")
    known = number_range(spec)
    if known is None:
        kind = type(spec).__name__.lower()
        why = f"{excerpt(name)} is {kind}, and constraints are between numbers"
        raise InvalidArgument(field, f"{excerpt(constraint.text)}: {why}")
    return known


def number_range(spec: ParameterSpec) -> Range | None:
    """The least and the greatest value of a parameter; None unless all are numbers."""
    match spec:
        case Float() | Int():
            return spec.low, spec.high
        case Ordinal():
            return range_of(spec.values)
        case _:
            return None


def range_of(values: Sequence[ParameterValue]) -> Range | None:
    """The least and the greatest of the values; None unless all are numbers."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return (min(numbers), max(numbers)) if len(numbers) == len(values) else None


def describe(value: ParameterValue) -> str:
    """A value and its kind, fit for an error message."""
    if isinstance(value, str):
        return f"text {excerpt(value)}"
    if value is None:
        return "null"
    return f"{type(value).__name__} {value!r}"


def _member(value: ParameterValue, members: Members, values: Sequence[ParameterValue]) -> ParameterValue:
    if (type(value), value) in members:
        return value
    shown = ", ".join(describe(member) for member in values[:10])
    raise ValueError(f"{describe(value)} is none of: {shown}{', ...' if len(values) > 10 else ''}")


def _whole(spec: ParameterSpec, value: ParameterValue) -> ParameterValue:
    """The integer that a float without fraction stands for where the parameter has no such float; any other value as it is.

    Tables with gaps, of which pandas' are many, know no integers. The specs' own values stay of the kind in which they were given.
    """
    if not isinstance(value, float) or not value.is_integer() or abs(value) > MAX_INTEGER:
        return value
    match spec:
        case Int():
            return int(value)
        case Categorical() | Ordinal():
            only_whole = (float, value) not in spec.members and (int, int(value)) in spec.members
            return int(value) if only_whole else value
        case _:
            return value


def _finite(field: str, value: float) -> None:
    if not math.isfinite(value):
        raise InvalidArgument(field, f"must be finite, not {value!r}")


def _ordered(field: str, low: float, high: float) -> None:
    if low > high:
        raise InvalidArgument(f"{field}.low", f"{low!r} is above high, {high!r}")


def _step(field: str, step: float, span: float, *, on_log: bool) -> None:
    if on_log:
        raise InvalidArgument(field, "a step excludes a log scale; use ordinal values")
    if not 0 < step <= span:
        raise InvalidArgument(field, f"must be above 0 and at most high - low = {span!r}, not {step!r}")
    if span > step * MAX_INTEGER:
        raise InvalidArgument(field, f"{step!r} makes more than 2^53 values of {span!r}")
    if span / step > MAX_INTEGER:
        raise InvalidArgument(field, f"{step!r} makes more than 2^53 values of [low, high]")


def check_choice_count(field: str, count: int) -> None:
    """Raise InvalidArgument unless there are 1 to 1,000 values."""
    if not 1 <= count <= MAX_CHOICES:
        raise InvalidArgument(field, f"has {count:,} values; 1 to {MAX_CHOICES:,} are allowed")


def _validate_choices(field: str, values: Sequence[ParameterValue]) -> None:
    check_choice_count(field, len(values))
    seen: set[tuple[type, ParameterValue]] = set()
    for index, value in enumerate(values):
        if isinstance(value, float):
            _finite(f"{field}[{index}]", value)
        if isinstance(value, str):
            check_text(f"{field}[{index}]", value, limit=MAX_STRING)
        if (type(value), value) in seen:
            raise InvalidArgument(f"{field}[{index}]", f"{describe(value)} stands there twice")
        seen.add((type(value), value))


def _validate_default(spec: ParameterSpec) -> None:
    if spec.has_default:
        _validate_allowed("default_value", spec, spec.default)


def _validate_allowed(field: str, spec: ParameterSpec, value: ParameterValue) -> None:
    try:
        spec.check(value)
    except ValueError as error:
        raise InvalidArgument(field, str(error)) from None
