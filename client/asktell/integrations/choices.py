"""What asktell can hold of the names and choices of other libraries."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any, Final

from asktell.client import ParameterValue

MOST_CHOICES: Final = 1_000
"""Choices that one parameter may have."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,127}")
_LONGEST_TEXT = 1_024


def wire_name(name: str) -> str:
    """The name itself where asktell allows it, else one made from it."""
    return name if _NAME.fullmatch(name) else "_" + hashlib.sha256(name.encode()).hexdigest()[:16]


def are_plain(choices: Sequence[Any]) -> bool:
    """Whether asktell can hold the choices as they are: distinct values of its own kinds."""
    distinct = {(type(choice), choice) for choice in choices if type(choice) in (bool, int, float, str, type(None))}
    return len(distinct) == len(choices) and all(_sendable(choice) for choice in choices)


def position(value: Any, values: Sequence[Any], *, otherwise: int) -> int:
    """Where a value of that very kind is: Python alone holds 1, 1.0 and True for equal."""
    same = (place for place, each in enumerate(values) if type(each) is type(value) and each == value)
    return next(same, otherwise)


def _sendable(choice: ParameterValue) -> bool:
    match choice:
        case str():
            return len(choice) <= _LONGEST_TEXT and "\0" not in choice and choice.isprintable()
        case float():
            return math.isfinite(choice)
        case int():
            return -(2**63) <= choice < 2**63
    return True
