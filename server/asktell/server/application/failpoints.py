"""Named places in the code where a test can make the server die, fail or hesitate. Unless armed, reaching one does nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from asktell.server.domain.errors import Unavailable

NAMES = frozenset(
    {
        "ask.chosen",
        "ask.inserted",
        "ask.committed",
        "ask.replying",
        "tell.locked",
        "tell.updated",
        "tell.committed",
        "tell.replying",
        "report.committed",
        "leases.expired",
    }
)


@dataclass(slots=True)
class Armed:
    """What a failpoint does, and at which time that it is reached; None is every time."""

    act: Callable[[], None]
    at: int | None
    reached: int = 0

    def reach(self) -> None:
        """Count, and act if it is time."""
        self.reached += 1
        if self.at is None or self.reached == self.at:
            self.act()


@dataclass(slots=True)
class _Failpoints:
    armed: dict[str, Armed] = field(default_factory=dict)


_failpoints = _Failpoints()


def arm(description: str) -> None:
    """Arm failpoints: `name=action[@n]`, separated by commas; "" disarms all. ValueError for what is none.

    Actions: `kill` (the process ends as by SIGKILL), `error` (the call is Unavailable), `sleep:SECONDS`. With `@n` only the n-th time that
    the place is reached. What was armed before is disarmed.
    """
    _failpoints.armed = read(description)


def reach(name: str) -> None:
    """Do what is armed under the name, if anything is."""
    if _failpoints.armed and (armed := _failpoints.armed.get(name)) is not None:
        armed.reach()


def read(description: str) -> dict[str, Armed]:
    """What `arm` would arm, by name. ValueError for what is none."""
    return dict(_read(each.strip()) for each in description.split(",") if each.strip())


def _read(text: str) -> tuple[str, Armed]:
    name, _, action = text.partition("=")
    action, _, at = action.partition("@")
    if name not in NAMES:
        raise ValueError(f"{name!r} is no failpoint; there are: {', '.join(sorted(NAMES))}")
    if at and not (at.isascii() and at.isdecimal() and int(at) >= 1):
        raise ValueError(f"{text!r}: {at!r} is no count")
    return name, Armed(_action(text, name, action), int(at) if at else None)


def _action(text: str, name: str, action: str) -> Callable[[], None]:
    kind, _, argument = action.partition(":")
    match kind:
        case "kill":
            return partial(os.kill, os.getpid(), signal.SIGKILL)
        case "error":
            return partial(_fail, name)
        case "sleep":
            return partial(time.sleep, float(argument))
    raise ValueError(f"{text!r}: the action must be kill, error or sleep:SECONDS")


def _fail(name: str) -> None:
    raise Unavailable(f"failpoint {name}", reason="FAILPOINT")
