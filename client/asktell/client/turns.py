"""How much a loop over trials may begin, shared by the loops of one call that run side by side."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextvars import copy_context
from threading import Lock, Thread

from asktell.client.errors import InvalidArgument
from asktell.client.values import Reason, Seconds, seconds


class Turns:
    """At most `count` trials are begun (None: any number), none once `timeout` is over or the turns were ended.

    Safe to share between threads. `timeout` is in seconds or a timedelta, from now on. InvalidArgument for less than none.
    """

    def __init__(
        self, *, count: int | None = None, timeout: Seconds | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if count is not None and count < 0:
            raise InvalidArgument.at("count", f"must be at least 0, or None for any number, not {count}")
        if timeout is not None and not seconds(timeout) >= 0:
            raise InvalidArgument.at("timeout", f"must be at least 0 seconds, or None for no limit, not {timeout}")
        self._lock = Lock()
        self._clock = clock
        self._left = count
        self._until = math.inf if timeout is None else clock() + seconds(timeout)
        self._handed = False
        self._waits_for: Reason | None = None

    @property
    def left(self) -> float:
        """Seconds in which trials may still begin; 0 if none may."""
        return max(0.0, self._until - self._clock())

    def take(self) -> bool:
        """Whether one more trial may begin; it counts."""
        with self._lock:
            if self._left == 0 or not self.left:
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def end(self) -> None:
        """Let no further trial begin; those that run are finished."""
        self._until = -math.inf

    def handed(self) -> None:
        """A trial was handed out."""
        self._handed, self._waits_for = True, None

    def wait(self, reason: Reason) -> bool:
        """There is no trial for now; whether that is news."""
        with self._lock:
            is_news, self._waits_for = reason is not self._waits_for, reason
        return is_news

    def close(self) -> bool:
        """There will be no more trials; whether there was none at all, which only the first is told who asks."""
        with self._lock:
            was_none, self._handed = not self._handed, True
        return was_none


def loops(n_jobs: int) -> int:
    """How many loops `n_jobs` asks for: at least 1, or -1 for one a processor. InvalidArgument for anything else."""
    if n_jobs != -1 and n_jobs < 1:
        raise InvalidArgument.at("n_jobs", f"must be at least 1, or -1 for one a processor, not {n_jobs}")
    return n_jobs if n_jobs > 0 else os.cpu_count() or 1


def side_by_side(loop: Callable[[], None], size: int, turns: Turns) -> None:
    """Run `loop` in as many threads. The first error ends the turns, and is raised when the others have ended theirs.

    An interrupt of the caller is raised at once: the threads do not keep the process from ending.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001 - it is raised again by the caller.
            turns.end()
            errors.append(error)

    contexts = [copy_context() for _ in range(size)]
    threads = [Thread(target=context.run, args=(run,), daemon=True) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
