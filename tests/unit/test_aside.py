"""Steps beside the event loop go one at a time, whatever becomes of who waits for them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asktell.server.rpc.aside import Aside


class Gate:
    """Steps that end when they are let through, and how many of them went on at once at most."""

    def __init__(self) -> None:
        self.begun, self._open, self._lock = threading.Semaphore(0), threading.Event(), threading.Lock()
        self.most = self._now = 0

    def step(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.begun.release()
        self._open.wait(10)
        with self._lock:
            self._now -= 1

    def open(self) -> None:
        self._open.set()


async def test_callers_that_go_away_leave_no_steps_that_go_on_side_by_side():
    aside, gate = Aside(), Gate()
    first = asyncio.create_task(aside.run(gate.step))
    await asyncio.to_thread(gate.begun.acquire, timeout=10)
    others = [asyncio.create_task(aside.run(gate.step)) for _ in range(5)]
    for caller in (first, *others[:4]):
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    assert not await asyncio.to_thread(gate.begun.acquire, timeout=0.2), "the last waits for the first step's end"
    gate.open()
    await others[4]
    assert gate.most == 1


async def test_a_step_that_fails_leaves_its_turn_to_the_next():
    aside = Aside()

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await aside.run(fail)
    assert await asyncio.wait_for(aside.run(lambda: 1), 10) == 1
