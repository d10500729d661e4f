"""Around every call: domain errors become statuses, anything unforeseen is logged and becomes INTERNAL."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from asktell.server.domain.errors import DomainError, InvalidArgument
from asktell.server.rpc.errors import abort

log = structlog.get_logger("asktell.rpc")
# Asked first, since most servers show no such line of a call, and structlog takes 5 us to find that out.
_shown = logging.getLogger("asktell.rpc").isEnabledFor

Handler = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncGenerator[bytes, None]]
Read = Callable[[bytes], Any]


class Methods(grpc.GenericRpcHandler):
    """The methods of services that generated code adds here as it adds them to a server. Those of asktell have the boundary around them: it
    maps errors and logs one line a call: `rpc` at debug level, `rpc_refused` at info, `rpc_broken` at error.

    A server finds them here by their names. Were they registered with it one by one, it would wait for calls of each by itself, and go
    through all these waits at every call: with two dozen methods that took a tenth of what a tell takes.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the methods come by their names, too."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Take a service's methods."""
        ours = service.startswith("asktell.")
        for method, handler in handlers.items():
            self._handlers[f"/{service}/{method}"] = _wrap(method, handler) if ours else handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call."""
        return self._handlers.get(handler_call_details.method)


def _wrap(method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """Replies may be packed already; those of our streams are."""
    # Their types are those of threads.
    unary, stream = cast("Handler | None", handler.unary_unary), cast("Stream | None", handler.unary_stream)
    upload, read = cast("Handler | None", handler.stream_unary), handler.request_deserializer
    if stream is not None:
        return grpc.unary_stream_rpc_method_handler(_guarded_stream(method, stream, read))
    if upload is not None:
        return grpc.stream_unary_rpc_method_handler(_guarded_upload(method, upload, read), response_serializer=_packed)
    if unary is not None:
        return grpc.unary_unary_rpc_method_handler(_guarded(method, unary, read), response_serializer=_packed)
    return handler


def _guarded(method: str, handle: Handler, read: Read | None) -> Handler:
    async def call(payload: bytes, context: Any) -> Any:
        began = time.perf_counter()
        try:
            reply = await handle(_read(payload, read), context)
        except Exception as error:  # noqa: BLE001 - each becomes a status
            await _end(method, context, error)
        _note(method, began)
        return reply

    return call


def _guarded_stream(method: str, handle: Stream, read: Read | None) -> Handler:
    async def call(payload: bytes, context: Any) -> None:
        began = time.perf_counter()
        try:
            async with aclosing(handle(_read(payload, read), context)) as replies:
                async for reply in replies:
                    # Waits while the client is slow, so that nothing piles up here.
                    await context.write(reply)
        except Exception as error:  # noqa: BLE001 - each becomes a status
            await _end(method, context, error)
        _note(method, began)

    return call


def _guarded_upload(method: str, handle: Handler, read: Read | None) -> Handler:
    async def read_all(payloads: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for payload in payloads:
            yield _read(payload, read)

    async def call(payloads: AsyncIterator[bytes], context: Any) -> Any:
        began = time.perf_counter()
        try:
            reply = await handle(read_all(payloads), context)
        except Exception as error:  # noqa: BLE001 - each becomes a status
            await _end(method, context, error)
        _note(method, began)
        return reply

    return call


async def _end(method: str, context: Any, error: Exception) -> NoReturn:
    """End the call with the right status."""
    if isinstance(error, DomainError):
        log.info("rpc_refused", method=method, reason=error.reason, message=str(error)[:500])
        await abort(context, error)
    if isinstance(error, asyncio.CancelledError | grpc.aio.AbortError):
        raise error
    reference = uuid.uuid4().hex[:12]
    log.error("rpc_broken", method=method, reference=reference, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"internal error; the server's log has it under {reference}")
    raise AssertionError("unreachable: abort raises")


def _note(method: str, began: float) -> None:
    if _shown(logging.DEBUG):
        log.debug("rpc", method=method, milliseconds=round(1000 * (time.perf_counter() - began), 1))


def _packed(reply: Message | bytes) -> bytes:
    """The reply's bytes. What is kept for repeated requests was packed when it was written down."""
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _read(payload: bytes, read: Read | None) -> Any:
    """The request. Left to gRPC, bytes that are none would be UNKNOWN, as if the server were at fault."""
    try:
        return payload if read is None else read(payload)
    except DecodeError as error:
        raise InvalidArgument("", f"the request is not a message of this method: {error}") from error
