"""Command lines with places for a trial's parameters.

`{name}` in an argument becomes the parameter's value, `{trial.number}` the trial's number, `{metrics_file}` the file that may hold the
metrics, `{checkpoint_dir}` the directory of the trial's state; `{{` and `}}` are braces. A parameter that is active only under a condition
stands in brackets, as in `[--momentum {momentum}]`: in a trial without it all of the bracket is left out. A bracket runs from an argument
that starts with `[` to the next one that ends with `]`, and may be one quoted argument with blanks in it. Brackets without a field are
ordinary text.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

Value = float | int | str | bool | None
Parameters = Mapping[str, Value]

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
TRIAL_NUMBER = "trial.number"
METRICS_FILE = "metrics_file"
CHECKPOINT_DIR = "checkpoint_dir"
MAX_VARIABLE = 100_000
"""Bytes of an environment variable; Linux takes 128 KiB with its name."""
MAX_ENVIRONMENT = 250_000
"""Bytes of all parameters that have a variable each; arguments and environment together may have 1 MiB on some systems."""


class TemplateError(ValueError):
    """The command line cannot be filled in for this study."""


@dataclass(frozen=True, slots=True)
class Group:
    """Arguments that are left out together if one of their fields is inactive; `optional` if they stood in brackets."""

    arguments: tuple[str, ...]
    optional: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Names in braces, in their order."""
        return tuple(match[1] for text in self.arguments for match in _FIELD.finditer(text) if match[1] is not None)


@dataclass(frozen=True, slots=True)
class Template:
    """A command line with places for values."""

    groups: tuple[Group, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Template:
        """Return the template of a command line, or raise TemplateError for a bracket without an end."""
        return cls(tuple(_groups(arguments)))

    def check(self, *, always: Collection[str], sometimes: Mapping[str, str]) -> None:
        """Raise TemplateError unless every field can be filled in.

        Args:
            always: Parameters that every trial has.
            sometimes: Parameters that some trials have -> when, for the message.
        """
        known = {*always, *sometimes, TRIAL_NUMBER, METRICS_FILE, CHECKPOINT_DIR}
        for group in self.groups:
            for field in group.fields:
                if field not in known:
                    there_are = ", ".join([*always, *sometimes])
                    raise TemplateError(
                        f"{{{field}}} is no parameter of the study: {there_are}; a brace as such is written {{{{ or }}}}"
                    )
                if field in sometimes and not group.optional:
                    raise TemplateError(
                        f"{{{field}}} has a value only when {sometimes[field]}: put what belongs to it in brackets, such as"
                        f" '[--{field} {{{field}}}]'"
                    )

    def mentions(self, field: str) -> bool:
        """Whether the command line has a place for it."""
        return any(field in group.fields for group in self.groups)

    def fill(self, values: Parameters) -> list[str]:
        """Return the arguments with the values in place; brackets with a field that has no value are left out."""
        present = [group for group in self.groups if all(field in values for field in group.fields)]
        return [_fill(argument, values) for group in present for argument in group.arguments]


def _groups(arguments: Sequence[str]) -> Iterator[Group]:
    rest = list(arguments)
    while rest:
        length = _bracket(rest)
        group, rest = rest[: length or 1], rest[length or 1 :]
        yield Group(tuple(_unbracketed(group)), optional=True) if length else Group(tuple(group))


def _bracket(arguments: Sequence[str]) -> int:
    """How many arguments make up the bracket that starts here; 0 if none does."""
    if not arguments[0].startswith("["):
        return 0
    length = next((place for place, text in enumerate(arguments, 1) if text.endswith("]")), 0)
    if Group(tuple(arguments[: length or None])).fields and not length:
        raise TemplateError(f"the bracket {' '.join(arguments[:3])} has no end: close it with ]")
    return length if Group(tuple(arguments[:length])).fields else 0


def _unbracketed(arguments: Sequence[str]) -> list[str]:
    text = list(arguments)
    text[0] = text[0][1:]
    text[-1] = text[-1][:-1]
    if len(text) > 1:
        return [argument for argument in text if argument]
    # Only a bracket in one argument was quoted, so only there do blanks separate.
    try:
        return shlex.split(text[0])
    except ValueError as error:
        raise TemplateError(f"the bracket {arguments[0]} cannot be split into arguments: {error}") from error


def _fill(argument: str, values: Parameters) -> str:
    return _FIELD.sub(lambda match: match[0][0] if match[1] is None else as_text(values[match[1]]), argument)


def as_text(value: Value) -> str:
    """A value as programs read it: text as it is, all else as in JSON (`0.001`, `true`, `null`)."""
    return value if isinstance(value, str) else json.dumps(value)


def variables(parameters: Parameters) -> dict[str, str]:
    """Environment variables of the parameters: `ASKTELL_PARAMETERS` has all as JSON, `ASKTELL_PARAM_<NAME>` one each.

    NAME is the parameter's in capitals with `_` for all but letters and digits. Two that become one name have none. Nor has what is too
    long for the operating system, which would refuse to start the command: values above 100,000 bytes, and all single ones where they
    have more than 250,000 together. A file has them always.
    """
    names = {name: "ASKTELL_PARAM_" + re.sub(r"[^A-Z0-9]", "_", name.upper()) for name in parameters}
    shared = Counter(names.values())
    single = {names[name]: as_text(value) for name, value in parameters.items() if shared[names[name]] == 1}
    if sum(map(_size, single.values())) > MAX_ENVIRONMENT:
        single = {}
    found = {"ASKTELL_PARAMETERS": json.dumps(dict(parameters)), **single}
    return {name: text for name, text in found.items() if _size(text) <= MAX_VARIABLE}


def _size(text: str) -> int:
    return len(text.encode())
