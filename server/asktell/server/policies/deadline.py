"""How long a computation may take."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock; None never comes."""

    moment: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The moment in so many seconds."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def earlier(self, share: float) -> Deadline:
        """The moment when so much of what is left now will be over."""
        return Deadline.after(None if self.left is None else share * self.left)

    @property
    def left(self) -> float | None:
        """Seconds until then, at least 0."""
        return None if self.moment is None else max(self.moment - time.monotonic(), 0.0)

    @property
    def passed(self) -> bool:
        """Whether it has come."""
        return self.left == 0.0


NEVER = Deadline(None)
