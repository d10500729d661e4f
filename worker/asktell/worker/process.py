"""One child process under guard: what it writes, how it ended, and the means to end it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Literal

GUARD = Path(__file__).with_name("guard.py")
MAX_LINE = 1 << 20
"""Bytes after which a line without an end is passed on in pieces."""
DRAIN_SECONDS = 2.0
"""How long output is awaited after the end: a daemon that left the process group may hold it open for ever."""

Stream = Literal["stdout", "stderr"]

_LINE_END = re.compile(rb"(?<=\n)|(?<=\r)(?!\n)")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that the process wrote, with the end it had: a newline, a carriage return, or none."""

    stream: Stream
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """A line that a Python objective's process sent over its channel."""

    text: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended; every line it wrote came before."""

    code: int
    """Exit status, or minus the number of the signal that ended it."""

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit status {self.code}"
        name = signal.Signals(-self.code).name if -self.code in set(signal.Signals) else f"signal {-self.code}"
        hint = ", perhaps for want of memory" if -self.code == signal.SIGKILL else ""
        return f"killed by {name}{hint}"

    @property
    def asked_to_end(self) -> bool:
        """Whether a signal ended it that asks politely, as schedulers send to all processes of a job."""
        return -self.code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


Event = Line | Message | Exited


class Process:
    """A child process whose whole process group ends when it is told to, and when this process dies, however that happens.

    Args:
        arguments: The command line; no shell is involved.
        environment: All environment variables of the process.
        grace: Seconds between SIGTERM and SIGKILL.
        channel: A file descriptor that the process inherits.
    """

    def __init__(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], grace: float, channel: int | None = None
    ) -> None:
        lifeline, self._lifeline = os.pipe()
        inherited = (lifeline,) if channel is None else (lifeline, channel)
        self.events: SimpleQueue[Event] = SimpleQueue()
        self._lock = threading.Lock()
        try:
            self._guard = subprocess.Popen(  # noqa: S603
                # -I -S: the guard starts in milliseconds and minds no variable that is meant for the command.
                [sys.executable, "-I", "-S", str(GUARD), str(lifeline), str(grace), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=inherited,
                # Ctrl-C in the terminal is the worker's to handle.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)
        self._follow()

    def _follow(self) -> None:
        readers = self.readers()
        for reader in readers:
            reader.start()
        threading.Thread(target=self._await_end, args=(readers,), daemon=True).start()

    def readers(self) -> list[threading.Thread]:
        """The threads that turn what the process says into events; all of them end before `Exited`."""
        guard = self._guard
        return [
            threading.Thread(target=self._read, args=(guard.stdout, "stdout"), daemon=True),
            threading.Thread(target=self._read, args=(guard.stderr, "stderr"), daemon=True),
        ]

    def _read(self, pipe: IO[bytes], stream: Stream) -> None:
        with pipe:
            for line in _lines(pipe):
                self.events.put(Line(stream, line.decode("utf-8", "replace")))

    def _await_end(self, readers: Sequence[threading.Thread]) -> None:
        code = self._guard.wait()
        for reader in readers:
            reader.join(DRAIN_SECONDS)
        self.end()
        self.events.put(Exited(code))

    def next_event(self, timeout: float) -> Event | None:
        """Return the next event, or None after `timeout` seconds without one."""
        with suppress(Empty):
            return self.events.get(timeout=timeout)
        return None

    def end(self) -> None:
        """Ask the process group to end, and see to it after the grace. Returns at once; `Exited` follows. Repeated, it does nothing more."""
        with self._lock:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1

    def wait(self) -> int:
        """Return the exit code once the process group has ended."""
        return self._guard.wait()


def _lines(pipe: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends as soon as they are complete; a carriage return ends one too, so that progress bars move."""
    rest = b""
    while chunk := os.read(pipe.fileno(), 1 << 16):
        *whole, rest = _LINE_END.split(rest + chunk)
        yield from whole
        if len(rest) > MAX_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest
