"""The latest changes of one study in memory, for all who watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from asktell.server.domain.errors import DomainError
from asktell.server.domain.study import StudyName

MAX_KEPT_BATCHES = 128
MAX_KEPT_BYTES = 512 * 1024
"""What a feed keeps, if it is more than one batch. A watcher that is further behind reads for itself."""


@dataclass(frozen=True, slots=True)
class Batch:
    """All changes above `after` up to `upto`, packed; no bytes if there is nothing above. `more`: whether others have followed."""

    after: int
    upto: int
    packed: bytes
    more: bool = False


@dataclass(slots=True)
class Feed:
    """The changes of a study up to `head`: the latest batches without a gap between them, each found by the position that it follows.

    `stale`: whether there may be more than was read; `pump` is the task that reads on, None while there is none.
    """

    study_id: int
    name: StudyName
    head: int
    watchers: int = 0
    stale: bool = False
    pump: asyncio.Task[None] | None = None
    _kept: dict[int, Batch] = field(default_factory=dict)
    _bytes: int = 0
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _end: Callable[[], DomainError] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._end is not None

    def batch_after(self, position: int) -> Batch | None:
        """The batch that follows a position; None if the position is the head, between two batches' ends, or no longer kept."""
        return self._kept.get(position)

    def extend(self, batch: Batch) -> None:
        """Go on with a batch that follows the head. One without a change of the head is nothing."""
        if batch.upto == self.head:
            return
        self._kept[batch.after] = batch
        self._bytes += len(batch.packed)
        self.head = batch.upto
        while len(self._kept) > 1 and (len(self._kept) > MAX_KEPT_BATCHES or self._bytes > MAX_KEPT_BYTES):
            oldest = self._kept.pop(next(iter(self._kept)))
            self._bytes -= len(oldest.packed)
        self._wake()

    def forget(self) -> None:
        """Keep nothing: who is behind the head reads for itself."""
        self._kept.clear()
        self._bytes = 0

    def end(self, error: Callable[[], DomainError]) -> None:
        """End the watches with an error of their own each. A second time does nothing."""
        self._end = self._end or error
        self._wake()

    def require_open(self) -> None:
        """Raise the error that the feed has ended with, if it has."""
        if self._end is not None:
            raise self._end()

    async def moved(self) -> None:
        """Return once the head has moved, or the feed has ended."""
        await self._moved.wait()

    def _wake(self) -> None:
        # Whoever waits goes on, whoever waits from now on waits for the next time.
        self._moved.set()
        self._moved.clear()
