"""What watchers of studies cost the server, and how soon they see a change.

python -m benchmarks.watchers --watchers 2000 --studies 1 --rate 50
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cyclopts
import grpc
import psutil

from asktell.v1 import metric_pb2, search_space_pb2, study_service_pb2, trial_service_pb2
from asktell.v1.study_service_pb2_grpc import StudyServiceStub
from asktell.v1.trial_service_pb2_grpc import TrialServiceStub
from benchmarks.server import served

STREAMS_A_CONNECTION = 50
IDLE = 5.0
"""Seconds for which nothing happens."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process had used at a time: processor seconds, and MiB of memory."""

    at: float
    cpu: float
    memory: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Usage now."""
        process = psutil.Process(pid)
        times = process.cpu_times()
        return cls(time.monotonic(), times.user + times.system, process.memory_info().rss / 2**20)

    def share_since(self, earlier: Usage) -> str:
        """The share of one core."""
        return f"{(self.cpu - earlier.cpu) / (self.at - earlier.at):.0%} of a core"


@dataclass(slots=True)
class Seen:
    """What all watchers saw. `made` has the moment of each change, by study and sequence number."""

    made: dict[tuple[str, int], float] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    begun: int = 0
    responses: int = 0
    changes: int = 0

    async def watch(self, channel: grpc.aio.Channel, study: str) -> None:
        """Watch a study for ever."""
        request = study_service_pb2.WatchStudyRequest(name=study, after_sequence=1)
        async for response in StudyServiceStub(channel).WatchStudy(request):
            now = time.monotonic()
            self.begun += not response.changes
            self.responses += bool(response.changes)
            self.changes += len(response.changes)
            moments = (self.made.get((study, change.sequence)) for change in response.changes)
            self.delays += [now - moment for moment in moments if moment is not None]


async def _study(channel: grpc.aio.Channel, index: int) -> str:
    space = [search_space_pb2.ParameterSpec(name="x", float_spec=search_space_pb2.FloatSpec(low=0, high=1))]
    objectives = [metric_pb2.Objective(metric="y", goal=metric_pb2.Objective.GOAL_MINIMIZE)]
    spec = study_service_pb2.StudySpec(parameters=space, objectives=objectives, policy="random")
    study = study_service_pb2.Study(spec=spec)
    request = study_service_pb2.CreateStudyRequest(parent="projects/p", study_id=f"s{index}", study=study)
    return (await StudyServiceStub(channel).CreateStudy(request)).name


async def _change(channel: grpc.aio.Channel, studies: list[str], seen: Seen, *, rate: float, seconds: float) -> int:
    """Add a trial to one study after another; how many."""
    new = trial_service_pb2.NewTrial(parameters={"x": search_space_pb2.ParameterValue(double_value=0.5)})
    begin, count = time.monotonic(), 0
    while time.monotonic() < begin + seconds:
        study = studies[count % len(studies)]
        request = trial_service_pb2.AddTrialsRequest(parent=study, trials=[new])
        reply = await TrialServiceStub(channel).AddTrials(request)
        seen.made[study, reply.trials[0].sequence] = time.monotonic()
        count += 1
        await asyncio.sleep(max(0.0, begin + count / rate - time.monotonic()))
    return count


async def _measure(target: str, pid: int, *, watchers: int, studies: int, rate: float, seconds: float) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(2 + watchers // STREAMS_A_CONNECTION)]
    names = [await _study(channels[0], index) for index in range(studies)]
    seen, alone = Seen(), Usage.of(pid)
    tasks = [
        asyncio.create_task(seen.watch(channels[1 + index % (len(channels) - 1)], names[index % studies]))
        for index in range(watchers)
    ]
    while seen.begun < watchers:
        await asyncio.sleep(0.05)
    begun = Usage.of(pid)
    print(f"begin: {begun.at - alone.at:.1f} s, {begun.cpu - alone.cpu:.1f} s of processor time")
    await asyncio.sleep(IDLE)
    idle = Usage.of(pid)
    kilobytes = 1024 * (idle.memory - alone.memory) / watchers
    print(f"idle: {idle.share_since(begun)}, {idle.memory:.0f} MiB, {kilobytes:.0f} KiB a watcher")
    changes = await _change(channels[0], names, seen, rate=rate, seconds=seconds)
    listeners = Counter(names[index % studies] for index in range(watchers))
    deliveries = sum(listeners[name] for name, _ in seen.made)
    while seen.changes < deliveries:
        await asyncio.sleep(0.05)
    busy = Usage.of(pid)
    cuts = statistics.quantiles(seen.delays, n=100)
    print(f"{changes} changes in {busy.at - idle.at:.1f} s: {seen.changes} deliveries in {seen.responses} responses,")
    print(
        f"  {busy.share_since(idle)}, {busy.memory:.0f} MiB; seen after {cuts[49]:.3f} s (p50), {cuts[98]:.3f} s (p99)"
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(channel.close() for channel in channels))


def main(*, watchers: int = 2_000, studies: int = 1, rate: float = 50.0, seconds: float = 5.0) -> None:
    """Watch studies on a server of their own, and change them `rate` times a second."""
    with tempfile.TemporaryDirectory() as directory, served(Path(directory)) as server:
        work = _measure(server.target, server.pid, watchers=watchers, studies=studies, rate=rate, seconds=seconds)
        asyncio.run(work)


if __name__ == "__main__":
    cyclopts.run(main)
