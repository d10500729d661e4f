"""Parameters and stopping rules as they are typed in a command line, such as `learning_rate=1e-5:1e-1:log when optimizer=sgd,adam`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from asktell.cli import document
from asktell.client import Bool, Categorical, Fidelity, Float, Int, Ordinal
from asktell.client.spec import ParameterSpec, ParameterValue, When
from asktell.client.stopping import StoppingRule

T = TypeVar("T", int, float)


class Unreadable(ValueError):
    """A text that is no parameter; the message says which flag, which text, and what was expected."""


@dataclass(frozen=True, slots=True)
class Dial:
    """The parts of one flag: `name=range when parent=values`."""

    flag: str
    text: str
    name: str
    values: str
    when: When | None

    @classmethod
    def parse(cls, flag: str, text: str) -> Dial:
        """Return the parts, or raise Unreadable."""
        body, separator, condition = text.partition(" when ")
        name, equals, values = body.partition("=")
        if not name.strip() or (flag != "--bool" and not values.strip()):
            raise Unreadable(f"{flag} {text!r}: expected {EXAMPLES[flag]}")
        if flag == "--bool" and equals:
            raise Unreadable(f"{flag} {text!r}: true and false are all there is: expected {EXAMPLES[flag]}")
        when = _when(flag, text, condition) if separator else None
        return cls(flag, text, name.strip(), values.strip(), when)

    def complaint(self, why: str) -> Unreadable:
        """The error that says why the values will not do."""
        return Unreadable(f"{self.flag} {self.text!r}: {why}; expected {EXAMPLES[self.flag]}")


STOPPING_EXAMPLE = "KIND or KIND:OPTION=VALUE,..., such as median or percentile:percentile=25,warmup_steps=3"
FIDELITY_EXAMPLE = "NAME or NAME:FACTOR, such as epochs or epochs:3"
EXAMPLES = {
    "--float": "NAME=LOW:HIGH, with :log or :STEP after it if wanted, such as learning_rate=1e-5:1e-1:log",
    "--int": "NAME=LOW:HIGH, with :log or :STEP after it if wanted, such as layers=1:4",
    "--ordinal": "NAME=VALUE,VALUE,... in their order, such as batch_size=16,32,64",
    "--categorical": "NAME=CHOICE,CHOICE,..., such as optimizer=sgd,adam",
    "--bool": "NAME, such as nesterov",
}


def read_stopping_rule(text: str) -> StoppingRule:
    """Return the rule that `--stopping` describes, such as `percentile:percentile=25,warmup_steps=3`, or raise Unreadable."""
    kind, _, options = text.partition(":")
    pairs = [option.partition("=") for option in options.split(",") if option]
    members = {name.strip(): value(text.strip()) for name, _, text in pairs}
    try:
        return document.stopping_rule({"kind": kind.strip().replace("-", "_"), **members})
    except ValueError as error:
        raise Unreadable(f"--stopping {text!r}: {error}; expected {STOPPING_EXAMPLE}") from error


def read_fidelity(text: str) -> Fidelity:
    """Return the fidelity that `--fidelity` describes, such as `epochs:3`, or raise Unreadable."""
    # A name may have colons; what follows the last one is the factor if it is a number.
    parameter, colon, factor = text.rpartition(":")
    if not (colon and factor.strip().isdecimal()):
        parameter, factor = text, ""
    if not parameter.strip():
        raise Unreadable(f"--fidelity {text!r}: it names no parameter; expected {FIDELITY_EXAMPLE}")
    name = parameter.strip()
    return Fidelity(name, reduction_factor=int(factor)) if factor else Fidelity(name)


def read(flag: str, text: str) -> ParameterSpec:
    """Return the parameter that a flag's text describes, or raise Unreadable."""
    dial = Dial.parse(flag, text)
    try:
        return _READERS[flag](dial)
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, Unreadable) else dial.complaint(str(error)) from error


def _float(dial: Dial) -> Float:
    low, high, log, step = _range(dial, float)
    return Float(dial.name, low, high, log=log, step=step, when=dial.when)


def _int(dial: Dial) -> Int:
    low, high, log, step = _range(dial, int)
    return Int(dial.name, low, high, log=log, step=step, when=dial.when)


def _categorical(dial: Dial) -> Categorical:
    return Categorical(dial.name, _values(dial.values), when=dial.when)


def _ordinal(dial: Dial) -> Ordinal:
    return Ordinal(dial.name, _values(dial.values), when=dial.when)


def _bool(dial: Dial) -> Bool:
    return Bool(dial.name, when=dial.when)


_READERS: Mapping[str, Callable[[Dial], ParameterSpec]] = {
    "--float": _float,
    "--int": _int,
    "--ordinal": _ordinal,
    "--categorical": _categorical,
    "--bool": _bool,
}


def _range(dial: Dial, number: Callable[[str], T]) -> tuple[T, T, bool, T | None]:
    low, *rest = dial.values.split(":")
    if len(rest) not in (1, 2):
        raise dial.complaint("a range has a low and a high end")
    spacing = rest[1] if len(rest) == 2 else ""
    log = spacing == "log"
    return (
        _number(dial, low, number),
        _number(dial, rest[0], number),
        log,
        _number(dial, spacing, number) if spacing and not log else None,
    )


def _number(dial: Dial, text: str, number: Callable[[str], T]) -> T:
    try:
        return number(text)
    except ValueError as error:
        kind = "whole number" if number is int else "number"
        raise dial.complaint(f"{text!r} is not a {kind}") from error


def _when(flag: str, text: str, condition: str) -> When:
    parent, equals, values = condition.partition("=")
    if not (parent.strip() and equals and values.strip()):
        raise Unreadable(f"{flag} {text!r}: expected a condition such as 'when optimizer=sgd' or 'when layers=2,3'")
    return parent.strip(), _values(values)


def _values(text: str) -> tuple[ParameterValue, ...]:
    return tuple(value(part.strip()) for part in text.split(","))


def value(text: str) -> ParameterValue:
    """A value of its own kind: `16`, `0.5`, `true`, `false` and `null` as in JSON, `"16"` in quotes for text, and else the text itself."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, bool | int | float | str | None) else text
