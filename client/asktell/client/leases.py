"""Keeps leases alive in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asktell.client import calls
from asktell.client.claim import Claim
from asktell.client.connection import Connection
from asktell.client.errors import NotFound
from asktell.client.values import Directive, Verdict

logger = logging.getLogger("asktell.client")

LONGEST_RENEWAL = 10.0
LONGEST_PAUSE = 5.0
FIRST_SILENCE, LONGEST_SILENCE = 10.0, 600.0
"""Seconds between two warnings of one outage: the first pause, doubled each time up to the longest."""


@dataclass(slots=True)
class _Entry:
    claim: Claim
    holders: int = 0
    not_before: float = 0.0

    @property
    def due(self) -> float:
        return max(self.claim.renewal_due, self.not_before)


@dataclass(slots=True)
class _Outage:
    """Renewals of a study that fail one after the other."""

    failures: int = 0
    next_word: float = 0.0
    silence: float = FIRST_SILENCE / 2

    def is_to_be_said(self, now: float) -> bool:
        """Count a failure; whether to say so, more and more seldom."""
        self.failures += 1
        due = now >= self.next_word or self.failures == 1
        if due:
            self.silence = min(2 * self.silence, LONGEST_SILENCE)
            self.next_word = now + self.silence
        return due


class LeaseBook:
    """Which leases are to be kept, and when they are due: the part of a keeper that needs no thread and no loop."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._outages: dict[str, _Outage] = {}

    def hold(self, claim: Claim) -> None:
        """Keep a lease until it is dropped as often as it was held."""
        self._entries.setdefault(claim.token, _Entry(claim)).holders += 1

    def drop(self, claim: Claim) -> None:
        """Let go of a lease once."""
        entry = self._entries.get(claim.token)
        if entry is not None:
            entry.holders -= 1
            if entry.holders <= 0:
                self.forget(claim)

    def forget(self, claim: Claim) -> None:
        """Keep a lease no longer, however often it is held: the trial has ended."""
        self._entries.pop(claim.token, None)

    def pause(self, now: float) -> float | None:
        """Seconds until a lease is due; None if none is held."""
        return max(0.0, min(entry.due for entry in self._entries.values()) - now) if self._entries else None

    def due(self, now: float) -> list[tuple[str, list[Claim]]]:
        """For each study with a lease that is due, all that are held there, so that one call renews them; at most 1,000 a batch."""
        studies = {entry.claim.study for entry in self._entries.values() if entry.due <= now}
        return [(study, batch) for study in sorted(studies) for batch in self._batches(study)]

    def _batches(self, study: str) -> list[list[Claim]]:
        """A batch has a trial once: this process may hold a lease of it that is lost unbeknown, and the one that followed."""
        rounds: list[dict[int, Claim]] = []
        for entry in self._entries.values():
            if entry.claim.study == study:
                _first_without(entry.claim.number, rounds)[entry.claim.number] = entry.claim
        return [batch for claims in rounds for batch in _cut(list(claims.values()))]

    def renewed(self, claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> None:
        """Take in the service's reply; a lost lease is kept no longer."""
        if outage := self._outages.pop(claims[0].study, None):
            logger.warning("renewing leases of %s works again, after %d failures", claims[0].study, outage.failures)
        held = {claim.number: claim for claim in claims}
        for verdict in verdicts:
            claim = held[verdict.number]
            claim.hear(verdict)
            if claim.lost:
                self.forget(claim)

    def failed(self, claims: Sequence[Claim], error: Exception, now: float) -> None:
        """Take in that a renewal did not work: of a study that is gone every trial is lost; else try again soon."""
        if isinstance(error, NotFound):
            self._outages.pop(claims[0].study, None)
            self.renewed(claims, [Verdict(claim.number, Directive.ABANDON, str(error), None) for claim in claims])
            return
        outage = self._outages.setdefault(claims[0].study, _Outage())
        if outage.is_to_be_said(now):
            logger.warning("renewing %d leases of %s failed; trying again: %s", len(claims), claims[0].study, error)
        for claim in claims:
            if entry := self._entries.get(claim.token):
                entry.not_before = now + min(LONGEST_PAUSE, claim.duration / 10)


def _first_without(number: int, rounds: list[dict[int, Claim]]) -> dict[int, Claim]:
    for claims in rounds:
        if number not in claims:
            return claims
    rounds.append({})
    return rounds[-1]


def _cut(claims: list[Claim]) -> list[list[Claim]]:
    return [claims[start : start + calls.BATCH] for start in range(0, len(claims), calls.BATCH)]


def renewal_timeout(claims: Sequence[Claim]) -> float:
    """How long a renewal may take, in seconds: short enough to try again before the first lease ends."""
    return min(LONGEST_RENEWAL, *(claim.duration / 3 for claim in claims))


class LeaseKeeper:
    """Renews the held leases of all studies from one daemon thread, which starts with the first lease.

    Time is this process's monotonic clock: what the wall clock says, here or at the service, does not matter. A renewal that fails is
    tried again; a lease counts as lost only when the service says so.
    """

    def __init__(self, connection: Connection, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._book = LeaseBook()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[type[LeaseKeeper], tuple[Connection]]:
        """What is pickled, along with its client, holds no leases: those stay with this process."""
        return type(self), (self._connection,)

    def hold(self, claim: Claim) -> None:
        """Keep a lease until it is dropped as often as it was held, or forgotten."""
        with self._changed:
            self._book.hold(claim)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="asktell-leases", daemon=True)
                self._thread.start()
            self._changed.notify()

    def drop(self, claim: Claim) -> None:
        """Let go of a lease once."""
        with self._changed:
            self._book.drop(claim)

    def forget(self, claim: Claim) -> None:
        """Keep a lease no longer: the trial has ended."""
        with self._changed:
            self._book.forget(claim)

    def close(self) -> None:
        """End the thread and wait for it; leases that are still held run out. A second time does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(LONGEST_RENEWAL)

    def _run(self) -> None:
        while (due := self._wait()) is not None:
            for study, claims in due:
                self._renew(study, claims)

    def _wait(self) -> list[tuple[str, list[Claim]]] | None:
        """Block until leases are due; None when the keeper is closed."""
        with self._changed:
            while not self._closed:
                pause = self._book.pause(self._clock())
                if pause == 0.0:
                    return self._book.due(self._clock())
                self._changed.wait(pause)
        return None

    def _renew(self, study: str, claims: list[Claim]) -> None:
        try:
            verdicts = self._connection.run_once(calls.renew(study, claims), timeout=renewal_timeout(claims))
        except Exception as error:  # noqa: BLE001 - a keeper that ended here would lose every lease in silence.
            self._fail(claims, error)
        else:
            with self._changed:
                self._book.renewed(claims, verdicts)

    def _fail(self, claims: list[Claim], error: Exception) -> None:
        if not self._closed:
            with self._changed:
                self._book.failed(claims, error, self._clock())
