"""One worker process on a machine of a cluster, and the lifeline that it hangs on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

KEPT_LINES = 8
"""Last lines of a worker's log that say why it failed."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """How a worker ended: its exit status, negative for a signal, and the last lines that it wrote to standard error."""

    status: int
    words: str


class Placed:
    """A worker process that gives its trial back and ends when this process does, however that happens.

    It reads standard input, whose other end is here, and the kernel closes it with this process. An engine that kills the process group or the
    child processes of its own is no worse: the training hangs on the worker in the same way.

    Args:
        arguments: What follows `asktell` on the command line.
        directory: Where the worker starts.
    """

    def __init__(self, arguments: Sequence[str], directory: str) -> None:
        self._arguments = tuple(arguments)
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._told = False

    def run(self) -> Farewell:
        """Run the worker to its end.

        Raises:
            FileNotFoundError: This machine has no such directory.
        """
        if not Path(self._directory).is_dir():
            raise FileNotFoundError(f"{os.uname().nodename} has no directory {self._directory}")
        with self._lock:
            if self._told:
                return Farewell(0, "")
            self._process = process = self._start()
        words: deque[str] = deque(maxlen=KEPT_LINES)
        for line in process.stderr or ():
            sys.stderr.write(line)
            words.append(line)
        return Farewell(process.wait(), "".join(words).strip())

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "asktell.cli", self._arguments[0], "--end-with-stdin", *self._arguments[1:]],
            cwd=self._directory,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def end(self) -> None:
        """Have the worker give its trial back and end; `run` returns when it has."""
        with self._lock:
            self._told = True
            if self._process is not None:
                _cut(self._process.stdin)


def _cut(lifeline: IO[str] | None) -> None:
    if lifeline is not None and not lifeline.closed:
        lifeline.close()
