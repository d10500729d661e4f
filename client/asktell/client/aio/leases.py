"""Keeps leases alive in a background task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from asktell.client import calls
from asktell.client.aio.connection import Connection
from asktell.client.claim import Claim
from asktell.client.leases import LeaseBook, renewal_timeout


class LeaseKeeper:
    """As `asktell.client.leases.LeaseKeeper`, with a task in place of the thread: an objective that blocks the loop blocks it too."""

    def __init__(self, connection: Connection, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._book = LeaseBook()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def hold(self, claim: Claim) -> None:
        """Keep a lease until it is dropped as often as it was held, or forgotten."""
        self._book.hold(claim)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="asktell-leases")

    def drop(self, claim: Claim) -> None:
        """Let go of a lease once."""
        self._book.drop(claim)

    def forget(self, claim: Claim) -> None:
        """Keep a lease no longer: the trial has ended."""
        self._book.forget(claim)

    async def close(self) -> None:
        """End the task; leases that are still held run out. A second time does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._wait()
            for study, claims in self._book.due(self._clock()):
                await self._renew(study, claims)

    async def _wait(self) -> None:
        """Return when a lease is due."""
        while (pause := self._book.pause(self._clock())) != 0.0:
            self._changed.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _renew(self, study: str, claims: list[Claim]) -> None:
        try:
            verdicts = await self._connection.run_once(calls.renew(study, claims), timeout=renewal_timeout(claims))
        except Exception as error:  # noqa: BLE001 - a keeper that ended here would lose every lease in silence.
            self._book.failed(claims, error, self._clock())
        else:
            self._book.renewed(claims, verdicts)
