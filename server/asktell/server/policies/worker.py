"""A process that computes decisions, one at a time. It is replaced when it dies or is stuck."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from loky import ProcessPoolExecutor
from loky.process_executor import ShutdownExecutorError

from asktell.server.domain.policy import SuggestRequest
from asktell.server.policies import inside, torch_device
from asktell.server.policies.inside import Compute

T = TypeVar("T")

_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class WorkerDied(Exception):
    """The process ended, or did not start, before it gave its decision."""


class Worker:
    """One process of its own, started by fork and exec (loky), so that neither a `__main__` guard nor the server's threads matter to it."""

    def __init__(self, compute: Compute, *, start_limit: float, torch_device: str = torch_device.CPU) -> None:
        self._compute, self._start_limit, self._torch_device = compute, start_limit, torch_device
        self._executor: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._killing: set[asyncio.Future[None]] = set()

    @property
    def usable(self) -> bool:
        """Whether the process is there or about to be."""
        return self._starting is not None and not (self._starting.done() and self._failed(self._starting))

    async def start(self) -> None:
        """Return when the process is there and has imported what `gp` needs; at once if it has. Raises WorkerDied.

        Whoever stops waiting does not stop the start.
        """
        if self._starting is None or not self.usable:
            self._starting = asyncio.create_task(self._start(), name="start-worker")
            self._starting.add_done_callback(self._failed)
        await asyncio.shield(self._starting)

    async def load(self, module: str) -> None:
        """Return when the process, which has started, has imported a module. Raises WorkerDied.

        Whoever stops waiting does not stop the import: killed with every ask that is short of time, it would never be done.
        """
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(module), name="load-module")
            self._loading.add_done_callback(self._failed)
        await asyncio.shield(self._loading)

    async def loaded(self) -> None:
        """Return when nothing is being imported. Raises WorkerDied."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    @property
    def loading(self) -> bool:
        """Whether the process is busy with an import."""
        return self._loading is not None and not self._loading.done()

    async def run(self, compute: Callable[[SuggestRequest], T], request: SuggestRequest) -> T:
        """What the process computes for the request; what that raises is raised here. Raises WorkerDied."""
        executor = self._executor
        if executor is None:
            raise WorkerDied("it was stopped")
        try:
            # The process is there, so that handing over takes microseconds; a thread in between would take more.
            future = executor.submit(compute, request)
        except (BrokenProcessPool, ShutdownExecutorError) as error:
            raise WorkerDied(str(error).partition("\n")[0]) from error
        result: T = await self._result(future)
        return result

    def kill(self) -> None:
        """End the process without waiting; the next start makes another."""
        executor, self._executor, self._starting, self._loading = self._executor, None, None, None
        if executor is not None:
            ended = asyncio.ensure_future(asyncio.to_thread(_kill, executor))
            self._killing.add(ended)
            ended.add_done_callback(self._killing.discard)

    async def close(self) -> None:
        """End the process."""
        for task in (self._starting, self._loading):
            if task is not None:
                task.cancel()
        self.kill()
        if self._killing:
            await asyncio.wait(self._killing)

    async def _start(self) -> None:
        executor = self._executor = await asyncio.to_thread(_open, self._torch_device)
        try:
            async with asyncio.timeout(self._start_limit):
                await self._result(await asyncio.to_thread(executor.submit, inside.rehearse, self._compute))
        except TimeoutError:
            self._abandon()
            raise WorkerDied(f"it did not start within {self._start_limit:g} s") from None
        except WorkerDied:
            self._abandon()
            raise

    async def _load(self, module: str) -> None:
        executor = self._executor
        if executor is None:
            raise WorkerDied("it was stopped")
        await self._result(await asyncio.to_thread(executor.submit, inside.load, module))

    def _abandon(self) -> None:
        starting = self._starting
        self.kill()
        self._starting = starting

    @staticmethod
    async def _result(future: Future) -> Any:
        try:
            return await asyncio.wrap_future(future)
        except (BrokenProcessPool, ShutdownExecutorError) as error:
            raise WorkerDied(str(error).partition("\n")[0]) from error

    @staticmethod
    def _failed(task: asyncio.Task[None]) -> bool:
        return task.cancelled() or task.exception() is not None


def _open(device: str) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=1, initializer=inside.prepare, initargs=(os.getpid(), device), env=_ENVIRONMENT
    )


def _kill(executor: ProcessPoolExecutor) -> None:
    executor.shutdown(wait=True, kill_workers=True)
