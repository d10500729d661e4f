"""A guard that is there before there is a command for it: its start, most of what a trial costs a worker, delays no trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from asktell.worker.process import Guard, Process

SETTLED_SECONDS = 0.3
"""How long a training has run when the next one's guard is started: at first all slots may have to do."""


@dataclass(slots=True)
class Standby:
    """The guard of the next command of a slot. For one thread."""

    guard: Guard | None = None

    def prepare(self, grace: float) -> None:
        """Start a guard, unless there is one; without room for it the command starts its own, or says why not."""
        if self.guard is None:
            with suppress(OSError):
                self.guard = Guard(grace)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], *, grace: float) -> Process:
        """Start a command under the guard, or under a new one if it is gone. OSError or ValueError if it cannot be started."""
        guard, self.guard = self.guard, None
        if guard is not None:
            with suppress(BrokenPipeError):
                return Process(arguments, environment=environment, guard=guard)
        return Process(arguments, environment=environment, guard=Guard(grace))

    def close(self) -> None:
        """End a guard that is left."""
        if self.guard is not None:
            self.guard.dismiss()
            self.guard = None
