"""A process that computes decisions, one at a time. It is replaced when it dies or is stuck."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from asktell.server.domain.policy import SuggestRequest
from asktell.server.policies import child, inside, torch_device
from asktell.server.policies.inside import Compute
from asktell.server.policies.parcel import Parcel

T = TypeVar("T")

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_KEPT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""To the GNU C library: keep memory for the next matrix instead of giving it back after each. A large study's first choice got every page of
180 MiB anew from the system, one by one, which took a third as long as the choice itself."""


class WorkerDied(Exception):
    """The process ended, or did not start, before it gave its decision."""


class Worker:
    """One process of its own, a new interpreter, so that neither a `__main__` guard nor the server's threads matter to it.

    What it computes is sent by name: the process has the same path to import from.
    """

    def __init__(self, compute: Compute, *, start_limit: float, torch_device: str = torch_device.CPU) -> None:
        self._compute, self._start_limit, self._torch_device = compute, start_limit, torch_device
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[Any] | None = None
        self._ending: set[asyncio.Task[int]] = set()

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
        if self._loading is None or (self._loading.done() and self._failed(self._loading)):
            self._loading = asyncio.create_task(self._call(inside.load, module), name="load-module")
            self._loading.add_done_callback(self._failed)
        await asyncio.shield(self._loading)

    async def loaded(self) -> None:
        """Return when nothing is being imported, whatever became of that."""
        if self._loading is not None:
            await asyncio.wait([self._loading])

    @property
    def loading(self) -> bool:
        """Whether the process is busy with an import."""
        return self._loading is not None and not self._loading.done()

    async def run(self, compute: Callable[[SuggestRequest], T], request: SuggestRequest) -> T:
        """What the process computes for the request; what that raises is raised here. Raises WorkerDied.

        A process that cannot compute any more where it should is ended after its answer.
        """
        result: T
        result, spent = await self._call(inside.answer, compute, Parcel.of(request))
        if spent:
            self.kill()
        return result

    def kill(self) -> None:
        """End the process without waiting; the next start makes another."""
        process, self._process, self._starting, self._loading = self._process, None, None, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            ended = asyncio.create_task(process.wait(), name="end-worker")
            self._ending.add(ended)
            ended.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End the process."""
        for task in (self._starting, self._loading):
            if task is not None:
                task.cancel()
        self.kill()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _start(self) -> None:
        self._process = await _open()
        try:
            async with asyncio.timeout(self._start_limit):
                await self._call(inside.prepare, os.getpid(), self._torch_device)
                await self._call(inside.rehearse, self._compute)
        except TimeoutError:
            self._abandon()
            raise WorkerDied(f"it did not start within {self._start_limit:g} s") from None
        except WorkerDied:
            self._abandon()
            raise

    def _abandon(self) -> None:
        starting = self._starting
        self.kill()
        self._starting = starting

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the process returns. No other call may be under way, and none comes after one that was given up."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise WorkerDied("it was stopped")
        try:
            if process.stdin.is_closing():
                # It died while nobody called. uvloop's pipes raise RuntimeError for what is written to them then.
                raise BrokenPipeError
            process.stdin.write(child.packed((function, arguments)))
            header = await process.stdout.readexactly(child.LENGTH.size)
            reply = await process.stdout.readexactly(*child.LENGTH.unpack(header))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WorkerDied(f"it ended with status {await process.wait()}") from None
        returned, outcome = pickle.loads(reply)  # noqa: S301 - from the process that this one started
        if not returned:
            raise outcome
        return outcome

    @staticmethod
    def _failed(task: asyncio.Task[Any]) -> bool:
        return task.cancelled() or task.exception() is not None


async def _open() -> asyncio.subprocess.Process:
    path = os.pathsep.join(filter(None, sys.path))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        # What is in the directory where the server was started is not imported because of that.
        "-P",
        "-m",
        child.__name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_KEPT | os.environ | _ONE_THREAD | {"PYTHONPATH": path},
        # Ctrl-C in the terminal is the server's to handle, also while this one starts.
        start_new_session=True,
    )
