"""One parameter as a column of numbers: its code, the way back, and how to draw, round and vary codes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt

from asktell.server.domain.space import Bool, Categorical, Float, Int, Ordinal, ParameterSpec, ParameterValue

Vector = npt.NDArray[np.float64]
Token = tuple[str, ParameterValue]

MAX_ALTERNATIVES = 33
MAX_NAMES = 128
INACTIVE_NUMBER = 0.5
INACTIVE_CHOICE = -1.0


def token(value: ParameterValue) -> Token:
    """A hashable form of a value; equal exactly for the same value of the same kind."""
    return type(value).__name__, value


class Column(ABC):
    """A parameter's values as float64 codes: numbers in [0, 1], or the index of a choice for a Hamming distance."""

    nominal: bool = False
    """Whether codes are names: equal or not, with no distance between them."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """How many codes there are; None for a continuum."""

    @abstractmethod
    def encode(self, value: ParameterValue) -> float:
        """The code of a value that the parameter allows."""

    def encode_all(self, values: Sequence[ParameterValue]) -> Vector:
        """The codes of values (`n`)."""
        return np.array([self.encode(value) for value in values], dtype=np.float64)

    @abstractmethod
    def decode(self, code: float) -> ParameterValue:
        """The value nearest to a code."""

    @abstractmethod
    def draw(self, unit: Vector) -> Vector:
        """Codes for uniform numbers in [0, 1): uniform on the parameter's scale, discrete levels equally likely but for log integers."""

    @abstractmethod
    def snap(self, codes: Vector) -> Vector:
        """The nearest codes that stand for a value."""

    @abstractmethod
    def alternatives(self, code: float) -> Vector:
        """Codes worth trying in place of `code`: all of them if they are few, else its neighbours and an even spread."""

    @abstractmethod
    def values(self) -> Iterator[ParameterValue]:
        """Every value in order, each once. A continuum has no such list and yields its ends."""

    def numbers(self, codes: Vector) -> Vector:
        """The values, as numbers, of codes that stand for one; NaN for what is no number."""
        values = [self.decode(float(code)) for code in codes]
        return np.array([value if isinstance(value, int | float) else math.nan for value in values], dtype=np.float64)

    def codes_near(self, numbers: Vector) -> Vector:
        """Codes around numbers (`n`), the values of some on either side and, if there is one, that of the number itself (`n x k`)."""
        options = np.fromiter(map(self.encode, self.values()), dtype=np.float64)
        return np.tile(options, (len(numbers), 1))

    @property
    def inactive(self) -> float:
        """The code that stands for absence."""
        return INACTIVE_CHOICE if self.nominal else INACTIVE_NUMBER


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] to [0, 1], through the logarithm if so declared. A range of one value maps to 0."""

    low: float
    high: float
    log: bool

    def shrink(self, value: float) -> float:
        """From the range to [0, 1]."""
        if self.low == self.high:
            return 0.0
        if self.log:
            start = math.log(self.low)
            # Neighbouring numbers may have one logarithm.
            unit = (math.log(value) - start) / (math.log(self.high) - start or 1.0)
        else:
            unit = (value - self.low) / (self.high - self.low)
        return min(max(unit, 0.0), 1.0)

    def stretch(self, unit: float) -> float:
        """From [0, 1] to the range, never outside it."""
        if unit >= 1.0 or self.low == self.high:
            return self.high
        if self.log:
            start = math.log(self.low)
            value = math.exp(start + unit * (math.log(self.high) - start))
        else:
            value = self.low + unit * (self.high - self.low)
        return min(max(value, self.low), self.high)


@dataclass(frozen=True, slots=True)
class Continuum(Column):
    """A real number."""

    scale: Scale

    @property
    def size(self) -> int | None:
        return 1 if self.scale.low == self.scale.high else None

    def encode(self, value: ParameterValue) -> float:
        return self.scale.shrink(_number(value))

    def encode_all(self, values: Sequence[ParameterValue]) -> Vector:
        scale = self.scale
        if scale.log or scale.low == scale.high:
            # To the bit as `encode` has them, which NumPy's logarithm is not.
            return super(Continuum, self).encode_all(values)
        numbers = values if set(map(type, values)) == {float} else [_number(value) for value in values]
        return _within((np.array(numbers, dtype=np.float64) - scale.low) / (scale.high - scale.low), 0.0, 1.0)

    def decode(self, code: float) -> float:
        return self.scale.stretch(code) + 0.0

    def draw(self, unit: Vector) -> Vector:
        return self.snap(unit)

    def snap(self, codes: Vector) -> Vector:
        return np.zeros_like(codes) if self.size == 1 else _within(codes, 0.0, 1.0)

    def alternatives(self, code: float) -> Vector:
        return np.array([code])

    def values(self) -> Iterator[ParameterValue]:
        yield from sorted({self.scale.low, self.scale.high})

    def numbers(self, codes: Vector) -> Vector:
        scale = self.scale
        if scale.log:
            # To the bit as `decode` has them, which NumPy's exponential is not.
            return np.array([scale.stretch(code) for code in codes.tolist()], dtype=np.float64)
        values = _within(scale.low + codes * (scale.high - scale.low), scale.low, scale.high)
        return np.where(codes >= 1.0, scale.high, values)

    def codes_near(self, numbers: Vector) -> Vector:
        codes = np.array([self.scale.shrink(number) for number in _within(numbers, self.scale.low, self.scale.high)])
        return codes[:, None] + np.array([0.0, 1e-15, -1e-15, 1e-12, -1e-12])


@dataclass(frozen=True, slots=True)
class _Levels(Column):
    """`count` values in an order, at equal distances."""

    count: int

    @property
    def size(self) -> int:
        return self.count

    def code(self, rank: int) -> float:
        """The code of the value with this rank, from 0."""
        return rank / (self.count - 1) if self.count > 1 else 0.0

    def rank(self, code: float) -> int:
        """The rank of the value nearest to a code."""
        return min(max(round(code * (self.count - 1)), 0), self.count - 1)

    def draw(self, unit: Vector) -> Vector:
        return self._codes(np.minimum(np.floor(unit * self.count), self.count - 1))

    def snap(self, codes: Vector) -> Vector:
        return self._codes(np.rint(np.clip(codes, 0.0, 1.0) * (self.count - 1)))

    def alternatives(self, code: float) -> Vector:
        if self.count <= MAX_ALTERNATIVES:
            return self._codes(np.arange(self.count, dtype=np.float64))
        nearby = np.arange(-4, 5) + float(self.rank(code))
        spread = np.rint(np.linspace(0, self.count - 1, 9))
        return self._codes(np.unique(np.clip(np.concatenate([nearby, spread]), 0, self.count - 1)))

    def values(self) -> Iterator[ParameterValue]:
        ranked = (self.decode(self.code(rank)) for rank in range(self.count))
        return (value for (_, value), _ in groupby(ranked, key=lambda value: (type(value), value)))

    def _codes(self, ranks: Vector) -> Vector:
        return ranks / max(self.count - 1, 1)

    def _codes_near(self, ranks: Vector) -> Vector:
        around = np.floor(ranks)[:, None] + np.arange(-1.0, 3.0)
        return self._codes(_within(around, 0.0, self.count - 1))


@dataclass(frozen=True, slots=True)
class Ranked(_Levels):
    """Ordinal values, by rank."""

    members: tuple[ParameterValue, ...]

    @cached_property
    def _places(self) -> dict[Token, int]:
        return _places(self.members)

    def encode(self, value: ParameterValue) -> float:
        return self.code(_position(value, self._places))

    def decode(self, code: float) -> ParameterValue:
        return self.members[self.rank(code)]

    def codes_near(self, numbers: Vector) -> Vector:
        return np.tile(self._codes(np.arange(self.count, dtype=np.float64)), (len(numbers), 1))


@dataclass(frozen=True, slots=True)
class IntegerGrid(_Levels):
    """Whole numbers `low + k * step`. The way there and back is exact up to 2^50 of them."""

    low: int
    step: int

    def encode(self, value: ParameterValue) -> float:
        return self.code((int(_number(value)) - self.low) // self.step)

    def decode(self, code: float) -> int:
        return self.low + self.rank(code) * self.step

    def numbers(self, codes: Vector) -> Vector:
        return self.low + np.rint(codes * (self.count - 1)) * self.step

    def codes_near(self, numbers: Vector) -> Vector:
        return self._codes_near((numbers - self.low) / self.step)


@dataclass(frozen=True, slots=True)
class RealGrid(_Levels):
    """Real numbers `low + k * step`, none above `high`."""

    low: float
    high: float
    step: float

    def encode(self, value: ParameterValue) -> float:
        return self.code(round((_number(value) - self.low) / self.step))

    def decode(self, code: float) -> float:
        return min(self.low + self.rank(code) * self.step, self.high) + 0.0

    def numbers(self, codes: Vector) -> Vector:
        return np.minimum(self.low + np.rint(codes * (self.count - 1)) * self.step, self.high)

    def codes_near(self, numbers: Vector) -> Vector:
        return self._codes_near((numbers - self.low) / self.step)


@dataclass(frozen=True, slots=True)
class LogIntegers(Column):
    """Whole numbers at logarithmic distances, drawn in log measure: `k` stands for [k - 1/2, k + 1/2). Exact there and back up to 10^12."""

    low: int
    high: int

    @property
    def size(self) -> int:
        return self.high - self.low + 1

    def encode(self, value: ParameterValue) -> float:
        return float(self._codes(np.array([_number(value)]))[0])

    def decode(self, code: float) -> int:
        return int(self._values(np.array([code]))[0])

    def draw(self, unit: Vector) -> Vector:
        start, end = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return self._codes(self._whole(np.exp(start + unit * (end - start))))

    def snap(self, codes: Vector) -> Vector:
        return self._codes(self._values(codes))

    def alternatives(self, code: float) -> Vector:
        if self.size <= MAX_ALTERNATIVES:
            return self._codes(np.arange(self.low, self.high + 1, dtype=np.float64))
        nearby = np.arange(-4, 5) + float(self.decode(code))
        spread = self._values(np.linspace(0, 1, 9))
        return self._codes(np.unique(self._whole(np.concatenate([nearby, spread]))))

    def values(self) -> Iterator[ParameterValue]:
        return iter(range(self.low, self.high + 1))

    def numbers(self, codes: Vector) -> Vector:
        return self._values(codes)

    def codes_near(self, numbers: Vector) -> Vector:
        return self._codes(self._whole(np.floor(numbers)[:, None] + np.arange(-1.0, 3.0)))

    def _values(self, codes: Vector) -> Vector:
        start, end = math.log(self.low), math.log(self.high)
        return self._whole(np.exp(start + _within(codes, 0.0, 1.0) * (end - start)))

    def _whole(self, values: Vector) -> Vector:
        return _within(np.rint(values), self.low, self.high)

    def _codes(self, values: Vector) -> Vector:
        if self.low == self.high:
            return np.zeros_like(values)
        start, end = math.log(self.low), math.log(self.high)
        return _within((np.log(values) - start) / (end - start), 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Choices(Column):
    """Values with no order: the code is the index."""

    members: tuple[ParameterValue, ...]
    nominal = True

    @cached_property
    def _places(self) -> dict[Token, int]:
        return _places(self.members)

    @property
    def size(self) -> int:
        return len(self.members)

    def encode(self, value: ParameterValue) -> float:
        return float(_position(value, self._places))

    def decode(self, code: float) -> ParameterValue:
        return self.members[min(max(round(code), 0), len(self.members) - 1)]

    def draw(self, unit: Vector) -> Vector:
        return np.minimum(np.floor(unit * len(self.members)), len(self.members) - 1)

    def snap(self, codes: Vector) -> Vector:
        return np.clip(np.rint(codes), 0.0, len(self.members) - 1)

    def alternatives(self, code: float) -> Vector:
        if len(self.members) <= MAX_NAMES:
            return np.arange(len(self.members), dtype=np.float64)
        spread = np.rint(np.linspace(0, len(self.members) - 1, MAX_NAMES))
        return np.unique(np.append(spread, code))

    def values(self) -> Iterator[ParameterValue]:
        return iter(self.members)


@dataclass(frozen=True, slots=True)
class Subset(Column):
    """Another column of which only some values are allowed."""

    whole: Column
    members: tuple[ParameterValue, ...]

    @property
    def nominal(self) -> bool:  # type: ignore[override]
        return self.whole.nominal

    @property
    def size(self) -> int:
        return len(self.members)

    def encode(self, value: ParameterValue) -> float:
        return self.whole.encode(value)

    def decode(self, code: float) -> ParameterValue:
        return self.members[int(self._nearest(np.array([code]))[0])]

    def draw(self, unit: Vector) -> Vector:
        return self._allowed[np.minimum((unit * len(self.members)).astype(int), len(self.members) - 1)]

    def snap(self, codes: Vector) -> Vector:
        return self._allowed[self._nearest(codes)]

    def alternatives(self, code: float) -> Vector:  # noqa: ARG002 - they do not depend on where one is
        return self._allowed

    def values(self) -> Iterator[ParameterValue]:
        return iter(self.members)

    @cached_property
    def _allowed(self) -> Vector:
        return np.array([self.whole.encode(value) for value in self.members])

    def _nearest(self, codes: Vector) -> npt.NDArray[np.intp]:
        return np.argmin(np.abs(codes[:, None] - self._allowed), axis=1)


def column(spec: ParameterSpec) -> Column:
    """The column of a parameter."""
    match spec:
        case Float():
            return _real(spec)
        case Int():
            return LogIntegers(spec.low, spec.high) if spec.log else IntegerGrid(spec.size, spec.low, spec.step or 1)
        case Categorical():
            return Choices(spec.choices)
        case Bool():
            return Choices((False, True))
        case Ordinal():
            return Ranked(len(spec.values), spec.values)


def _real(spec: Float) -> Column:
    if spec.step is None:
        return Continuum(Scale(spec.low, spec.high, spec.log))
    return RealGrid(spec.size or 1, spec.low, spec.high, spec.step)


def _within(values: Vector, low: float, high: float) -> Vector:
    # NumPy's clip takes five times as long for few values, and columns often have one.
    return np.minimum(np.maximum(values, low), high)


def _places(values: Sequence[ParameterValue]) -> dict[Token, int]:
    return {token(value): index for index, value in enumerate(values)}


def _position(value: ParameterValue, places: Mapping[Token, int]) -> int:
    try:
        return places[token(value)]
    except KeyError:
        raise ValueError(f"{value!r} is not among the values") from None


def _number(value: ParameterValue) -> float:
    if not isinstance(value, float | int):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
