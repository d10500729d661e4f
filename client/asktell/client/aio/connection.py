"""Carries calls to the service from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import grpc
from tenacity import AsyncRetrying

from asktell.client import channel, errors
from asktell.client.calls import Call
from asktell.v1 import study_service_pb2_grpc, surrogate_service_pb2_grpc, trial_service_pb2_grpc

T = TypeVar("T")


class Connection:
    """A channel with deadlines and retries, opened in the event loop of the first call, and for that loop alone."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float,
        retry_for: float,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._retry_for = retry_for
        self._credentials = credentials
        self._closed = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stubs: dict[str, object] = {}

    @property
    def closed(self) -> bool:
        """Whether the connection was closed."""
        return self._closed.is_set()

    async def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Carry out a call, repeated while the service is unavailable. `timeout` is that of each attempt, in seconds."""
        if self._retry_for <= 0:
            return await self.run_once(call, timeout=timeout)
        retrying = AsyncRetrying(**channel.retries(self._retry_for))
        return await retrying(self.run_once, call, timeout=timeout)

    async def run_once(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Carry out a call without repeating it, but for gRPC's own quick retries."""
        method = self._method(call)
        try:
            return call.parse(await method(call.request, timeout=timeout or self._timeout))
        except grpc.RpcError as error:
            raise self._translated(error, call) from error
        except grpc.aio.UsageError as error:
            raise errors.closed_client() from error
        except asyncio.CancelledError as error:
            if self.closed and not _cancelling():  # gRPC cancels the calls of a channel that closes.
                raise errors.closed_client() from error
            raise

    async def stream(self, call: Call[T]) -> AsyncGenerator[T, None]:
        """The replies of a streaming call. It has no deadline: changes may be far apart; pings find out if the connection is dead."""
        replies = self._method(call)(call.request)
        try:
            async for reply in replies:
                yield call.parse(reply)
        except grpc.RpcError as error:
            raise self._translated(error, call) from error
        finally:
            replies.cancel()

    async def pause(self, seconds: float) -> None:
        """Wait; closing the connection ends the wait."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """End all calls and refuse new ones. A second time does nothing."""
        self._closed.set()
        if self._channel is not None:
            await self._channel.close()

    def _method(self, call: Call[T]) -> Any:
        if self.closed:
            raise errors.closed_client()
        if self._channel is None:
            self._open()
        if self._loop is not asyncio.get_running_loop():
            raise errors.FailedPrecondition(
                "the client belongs to another event loop: make one for each", reason="OTHER_EVENT_LOOP"
            )
        return getattr(self._stubs[call.service], call.method)

    def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = open_channel(self._target, credentials=self._credentials)
        self._stubs = {
            "StudyService": study_service_pb2_grpc.StudyServiceStub(self._channel),
            "TrialService": trial_service_pb2_grpc.TrialServiceStub(self._channel),
            "SurrogateService": surrogate_service_pb2_grpc.SurrogateServiceStub(self._channel),
        }

    def _translated(self, error: grpc.RpcError, call: Call[T]) -> errors.AskTellError:
        if self.closed:
            return errors.closed_client()
        return errors.from_rpc(error, call_name=f"{call.path} at {self._target}")


def open_channel(target: str, *, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel to the target; without credentials it is not encrypted."""
    options = channel.options(target)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
