"""One child process under guard: what it writes, how it ended, and the means to end it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from asktell.worker.events import Batch, Event, Events, Exited, Piece, Reader, lines

GUARD = Path(__file__).with_name("guard.py")


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
        self._events = Events()
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
        over = threading.Event()
        readers = [Reader(source, events=self._events, over=over) for source in self.sources()]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._await_end, args=(readers, over), daemon=True).start()

    def sources(self) -> list[Iterator[Batch]]:
        """What the process says, by the way it takes; all of it comes before `Exited`."""
        out, err = self._guard.stdout, self._guard.stderr
        return [lines(out, "stdout"), lines(err, "stderr")] if out and err else []

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
        with self._lock:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1

    def close(self) -> None:
        """As `end`, for who listens no more: what the process still says is let go, so that it can end though it writes."""
        self.end()
        self._events.ignore()

    def wait(self) -> int:
        """Return the exit code once the process group has ended."""
        return self._guard.wait()
