"""What a study searches, and for what: parameters, objectives, constraints."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias

ParameterValue: TypeAlias = float | int | str | bool | None


class NoDefault(Enum):
    """The kind of `NO_DEFAULT`: None is a possible choice, and cannot say that there is no default."""

    NO_DEFAULT = "no default"

    def __repr__(self) -> str:
        return self.name


NO_DEFAULT: Final = NoDefault.NO_DEFAULT
Default: TypeAlias = ParameterValue | Literal[NoDefault.NO_DEFAULT]


class Condition(NamedTuple):
    """A parameter is active when `parent` is active and has one of `values`."""

    parent: str
    values: tuple[ParameterValue, ...]


When: TypeAlias = tuple[str, Sequence[ParameterValue]]


@dataclass(frozen=True, slots=True)
class Float:
    """Real numbers from `low` to `high`, both included.

    `log` makes equal ratios count as equal distances and excludes `step`; with a step, values are `low + k * step`. `default` is a value that
    is good to start from. `when=("optimizer", ["sgd"])` makes the parameter exist only where the parent has one of the values.
    """

    name: str
    low: float
    high: float
    _: KW_ONLY
    log: bool = False
    step: float | None = None
    default: float | Literal[NoDefault.NO_DEFAULT] = NO_DEFAULT
    when: When | None = None

    def __post_init__(self) -> None:
        _convert(self, "low", "high", to=float, kind="a number")
        if self.step is not None:
            _convert(self, "step", to=float, kind="a number")
        if not isinstance(self.default, NoDefault):
            _convert(self, "default", to=float, kind="a number")
        _convert(self, "when", to=_condition)


@dataclass(frozen=True, slots=True)
class Int:
    """Whole numbers from `low` to `high`, both included; the options are those of Float."""

    name: str
    low: int
    high: int
    _: KW_ONLY
    log: bool = False
    step: int | None = None
    default: int | Literal[NoDefault.NO_DEFAULT] = NO_DEFAULT
    when: When | None = None

    def __post_init__(self) -> None:
        _convert(self, "low", "high", to=operator.index, kind="an int")
        if self.step is not None:
            _convert(self, "step", to=operator.index, kind="an int")
        if not isinstance(self.default, NoDefault):
            _convert(self, "default", to=operator.index, kind="an int")
        _convert(self, "when", to=_condition)


@dataclass(frozen=True, slots=True)
class Categorical:
    """Choices with no order: text, numbers, truth values or None, each of its own kind: 1, 1.0, True and "1" are four choices."""

    name: str
    choices: Sequence[ParameterValue]
    _: KW_ONLY
    default: Default = NO_DEFAULT
    when: When | None = None

    def __post_init__(self) -> None:
        _convert(self, "choices", to=_values)
        _convert(self, "default", to=_default)
        _convert(self, "when", to=_condition)


@dataclass(frozen=True, slots=True)
class Bool:
    """True or false."""

    name: str
    _: KW_ONLY
    default: bool | Literal[NoDefault.NO_DEFAULT] = NO_DEFAULT
    when: When | None = None

    def __post_init__(self) -> None:
        _convert(self, "default", to=_default)
        _convert(self, "when", to=_condition)


@dataclass(frozen=True, slots=True)
class Ordinal:
    """Values with an order but no distance of their own, such as 16, 32, 64: neighbours are equally far apart."""

    name: str
    values: Sequence[ParameterValue]
    _: KW_ONLY
    default: Default = NO_DEFAULT
    when: When | None = None

    def __post_init__(self) -> None:
        _convert(self, "values", to=_values)
        _convert(self, "default", to=_default)
        _convert(self, "when", to=_condition)


ParameterSpec: TypeAlias = Float | Int | Categorical | Bool | Ordinal


@dataclass(frozen=True, slots=True)
class Minimize:
    """A metric of which smaller is better.

    `reference`, of use with several objectives, is a value just bad enough to be worthless: hypervolume is measured from it.
    """

    metric: str
    reference: float | None = None
    goal: ClassVar[Literal["minimize"]] = "minimize"


@dataclass(frozen=True, slots=True)
class Maximize:
    """A metric of which larger is better; `reference` as for Minimize."""

    metric: str
    reference: float | None = None
    goal: ClassVar[Literal["maximize"]] = "maximize"


Objective: TypeAlias = Minimize | Maximize


@dataclass(frozen=True, slots=True)
class AtMost:
    """A metric that must not be above a bound: a trial is feasible if it meets all such constraints."""

    metric: str
    bound: float

    def met(self, value: float) -> bool:
        """Whether a value of the metric is feasible; NaN is not."""
        return math.isfinite(value) and value <= self.bound


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A metric that must not be below a bound."""

    metric: str
    bound: float

    def met(self, value: float) -> bool:
        """Whether a value of the metric is feasible; NaN is not."""
        return math.isfinite(value) and value >= self.bound


OutcomeConstraint: TypeAlias = AtMost | AtLeast


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The parameter that makes a trial cheaper, such as `"epochs"`: a Float or Int whose range is above 0.

    New configurations start at its lowest rung; of those that ended at a rung the best `1 / reduction_factor` go on to the next one. The
    rungs are the parameter's highest value, divided by the factor again and again, down to its lowest.
    """

    parameter: str
    _: KW_ONLY
    reduction_factor: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """How the trainings of a study with the policy `pbt` evolve.

    `size` trainings go on side by side, each trial being an interval of one. A member among the worst `exploit_fraction` goes on from the
    checkpoint of one among the best as many, with other parameters: each is drawn anew with `resample_probability`, else it is multiplied or
    divided by `perturbation_factor` on a log scale, and moves by `(perturbation_factor - 1) / 2` of its range on any other.
    """

    size: int = 8
    exploit_fraction: float = 0.25
    resample_probability: float = 0.25
    perturbation_factor: float = 1.2


def plain(value: Any) -> ParameterValue:
    """The value as one of the five kinds; numpy's scalars and zero-dimensional tensors become Python's. TypeError for anything else."""
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str.__str__(value)
    inner = value.item() if getattr(value, "ndim", None) == 0 else value
    if inner is None or isinstance(inner, bool | int | float | str):
        return inner
    raise TypeError(f"{value!r} is a {type(value).__name__}, not a float, int, str, bool or None")


def _values(values: Sequence[ParameterValue]) -> tuple[ParameterValue, ...]:
    if isinstance(values, str):
        raise TypeError(f"{values!r} is one text, not a sequence of values")
    return tuple(plain(value) for value in values)


def _default(value: Default) -> Default:
    return value if isinstance(value, NoDefault) else plain(value)


def _condition(when: Any) -> Condition | None:
    if when is None:
        return None
    if not isinstance(when, tuple | list) or len(when) != 2 or not isinstance(when[0], str):
        raise TypeError(f'{when!r} is no condition: write when=("optimizer", ["sgd"])')
    return Condition(when[0], _values(when[1]))


def _convert(spec: ParameterSpec, *fields: str, to: Callable[[Any], object], kind: str = "") -> None:
    """Convert fields in place. TypeError or ValueError that names parameter and field, and says why, or which `kind` the value is not."""
    for field in fields:
        given = getattr(spec, field)
        try:
            object.__setattr__(spec, field, to(given))
        except (TypeError, ValueError, OverflowError) as error:
            why = f"{repr(given)[:100]} is not {kind}" if kind else error
            wrong = TypeError if isinstance(error, TypeError) else ValueError
            raise wrong(f"parameter {spec.name}, {field}: {why}") from error
