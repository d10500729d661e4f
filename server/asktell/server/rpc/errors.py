"""Domain errors as gRPC statuses: one table."""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn, Protocol

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from asktell.server.domain import errors
from asktell.server.rpc.convert.time import duration

STATUS_OF = {
    errors.InvalidArgument: Code.INVALID_ARGUMENT,
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    errors.FailedPrecondition: Code.FAILED_PRECONDITION,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.Overloaded: Code.RESOURCE_EXHAUSTED,
    errors.OutOfTime: Code.DEADLINE_EXCEEDED,
}
DOMAIN = "asktell"
MAX_MESSAGE = 2_000


class Aborting(Protocol):
    """The part of a call's context that ends it with an error."""

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call."""


def status_of(error: errors.DomainError) -> Status:
    """The status with its details: why for programs, and which field for people. Trailing metadata is small, so messages are cut."""
    details: list[ErrorInfo | BadRequest | RetryInfo] = [ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, errors.InvalidArgument):
        violation = BadRequest.FieldViolation(
            field=error.field[:MAX_MESSAGE], description=error.description[:MAX_MESSAGE]
        )
        details.append(BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Unavailable | errors.Overloaded):
        delay = error.retry_after if isinstance(error, errors.Overloaded) else 1.0
        details.append(RetryInfo(retry_delay=duration(timedelta(seconds=delay))))
    status = Status(code=STATUS_OF[type(error)], message=str(error)[:MAX_MESSAGE])
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: Aborting, error: errors.DomainError) -> NoReturn:
    """End the call with the error's status."""
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("unreachable: abort raises")
