"""Processes that compute for whoever comes, one computation each at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from asktell.server.domain.policy import SuggestRequest
from asktell.server.policies.worker import Worker, WorkerDied

ATTEMPTS = 2

T = TypeVar("T")


class Late(Exception):
    """A computation did not end in time."""


class Pool:
    """Some workers, whose processes start when they are first needed. Used from one event loop.

    A computation that goes on for longer than `grace` seconds after its end was due is given up, its process killed; one whose process
    dies is tried once more.
    """

    def __init__(self, workers: Sequence[Worker], *, grace: float) -> None:
        self._workers, self._grace = workers, grace
        # The one used last comes first, so that no more processes start than work at the same time.
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        for worker in workers:
            self._idle.put_nowait(worker)
        self._restarts: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether all workers compute."""
        return self._idle.empty()

    @property
    def working(self) -> int:
        """How many workers compute or get ready to."""
        return len(self._workers) - self._idle.qsize()

    async def start(self) -> None:
        """Start a process. Raises WorkerDied or OSError."""
        await self._workers[-1].start()

    async def close(self) -> None:
        """End all processes. What computes must have been cancelled."""
        for task in self._restarts:
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))

    async def run(
        self,
        compute: Callable[[SuggestRequest], T],
        request: SuggestRequest,
        *,
        ends: float,
        modules: Sequence[str] = (),
    ) -> T:
        """What a process computes of the request, having imported the modules, with its time limit set to what is left until `ends`, by the
        event loop's clock. Raises Late, WorkerDied, or what the computation raises.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await self._attempt(compute, request, ends, modules)
            except WorkerDied as error:
                if attempt == ATTEMPTS - 1:
                    message = f"the process that computed died {ATTEMPTS} times: {error}"
                    raise WorkerDied(message) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(
        self, compute: Callable[[SuggestRequest], T], request: SuggestRequest, ends: float, modules: Sequence[str]
    ) -> T:
        try:
            async with asyncio.timeout_at(ends):
                worker = await self._idle.get()
        except TimeoutError:
            raise Late(f"none of {len(self._workers)} processes was free") from None
        try:
            await self._make_ready(worker, ends, modules)
            return await self._compute(worker, compute, request, ends)
        except WorkerDied:
            worker.kill()
            raise
        finally:
            self._give_back(worker)

    @staticmethod
    async def _make_ready(worker: Worker, ends: float, modules: Sequence[str]) -> None:
        try:
            async with asyncio.timeout_at(ends):
                await worker.start()
                for module in modules:
                    await worker.load(module)
        except TimeoutError:
            # Starting takes seconds and goes on; killing the process now would only make later ones wait as well.
            raise Late("no process was ready") from None

    async def _compute(
        self, worker: Worker, compute: Callable[[SuggestRequest], T], request: SuggestRequest, ends: float
    ) -> T:
        left = max(ends - asyncio.get_running_loop().time(), 0.0)
        try:
            async with asyncio.timeout_at(ends + self._grace):
                return await worker.run(compute, replace(request, time_limit=left))
        except TimeoutError:
            worker.kill()
            raise Late("the computation did not end") from None

    def _give_back(self, worker: Worker) -> None:
        if worker.usable and not worker.loading:
            self._idle.put_nowait(worker)
        else:
            self._keep(self._restart(worker))

    async def _restart(self, worker: Worker) -> None:
        """Make the worker idle when it is ready: until then others are the better choice."""
        try:
            await worker.start()
            await worker.loaded()
        except (WorkerDied, OSError):
            pass  # Who takes it starts it again, and reports what goes wrong.
        finally:
            self._idle.put_nowait(worker)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """See to it that a task is not collected before it ends."""
        task = asyncio.create_task(work)
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)
