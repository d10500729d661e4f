"""One child process under guard: what it writes, how it ended, and the means to end it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from asktell.worker.events import Batch, Event, Events, Exited, Piece, Reader, Stream, lines

GUARD = Path(__file__).with_name("guard.py")


class Guard:
    """What runs one command, and ends when it is told to, and when this process dies. It may be started before there is a command.

    Args:
        grace: Seconds between SIGTERM and SIGKILL.
        channel: A file descriptor that the command inherits.
    """

    def __init__(self, grace: float, *, channel: int | None = None) -> None:
        lifeline, self._lifeline = os.pipe()
        self._lock = threading.Lock()
        try:
            self._popen = subprocess.Popen(  # noqa: S603
                # -I -S: it starts in milliseconds and minds no variable of Python's.
                [sys.executable, "-I", "-S", str(GUARD), str(lifeline), str(grace)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(lifeline,) if channel is None else (lifeline, channel),
                # Ctrl-C in the terminal is the worker's to handle.
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Have it run a command. ValueError for a NUL in it, BrokenPipeError if the guard is gone."""
        words = [*arguments, *(f"{name}={value}" for name, value in environment.items())]
        if any("\0" in word for word in words):
            raise ValueError("embedded null byte")
        body = b"".join(os.fsencode(word) + b"\0" for word in words)
        with self._order as order:
            order.write(b"%d %d\n" % (len(body), len(arguments)) + body)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def _order(self) -> IO[bytes]:
        if self._popen.stdin is None or self._popen.stdin.closed:
            raise BrokenPipeError("this guard has had its order")
        return self._popen.stdin

    @property
    def outputs(self) -> list[tuple[IO[bytes], Stream]]:
        """What the command writes."""
        out, err = self._popen.stdout, self._popen.stderr
        return [(out, "stdout"), (err, "stderr")] if out and err else []

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self._popen.wait()

    def end(self) -> None:
        """Ask the command's process group to end, and see to it after the grace. Returns at once; repeated, it does nothing more."""
        with self._lock:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1

    def dismiss(self) -> None:
        """End one that has no command, and wait for that."""
        self.end()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            # A guard that is gone takes no order, not even half of one.
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._popen.wait()


class Process:
    """A child process whose whole process group ends when it is told to, and when this process dies, however that happens.

    Args:
        arguments: The command line; no shell is involved.
        environment: All environment variables of the process.
        guard: What runs it.

    ValueError for a NUL in the command line, OSError if the guard is gone.
    """

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str], guard: Guard) -> None:
        self._events = Events()
        self._guard = guard
        try:
            guard.run(arguments, environment)
        except BaseException:
            guard.dismiss()
            raise
        self._follow()

    def _follow(self) -> None:
        over = threading.Event()
        readers = [Reader(source, events=self._events, over=over) for source in self.sources()]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._await_end, args=(readers, over), daemon=True).start()

    def sources(self) -> list[Iterator[Batch]]:
        """What the process says, by the way it takes; all of it comes before `Exited`."""
        return [lines(pipe, stream) for pipe, stream in self._guard.outputs]

    def _await_end(self, readers: Sequence[Reader], over: threading.Event) -> None:
        code = self._guard.wait()
        over.set()
        for reader in readers:
            reader.finish()
        self.end()
        self._events.put((Exited(code),))

    def next_event(self, timeout: float) -> Event | None:
        """Return the next event, or None after `timeout` seconds without one."""
        return self._events.next(timeout)

    def next_piece(self, timeout: float) -> Piece | None:
        """As `next_event`, with lines that came together in one chunk."""
        return self._events.next_piece(timeout)

    def end(self) -> None:
        """Ask the process group to end, and see to it after the grace. Returns at once; `Exited` follows. Repeated, it does nothing more."""
        self._guard.end()

    def close(self) -> None:
        """As `end`, for who listens no more: what the process still says is let go, so that it can end though it writes."""
        self.end()
        self._events.ignore()

    def wait(self) -> int:
        """Return the exit code once the process group has ended."""
        return self._guard.wait()
