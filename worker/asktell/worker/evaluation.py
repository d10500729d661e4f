"""One trial in one process, from its start to its outcome."""

from __future__ import annotations

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from asktell.client import AskTellError, Trial
from asktell.worker.events import Event, Exited, Line
from asktell.worker.interruption import Interruption
from asktell.worker.outcome import Failed, Lost, Outcome, Released, Stopped
from asktell.worker.output import Metric
from asktell.worker.process import Process

POLL = 0.1
"""Seconds after which the lease, the clock and the signals are looked at while the process says nothing."""
SCHEDULER_SECONDS = 1.0
"""How long after a training was ended by a polite signal the worker awaits one of its own: schedulers signal all processes of a job."""
TAIL_LINES = 20

logger = logging.getLogger("asktell.worker")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a trial may run, and how long it may take to end once it was asked to; seconds."""

    timeout: float | None = None
    grace: float = 10.0


class Evaluator(Protocol):
    """Evaluates trials, one at a time."""

    def prepare(self) -> None:
        """Make ready for the next trial, before it is asked for; raise Unusable if none could ever be evaluated."""

    def evaluate(self, trial: Trial) -> Outcome:
        """Evaluate one trial."""

    def close(self) -> None:
        """End what is still running."""


class Unusable(Exception):
    """The objective or the command cannot evaluate any trial."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The last lines of output, and a passage for all of it to this process's own."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    def pass_on(self, line: Line) -> None:
        """Write a line to the stream it came from, and remember it."""
        if line.text.strip():
            self.lines.append(line.text.rstrip())
        stream = sys.stdout if line.stream == "stdout" else sys.stderr
        try:
            stream.write(line.text)
            stream.flush()
        except (OSError, ValueError):
            # Whoever read our output has gone; the training goes on.
            return

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Evaluation(ABC):
    """A process at work on a trial, watched: it ends early by a signal to the worker, a lost lease, the service's word, or the clock."""

    def __init__(self, trial: Trial, process: Process, *, limits: Limits, interruption: Interruption) -> None:
        self.trial = trial
        self.process = process
        self.limits = limits
        self.interruption = interruption
        self.tail = Tail()
        self.cause: Outcome | None = None
        self._deadline = None if limits.timeout is None else time.monotonic() + limits.timeout

    def run(self) -> Outcome:
        """Follow the process until the trial's outcome is known."""
        while True:
            event = self.process.next_event(POLL)
            self._watch()
            if event is not None and (outcome := self.take(event)) is not None:
                return outcome

    def take(self, event: Event) -> Outcome | None:
        """Take in an event; return the outcome if it is known now."""
        match event:
            case Line():
                self.on_line(event)
            case Exited():
                return self.on_exit(self._scheduled(event))
        return None

    def _scheduled(self, event: Exited) -> Exited:
        if self.cause is None and event.asked_to_end and self.interruption.wait(SCHEDULER_SECONDS):
            self.cause = Released()
        return event

    def _watch(self) -> None:
        if self.cause is None:
            self.cause = self._cause()
            if self.cause is not None:
                self.end_early()

    def _cause(self) -> Outcome | None:
        if self.interruption.wished:
            return Released()
        if self.trial.lost:
            return Lost(self.trial.message or "the lease was lost")
        if self.trial.should_stop:
            return Stopped(self.trial.message or "the service ended it")
        if self._deadline is not None and time.monotonic() > self._deadline:
            return Failed(f"ran longer than {self.limits.timeout:g} s")
        return None

    def report(self, step: int, metrics: Mapping[str, Metric]) -> None:
        """Send a measurement; `trial.should_stop` is the answer. A service that is away or refuses it stops nothing."""
        try:
            self.trial.report(metrics, step=step)
        except AskTellError as error:
            logger.warning("trial %d: step %d was not reported: %s", self.trial.number, step, error)

    @abstractmethod
    def end_early(self) -> None:
        """Begin to end, for `cause`."""

    @abstractmethod
    def on_line(self, line: Line) -> None:
        """Take a line of output."""

    @abstractmethod
    def on_exit(self, exited: Exited) -> Outcome:
        """Say what became of the trial."""

    def ending(self, exited: Exited, *, also: str = "") -> str:
        """The last lines of output, and in the last one how the process ended."""
        how = ": ".join(part for part in (str(exited), also) if part)
        return "\n".join(part for part in (str(self.tail), how) if part)

    def broken(self, exited: Exited, *, also: str = "") -> Failed:
        """The outcome of a process that ended as it should not."""
        return Failed(self.ending(exited, also=also), killed=exited.killed)
