"""Evaluates trials by a Python function, in a process of its own: the lease is kept whatever the function does with the interpreter."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from asktell.client import Trial
from asktell.worker.checkpoints import NO_CHECKPOINTS, Checkpoint, Checkpoints
from asktell.worker.evaluation import POLL, SCHEDULER_SECONDS, Evaluation, Limits, Unfit, Unusable, in_its_place
from asktell.worker.events import Batch, Chunk, Event, Exited, Line, Message, Piece
from asktell.worker.interruption import Interruption
from asktell.worker.outcome import Failed, Infeasible, Lost, Outcome, Released, Stopped, Succeeded
from asktell.worker.process import Guard, Process
from asktell.worker.workplace import AS_IT_IS, Output, Workplace

STRAGGLING_SECONDS = 0.02
"""How long the process is silent before all that it printed for a trial has come."""
IDLE_EVENTS = 100_000
"""Lines of output between two trials that are passed on before the next one begins."""


class ObjectiveProcess(Process):
    """The process that the function runs in, trial after trial."""

    def __init__(self, target: str, *, grace: float, variables: Mapping[str, str]) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            super().__init__(
                [sys.executable, "-m", "asktell.worker.child", target, str(theirs.fileno())],
                environment={"PYTHONUNBUFFERED": "1", **os.environ, **variables},
                guard=Guard(grace, channel=theirs.fileno()),
            )

    def sources(self) -> list[Iterator[Batch]]:
        """What the process says, by the way it takes."""
        return [*super().sources(), self._messages()]

    def _messages(self) -> Iterator[Batch]:
        with (
            self._channel,
            self._channel.makefile("r", encoding="utf-8", errors="replace", newline="\n") as lines,
            suppress(OSError),
        ):
            for line in lines:
                yield (Message(line),)

    def send(self, **message: object) -> None:
        """Send a message; a process that has ended gets none, and `Exited` says so."""
        with suppress(OSError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")


class ObjectiveEvaluation(Evaluation):
    """A function at work on a trial."""

    process: ObjectiveProcess

    def __init__(
        self,
        trial: Trial,
        process: ObjectiveProcess,
        *,
        checkpoint: Checkpoint,
        limits: Limits,
        interruption: Interruption,
    ) -> None:
        super().__init__(trial, process, checkpoint=checkpoint, limits=limits, interruption=interruption)
        self._patience: float | None = None
        self._turned_away = False

    def end_early(self) -> None:
        """A function that was told to stop may return by itself within the grace; else, and otherwise, its process ends."""
        if isinstance(self.cause, Stopped | Lost):
            self._patience = time.monotonic() + self.limits.grace
        else:
            self.process.end()

    def _watch(self) -> None:
        super()._watch()
        if self._patience is not None and (self.interruption.wished or time.monotonic() > self._patience):
            self.process.end()

    def on_output(self, chunk: Chunk) -> None:
        """Pass on what the function prints."""
        self.tail.pass_on(chunk)

    def take(self, piece: Piece) -> Outcome | None:
        """Take in what the process says, messages of the function among them."""
        return self._hear(piece) if isinstance(piece, Message) else super().take(piece)

    def _hear(self, message: Message) -> Outcome | None:
        content = json.loads(message.text)
        match content["kind"]:
            case "report" | "checkpoint":
                self._answer(content)
                return None
            case "preempted":
                return self._preempted()
            case "result":
                return self._result(_metrics(content))
            case "infeasible":
                return self.cause or Infeasible(content["message"])
            case _:
                return self.cause or Failed(content["message"])

    def _answer(self, content: Mapping[str, Any]) -> None:
        if content["checkpoint_uri"] and not self.trial.lost:
            self.keeping.name(content["checkpoint_uri"])
        if self.cause is None and content["kind"] == "report":
            self.report(content["step"], _metrics(content))
        self._turned_away = isinstance(self.cause, Released)
        stop = self.cause is not None or self.trial.should_stop
        self.process.send(should_stop=stop, message=getattr(self.cause, "message", "") or self.trial.message)

    def _preempted(self) -> Outcome:
        """The function ended since it heard of SIGTERM, which may have reached it before the worker."""
        if self.cause is None and not self.interruption.wait(SCHEDULER_SECONDS):
            return Failed("ended by SIGTERM", killed=True)
        return self.cause or Released()

    def _result(self, metrics: Mapping[str, Any]) -> Outcome:
        match self.cause:
            case Released() if self._turned_away:
                # It may be what the function has so far.
                return self.cause
            case Stopped(message):
                return Stopped(message, metrics)
            case Lost():
                return self.cause
            case _:
                # It was complete before the end that was asked for.
                return Succeeded(metrics)

    def on_exit(self, exited: Exited) -> Outcome:
        """The process ended in the midst of a trial."""
        return self.cause or self.broken(exited)


def _metrics(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(metric) if isinstance(metric, list) else metric for name, metric in content["metrics"].items()}


class Objective:
    """A Python function that evaluates trials, named `module:function`. Its process serves many trials; a new one follows a failure."""

    def __init__(
        self,
        target: str,
        *,
        objectives: tuple[str, ...],
        limits: Limits,
        interruption: Interruption,
        checkpoints: Checkpoints = NO_CHECKPOINTS,
        workplace: Workplace = AS_IT_IS,
    ) -> None:
        self._target = target
        self._checkpoints = checkpoints
        self._objectives = objectives
        self._limits = limits
        self._interruption = interruption
        self._workplace = workplace
        self._process: ObjectiveProcess | None = None

    def prepare(self) -> None:
        """See to it that the process runs and has imported the function; raise Unusable if that fails, Unfit if it takes other arguments."""
        if self._process is not None and self._idle(self._process):
            return
        self.close()
        self._process = ObjectiveProcess(self._target, grace=self._limits.grace, variables=self._workplace.variables)
        while not self._interruption.wished and not self._ready(self._process.next_event(POLL)):
            pass

    def _ready(self, event: Event | None) -> bool:
        match event:
            case Message(text):
                self._check(json.loads(text))
                return True
            case Exited():
                raise Unusable(f"the objective {self._target} could not be imported: {event}")
            case Line():
                self._workplace.between_trials.show(event)
        return False

    def _check(self, answer: Mapping[str, Any]) -> None:
        if answer["kind"] == "uncallable":
            raise Unfit(answer["message"])
        if answer["kind"] == "broken":
            raise Unusable(f"the objective {self._target} cannot be used: {answer['message']}")

    def _idle(self, process: ObjectiveProcess) -> bool:
        """Pass on what the process wrote between trials; return whether it still runs. One that never stops writing is not waited for."""
        for _ in range(IDLE_EVENTS):
            event = process.next_event(0)
            if event is None:
                return True
            if isinstance(event, Exited):
                return False
            if isinstance(event, Line):
                self._workplace.between_trials.show(event)
        return True

    def evaluate(self, trial: Trial) -> Outcome:
        """Call the function for one trial."""
        return in_its_place(
            trial,
            lambda checkpoint: self._call(trial, checkpoint),
            checkpoints=self._checkpoints,
            interruption=self._interruption,
        )

    def _call(self, trial: Trial, checkpoint: Checkpoint) -> Outcome:
        if self._process is None:
            self.prepare()
        process = self._process
        if process is None or self._interruption.wished:
            return Released()
        process.send(
            number=trial.number,
            parameters=dict(trial.parameters),
            objectives=self._objectives,
            attempt=trial.attempt,
            checkpoint_uri=trial.checkpoint_uri,
            checkpoint_dir=None if checkpoint.directory is None else str(checkpoint.directory),
        )
        evaluation = ObjectiveEvaluation(
            trial, process, checkpoint=checkpoint, limits=self._limits, interruption=self._interruption
        )
        try:
            with self._workplace.output_of(trial) as output:
                outcome = evaluation.run(output)
                self._hear_out(process, output)
        except BaseException:
            # What the process has still to say of this trial must not pass for the next one's.
            self.close()
            raise
        if evaluation.cause is not None or isinstance(outcome, Failed):
            # A failure may leave the process unfit, as after an error of CUDA; one that was told to end is ending.
            self.close()
        return outcome

    def _hear_out(self, process: ObjectiveProcess, output: Output) -> None:
        """Take what the function printed before it said its result: that came another way, and perhaps sooner."""
        for _ in range(IDLE_EVENTS):
            match process.next_event(STRAGGLING_SECONDS):
                case Line() as line:
                    output.keep(line)
                    output.show(line)
                case Exited():
                    self.close()
                    return
                case None:
                    return

    def close(self) -> None:
        """End the process; the next trial starts another."""
        if self._process is not None:
            self._process.close()
            self._process.wait()
            self._process = None
