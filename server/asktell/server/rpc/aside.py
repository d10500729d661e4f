"""What takes so long that other calls would notice, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

LARGE_REQUEST = 32 * 1024
"""Bytes; to read and check as many takes some 5 ms, of the largest request a second."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Aside:
    """A thread beside the event loop, for one step at a time, lest such steps take all threads, and the interpreter from the event loop."""

    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self, request: Message, step: Callable[[], T]) -> T:
        """What the step makes of a request: at once of a small one."""
        return await self.run(step) if request.ByteSize() > LARGE_REQUEST else step()

    async def run(self, step: Callable[[], T]) -> T:
        """What the step comes to, in a thread. A step that goes on when its caller has gone away keeps its turn until it ends."""
        await self._turn.acquire()
        running = asyncio.create_task(asyncio.to_thread(step))
        running.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(running)
