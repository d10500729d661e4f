"""Around every call: domain errors become statuses, anything unforeseen is logged and becomes INTERNAL."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from asktell.server.application.metering import CallMeter, Kind, Meter
from asktell.server.application.sparing import Sparing
from asktell.server.domain.errors import DATABASE_FAULTS, DomainError, InvalidArgument
from asktell.server.rpc.errors import abort

log = structlog.get_logger("asktell.rpc")
# Asked first, since most servers show no such line of a call, and structlog takes 5 us to find that out.
_shown = logging.getLogger("asktell.rpc").isEnabledFor

SHOWN = 300
"""Characters of a caller's text that a line of log has at most."""
MAX_MESSAGE = 500
CLOSE = 0.1
"""Seconds before its deadline in which a call that is cancelled counts as late."""

_faults = Sparing()

Handler = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncGenerator[bytes, None]]
Read = Callable[[bytes], Any]


class Methods(grpc.GenericRpcHandler):
    """The methods of services that generated code adds here as it adds them to a server. Those of asktell have the boundary around them: it
    maps errors and logs one line a call: `rpc` at debug level, `rpc_refused` at info, `rpc_broken` at error. What is the database's fault is
    `database_fails` at error besides, once a minute for each reason.

    A server finds them here by their names. Were they registered with it one by one, it would wait for calls of each by itself, and go
    through all these waits at every call: with two dozen methods that took a tenth of what a tell takes.
    """

    def __init__(self, meter: Meter) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._meter = meter

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the methods come by their names, too."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Take a service's methods."""
        ours = service.startswith("asktell.")
        for method, handler in handlers.items():
            self._handlers[f"/{service}/{method}"] = _wrap(service, method, handler, self._meter) if ours else handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call."""
        return self._handlers.get(handler_call_details.method)


def _wrap(
    service: str, method: str, handler: grpc.RpcMethodHandler[Any, Any], meter: Meter
) -> grpc.RpcMethodHandler[Any, Any]:
    """Replies may be packed already; those of our streams are."""
    # Their types are those of threads.
    unary, stream = cast("Handler | None", handler.unary_unary), cast("Stream | None", handler.unary_stream)
    upload, read = cast("Handler | None", handler.stream_unary), handler.request_deserializer
    if stream is not None:
        sending = _metered(_guarded_stream(method, stream, read), meter.calls(Kind.SERVER_STREAM, service, method))
        return grpc.unary_stream_rpc_method_handler(sending)
    if upload is not None:
        taking = _metered(_guarded_upload(method, upload, read), meter.calls(Kind.CLIENT_STREAM, service, method))
        return grpc.stream_unary_rpc_method_handler(taking, response_serializer=_packed)
    if unary is not None:
        answering = _metered(_guarded(method, unary, read), meter.calls(Kind.UNARY, service, method))
        return grpc.unary_unary_rpc_method_handler(answering, response_serializer=_packed)
    return handler


def _metered(handle: Handler, calls: CallMeter | None) -> Handler:
    if calls is None:
        return handle

    async def call(request: Any, context: Any) -> Any:
        calls.began()
        began = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            return await handle(request, context)
        except asyncio.CancelledError:
            # The caller went away, or its deadline came, which it notices a little earlier.
            left = context.time_remaining()
            late = left is not None and left < CLOSE
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code = context.code() or grpc.StatusCode.UNKNOWN
            raise
        finally:
            calls.ended(code.name, time.perf_counter() - began)

    return call


def _guarded(method: str, handle: Handler, read: Read | None) -> Handler:
    async def call(payload: bytes, context: Any) -> Any:
        began = time.perf_counter()
        request: Any = None
        try:
            request = _read(payload, read)
            reply = await handle(request, context)
        except Exception as error:  # noqa: BLE001 - each becomes a status
            await _end(_Call(method, context, request), error)
        _note(method, began)
        return reply

    return call


def _guarded_stream(method: str, handle: Stream, read: Read | None) -> Handler:
    async def call(payload: bytes, context: Any) -> None:
        began = time.perf_counter()
        request: Any = None
        try:
            request = _read(payload, read)
            async with aclosing(handle(request, context)) as replies:
                async for reply in replies:
                    # Waits while the client is slow, so that nothing piles up here.
                    await context.write(reply)
        except Exception as error:  # noqa: BLE001 - each becomes a status
            await _end(_Call(method, context, request), error)
        _note(method, began)

    return call


def _guarded_upload(method: str, handle: Handler, read: Read | None) -> Handler:
    async def read_all(payloads: AsyncIterator[bytes], seen: _Call) -> AsyncIterator[Any]:
        async for payload in payloads:
            request = _read(payload, read)
            if seen.request is None:
                seen.request = request
            yield request

    async def call(payloads: AsyncIterator[bytes], context: Any) -> Any:
        began = time.perf_counter()
        seen = _Call(method, context)
        try:
            reply = await handle(read_all(payloads, seen), context)
        except Exception as error:  # noqa: BLE001 - each becomes a status
            await _end(seen, error)
        _note(method, began)
        return reply

    return call


@dataclass(slots=True)
class _Call:
    """A call that goes wrong, as far as it was read: of an upload its first message."""

    method: str
    context: Any
    request: Any = None

    def described(self) -> dict[str, str]:
        """Which call it is, and whose; never its metadata, nor a lease's token."""
        resource = self._text("parent") or self._text("name") or str(getattr(self._part("study"), "name", ""))
        found = {
            "method": self.method,
            "peer": self.context.peer(),
            "resource": resource,
            "study_id": self._text("study_id"),
            "request_id": self._text("request_id"),
        }
        return {key: text[:SHOWN] for key, text in found.items() if text}

    def _part(self, field: str) -> Any:
        return getattr(self.request, field, None)

    def _text(self, field: str) -> str:
        found = self._part(field)
        return found if isinstance(found, str) else ""


async def _end(call: _Call, error: Exception) -> NoReturn:
    """End the call with the right status."""
    if isinstance(error, DomainError):
        _note_refusal(call, error)
        await abort(call.context, error)
    if isinstance(error, grpc.aio.AbortError):
        raise error
    reference = uuid.uuid4().hex[:12]
    log.error("rpc_broken", reference=reference, **call.described(), exc_info=error)
    await call.context.abort(grpc.StatusCode.INTERNAL, f"internal error; the server's log has it under {reference}")
    raise AssertionError("unreachable: abort raises")


def _note_refusal(call: _Call, error: DomainError) -> None:
    """Log a refused call, and what is the database's fault so that it is seen at any level, though not thousands of times."""
    what = {"reason": error.reason, "message": str(error)[:MAX_MESSAGE]}
    if _shown(logging.INFO):
        log.info("rpc_refused", **call.described(), **what)
    if error.reason in DATABASE_FAULTS and (refused := _faults.count(error.reason)):
        log.error("database_fails", **what, refused=refused, **call.described())


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
