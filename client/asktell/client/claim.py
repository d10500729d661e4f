"""What this process knows of its hold on a trial."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from asktell.client.values import Directive, Lease, Verdict


class Claim:
    """A lease in the hands of this process. Written by reports and by the lease keeper, read from any thread."""

    def __init__(self, *, study: str, number: int, lease: Lease, clock: Callable[[], float] = time.monotonic) -> None:
        self.study = study
        self.number = number
        self.token = lease.token
        self.lease = lease
        self.message = ""
        self._clock = clock
        self._renewed_at = clock()
        self._ending = threading.Event()
        self._lost = threading.Event()

    @property
    def duration(self) -> float:
        """How long the lease lasts from each renewal, in seconds."""
        return self.lease.duration.total_seconds()

    @property
    def renewal_due(self) -> float:
        """When the lease should be renewed: a third of its duration after it began, by this process's monotonic clock."""
        return self._renewed_at + self.duration / 3

    @property
    def silence(self) -> float:
        """Seconds since the lease began or was renewed, by this process's monotonic clock: since the service was heard."""
        return self._clock() - self._renewed_at

    @property
    def should_stop(self) -> bool:
        """Whether the service said to end the trial, or the lease is lost."""
        return self._ending.is_set()

    @property
    def lost(self) -> bool:
        """Whether the service said that the trial is no longer this process's."""
        return self._lost.is_set()

    def wait(self, timeout: float | None) -> bool:
        """Block until the trial should stop, at most `timeout` seconds; whether it should."""
        return self._ending.wait(timeout)

    def hear(self, verdict: Verdict) -> None:
        """Take in what the service said."""
        if verdict.lease is not None:
            self.lease = replace(verdict.lease, token=self.token)  # The service shows a token once.
            self._renewed_at = self._clock()
        if verdict.directive is Directive.CONTINUE:
            return
        self.message = verdict.message
        if verdict.directive is Directive.ABANDON:
            self._lost.set()
        self._ending.set()
