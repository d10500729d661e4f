"""A wish, from a signal, that the worker end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType


class Interruption:
    """Set once, by a signal handler or a test; never unset."""

    def __init__(self) -> None:
        self.signal = 0
        self._by_keyboard = False
        # A queue whose put may run in a signal handler, whatever the main thread holds; a threading.Event could lock itself out.
        self._wakeup: SimpleQueue[None] = SimpleQueue()

    @property
    def wished(self) -> bool:
        """Whether the worker shall end."""
        return self.signal != 0

    @property
    def by_keyboard(self) -> bool:
        """Whether it came from Ctrl-C."""
        return self.signal == signal.SIGINT

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        """Wish that the worker end, as by signal `number`."""
        self.signal = self.signal or number
        self._wakeup.put(None)

    def wait(self, seconds: float) -> bool:
        """Sleep, but not beyond the interruption; return whether there is one."""
        if not self.wished:
            with suppress(Empty):
                self._wakeup.get(timeout=max(seconds, 0))
                # Whoever else waits is to hear of it too.
                self._wakeup.put(None)
        return self.wished

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGTERM, SIGINT and SIGHUP interrupt; a second SIGINT ends the process at once. For the main thread.

        SIGHUP, which comes when the terminal is closed, stays ignored where it is, as under nohup.
        """
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        old = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def on_end_of(self, descriptor: int) -> None:
        """Let the end of what can be read from a file descriptor interrupt: whoever holds the other end of a pipe has closed it or died."""
        threading.Thread(target=self._await_end, args=(descriptor,), daemon=True).start()

    def _await_end(self, descriptor: int) -> None:
        with suppress(OSError):
            while os.read(descriptor, 1024):
                pass
        self.interrupt()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._by_keyboard and number == signal.SIGINT:
            # The guard ends the training, since this process holds its lifeline no more.
            os._exit(128 + signal.SIGINT)
        self._by_keyboard = self._by_keyboard or number == signal.SIGINT
        self.interrupt(number)
