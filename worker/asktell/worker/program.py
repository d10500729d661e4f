"""Evaluates trials by a command line: one process a trial."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asktell.client import Trial
from asktell.worker.checkpoints import NO_CHECKPOINTS, Checkpoint, Checkpoints
from asktell.worker.command import CHECKPOINT_DIR, METRICS_FILE, TRIAL_NUMBER, Parameters, Template, variables
from asktell.worker.evaluation import Evaluation, Limits, Unusable, in_its_place
from asktell.worker.events import Chunk, Exited, Line
from asktell.worker.interruption import Interruption
from asktell.worker.outcome import Failed, Infeasible, Outcome, Released, Stopped, Succeeded
from asktell.worker.output import Measurement, Transcript
from asktell.worker.process import Process
from asktell.worker.standby import SETTLED_SECONDS, Standby
from asktell.worker.workplace import AS_IT_IS, Workplace

HEAR_SECONDS = 0.3
"""How long the worker listens before it signals a command whose result would count: what it said before is still under way."""
MAX_EXCERPT = 200
"""Characters of a program's name in a message."""


@dataclass(frozen=True, slots=True)
class MetricsFile:
    """Where a command may leave its metrics; `expected` if its command line or the worker's names the file."""

    path: Path
    expected: bool = False

    @property
    def nature(self) -> str:
        """Why it has no metrics."""
        if self.path.is_file():
            return "has no JSON object of numbers"
        return "is not a file" if self.path.exists() else "was not written"


class ProgramEvaluation(Evaluation):
    """A command at work on a trial: it prints measurements, and its metrics at the end, or leaves these in a file."""

    def __init__(
        self,
        trial: Trial,
        process: Process,
        *,
        checkpoint: Checkpoint,
        limits: Limits,
        interruption: Interruption,
        objectives: tuple[str, ...],
        metrics_file: MetricsFile,
        infeasible: Collection[int] = (),
    ) -> None:
        super().__init__(trial, process, checkpoint=checkpoint, limits=limits, interruption=interruption)
        self._infeasible = infeasible
        self.when_settled: Callable[[], None] | None = None
        """What to do, again and again, once the training has run for a while."""
        self._settles_at = time.monotonic() + SETTLED_SECONDS
        self._transcript = Transcript(objectives)
        self._metrics_file = metrics_file
        self._file_counts = False
        self._line = 0
        self._signal_at: float | None = None
        self._signalled = False

    def end_early(self) -> None:
        """Signal the process group; where a result would count that is complete, once what it said before was heard."""
        self._signal_at = time.monotonic() + (HEAR_SECONDS if isinstance(self.cause, Released) else 0)
        self._signal_in_time()

    def _watch(self) -> None:
        super()._watch()
        self._signal_in_time()
        if self.when_settled and self.cause is None and time.monotonic() > self._settles_at:
            self.when_settled()

    def _signal_in_time(self) -> None:
        if self._signal_at is not None and not self._signalled and time.monotonic() >= self._signal_at:
            self._signalled = True
            self._read_file()
            self.process.end()

    def on_output(self, chunk: Chunk) -> None:
        """Report measurements and checkpoints; pass on all else."""
        if chunk.stream == "stderr":
            self.tail.pass_on(chunk)
        elif chunk.has_objects:
            for line in chunk.lines:
                self._on_line(line)
        else:
            self._line += chunk.count
            self.tail.pass_on(chunk)

    def _on_line(self, line: Line) -> None:
        self._line += 1
        transcript, measurement = self._transcript.read(line.text, number=self._line)
        if measurement is None:
            self.tail.pass_on(line)
        # What a command says that was told to give up its trial may be what it has so far.
        if not (self._signalled and isinstance(self.cause, Released)):
            self._transcript = transcript
        if measurement is not None:
            self._say(measurement)

    def _say(self, measurement: Measurement) -> None:
        if measurement.checkpoint_uri and not self.trial.lost:
            self.keeping.name(measurement.checkpoint_uri)
        if measurement.metrics and measurement.step is not None and self.cause is None:
            self.report(measurement.step, measurement.metrics)

    def on_exit(self, exited: Exited) -> Outcome:
        """Succeeded with exit status 0 and every objective; a result counts that was complete before the worker was to end."""
        if not self._signalled:
            self._read_file()
        complete = exited.code == 0 and not self._transcript.shortcoming
        if isinstance(self.cause, Stopped):
            return Stopped(self.cause.message, self._transcript.metrics)
        if isinstance(self.cause, Released) and complete and self._transcript.result is not None:
            return Succeeded(self._transcript.metrics)
        if self.cause is not None:
            return self.cause
        if complete:
            return Succeeded(self._transcript.metrics)
        if exited.code in self._infeasible:
            return Infeasible(self.ending(exited))
        return self.broken(exited, also=self._lack() if exited.code == 0 else "")

    def _lack(self) -> str:
        """What there is instead of a result: the file too, where a command was told to write it."""
        parts = [self._transcript.shortcoming]
        if self._metrics_file.expected and not self._file_counts:
            parts.append(f"the metrics file {self._metrics_file.path} {self._metrics_file.nature}")
        return "; ".join(parts)

    def _read_file(self) -> None:
        """Metrics in the file replace those of the output."""
        # Neither a directory nor a pipe, which would be waited for.
        if not self._metrics_file.path.is_file():
            return
        text = self._metrics_file.path.read_text("utf-8", "replace")
        found = Transcript(self._transcript.objectives)
        for number, line in enumerate(_json_lines(text), 1):
            found, _ = found.read(line, number=number)
        if found.metrics or found.complaint:
            self._file_counts = True
            complaint = (
                f"{self._metrics_file.path.name}, {found.complaint}" if found.complaint else self._transcript.complaint
            )
            result = {**(self._transcript.result or {}), **found.metrics}
            self._transcript = Transcript(self._transcript.objectives, result or None, self._transcript.last, complaint)


