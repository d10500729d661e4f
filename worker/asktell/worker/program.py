"""Evaluates trials by a command line: one process a trial."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from asktell.client import Trial
from asktell.worker.command import METRICS_FILE, TRIAL_NUMBER, Parameters, Template, variables
from asktell.worker.evaluation import Evaluation, Limits, Unusable
from asktell.worker.events import Exited, Line
from asktell.worker.interruption import Interruption
from asktell.worker.outcome import Failed, Infeasible, Outcome, Released, Stopped, Succeeded
from asktell.worker.output import Transcript
from asktell.worker.process import Process

MAX_EXCERPT = 200
"""Characters of a program's name in a message."""


class ProgramEvaluation(Evaluation):
    """A command at work on a trial: it prints measurements, and its metrics at the end, or leaves these in a file."""

    def __init__(
        self,
        trial: Trial,
        process: Process,
        *,
        limits: Limits,
        interruption: Interruption,
        objectives: tuple[str, ...],
        metrics_file: Path,
        infeasible: Collection[int] = (),
    ) -> None:
        super().__init__(trial, process, limits=limits, interruption=interruption)
        self._infeasible = infeasible
        self._transcript = Transcript(objectives)
        self._metrics_file = metrics_file
        self._line = 0

    def end_early(self) -> None:
        """Signal the process group."""
        self.process.end()

    def on_line(self, line: Line) -> None:
        """Report a measurement; pass on all else."""
        if line.stream == "stderr":
            self.tail.pass_on(line)
            return
        self._line += 1
        self._transcript, measurement = self._transcript.read(line.text, number=self._line)
        if measurement is None:
            self.tail.pass_on(line)
        elif measurement.step is not None and self.cause is None:
            self.report(measurement.step, measurement.metrics)

    def on_exit(self, exited: Exited) -> Outcome:
        """Succeeded with exit status 0 and every objective; a result that is complete counts though the worker was to end."""
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
        return self.broken(exited, also=self._transcript.shortcoming if exited.code == 0 else "")

    def _read_file(self) -> None:
        """Metrics in the file replace those of the output."""
        # Neither a directory nor a pipe, which would be waited for.
        if not self._metrics_file.is_file():
            return
        text = self._metrics_file.read_text("utf-8", "replace")
        found = Transcript(self._transcript.objectives)
        for number, line in enumerate(_json_lines(text), 1):
            found, _ = found.read(line, number=number)
        if found.metrics or found.complaint:
            complaint = (
                f"{self._metrics_file.name}, {found.complaint}" if found.complaint else self._transcript.complaint
            )
            result = {**(self._transcript.result or {}), **found.metrics}
            self._transcript = Transcript(self._transcript.objectives, result or None, self._transcript.last, complaint)


def _json_lines(text: str) -> list[str]:
    """A file that is one JSON object over several lines counts as one line."""
    flat = " ".join(text.split("\n"))
    return [flat] if "\n}" in text.rstrip() else text.splitlines()


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

    def prepare(self) -> None:
        """Raise Unusable if there is no such program; one whose name depends on the trial is tried when its time comes."""
        name = self.template.groups[0].arguments[0]
        if not self.template.groups[0].fields and shutil.which(name) is None:
            raise Unusable(f"there is no program {name!r} to run")

    def evaluate(self, trial: Trial) -> Outcome:
        """Run the command for one trial."""
        with tempfile.TemporaryDirectory(prefix="asktell-", ignore_cleanup_errors=True) as folder:
            metrics_file = self._metrics_file(trial, Path(folder))
            parameters_file = Path(folder) / "parameters.json"
            parameters_file.write_text(json.dumps(dict(trial.parameters)), "utf-8")
            arguments = self.template.fill(self._values(trial, metrics_file))
            environment = self._environment(trial, metrics_file, parameters_file)
            try:
                process = Process(arguments, environment=environment, grace=self.limits.grace)
            except (OSError, ValueError) as error:
                # Arguments that are too long or have a NUL: the trial's parameters, most likely, and the next worker's trouble as well.
                return Failed(f"cannot start {arguments[0][:MAX_EXCERPT]!r}: {error}")
            evaluation = ProgramEvaluation(
                trial,
                process,
                limits=self.limits,
                interruption=self.interruption,
                objectives=self.objectives,
                metrics_file=metrics_file,
                infeasible=self.infeasible,
            )
            try:
                return evaluation.run()
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

    def _values(self, trial: Trial, metrics_file: Path) -> Parameters:
        return {**trial.parameters, TRIAL_NUMBER: trial.number, METRICS_FILE: str(metrics_file)}

    def _environment(self, trial: Trial, metrics_file: Path, parameters_file: Path) -> Mapping[str, str]:
        return {
            # Else Python keeps its measurements in a buffer until the end.
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            **variables(trial.parameters),
            "ASKTELL_STUDY": self.study,
            "ASKTELL_TRIAL": str(trial.number),
            "ASKTELL_METRICS_FILE": str(metrics_file),
            "ASKTELL_PARAMETERS_FILE": str(parameters_file),
        }

    def close(self) -> None:
        """Nothing outlives a trial."""
