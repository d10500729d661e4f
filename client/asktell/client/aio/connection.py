"""Carries calls to the service from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from tenacity import AsyncRetrying

from asktell.client import channel, errors, fields
from asktell.client.calls import Call, Upload, Watched
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
        local: bool = False,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._retry_for = retry_for
        self._credentials = channel.credentials(credentials, local=local)
        self._closed = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stubs: dict[str, object] = {}

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client of asktell.client.aio belongs to its event loop and cannot be pickled, nor can its studies:"
            " open Client('host:port') in each process"
        )

    @property
    def closed(self) -> bool:
        """Whether the connection was closed."""
        return self._closed.is_set()

    async def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Carry out a call, repeated while the service is unavailable. `timeout` is that of each attempt, in seconds."""
        return await self.insist(partial(self.run_once, call, timeout=timeout))

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do what makes calls, from its start again while the service is unavailable; `attempt` is a coroutine function."""
        if self._retry_for <= 0:
            return await attempt()
        try:
            return await AsyncRetrying(**channel.retries(self._retry_for))(attempt)
        except errors.Unavailable as error:
            # What happened inside, forty lines for each of the parts, says nothing more.
            raise error.after(self._retry_for) from None

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
            raise self._cancelled(error) from error

    async def upload(self, call: Upload[T]) -> T:
        """Carry out a call that sends a stream, from its start again while the service is unavailable. It has no deadline."""
        return await self.insist(partial(self._upload_once, call))

    async def _upload_once(self, call: Upload[T]) -> T:
        requests = Watched(call.requests())
        try:
            return call.parse(await self._method(call)(_off_the_loop(requests)))
        except grpc.RpcError as error:
            raise requests.failure or self._translated(error, call) from error

    async def stream(self, call: Call[T]) -> AsyncGenerator[T, None]:
        """The replies of a streaming call, of which the service sends the first at once, repeated until it does as in `run`.

        Ends when the stream is cut after that: call again to go on. It has no deadline, since replies may be far apart; pings find out if
        the connection is dead.
        """
        first, replies = await self.insist(partial(self._begin, call))
        try:
            yield call.parse(first)
            async for reply in replies:
                yield call.parse(reply)
        except grpc.RpcError as error:
            translated = self._translated(error, call)
            if not errors.broken_off(translated):
                raise translated from error
        except asyncio.CancelledError as error:
            raise self._cancelled(error) from error
        finally:
            replies.cancel()

    async def _begin(self, call: Call[T]) -> tuple[Any, Any]:
        """The first reply of a stream, and the stream."""
        replies = self._method(call)(call.request)
        try:
            return await anext(aiter(replies)), replies
        except grpc.RpcError as error:
            raise self._translated(error, call) from error
        except StopAsyncIteration as error:
            raise errors.Unavailable(f"{call.path} at {self._target} ended before it began") from error
        except asyncio.CancelledError as error:
            replies.cancel()
            raise self._cancelled(error) from error

    def _cancelled(self, error: asyncio.CancelledError) -> BaseException:
        """The error itself if the caller's task is cancelled; gRPC also cancels the calls of a channel that closes."""
        return errors.closed_client() if self.closed and not _cancelling() else error

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

    def _method(self, call: Call[T] | Upload[T]) -> Any:
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

    def _translated(self, error: grpc.RpcError, call: Call[T] | Upload[T]) -> errors.AskTellError:
        if self.closed:
            return errors.closed_client()
        translated = errors.from_rpc(error, call_name=f"{call.path} at {self._target}")
        return fields.in_words(translated, call.request) if isinstance(call, Call) else translated


async def _off_the_loop(requests: Iterator[Message]) -> AsyncIterator[Message]:
    """The requests, each made on a thread: that takes a while."""
    while (request := await asyncio.to_thread(next, requests, None)) is not None:
        yield request


def open_channel(target: str, *, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel to the target; without credentials it is not encrypted."""
    options = channel.options(target)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
