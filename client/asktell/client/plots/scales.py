"""Where a parameter's values lie on an axis, and what is written at it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from asktell.client.plots.canvas import CHARACTER, shortened
from asktell.client.points import options
from asktell.client.spec import Float, Int, ParameterSpec, ParameterValue

MOST_TICKS = 7
WIDE = 100.0
"""Results that are so many times as large as others are drawn on a log scale."""
LONGEST_LABEL = 18
_FEW_DECADES = 1e3
_WRITTEN_OUT = 2**16

Tick = tuple[float, str]


def place(spec: ParameterSpec, value: ParameterValue) -> float | None:
    """Where a value lies: a number at itself, a choice at its rank from 0; None for what is inactive or no choice any more."""
    if isinstance(spec, Float | Int):
        return None if not isinstance(value, float | int) else float(value)
    words = [repr(option) for option in options(spec)]
    return float(words.index(repr(value))) if repr(value) in words else None


def is_log(spec: ParameterSpec) -> bool:
    """Whether equal ratios are equal distances."""
    return isinstance(spec, Float | Int) and spec.log


def label(value: ParameterValue) -> str:
    """A value in words; numbers in six digits, at most 18 letters."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case None:
            return "null"
    return shortened(str(value), LONGEST_LABEL)


def dress(axes: Axes, which: Literal["x", "y"], spec: ParameterSpec, *, width: float = 3.0) -> None:
    """Scale an axis for a parameter, and write at it the values that help. `width` is that of the axes, in inches."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if not isinstance(spec, Float | Int):
        _choices(axes, which, spec, width)
        return
    if spec.log:
        axes.set(**{f"{which}scale": "log"})
        ticks = log_ticks(spec.low, spec.high)
        if ticks:
            axis.set_major_locator(FixedLocator([at for at, _ in ticks]))
            axis.set_major_formatter(FixedFormatter([text for _, text in ticks]))
            axis.set_minor_locator(NullLocator())
    elif isinstance(spec, Int):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], nbins=6))
    if spec.low < spec.high:
        margin = 0.03
        low, high = (math.log(spec.low), math.log(spec.high)) if spec.log else (spec.low, spec.high)
        ends = (low - margin * (high - low), high + margin * (high - low))
        axes.set(**{f"{which}lim": tuple(map(math.exp, ends)) if spec.log else ends})


def _choices(axes: Axes, which: Literal["x", "y"], spec: ParameterSpec, width: float) -> None:
    words = [label(option) for option in options(spec)]
    axes.set(**{f"{which}lim": (-0.6, len(words) - 0.4)})
    if which == "y":
        axes.set_yticks(range(len(words)), words, fontsize=9)
        return
    if _fit(words, width):
        axes.set_xticks(range(len(words)), words)
    else:
        steep, small = (30, 9) if len(words) <= 8 else (60, 8) if len(words) <= 14 else (90, 7)
        axes.set_xticks(
            range(len(words)), words, rotation=steep, ha="right", va="center", rotation_mode="anchor", fontsize=small
        )


def _fit(words: Sequence[str], width: float) -> bool:
    """Whether words that stand at even distances do not touch."""
    apart = width / len(words)
    return all((len(left) + len(right)) / 2 * CHARACTER + CHARACTER < apart for left, right in pairwise(words))


def log_ticks(low: float, high: float) -> list[Tick]:
    """Where and what to write at a log axis; none where powers of ten, as matplotlib has them, will do.

    Powers of two between such powers, as of a layer's width; over less than three decades 1, 2, 5, 10 and so on, or 1, 3, 10; over a short
    range even steps.
    """
    if high <= low:
        return []
    if _is_power_of_two(low) and _is_power_of_two(high):
        return _powers_of_two(low, high)
    if high >= _FEW_DECADES * low:
        return []
    inside = _round(low, high, digits=(1, 2, 5))
    if len(inside) >= MOST_TICKS:
        inside = _round(low, high, digits=(1, 3))
    if len(inside) < 3:
        inside = [float(each) for each in MaxNLocator(nbins=5).tick_values(low, high) if low <= each <= high]
    return [(each, f"{each:g}") for each in inside]


def _round(low: float, high: float, *, digits: Sequence[int]) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in digits]
    return [each for each in found if low <= each <= high]


def _is_power_of_two(number: float) -> bool:
    return math.frexp(number)[0] == 0.5


def _powers_of_two(low: float, high: float) -> list[Tick]:
    first, last = round(math.log2(low)), round(math.log2(high))
    step = math.ceil((last - first) / (MOST_TICKS - 1))
    powers = range(first, last + 1, step)
    plain = low >= 1 / 64 and high <= _WRITTEN_OUT
    return [(2.0**power, f"{2.0**power:g}" if plain else f"$2^{{{power}}}$") for power in powers]


def ticks(low: float, high: float, *, log: bool, integer: bool = False) -> list[Tick]:
    """Some values all along a range, with their words, for an axis that is drawn by hand."""
    if low >= high:
        return [(low, f"{low:.4g}")]
    if log:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        step = max(1, math.ceil(len(powers) / MOST_TICKS))
        return log_ticks(low, high) or [(10.0**power, f"$10^{{{power}}}$") for power in powers[::step]]
    found = MaxNLocator(nbins=5, integer=integer).tick_values(low, high)
    return [(float(each), f"{each:.6g}") for each in found if low <= each <= high]


def spans_decades(numbers: Sequence[float]) -> bool:
    """Whether results are better drawn on a log scale."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) > WIDE * min(numbers)
