"""Tells, reports and reads of one study while a hundred asks that need a model wait on another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as pb
from benchmarks.serving.clients import leased, new_study, quantile
from benchmarks.serving.databases import KINDS, Databases
from benchmarks.serving.histories import filled
from benchmarks.serving.line import Line, Say, figures
from tests.wire import METHODS, Wire, report_request, tell_request

ASKS = 100
ROUNDS = 400
OBSERVATIONS, PARAMETERS = 200, 8
"""Of the study on which asks wait: each takes long to answer."""
FEWEST = ASKS // 2
"""With fewer under way at any time, nothing was shown."""
BAR_MS = 50.0
PAUSE = 0.01
"""Seconds between rounds, so that they see more of the asks."""
SETTLING = 2.0
"""Seconds that the asks have to arrive."""
REFUSED_PAUSE = 0.5


@dataclass(slots=True)
class Queue:
    """Asks that wait on a study, from threads' point of view."""

    waiting: int = 0
    answered: int = 0
    refused: int = 0
    least: int = ASKS
    ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Remember how few asks were under way."""
        self.least = min(self.least, self.waiting)


def measure(say: Say, databases: Databases, environments: Path) -> Iterator[Line]:  # noqa: ARG001
    """A line for each kind of call and database."""
    for kind in KINDS:
        with databases.served(kind) as server, Wire(server.target) as wire:
            say(f"{kind}: {ASKS} asks wait on a study, {ROUNDS} calls of each kind on another")
            busy = filled(wire, OBSERVATIONS, policy="gp", parameters=PARAMETERS)
            study = new_study(wire)
            trials = list(leased(wire, study, 2 * ROUNDS))
            idle = _calls(wire, study, trials[:ROUNDS], Queue())
            with _asking(server.target, busy) as queue:
                taken = _calls(wire, study, trials[ROUNDS:], queue)
        for call, seconds in taken.items():
            yield _line(kind, call, seconds, idle[call], queue)


@contextmanager
def _asking(target: str, study: str) -> Iterator[Queue]:
    """A hundred clients that ask again and again, in a thread of their own."""
    queue = Queue()
    thread = threading.Thread(target=lambda: asyncio.run(_ask_on(target, study, queue)))
    thread.start()
    try:
        time.sleep(SETTLING)
        queue.least = queue.waiting
        yield queue
    finally:
        queue.ended.set()
        thread.join()


async def _ask_on(target: str, study: str, queue: Queue) -> None:
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHODS["Ask"])
        tasks = [asyncio.create_task(_ask_again(call, study, number, queue)) for number in range(ASKS)]
        while not queue.ended.is_set():
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_again(
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], study: str, number: int, queue: Queue
) -> None:
    while True:
        request = pb.AskRequest(parent=study, worker_id=f"w{number}").SerializeToString()
        queue.waiting += 1
        try:
            await call(request, timeout=600)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            queue.refused += 1
            pause = REFUSED_PAUSE
        else:
            queue.answered += 1
            pause = 0.0
        finally:
            queue.waiting -= 1
        await asyncio.sleep(pause)


def _calls(wire: Wire, study: str, trials: list[pb.Trial], queue: Queue) -> dict[str, list[float]]:
    """Seconds of calls on a study, one after another."""
    taken: dict[str, list[float]] = {"report": [], "tell": [], "read": []}
    for trial in trials:
        calls: Mapping[str, Callable[[], object]] = {
            "report": lambda trial=trial: wire.call("Report", report_request(trial, 1, 0.5)),  # type: ignore[misc]
            "tell": lambda trial=trial: wire.call("Tell", tell_request(trial, 0.5)),  # type: ignore[misc]
            "read": lambda: wire.call("GetStudy", studies.GetStudyRequest(name=study)),
        }
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
        queue.look()
        time.sleep(PAUSE)
    return taken


def _line(kind: str, call: str, seconds: list[float], idle: list[float], queue: Queue) -> Line:
    ordered, calm = sorted(seconds), sorted(idle)
    late = 1e3 * quantile(ordered, 0.99)
    return Line(
        f"{call} on study B while {ASKS} asks wait on study A, {kind}",
        f"p99 {late:.1f} ms",
        f"< {BAR_MS:g} ms",
        met=late < BAR_MS and queue.least >= FEWEST,
        details=figures(
            {
                "p50 ms": 1e3 * quantile(ordered, 0.5),
                "max ms": 1e3 * ordered[-1],
                "p50 ms without asks": 1e3 * quantile(calm, 0.5),
                "p99 ms without asks": 1e3 * quantile(calm, 0.99),
                "asks under way, at least": queue.least,
                "asks answered": queue.answered,
                "asks refused (queue full)": queue.refused,
            }
        ),
    )
