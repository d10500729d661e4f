"""Recorded runs: one JSON line each, so that an interrupted benchmark goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One peer on one problem with one seed.

    `y` are the values, or losses, in the order of the asks, and `outcomes` all objectives and constraints where there are several; `ask`,
    `tell` and `cpu` the seconds of each ask, each tell, and of processor time an ask, `cpu` empty where it was not measured; `rss_mb` the
    peak memory; `engine` says which code answered, of asktell's runs.
    """

    peer: str
    problem: str
    seed: int
    y: tuple[float, ...]
    ask: tuple[float, ...]
    tell: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()
    best: float | None = None
    workers: int = 1
    setup: float = 0.0
    rss_mb: int = 0
    engine: str = ""
    outcomes: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def parse(cls, line: str) -> Run:
        """A run from its line; what this version does not know is left out."""
        data: dict[str, Any] = json.loads(line)
        known: dict[str, Any] = {field.name: _frozen(data[field.name]) for field in fields(cls) if field.name in data}
        return cls(**known)

    def line(self) -> str:
        """The run as a line."""
        return json.dumps(asdict(self))

    @property
    def cell(self) -> tuple[str, str, int]:
        """What there is one run of: peer, problem and seed."""
        return self.peer, self.problem, self.seed


def read(*directories: Path) -> list[Run]:
    """The runs in the directories, the last of each cell: later directories and lines win."""
    paths = [path for directory in directories for path in sorted(directory.glob("*.jsonl"))]
    runs = [run for path in paths for run in read_file(path)]
    return list({run.cell: run for run in runs}.values())


def read_file(path: Path) -> list[Run]:
    """The runs in a file; none if there is no file. A last line that was cut off is no run."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [Run.parse(line) for line in text.splitlines(keepends=True) if line.endswith("\n") and line.strip()]


def append(path: Path, run: Run) -> None:
    """Add a run to a file, on a line of its own even if the last writer was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _drop_torn_line(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(run.line() + "\n")


def done(runs: Iterable[Run], *, trials: int, engine: str = "") -> set[tuple[str, str, int]]:
    """The cells whose run is long enough and, of asktell, by this engine."""
    return {run.cell for run in runs if len(run.y) >= trials and run.engine in ("", engine)}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        path.write_bytes(data[: data.rfind(b"\n") + 1])


def compact(path: Path) -> None:
    """Keep the last run of each cell, in the order of cells."""
    last = {run.cell: run for run in read_file(path)}
    path.write_text("".join(last[cell].line() + "\n" for cell in sorted(last)), encoding="utf-8")
