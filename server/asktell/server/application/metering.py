"""What is counted of a server's work, for those who watch over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from asktell.server.domain.policy import Candidate
from asktell.server.domain.trial import Trial


class Kind(Enum):
    """Which sides of a call are streams, by the names that gRPC's dashboards know."""

    UNARY = "unary"
    CLIENT_STREAM = "client_stream"
    SERVER_STREAM = "server_stream"


class CallMeter:
    """Counts the calls of one method. This one counts nothing."""

    def began(self) -> None:
        """A call came."""

    def ended(self, code: str, seconds: float) -> None:
        """It ended with a status code, such as NOT_FOUND, after so many seconds."""


class Meter:
    """Counts what a server does. This one counts nothing, for a server that nobody asks for it."""

    def calls(self, kind: Kind, service: str, method: str) -> CallMeter | None:  # noqa: ARG002 - for those that count.
        """What counts the calls of a method; None if nobody wants to know, so that they pay nothing for it."""
        return None

    def show(self, name: str, what: str, read: Callable[[], float]) -> None:
        """Show what `read` gives, asked anew each time, from another thread, under a name; `what` says what that is."""

    def handed(self, candidates: Sequence[Candidate], *, prepared: bool) -> None:
        """Candidates became trials; `prepared` if they were chosen ahead of the asks that got them."""

    def told(self, trials: Sequence[Trial]) -> None:
        """Results were stored, which changed trials to these. It must not raise."""

    def expired(self, leases: int) -> None:
        """So many leases ran out."""

    def asked(self, *, reached: bool) -> None:
        """The event loop, which answers all calls, has asked the database, and reached it or not."""
