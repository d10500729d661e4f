"""`asktell study widen`: a parameter with a wider range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from asktell.cli.dials import Unreadable, value
from asktell.client import Categorical, Float, Int, Ordinal
from asktell.client.spec import ParameterSpec, ParameterValue

T = TypeVar("T", int, float)


def widened(
    parameters: Sequence[ParameterSpec], name: str, *, low: str | None, high: str | None, added: Sequence[str]
) -> list[ParameterSpec]:
    """The parameters, one of them with other bounds or more values, or Unreadable if it has none such. The service says what is wider."""
    names = [parameter.name for parameter in parameters]
    if name not in names:
        raise Unreadable(f"there is no parameter {name!r}; there are {', '.join(names)}")
    if low is None and high is None and not added:
        raise Unreadable(f"nothing to change of {name}: give --low, --high or --add-choice")
    changed = _widened(parameters[names.index(name)], low=low, high=high, added=[value(text) for text in added])
    return [changed if parameter.name == name else parameter for parameter in parameters]


def _widened(
    parameter: ParameterSpec, *, low: str | None, high: str | None, added: Sequence[ParameterValue]
) -> ParameterSpec:
    match parameter:
        case Float() if not added:
            return replace(parameter, low=_read(float, low, parameter.low), high=_read(float, high, parameter.high))
        case Int() if not added:
            return replace(parameter, low=_read(int, low, parameter.low), high=_read(int, high, parameter.high))
        case Categorical() if low is None and high is None:
            return replace(parameter, choices=(*parameter.choices, *added))
        case Ordinal() if low is None and high is None:
            return replace(parameter, values=_placed([*parameter.values, *added], before=parameter.values))
    kind = type(parameter).__name__.lower()
    raise Unreadable(
        f"{parameter.name} is {kind}: numbers have --low and --high, choices and ordinal values --add-choice"
    )


def _read(read: type[T], text: str | None, before: T) -> T:
    try:
        return before if text is None else read(text)
    except ValueError as error:
        raise Unreadable(f"{text!r} is not a {'whole ' if read is int else ''}number") from error


def _placed(values: list[ParameterValue], *, before: Sequence[ParameterValue]) -> list[ParameterValue]:
    """The values with the added ones in their places if all are numbers that rise or fall, else at the end."""
    numbers = [number for number in values if isinstance(number, int | float) and not isinstance(number, bool)]
    if len(numbers) < len(values):
        return values
    steps = [later - earlier for earlier, later in pairwise(numbers[: len(before)])]
    if all(step > 0 for step in steps):
        return [*sorted(numbers)]
    return [*sorted(numbers, reverse=True)] if all(step < 0 for step in steps) else values