def _json_lines(text: str) -> list[str]:
    """A file that is one JSON object over several lines counts as one line."""
    flat = " ".join(text.split("\n"))
    return [flat] if "\n}" in text.rstrip() else text.split("\n")


@dataclass(frozen=True, slots=True)
class Files:
    """What a command finds and leaves on disk."""

    metrics: Path
    parameters: Path
    checkpoint: Path | None
    checkpoint_uri: str
    upload_request: Path | None

    @property
    def fields(self) -> Parameters:
        """By the names that they have in command lines."""
        checkpoint = {} if self.checkpoint is None else {CHECKPOINT_DIR: str(self.checkpoint)}
        return {METRICS_FILE: str(self.metrics), **checkpoint}

    @property
    def variables(self) -> Mapping[str, str]:
        """As environment variables; the directory's is empty where there is none."""
        return {
            "ASKTELL_METRICS_FILE": str(self.metrics),
            "ASKTELL_PARAMETERS_FILE": str(self.parameters),
            "ASKTELL_CHECKPOINT_DIR": str(self.checkpoint or ""),
            "ASKTELL_CHECKPOINT_DIR_URI": self.checkpoint_uri,
            "ASKTELL_CHECKPOINT_UPLOAD": str(self.upload_request or ""),
        }


@dataclass(frozen=True, slots=True)
class Program:
    """A command line that evaluates trials.

    `metrics_file` is where the command leaves its metrics, relative to the current directory and with fields as in the command line; None
    for a new temporary file a trial. `infeasible` are the exit statuses by which it says that the parameters cannot work.
    """

    template: Template
    objectives: tuple[str, ...]
    limits: Limits
    interruption: Interruption
    study: str = ""
    metrics_file: str | None = None
    infeasible: frozenset[int] = frozenset()
    checkpoints: Checkpoints = NO_CHECKPOINTS
    workplace: Workplace = AS_IT_IS
    standby: Standby = field(default_factory=Standby)

    def prepare(self) -> None:
        """Start the next trial's guard. Unusable if there is no such program; one whose name depends on the trial is tried in its time."""
        name = self.template.groups[0].arguments[0]
        if not self.template.groups[0].fields and shutil.which(name) is None:
            raise Unusable(f"there is no program {name!r} to run{_hint(name)}")
        self._stand_by()

    def _stand_by(self) -> None:
        self.standby.prepare(self.limits.grace)

    def evaluate(self, trial: Trial) -> Outcome:
        """Run the command for one trial."""
        return in_its_place(
            trial,
            lambda checkpoint: self._run(trial, checkpoint),
            checkpoints=self.checkpoints,
            interruption=self.interruption,
        )

    def _run(self, trial: Trial, checkpoint: Checkpoint) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="asktell-", ignore_cleanup_errors=True) as folder:
            files = Files(
                metrics=self._metrics_file(trial, Path(folder)),
                parameters=Path(folder) / "parameters.json",
                checkpoint=checkpoint.directory,
                checkpoint_uri=checkpoint.standing_uri,
                upload_request=checkpoint.upload_request,
            )
            files.parameters.write_text(json.dumps(dict(trial.parameters)), "utf-8")
            arguments = self.template.fill({**trial.parameters, TRIAL_NUMBER: trial.number, **files.fields})
            try:
                process = self.standby.start(arguments, self._environment(trial, files), grace=self.limits.grace)
            except (OSError, ValueError) as error:
                # Arguments that are too long or have a NUL: the trial's parameters, most likely, and the next worker's trouble as well.
                return Failed(f"cannot start {arguments[0][:MAX_EXCERPT]!r}: {error}")
            evaluation = ProgramEvaluation(
                trial,
                process,
                checkpoint=checkpoint,
                limits=self.limits,
                interruption=self.interruption,
                objectives=self.objectives,
                metrics_file=MetricsFile(
                    files.metrics, expected=self.metrics_file is not None or self.template.mentions(METRICS_FILE)
                ),
                infeasible=self.infeasible,
            )
            evaluation.when_settled = self._stand_by
            try:
                with self.workplace.output_of(trial) as output:
                    return evaluation.run(output)
            finally:
                process.close()

    def _metrics_file(self, trial: Trial, folder: Path) -> Path:
        if self.metrics_file is None:
            return folder / "metrics.json"
        filled = Template.parse([self.metrics_file]).fill({**trial.parameters, TRIAL_NUMBER: trial.number})
        path = Path(*filled).absolute()
        # What an earlier trial left must not pass for this one's.
        path.unlink(missing_ok=True)
        return path

    def _environment(self, trial: Trial, files: Files) -> Mapping[str, str]:
        return {
            # Else Python keeps its measurements in a buffer until the end.
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            **self.workplace.variables,
            **variables(trial.parameters),
            "ASKTELL_STUDY": self.study,
            "ASKTELL_TRIAL": str(trial.number),
            "ASKTELL_TRIAL_NAME": trial.name,
            "ASKTELL_LEASE_TOKEN": "" if trial.lease is None else trial.lease.token,
            "ASKTELL_ATTEMPT": str(trial.attempt),
            "ASKTELL_CHECKPOINT_URI": trial.checkpoint_uri,
            **files.variables,
        }

    def close(self) -> None:
        """End the guard that waits for another trial."""
        self.standby.close()


def _hint(name: str) -> str:
    """What a file of that name lacks to be a program."""
    if Path(f"{name}.py").is_file():
        return f"; a function in {name}.py is written {name.replace('/', '.').strip('.')}:FUNCTION"
    if not Path(name).is_file():
        return ""
    if Path(name).name == name:
        return f", but a file: write ./{name} if it is executable, or its interpreter before it"
    return ", but a file that is not executable: chmod +x, or write its interpreter before it"
