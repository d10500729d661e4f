"""What happens again and again is said now and then, with how often it happened."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

MINUTE = 60.0


class Sparing:
    """Counts by reason, and says of each at most once in `interval` seconds. Any thread may count."""

    def __init__(self, interval: float = MINUTE, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._said: dict[str, float] = {}

    def count(self, reason: str) -> int:
        """How often it has come since it was last to be said, this time included; 0 while it is not to be said again."""
        with self._lock:
            self._counts[reason] += 1
            now = self._clock()
            if now - self._said.get(reason, -self._interval + now) < self._interval:
                return 0
            self._said[reason] = now
            return self._counts.pop(reason)
