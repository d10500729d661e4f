"""Variables of the environment that look like asktell's and are not: a setting with a slip in its name would be left at its default."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

import asktell

PREFIX = "ASKTELL_"

_NAME = re.compile(rf"\b{PREFIX}[A-Z0-9_]+".encode())
_FOREIGN = re.compile(
    # This project's tests and benchmarks, and what its compose file takes.
    r"(?:TEST|CHAOS|SOAK|BENCH)_\w+|DB_PASSWORD"
    # What Kubernetes tells pods of a Service that is called asktell, or begins so.
    r"|(?:\w+_)?SERVICE_(?:HOST|PORT(?:_\w+)?)|(?:\w+_)?PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?"
)


def warnings(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that has asktell's prefix and that nothing in asktell knows."""
    ours = sorted(name for name in environment if name.startswith(PREFIX))
    strange = [name for name in ours if not _is_foreign(name.removeprefix(PREFIX), environment[name])]
    known = known_variables() if strange else frozenset()
    # Without sources nothing can be said.
    for name in strange if known else ():
        if name not in known and not name.startswith(_beginnings(known)):
            near = _nearest(name, known)
            yield f"nothing reads the environment variable {name}" + (f": is {near} meant?" if near else "")


def known_variables() -> frozenset[str]:
    """All names that occur in asktell's sources, those of settings as of what the worker sets for trainings.

    Read, not imported: settings of the server are known on machines that have a worker alone, and no list has to be kept.
    """
    files = (file for place in asktell.__path__ for file in Path(place).rglob("*.py"))
    return frozenset(name.decode() for file in files for name in _NAME.findall(file.read_bytes()))


def _is_foreign(name: str, value: str) -> bool:
    # A port that is no number, such as tcp://10.0.0.7:50051, is of Kubernetes too.
    return bool(_FOREIGN.fullmatch(name)) or (name.endswith("PORT") and "://" in value)


def _beginnings(known: Collection[str]) -> tuple[str, ...]:
    """Of names that go on with the name of a parameter."""
    return tuple(name for name in known if name.endswith("_"))


def _nearest(name: str, known: Collection[str]) -> str:
    endings = [each.removeprefix(PREFIX) for each in known]
    found = get_close_matches(name.removeprefix(PREFIX), endings, n=1)
    return f"{PREFIX}{found[0]}" if found else ""
