"""What a server does about watchers that leave or do not listen, seen from inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest_asyncio

from asktell.server.bootstrap import Service, running
from asktell.server.settings import Settings
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from asktell.v1.study_service_pb2_grpc import StudyServiceStub
from asktell.v1.trial_service_pb2_grpc import TrialServiceStub
from tests.wire import real, small_study

STUDY = "projects/p/studies/s"
PATIENCE = 60.0


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    settings = Settings(listen="127.0.0.1:0", database=str(tmp_path / "asktell.db"), engine_processes=1, drain=1.0)
    async with running(settings) as service:
        async with channel(service) as own:
            request = studies.CreateStudyRequest(parent="projects/p", study_id="s", study=small_study())
            await StudyServiceStub(own).CreateStudy(request)
        yield service


def channel(service: Service) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(service.target, options=[("grpc.use_local_subchannel_pool", 1)])


async def watch(own: grpc.aio.Channel, after: int = 1):
    stream = StudyServiceStub(own).WatchStudy(studies.WatchStudyRequest(name=STUDY, after_sequence=after))
    await stream.read()
    return stream


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_client_that_hangs_up_or_goes_away_is_forgotten(service: Service) -> None:
    feeds = service.rpc.feeds
    staying, leaving = channel(service), channel(service)
    stream = await watch(staying)
    await watch(leaving)
    await watch(leaving)
    (feed,) = feeds._feeds.values()
    assert feed.watchers == 3
    await leaving.close()
    await until(lambda: feed.watchers == 1)
    stream.cancel()
    await until(lambda: feeds.watched == 0)
    await staying.close()


async def test_a_client_that_reads_nothing_holds_nothing_up_and_misses_nothing(service: Service) -> None:
    async with channel(service) as own, channel(service) as slow:
        deaf = await watch(slow)
        listening = await watch(own)
        new = trials.NewTrial(parameters={"x": real(0.5)}, metadata={str(key): "m" * 1_000 for key in range(60)})
        rounds, size = 30, 10
        for _ in range(rounds):
            await TrialServiceStub(own).AddTrials(trials.AddTrialsRequest(parent=STUDY, trials=[new] * size))
        last = 1 + rounds * size
        assert await sequences(listening, last) == list(range(2, last + 1))
        (feed,) = service.rpc.feeds._feeds.values()
        assert sum(len(batch.packed) for batch in feed._kept.values()) < 2_000_000
        assert await sequences(deaf, last) == list(range(2, last + 1))


async def sequences(stream, last: int) -> list[int]:
    found: list[int] = []
    while not found or found[-1] < last:
        found.extend(change.sequence for change in (await stream.read()).changes)
    return found
