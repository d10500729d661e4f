"""What a slot gives its trials: environment variables, and ways for what they write."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from asktell.client import Trial
from asktell.worker.events import Chunk, Line
from asktell.worker.logs import LogFile, Logs

Passage = Literal["plain", "prefixed", "none"]
"""How output of trials comes to the worker's own: as it is, with the trial's number before each line, or not at all."""

_terminal = threading.Lock()
"""Lines of several trials must not run into each other."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where the output of one trial goes, or with no trial that of a process between two."""

    number: int = 0
    passage: Passage = "plain"
    log: LogFile | None = None

    def keep(self, line: Line | Chunk) -> None:
        """Write what came into the log."""
        if self.log is not None:
            self.log.write(line.data, source=line.stream)

    def show(self, line: Line | Chunk) -> None:
        """Pass what came on to the stream of this process that it came from.

        Among the lines of several trials it has the trial's number before it; progress bars, whose lines end with a carriage return, would
        overwrite each other and are left to the log.
        """
        if self.passage == "plain":
            _show(line, line.data)
        elif self.passage == "prefixed":
            lines = line.lines if isinstance(line, Chunk) else [line]
            _show(line, b"".join(self._prefixed(each.data) for each in lines if not each.data.endswith(b"\r")))

    def _prefixed(self, data: bytes) -> bytes:
        prefix = f"{self.number}| ".encode() if self.number else b""
        return prefix + data + (b"" if data.endswith(b"\n") else b"\n")


PLAIN = Output()
"""Passed on as it is, and kept nowhere."""


def _show(line: Line | Chunk, data: bytes) -> None:
    if not data:
        return
    stream = sys.stdout if line.stream == "stdout" else sys.stderr
    try:
        with _terminal:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
    except (OSError, ValueError):
        # Whoever read our output has gone; the training goes on.
        return


@dataclass(frozen=True, slots=True)
class Workplace:
    """The surroundings of a slot's trials.

    Attributes:
        variables: Environment variables of its processes, besides this process's own.
        passage: How their output comes to this process's own.
        logs: Where it is kept; None for nowhere.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    passage: Passage = "plain"
    logs: Logs | None = None

    @property
    def between_trials(self) -> Output:
        """For what a process writes when it has no trial."""
        return Output(passage=self.passage)

    @contextmanager
    def output_of(self, trial: Trial) -> Iterator[Output]:
        """Where the output of a trial goes, while it runs."""
        if self.logs is None:
            yield Output(trial.number, self.passage)
            return
        with self.logs.of(trial) as log:
            yield Output(trial.number, self.passage, log)


AS_IT_IS = Workplace()
"""Of a slot that is alone, with no log."""
