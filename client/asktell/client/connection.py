"""Carries calls to the service from threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

import grpc
from tenacity import Retrying

from asktell.client import channel, errors, fields
from asktell.client.calls import Call, Upload, Watched
from asktell.v1 import study_service_pb2_grpc, surrogate_service_pb2_grpc, trial_service_pb2_grpc

T = TypeVar("T")

_CREDENTIALS = (
    "a client with credentials cannot be pickled, nor can its studies:"
    " open Client('host:port', credentials=...) in each process"
)


class Connection:
    """A channel with deadlines and retries. Safe to share between threads.

    Pickled it is where it goes and how: another process opens a channel of its own. `bound` says why that cannot be; empty where it can.
    """

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
        self.bound = "" if credentials is None else _CREDENTIALS
        self._closed = threading.Event()
        self._channel = open_channel(target, credentials=channel.credentials(credentials, local=local))
        self._stubs = {
            "StudyService": study_service_pb2_grpc.StudyServiceStub(self._channel),
            "TrialService": trial_service_pb2_grpc.TrialServiceStub(self._channel),
            "SurrogateService": surrogate_service_pb2_grpc.SurrogateServiceStub(self._channel),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        if self.bound:
            raise TypeError(self.bound)
        return partial(type(self), timeout=self._timeout, retry_for=self._retry_for), (self._target,)

    @property
    def closed(self) -> bool:
        """Whether the connection was closed."""
        return self._closed.is_set()

    def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Carry out a call, repeated while the service is unavailable. `timeout` is that of each attempt, in seconds."""
        return self.insist(partial(self.run_once, call, timeout=timeout))

    def insist(self, attempt: Callable[[], T]) -> T:
        """Do what makes calls, from its start again while the service is unavailable."""
        if self._retry_for <= 0:
            return attempt()
        try:
            result: T = Retrying(**channel.retries(self._retry_for))(attempt)
        except errors.Unavailable as error:
            # What happened inside, forty lines for each of the parts, says nothing more.
            raise error.after(self._retry_for) from None
        return result

    def run_once(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Carry out a call without repeating it, but for gRPC's own quick retries."""
        method = self._method(call)
        try:
            return call.parse(method(call.request, timeout=timeout or self._timeout))
        except grpc.RpcError as error:
            raise self._translated(error, call) from error
        except ValueError as error:
            if self.closed:  # Between the check and the call: gRPC says so with a ValueError.
                raise errors.closed_client() from error
            raise

    def upload(self, call: Upload[T]) -> T:
        """Carry out a call that sends a stream, from its start again while the service is unavailable. It has no deadline."""
        return self.insist(lambda: self._upload_once(call))

    def _upload_once(self, call: Upload[T]) -> T:
        requests = Watched(call.requests())
        try:
            return call.parse(self._method(call)(requests))
        except grpc.RpcError as error:
            raise requests.failure or self._translated(error, call) from error

    def stream(self, call: Call[T]) -> Generator[T, None, None]:
        """The replies of a streaming call, of which the service sends the first at once, repeated until it does as in `run`.

        Ends when the stream is cut after that: call again to go on. It has no deadline, since replies may be far apart; pings find out if
        the connection is dead.
        """
        first, replies = self.insist(partial(self._begin, call))
        try:
            yield call.parse(first)
            for reply in replies:
                yield call.parse(reply)
        except grpc.RpcError as error:
            translated = self._translated(error, call)
            if not errors.broken_off(translated):
                raise translated from error
        finally:
            replies.cancel()

    def _begin(self, call: Call[T]) -> tuple[Any, Any]:
        """The first reply of a stream, and the stream."""
        replies = self._method(call)(call.request)
        try:
            return next(replies), replies
        except grpc.RpcError as error:
            raise self._translated(error, call) from error
        except StopIteration as error:
            raise errors.Unavailable(f"{call.path} at {self._target} ended before it began") from error

    def pause(self, seconds: float) -> None:
        """Wait; closing the connection ends the wait."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End all calls and refuse new ones. A second time does nothing."""
        self._closed.set()
        self._channel.close()

    def _method(self, call: Call[T] | Upload[T]) -> Any:
        if self.closed:
            raise errors.closed_client()
        return getattr(self._stubs[call.service], call.method)

    def _translated(self, error: grpc.RpcError, call: Call[T] | Upload[T]) -> errors.AskTellError:
        if self.closed:
            return errors.closed_client()
        translated = errors.from_rpc(error, call_name=f"{call.path} at {self._target}")
        return fields.in_words(translated, call.request) if isinstance(call, Call) else translated


def open_channel(target: str, *, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """A channel to the target; without credentials it is not encrypted."""
    options = channel.options(target)
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)
