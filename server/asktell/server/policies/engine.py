"""Runs policies off the event loop: model-based decisions in processes of their own, all others in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from asktell.server.domain.beliefs import Question
from asktell.server.domain.errors import OutOfTime, Overloaded
from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.ranking import Losses, Standing
from asktell.server.policies import gp, questions, registry, safety, torch_device
from asktell.server.policies.inside import Compute
from asktell.server.policies.pool import Late, Pool
from asktell.server.policies.volumes import hypervolumes
from asktell.server.policies.worker import Worker, WorkerDied

THREADS = 4
MAX_QUESTIONS = 16
"""Questions that wait or are being answered; further ones come later."""
RETRY_AFTER = 1.0
FEW = 256
"""So many observations are looked through in less time than it takes to hand them to a thread."""

T = TypeVar("T")


class ProcessPoolEngine:
    """Implements `application.ports.Engine` with up to `workers` processes, which start when they are first needed.

    A decision that takes longer than its time limit (at most `longest` seconds) and a `grace` is given up, its process killed; one whose
    process dies is tried once more. Then random candidates are the answer, and their origin says why. Questions are answered by a further
    process, one at a time. `torch_device` is what policies that use torch compute on. Use it from one event loop.
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
        made = [Worker(compute, start_limit=start_limit, torch_device=torch_device) for _ in range(workers + 1)]
        # A question may take seconds, in which no ask shall wait for it.
        self._pool, self._respondent = Pool(made[1:], grace=grace), Pool(made[:1], grace=grace)
        # Not the loop's own threads: a policy that takes long must hold up neither who else uses those nor the loop's end.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="policy")
        self._longest, self._compute = longest, compute
        self._questions = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._warmed = False
        self._closed = False

    @property
    def choosing(self) -> int:
        """How many processes choose candidates now."""
        return self._pool.working

    def policies(self) -> Collection[str]:
        """The names of the policies."""
        return tuple(registry.POLICIES)

    async def suggest(self, request: SuggestRequest) -> Decision:
        """The policy's decision. Never raises for what is in the request: random candidates stand in, and their origin says why."""
        outlook = await self._outlook(request)
        if outlook is registry.Outlook.MODEL_LATER and not self._warmed:
            self._keep(self.warm_up())
        if outlook is not registry.Outlook.MODEL:
            return await self._in_thread(registry.suggest, request)
        # An asker that goes away leaves the computation to its end, because its process cannot be interrupted.
        return await asyncio.shield(self._keep(self._modelled(request)))

    async def suggest_ahead(self, request: SuggestRequest) -> Decision | None:
        """The decision, if it takes a model and a process is idle."""
        if await self._outlook(request) is not registry.Outlook.MODEL or self._pool.busy or self._closed:
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

    async def hypervolumes(
        self, standings: Sequence[Standing], reference: Losses, *, most: int
    ) -> list[tuple[int, float]]:
        """How much of the space below the reference is dominated, after those trials that changed the front."""
        return await self._in_thread(partial(hypervolumes, standings, reference, most=most))

    async def warm_up(self) -> None:
        """Start a process and import what decisions of `gp` need. Whatever goes wrong shows when the process is used."""
        self._warmed = True
        try:
            await self._pool.start()
        except (WorkerDied, OSError):
            self._warmed = False

    async def close(self) -> None:
        """End all processes and what they compute. A thread that computes is not waited for."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(self._pool.close(), self._respondent.close())

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _outlook(self, request: SuggestRequest) -> registry.Outlook:
        if len(request.observations) <= FEW and request.fidelity is None:
            return registry.outlook(request)
        return await self._in_thread(registry.outlook, request)

    async def _answered(self, request: SuggestRequest, question: Question[T]) -> T:
        limit, ends = self._limit(request)
        try:
            return await self._respondent.run(partial(questions.answer, question=question), request, ends=ends)
        except Late as error:
            raise OutOfTime(f"{error} within {limit:.3g} s") from None
        finally:
            self._questions -= 1

    async def _modelled(self, request: SuggestRequest) -> Decision:
        limit, ends = self._limit(request)
        try:
            return await self._pool.run(self._compute, request, ends=ends, modules=registry.modules(request))
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
