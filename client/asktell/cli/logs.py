"""`asktell study logs`: what a trial wrote, from its log file on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from asktell.cli import places
from asktell.cli.failure import Refused
from asktell.cli.service import ANYWHERE, Service
from asktell.client import Study, Trial, TrialState

POLL = 0.2
"""Seconds between two looks into a file that is followed."""
ASK_SECONDS = 1.0
"""Seconds between two questions to the service whether the trial has ended."""
BEGINNING_SECONDS = 5.0
"""How long a trial that is active may have no file: its worker is about to make one."""
CHUNK = 1 << 16
MEMORY = 1024
"""Last bytes shown by which the place is found again in a file that was cut."""

CUT = b"[asktell: some output went by too fast to be shown]\n"


def logs(
    name: str,
    trial: Annotated[int, Parameter(validator=Number(gte=1))],
    /,
    *,
    follow: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    tail: Annotated[int | None, Parameter(show_default=False, validator=Number(gte=0))] = None,
    root: Annotated[str | None, Parameter(name="--logs", env_var="ASKTELL_LOGS", show_default=False)] = None,
    service: Service = ANYWHERE,
) -> None:
    """Show what a trial wrote, from its log on this machine: that of the worker, or one that reaches the worker's files.

    For example: `asktell study logs digits 7 --follow`

    Parameters
    ----------
    name
        The study.
    trial
        The trial's number.
    follow
        Go on until the trial has ended.
    tail
        Only so many lines of what is there at first.
    root
        Where `asktell work --logs` keeps the logs; by default this user's own directory.
    """
    with service.study(name) as study:
        standing = Standing(study, trial)
        path = places.log_of_trial(places.logs(root), standing.trial)
        _await(path, standing, patient=follow)
        shown = Shown(path, lines=tail)
        shown.more()
        while follow and not standing.ended:
            standing.look()
            shown.more()
            time.sleep(POLL)


class Standing:
    """How a trial stands, asked for now and then. NotFound if there is no such trial."""

    def __init__(self, study: Study, number: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._study = study
        self._number = number
        self._clock = clock
        self._asked = clock()
        self.trial: Trial = study.get_trial(number)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written: a worker tells a trial once its log is whole."""
        return self.trial.state.terminal

    def look(self) -> None:
        """Ask the service, if the last time was a while ago."""
        if self._clock() - self._asked >= ASK_SECONDS:
            self._asked = self._clock()
            self.trial = self._study.get_trial(self._number)


def _await(path: Path, standing: Standing, *, patient: bool) -> None:
    """Return once the file is there; Refused if it is not, nor likely to come."""
    since = None
    while not path.is_file():
        if standing.trial.state is TrialState.ACTIVE:
            since = since or time.monotonic()
        hopeless = since is not None and time.monotonic() - since > BEGINNING_SECONDS
        if not patient or standing.ended or hopeless:
            raise Refused(_missing(path, standing.trial))
        time.sleep(POLL)
        standing.look()


def _missing(path: Path, trial: Trial) -> str:
    if not trial.worker_id:
        return f"trial {trial.number} is {trial.state.value} and was with no worker: it has written nothing"
    return (
        f"there is no {path}: trial {trial.number} ({trial.state.value}) was with {trial.worker_id}, on whose machine its log is,"
        " in that worker's --logs"
    )


class Shown:
    """A file that is copied to standard output as it grows, byte by byte, from its last `lines` on; from its beginning if None."""

    def __init__(self, path: Path, *, lines: int | None) -> None:
        self._path = path
        self._place = 0 if lines is None else _beginning_of(path, lines)
        self._memory = b""

    def more(self) -> None:
        """Show what was added."""
        with self._path.open("rb") as file:
            if os.pread(file.fileno(), len(self._memory), self._place - len(self._memory)) != self._memory:
                self._find_again(file.read())
            file.seek(self._place)
            while data := file.read(CHUNK):
                self._show(data)
                self._place += len(data)

    def _show(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        self._memory = (self._memory + data)[-MEMORY:]

    def _find_again(self, content: bytes) -> None:
        """The middle of the file was left out since it is too long; go on after what was shown last, or else from the first line after it."""
        found = content.rfind(self._memory)
        if found >= 0:
            self._place = found + len(self._memory)
            return
        self._show(CUT)
        self._memory = b""
        self._place = content.rfind(b"\n[asktell: ") + 1


def _beginning_of(path: Path, lines: int) -> int:
    """Where the last lines begin; the last of them may have no end yet."""
    tail = b""
    with path.open("rb") as file:
        start = end = file.seek(0, os.SEEK_END)
        while start and tail.count(b"\n", 0, -1) < lines:
            step = min(CHUNK, start)
            start -= step
            tail = os.pread(file.fileno(), step, start) + tail
    whole = tail.removesuffix(b"\n")
    kept = b"\n".join(whole.split(b"\n")[-lines:]) + tail[len(whole) :] if lines else b""
    return end - len(kept)
