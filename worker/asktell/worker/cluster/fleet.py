"""The workers that a cluster shall run, and what its engine has to be able to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Arguments = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """So many equal workers.

    Attributes:
        study: What they work on.
        arguments: What follows `asktell` on the command line of each.
        workers: How many there shall be, 1 or more.
        cpus: Processors of each worker, above 0.
        gpus: GPUs of each worker, 0 or more.
        directory: Where they start: the training's files are there.
        grace: Seconds that a worker may take to give its trial back.
        whole: Whether its workers end only when the study hands out no more, not after so many trials.
    """

    study: str
    arguments: Arguments
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    directory: Path = field(default_factory=Path.cwd)
    grace: float = 10.0
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many workers there are, and what the failed ones had to say.

    Attributes:
        waiting: Not placed yet: the engine has no room for them.
        running: At work.
        done: Ended by themselves, with exit status 0.
        failures: Why each of the others ended; nobody starts these again.
    """

    waiting: int = 0
    running: int = 0
    done: int = 0
    failures: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether every worker has ended."""
        return self.waiting + self.running == 0

    def __str__(self) -> str:
        counts = {"running": self.running, "waiting": self.waiting, "done": self.done, "failed": len(self.failures)}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


class Misplaced(Exception):
    """The cluster cannot be used so: it is not there, or it refuses such workers; the message says which."""


class Engine(Protocol):
    """Runs a fleet on a cluster, and starts anew those that its machines lose."""

    def start(self, fleet: Fleet) -> None:
        """Have the workers started as room is found for them; Misplaced if that cannot be."""

    def standing(self) -> Standing:
        """How the workers stand now."""

    def end(self) -> None:
        """Tell all workers to give their trials back and end. Returns at once; `standing` says when they have. Repeated, it ends them hard."""

    def close(self) -> None:
        """Leave nothing behind on the cluster."""
