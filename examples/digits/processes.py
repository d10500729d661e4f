"""The demo's server and workers: real processes, each with a log file, all gone when the demo is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASKTELL = str(Path(sys.executable).with_name("asktell"))
GRACE = 10.0
"""Seconds that a process has to end itself before it is killed."""


class Broken(Exception):
    """Something that the demo needs has ended or does not answer; the message carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that the demo started, and the file that takes its output."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The number that `kill` takes."""
        return self.popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it, rather than an error or the end of its work."""
        return (self.popen.poll() or 0) < 0

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error of its own."""
        return (self.popen.poll() or 0) > 0

    def breakage(self, what: str) -> Broken:
        """The error to raise when this process is at fault."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
        return Broken("\n".join([f"{self.name} {what}; the end of {self.log}:", *lines]))

    def stop(self) -> None:
        """End it and whatever it started. Repeated, it changes nothing."""
        self.popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def fleet() -> Iterator[list[Process]]:
    """A list for processes: those in it at the end are stopped, the youngest first."""
    processes: list[Process] = []
    try:
        yield processes
    finally:
        for process in reversed(processes):
            process.stop()


def start(name: str, command: Sequence[str], *, log: Path) -> Process:
    """Start a command in the repository's root, its output going to `log`.

    It gets a session of its own: a Ctrl-C in the terminal reaches the demo alone, which then ends the others in order. One thread
    each, since the processes share the cores.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        popen = subprocess.Popen(  # noqa: S603 - our own command.
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(name, popen, log)
