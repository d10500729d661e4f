"""Runs policies off the event loop: model-based decisions in processes of their own, all others in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from asktell.server.domain.beliefs import Question
from asktell.server.domain.errors import OutOfTime, Overloaded
from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.ranking import Losses
from asktell.server.policies import gp, questions, registry, safety, torch_device
from asktell.server.policies.volumes import hypervolumes
from asktell.server.policies.worker import Compute, Worker, WorkerDied

ATTEMPTS = 2
THREADS = 4
MAX_QUESTIONS = 16
"""Questions that wait or are being answered; further ones come later."""
RETRY_AFTER = 1.0

T = TypeVar("T")


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
        self._compute = compute
        # One question at a time: the other processes are for asks.
        self._questions, self._turn = 0, asyncio.Lock()
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

    async def answer(self, request: SuggestRequest, question: Question[T]) -> T:
        """What the surrogate believes. Raises FailedPrecondition for too few observations, OutOfTime, or Overloaded."""
        await self._in_thread(questions.require_enough, request, question)
        if self._questions >= MAX_QUESTIONS:
            message = f"{self._questions} questions wait for answers; no more than {MAX_QUESTIONS} may"
            raise Overloaded(message, retry_after=RETRY_AFTER)
        self._questions += 1
        # One that goes away leaves the computation to its end, because its process cannot be interrupted.
        return await asyncio.shield(self._keep(self._answered(request, question)))

    async def hypervolumes(self, fronts: Sequence[Sequence[Losses]], reference: Losses) -> list[float]:
        """How much of the space below the reference each front dominates."""
        return await self._in_thread(hypervolumes, fronts, reference)

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

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _answered(self, request: SuggestRequest, question: Question[T]) -> T:
        limit, ends = self._limit(request)
        try:
            async with asyncio.timeout_at(ends):
                await self._turn.acquire()
        except TimeoutError:
            self._questions -= 1
            raise OutOfTime(f"other questions took all of {limit:.3g} s") from None
        try:
            return await self._persistently(partial(questions.answer, question=question), request, ends)
        except Late as error:
            raise OutOfTime(f"{error} within {limit:.3g} s") from None
        finally:
            self._questions -= 1
            self._turn.release()

    async def _modelled(self, request: SuggestRequest) -> Decision:
        limit, ends = self._limit(request)
        try:
            return await self._persistently(self._compute, request, ends, modules=registry.modules(request))
        except WorkerDied as error:
            reason = str(error)
        except Late as error:
            reason = f"{error} within {limit:.3g} s"
        except Exception as error:  # noqa: BLE001 - an ask gets an answer whatever the processes do
            reason = gp.describe(error)
        return await self._in_thread(_stand_in, request, reason)

    def _limit(self, request: SuggestRequest) -> tuple[float, float]:
        """How many seconds a request has, and when they end by the event loop's clock."""
        limit = self._longest if request.time_limit is None else min(request.time_limit, self._longest)
        return limit, asyncio.get_running_loop().time() + limit

    async def _persistently(
        self, compute: Callable[[SuggestRequest], T], request: SuggestRequest, ends: float, modules: Sequence[str] = ()
    ) -> T:
        """What a process computes, tried once more if it dies. Raises Late, WorkerDied, or what the computation raises."""
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
            return await self._run(worker, compute, request, ends)
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
            # Starting takes seconds and goes on; killing the process now would only make later asks wait as well.
            raise Late("no process was ready") from None

    async def _run(
        self, worker: Worker, compute: Callable[[SuggestRequest], T], request: SuggestRequest, ends: float
    ) -> T:
        left = max(ends - asyncio.get_running_loop().time(), 0.0)
        try:
            async with asyncio.timeout_at(ends + self._grace):
                return await worker.run(compute, replace(request, time_limit=left))
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
