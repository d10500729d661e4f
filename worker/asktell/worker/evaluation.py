"""One trial in one process, from its start to its outcome."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

from asktell.client import AskTellError, Trial
from asktell.worker.checkpoints import Checkpoint, Checkpoints, Unwritable
from asktell.worker.copying import BrokenOff
from asktell.worker.events import Chunk, Exited, Line, Piece, Stream
from asktell.worker.interruption import Interruption
from asktell.worker.keeping import Keeping
from asktell.worker.outcome import Failed, Infeasible, Lost, Outcome, Released, Stopped
from asktell.worker.output import Metric
from asktell.worker.process import Process
from asktell.worker.resuming import Unresumable
from asktell.worker.workplace import PLAIN, Output

POLL = 0.1
"""Seconds after which the lease, the clock and the signals are looked at while the process says nothing."""
SCHEDULER_SECONDS = 1.0
"""How long after a training was ended by a polite signal the worker awaits one of its own: schedulers signal all processes of a job."""
TAIL_LINES = 20

logger = logging.getLogger("asktell.worker")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a trial may run, how long it may take to end once it was asked to, and how long it goes on without word from the service;
    seconds.
    """

    timeout: float | None = None
    grace: float = 10.0
    silence: float | None = None


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


class Unfit(Unusable):
    """The function takes other arguments than a worker has."""


@dataclass(slots=True)
class Tail:
    """The last lines of output, and a passage for all of it.

    A stream that says much leaves the other half of the lines: two pipes have no common order, and what was said last on the one may be
    read first.
    """

    output: Output = PLAIN
    lines: list[tuple[Stream, str]] = field(default_factory=list)

    def pass_on(self, said: Line | Chunk) -> None:
        """Show a line or several, and remember them."""
        for line in said.last(TAIL_LINES) if isinstance(said, Chunk) else [said]:
            if line.data.strip():
                self.lines.append((line.stream, line.text.rstrip()))
                self._shorten()
        self.output.show(said)

    def _shorten(self) -> None:
        if len(self.lines) > TAIL_LINES:
            errors = sum(stream == "stderr" for stream, _ in self.lines)
            # One of the two has more than half.
            longer = "stderr" if errors > TAIL_LINES // 2 else "stdout"
            self.lines.remove(next(each for each in self.lines if each[0] == longer))

    def __str__(self) -> str:
        return "\n".join(text for _, text in self.lines)


class Evaluation(ABC):
    """A process at work on a trial, watched: it ends early by a signal to the worker, a lost lease, the service's word, or the clock."""

    def __init__(
        self, trial: Trial, process: Process, *, checkpoint: Checkpoint, limits: Limits, interruption: Interruption
    ) -> None:
        self.trial = trial
        self.process = process
        self.limits = limits
        self.interruption = interruption
        self.tail = Tail()
        self.cause: Outcome | None = None
        self.keeping = Keeping(trial, checkpoint)
        self._farewell: float | None = None
        self._deadline = None if limits.timeout is None else time.monotonic() + limits.timeout

    def run(self, output: Output = PLAIN) -> Outcome:
        """Follow the process until the trial's outcome is known; `output` is for what it writes."""
        self.tail.output = output
        while True:
            piece = self.process.next_piece(POLL)
            self._watch()
            if piece is not None and (outcome := self.take(piece)) is not None:
                return self._kept(outcome)

    def take(self, piece: Piece) -> Outcome | None:
        """Take in what the process says; return the outcome if it is known now."""
        match piece:
            case Chunk():
                self.tail.output.keep(piece)
                self.on_output(piece)
            case Exited():
                return self.on_exit(self._scheduled(piece))
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
        if not self.trial.lost:
            self.keeping.tend()

    def _cause(self) -> Outcome | None:
        reason = reason_to_end(self.trial, self.interruption)
        if reason is not None:
            self._out_of_time()
            return reason
        if self._deadline is not None and time.monotonic() > self._deadline:
            return Failed(f"ran longer than {self.limits.timeout:g} s")
        if self.limits.silence is not None and self.trial.silence > self.limits.silence:
            return Lost(f"no word from the service for {self.limits.silence:g} s")
        return None

    def _kept(self, outcome: Outcome) -> Outcome:
        """The outcome with where the state lies."""
        if isinstance(outcome, Lost | Infeasible):
            return outcome
        if isinstance(outcome, Failed) and outcome is self.cause:
            # The time was up: what it was at is in the last lines.
            outcome = replace(outcome, message="\n".join(part for part in (str(self.tail), outcome.message) if part))
        return replace(outcome, checkpoint_uri=self.keeping.last(broken_off=self._out_of_time))

    def _out_of_time(self) -> bool:
        """Whether the state may take no longer to its place: the trial is lost, or the grace is over that a signal to the worker began."""
        if self.interruption.wished and self._farewell is None:
            self._farewell = time.monotonic() + self.limits.grace
        return self.trial.lost or (self._farewell is not None and time.monotonic() > self._farewell)

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
    def on_output(self, chunk: Chunk) -> None:
        """Take output."""

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


def reason_to_end(trial: Trial, interruption: Interruption) -> Outcome | None:
    """Why a trial shall not go on here, as far as it lies neither with the trial nor with its process."""
    if interruption.wished:
        return Released()
    if trial.lost:
        return Lost(trial.message or "the lease was lost")
    if trial.should_stop:
        return Stopped(trial.message or "the service ended it")
    return None


def in_its_place(
    trial: Trial,
    evaluate: Callable[[Checkpoint], Outcome],
    *,
    checkpoints: Checkpoints,
    interruption: Interruption,
) -> Outcome:
    """Evaluate a trial with a place for its state. Unusable if this worker can make none."""

    def broken_off() -> bool:
        return reason_to_end(trial, interruption) is not None

    try:
        checkpoint = _begun(lambda: checkpoints.begin(trial, broken_off=broken_off), broken_off)
    except BrokenOff:
        return reason_to_end(trial, interruption) or Released()
    except Unresumable as error:
        return Failed(str(error))
    except Unwritable as error:
        raise Unusable(str(error)) from error
    try:
        return evaluate(checkpoint)
    finally:
        checkpoint.close()


def _begun(begin: Callable[[], Checkpoint], broken_off: Callable[[], bool]) -> Checkpoint:
    """What `begin` makes, or BrokenOff as soon as `broken_off` says so: a large file that is being copied is not waited for."""
    future: Future[Checkpoint] = Future()

    def run() -> None:
        try:
            future.set_result(begin())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for.
            future.set_exception(error)

    threading.Thread(target=run, name="asktell-checkpoint", daemon=True).start()
    while not wait([future], POLL).done:
        if broken_off():
            future.add_done_callback(_let_go)
            raise BrokenOff
    return future.result()


def _let_go(begun: Future[Checkpoint]) -> None:
    if begun.exception() is None:
        begun.result().close()
