"""Workers as the tasks of a Slurm job array, which its own queue starts, preempts and requeues."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asktell.worker.cluster.fleet import Fleet, Misplaced, Standing

logger = logging.getLogger("asktell.worker")

NOTICE = 90
"""Seconds before the time limit at which a worker is told to end."""
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING"})
RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"})

SCRIPT = """#!/bin/bash
{options}

# The worker runs beside this shell, which gets the signals: {notice} s before the time limit, at a preemption, at scancel.
{command} &
worker=$!
told=
trap 'told=yes; kill -TERM "$worker"' TERM
wait "$worker"
status=$?
if [ -n "$told" ]; then
    # The signal has ended the waiting, not the worker.
    trap '' TERM
    wait "$worker"
    status=$?
fi

# The worker has given its trial back. Where Slurm still counts this task as running, its time is up: it queues again for the rest of
# the study. After scancel it is COMPLETING, and after a preemption or `scontrol requeue` Slurm queues it again itself. The number of
# the last task alone, $SLURM_JOB_ID, is that of the whole array as well.
task="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
if [ -n "$told" ] && [ "$(squeue --noheader --jobs "$task" --format %T)" = RUNNING ]; then
    scontrol requeue "$task"
fi
exit "$status"
"""


def script(
    fleet: Fleet, *, options: Mapping[str, str], program: Sequence[str] = (sys.executable, "-m", "asktell.cli")
) -> str:
    """Return the batch script of a fleet. `options` are more of sbatch's, by their long names; an empty value is a switch.

    Raises:
        Misplaced: A worker would have a part of a processor or of a GPU.
    """
    if fleet.gpus % 1 or fleet.cpus % 1:
        raise Misplaced(f"Slurm shares out whole processors and GPUs, not {fleet.cpus:g} and {fleet.gpus:g}")
    lines = [f"#SBATCH --{name}={value}" if value else f"#SBATCH --{name}" for name, value in options.items()]
    return SCRIPT.format(
        options="\n".join([*(f"#SBATCH --{line}" for line in _own(fleet)), *lines]),
        notice=NOTICE,
        command=shlex.join([*program, *fleet.arguments]),
    )


def _own(fleet: Fleet) -> list[str]:
    gpus = [f"gres=gpu:{fleet.gpus:g}"] if fleet.gpus else []
    return [
        f"job-name=asktell-{fleet.study}",
        f"array=1-{fleet.workers}",
        f"cpus-per-task={fleet.cpus:g}",
        *gpus,
        "requeue",
        f"signal=B:TERM@{NOTICE}",
        "output=asktell-%A_%a.log",
        "open-mode=append",
    ]


@dataclass(slots=True)
class SlurmEngine:
    """Runs a fleet as one job array.

    Attributes:
        options: More options of sbatch, by their long names, such as `partition`.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    _job: str = ""
    _workers: int = 0
    _ended: bool = False
    _states: dict[str, str] = field(default_factory=dict)

    def start(self, fleet: Fleet) -> None:
        """Submit the array."""
        self._workers = fleet.workers
        submitted = _call(
            ["sbatch", "--parsable", f"--chdir={fleet.directory}"], given=script(fleet, options=self.options)
        )
        self._job = submitted.strip().partition(";")[0]
        logger.info(
            "job %s, an array of %d: its logs are %s/asktell-%s_*.log",
            self._job,
            fleet.workers,
            fleet.directory,
            self._job,
        )

    def standing(self) -> Standing:
        """What the queue says; a task that it no longer shows has ended."""
        asked = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={self._job}", "--format=%K %T"]
        seen = dict(line.split() for line in _call(asked, gone="").splitlines() if line.strip())
        self._states = {**dict.fromkeys(self._states, "COMPLETED"), **self._last(seen)}
        states = list(self._states.values())
        waiting = sum(state in WAITING for state in states)
        running = sum(state in RUNNING for state in states)
        failures = tuple(self._failure(task) for task, state in self._states.items() if self._failed(state))
        return Standing(
            waiting=waiting, running=running, done=len(states) - waiting - running - len(failures), failures=failures
        )

    def _last(self, seen: Mapping[str, str]) -> Mapping[str, str]:
        """Tasks that ended and that the queue has forgotten stand as they stood last, if that was an end."""
        forgotten = {task: state for task, state in self._states.items() if state not in WAITING | RUNNING}
        expected = {str(number): "PENDING" for number in range(1, self._workers + 1)} if not self._states else {}
        return {**expected, **forgotten, **seen}

    def _failed(self, state: str) -> bool:
        return state not in WAITING | RUNNING | {"COMPLETED"} and not (self._ended and state == "CANCELLED")

    def _failure(self, task: str) -> str:
        return f"task {self._job}_{task} ended as {self._states[task]}: see asktell-{self._job}_{task}.log"

    def end(self) -> None:
        """Cancel the array: tasks that wait are withdrawn, workers get SIGTERM; the second time SIGKILL."""
        hard = ["--signal=KILL", "--full"] if self._ended else []
        self._ended = True
        _call(["scancel", *hard, self._job], gone="")

    def close(self) -> None:
        """Slurm keeps nothing of a job that has ended."""


def _call(arguments: Sequence[str], *, given: str | None = None, gone: str | None = None) -> str:
    """What a command of Slurm says. Misplaced if it fails, or `gone` where that stands for a job that Slurm has forgotten."""
    try:
        done = subprocess.run(arguments, input=given, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise Misplaced(f"there is no {arguments[0]} here: Slurm's commands are on its login machines") from error
    if done.returncode and gone is not None and "Invalid job id" in done.stderr:
        return gone
    if done.returncode:
        raise Misplaced(f"{arguments[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout
