"""Around every call: domain errors become statuses, anything unforeseen is logged and becomes INTERNAL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from asktell.server.domain.errors import DomainError, InvalidArgument
from asktell.server.rpc.errors import abort

log = structlog.get_logger("asktell.rpc")

Handler = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncGenerator[bytes, None]]
Read = Callable[[bytes], Any]


class Boundary(grpc.aio.ServerInterceptor):
    """Maps errors and logs one line a call: `rpc` at debug level, `rpc_refused` at info, `rpc_broken` at error."""

    def __init__(self) -> None:
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the methods of asktell, each once; other services pass."""
        path = handler_call_details.method
        if path in self._wrapped:
            return self._wrapped[path]
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith("/asktell."):
            return handler
        return self._wrapped.setdefault(path, _wrap(path.rpartition("/")[2], handler))


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
        async with _boundary(method, context):
            return await handle(_read(payload, read), context)

    return call


def _guarded_stream(method: str, handle: Stream, read: Read | None) -> Handler:
    async def call(payload: bytes, context: Any) -> None:
        async with _boundary(method, context), aclosing(handle(_read(payload, read), context)) as replies:
            async for reply in replies:
                # Waits while the client is slow, so that nothing piles up here.
                await context.write(reply)

    return call


def _guarded_upload(method: str, handle: Handler, read: Read | None) -> Handler:
    async def call(payloads: AsyncIterator[bytes], context: Any) -> Any:
        async with _boundary(method, context):
            return await handle((_read(payload, read) async for payload in payloads), context)

    return call


@asynccontextmanager
async def _boundary(method: str, context: Any) -> AsyncIterator[None]:
    """Ends the call with the right status, whatever is raised in the block."""
    started = time.perf_counter()
    try:
        yield
    except DomainError as error:
        log.info("rpc_refused", method=method, reason=error.reason, message=str(error)[:500])
        await abort(context, error)
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception:
        reference = uuid.uuid4().hex[:12]
        log.exception("rpc_broken", method=method, reference=reference)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error; the server's log has it under {reference}")
    else:
        log.debug("rpc", method=method, milliseconds=round(1000 * (time.perf_counter() - started), 1))


def _packed(reply: Message | bytes) -> bytes:
    """The reply's bytes. What is kept for repeated requests was packed when it was written down."""
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _read(payload: bytes, read: Read | None) -> Any:
    """The request. Left to gRPC, bytes that are none would be UNKNOWN, as if the server were at fault."""
    try:
        return payload if read is None else read(payload)
    except DecodeError as error:
        raise InvalidArgument("", f"the request is not a message of this method: {error}") from error
