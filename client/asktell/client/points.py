"""Configurations to ask a surrogate about: values all along a parameter, and the others that go with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from asktell.client.spec import Bool, Categorical, Float, Int, NoDefault, Ordinal, ParameterSpec, ParameterValue

MOST_CHOICES = 24

Point = dict[str, ParameterValue]


def options(spec: ParameterSpec) -> Sequence[ParameterValue]:
    """The choices of a parameter, in their order; none of one that is a number."""
    match spec:
        case Categorical():
            return spec.choices
        case Ordinal():
            return spec.values
        case Bool():
            return (False, True)
    return ()


def holds(spec: ParameterSpec, values: Mapping[str, ParameterValue]) -> bool:
    """Whether a parameter's condition is met by these values of active parameters."""
    if spec.when is None:
        return True
    parent, wanted = spec.when
    return parent in values and any(repr(option) == repr(values[parent]) for option in wanted)


def completed(values: Mapping[str, ParameterValue], parameters: Sequence[ParameterSpec]) -> Point:
    """The values of what is active with them; what becomes active without one has its default, or else the middle of its range."""
    kept: Point = {}
    waiting = list(parameters)
    while ready := [spec for spec in waiting if holds(spec, kept)]:
        kept |= {spec.name: values[spec.name] if spec.name in values else usual(spec) for spec in ready}
        waiting = [spec for spec in waiting if spec.name not in kept]
    return kept


def usual(spec: ParameterSpec) -> ParameterValue:
    """A parameter's default; without one the middle of its range, or its first choice."""
    if not isinstance(spec.default, NoDefault):
        return spec.default
    match spec:
        case Float() | Int():
            return grid(spec, 3)[len(grid(spec, 3)) // 2]
        case Ordinal():
            return spec.values[(len(spec.values) - 1) // 2]
    return options(spec)[0]


def grid(spec: ParameterSpec, steps: int) -> Sequence[ParameterValue]:
    """Values all along a parameter, in their order: at most `steps` of a range, three or more, and 24 choices."""
    match spec:
        case Float():
            return _floats(spec, steps)
        case Int():
            step = spec.step or 1
            reals = _spread(float(spec.low), float(spec.high), steps, log=spec.log)
            last = (spec.high - spec.low) // step
            ranks = sorted({min(round((real - spec.low) / step), last) for real in reals})
            return [spec.low + rank * step for rank in ranks]
    return list(options(spec))[:MOST_CHOICES]


def _floats(spec: Float, steps: int) -> list[ParameterValue]:
    reals = _spread(spec.low, spec.high, steps, log=spec.log)
    if spec.step is None:
        return list(dict.fromkeys(reals))
    last = int((spec.high - spec.low) / spec.step + 1e-9)
    ranks = sorted({min(round((real - spec.low) / spec.step), last) for real in reals})
    return [spec.low + rank * spec.step for rank in ranks]


def _spread(low: float, high: float, steps: int, *, log: bool) -> list[float]:
    shares = [place / (steps - 1) for place in range(steps)]
    inner = [
        math.exp((1 - share) * math.log(low) + share * math.log(high)) if log else (1 - share) * low + share * high
        for share in shares[1:-1]
    ]
    return [low, *(min(max(each, low), high) for each in inner), high]
