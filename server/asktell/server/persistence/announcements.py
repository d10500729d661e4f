"""Who is told that studies have changed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import structlog

log = structlog.get_logger("asktell.announcements")

Listener = Callable[[Collection[int]], None]


class Relay(Protocol):
    """Carries announcements between the servers on one database."""

    def start(self, hear: Listener) -> None:
        """Begin to carry, and hand over what other servers announce. A second time does nothing."""

    def send(self, study_ids: Collection[int]) -> None:
        """Let the other servers know, soon, without waiting for it. Before the start it does nothing."""


class Announcements:
    """Tells the listeners in this process, and other servers through the relay, which studies a commit has changed.

    The relay runs from the first listener on.
    """

    def __init__(self, relay: Relay | None = None) -> None:
        self._relay = relay
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> None:
        """Tell the listener from now on."""
        self._listeners = (*self._listeners, listener)
        if self._relay is not None:
            self._relay.start(self.deliver)

    def announce(self, study_ids: Collection[int]) -> None:
        """Tell everybody of what was committed here. Never raises."""
        if not study_ids:
            return
        self.deliver(study_ids)
        if self._relay is not None:
            self._relay.send(study_ids)

    def deliver(self, study_ids: Collection[int]) -> None:
        """Tell the listeners in this process. Never raises: the commit has been made, and its caller must hear so."""
        for listener in self._listeners:
            try:
                listener(study_ids)
            except Exception:
                log.exception("listener_broken")
