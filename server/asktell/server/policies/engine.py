"""Runs policies off the event loop: model-based decisions in processes of their own, all others in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.policies import gp, registry, safety, torch_device
from asktell.server.policies.worker import Compute, Worker, WorkerDied

ATTEMPTS = 2
THREADS = 4

_Result = TypeVar("_Result")


class Late(Exception):
    """A decision did not come in time."""


class ProcessPoolEngine:
    """Implements `application.ports.Engine` with up to `workers` processes, which start when they are first needed.

    A decision that takes longer than its time limit (at most `longest` seconds) and a `grace` is given up, its process killed; one whose
    process dies is tried once more. Then random candidates are the answer, and their origin says why. `torch_device` is what policies that
    use torch compute on. Use it from one event loop.
    """

    def __init__(
        self,
        *,
        workers: int,
        longest: float = 120.0,
        grace: float = 1.0,
        start_limit: float = 120.0,
        compute: Compute = registry.suggest,
        torch_device: str = torch_device.CPU,
    ) -> None:
        self._workers = [Worker(compute, start_limit=start_limit, torch_device=torch_device) for _ in range(workers)]
        # Not the loop's own threads: a policy that takes long must hold up neither who else uses those nor the loop's end.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="policy")
        self._longest, self._grace = longest, grace
        # The one used last comes first, so that no more processes start than work at the same time.
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._warmed = False
        self._closed = False

    def policies(self) -> Collection[str]:
        """The names of the policies."""
        return tuple(registry.POLICIES)

    async def suggest(self, request: SuggestRequest) -> Decision:
        """The policy's decision. Never raises for what is in the request: random candidates stand in, and their origin says why."""
        outlook = await self._in_thread(registry.outlook, request)
        if outlook is not registry.Outlook.MODEL:
            if outlook is registry.Outlook.MODEL_LATER and not self._warmed:
                self._keep(self.warm_up())
            return await self._in_thread(registry.suggest, request)
        # An asker that goes away leaves the computation to its end, because its process cannot be interrupted.
        return await asyncio.shield(self._keep(self._modelled(request)))

    async def suggest_ahead(self, request: SuggestRequest) -> Decision | None:
        """The decision, if it takes a model and a process is idle."""
        if (
            await self._in_thread(registry.outlook, request) is not registry.Outlook.MODEL
            or self._idle.empty()
            or self._closed
        ):
            return None
        return await asyncio.shield(self._keep(self._modelled(request)))

    async def warm_up(self) -> None:
        """Start a process and import what decisions of `gp` need. Whatever goes wrong shows when the process is used."""
        self._warmed = True
        try:
            await self._workers[-1].start()
        except (WorkerDied, OSError):
            self._warmed = False

    async def close(self) -> None:
        """End all processes and what they compute. A thread that computes is not waited for."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _modelled(self, request: SuggestRequest) -> Decision:
        limit = self._longest if request.time_limit is None else min(request.time_limit, self._longest)
        ends, reason = asyncio.get_running_loop().time() + limit, ""
        for _ in range(ATTEMPTS):
            try:
                return await self._attempt(request, ends)
            except WorkerDied as error:
                reason = f"the process that computed died {ATTEMPTS} times: {error}"
            except Late as error:
                reason = f"{error} within {limit:.3g} s"
                break
            except Exception as error:  # noqa: BLE001 - an ask gets an answer whatever the processes do
                reason = gp.describe(error)
                break
        return await self._in_thread(_stand_in, request, reason)

    async def _attempt(self, request: SuggestRequest, ends: float) -> Decision:
        try:
            async with asyncio.timeout_at(ends):
                worker = await self._idle.get()
        except TimeoutError:
            raise Late(f"none of {len(self._workers)} processes was free") from None
        try:
            return await self._run(worker, request, ends)
        finally:
            self._give_back(worker)

    async def _run(self, worker: Worker, request: SuggestRequest, ends: float) -> Decision:
        try:
            async with asyncio.timeout_at(ends):
                await worker.start()
                for module in registry.modules(request):
                    await worker.load(module)
        except TimeoutError:
            # Starting takes seconds and goes on; killing the process now would only make later asks wait as well.
            raise Late("no process was ready") from None
        left = max(ends - asyncio.get_running_loop().time(), 0.0)
        try:
            async with asyncio.timeout_at(ends + self._grace):
                return await worker.run(replace(request, time_limit=left))
        except TimeoutError:
            worker.kill()
            raise Late("the computation did not end") from None
        except WorkerDied:
            worker.kill()
            raise

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
            pass  # The ask that takes it starts it again, and reports what goes wrong.
        finally:
            self._idle.put_nowait(worker)

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that is not collected before it ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _stand_in(request: SuggestRequest, reason: str) -> Decision:
    name = gp.NAME if request.policy == registry.AUTO else request.policy
    stand_in = safety.guarded(lambda asked: safety.fallback(asked, name=name, reason=reason), name=name)
    return stand_in(request)
