"""Around every call: domain errors become statuses, anything unforeseen is logged and becomes INTERNAL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from asktell.server.domain.errors import DomainError, InvalidArgument
from asktell.server.rpc.errors import abort

log = structlog.get_logger("asktell.rpc")

Handler = Callable[[Any, Any], Awaitable[Any]]
Read = Callable[[bytes], Any]


class Boundary(grpc.aio.ServerInterceptor):
    """Maps errors and logs one line a call: `rpc` at debug level, `rpc_refused` at info, `rpc_broken` at error."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the unary methods of asktell; other services and streams pass."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/asktell.") or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _guarded(method.rpartition("/")[2], handler.unary_unary, handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


def _guarded(method: str, handle: Handler, read: Read | None) -> Handler:
    async def call(payload: bytes, context: Any) -> Any:
        started = time.perf_counter()
        try:
            reply = await handle(_read(payload, read), context)
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
            return reply

    return call


def _read(payload: bytes, read: Read | None) -> Any:
    """The request. Left to gRPC, bytes that are none would be UNKNOWN, as if the server were at fault."""
    try:
        return payload if read is None else read(payload)
    except DecodeError as error:
        raise InvalidArgument("", f"the request is not a message of this method: {error}") from error
