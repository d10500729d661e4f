"""What can go wrong, as one tree of exceptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

FieldViolation = tuple[str, str]

MAX_SHOWN = 5
"""Refusals in the message of one error."""


class AskTellError(Exception):
    """A call that was not carried out; it changed nothing unless the error says that its fate is unknown.

    `code` is the gRPC status code; `reason` is UPPER_SNAKE_CASE and stable, for programs; `field_violations` are pairs of a field's path
    and what is wrong with it; `retry_delay` is after how many seconds the service suggests to try again, None where it does not.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        field_violations: tuple[FieldViolation, ...] = (),
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.reason = reason
        self.field_violations = field_violations
        self.retry_delay = retry_delay

    def saying(self, message: str) -> Self:
        """The same error in other words, without what led to it."""
        return type(self)(
            message,
            code=self.code,
            reason=self.reason,
            field_violations=self.field_violations,
            retry_delay=self.retry_delay,
        )


class InvalidArgument(AskTellError):
    """A value that the call cannot have, whatever the state of the service; `field_violations` says which."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT

    @classmethod
    def at(cls, field: str, description: str) -> InvalidArgument:
        """The error for one field, found before anything was sent."""
        return cls(f"{field}: {description}", reason="INVALID_ARGUMENT", field_violations=((field, description),))


class NotFound(AskTellError):
    """There is no such study or trial."""

    default_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(AskTellError):
    """The study exists with another spec, or the request id was used for something else."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(AskTellError):
    """The state of the study or trial does not allow the call: a trial that ended, a lease that was lost."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class ResultsRefused(FailedPrecondition):
    """Some of the results that were told together were refused; all the others count. `refusals` says which and why, by trial number."""

    def __init__(self, refusals: Mapping[int, AskTellError], *, of: int) -> None:
        shown = "; ".join(str(error) for error in list(refusals.values())[:MAX_SHOWN])
        more = f"; and {len(refusals) - MAX_SHOWN} more" if len(refusals) > MAX_SHOWN else ""
        super().__init__(
            f"{len(refusals)} of {of} results were refused, the others count: {shown}{more}", reason="RESULTS_REFUSED"
        )
        self.refusals = dict(refusals)


class MissingExtra(FailedPrecondition):
    """A part of asktell that is not installed; the message names the extra."""


class Unimplemented(AskTellError):
    """The contract has it, this server does not do it."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class Unavailable(AskTellError):
    """The service could not be reached for as long as the client retries. Whether the call was carried out is unknown.

    `tried_for` is for how many seconds the call was repeated; None where it was not.
    """

    default_code = grpc.StatusCode.UNAVAILABLE
    tried_for: float | None = None

    def after(self, retry_for: float) -> Unavailable:
        """The error once the patience has ended: how long it lasted and, unless it was the service that answered, what runs one."""
        if self.tried_for is not None:
            return self
        remedy = "" if self.reason else "; `asktell serve` runs a service" + _hint(str(self))
        final = self.saying(f"{self}; tried for {retry_for:g} s (retry_for){remedy}")
        final.tried_for = retry_for
        return final


def _hint(message: str) -> str:
    """A server that encrypts hangs up on who does not."""
    return "; if connections there are encrypted, set ASKTELL_TLS=1" if "Socket closed" in message else ""


class DeadlineExceeded(AskTellError):
    """The service did not answer in time. Whether the call was carried out is unknown."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class ResourceExhausted(AskTellError):
    """The service has too much to do, or a message is too large."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class PermissionDenied(AskTellError):
    """The caller may not do this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(AskTellError):
    """The service does not know who calls."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class Cancelled(AskTellError):
    """The call was cancelled, or the client was closed."""

    default_code = grpc.StatusCode.CANCELLED


_CLIENT_CLOSED = "CLIENT_CLOSED"
_BY_CODE: dict[grpc.StatusCode, type[AskTellError]] = {
    kind.default_code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Unimplemented,
        Unavailable,
        DeadlineExceeded,
        ResourceExhausted,
        PermissionDenied,
        Unauthenticated,
        Cancelled,
    )
}


def from_rpc(error: grpc.RpcError, *, call_name: str) -> AskTellError:
    """The exception for a failed call, with what the service said; `call_name` says which call and where, if the service said nothing."""
    call = cast("grpc.Call", error)
    code = call.code()
    reason, violations, delay = "", [], None
    status = _status(call)
    for detail in _details(status):
        match detail:
            case error_details_pb2.ErrorInfo():
                reason = detail.reason
            case error_details_pb2.BadRequest():
                violations += [(violation.field, violation.description) for violation in detail.field_violations]
            case error_details_pb2.RetryInfo():
                delay = detail.retry_delay.ToTimedelta().total_seconds()
    text = status.message or f"{call_name}: {call.details() or code.name}"
    kind = _BY_CODE.get(code, AskTellError)
    return kind(text, code=code, reason=reason, field_violations=tuple(violations), retry_delay=delay)


def refused(code: int, message: str, *, reason: str, field: str) -> AskTellError:
    """The exception for a result that the service did not take along with others."""
    status = next((status for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.UNKNOWN)
    violations = ((field, message.removeprefix(f"{field}: ")),) if field else ()
    return _BY_CODE.get(status, AskTellError)(message, code=status, reason=reason, field_violations=violations)


def worth_retrying(error: Exception) -> bool | float:
    """Whether to repeat a call that failed so; a number is after how many seconds, as the service asked."""
    if isinstance(error, ResourceExhausted) and error.retry_delay is not None:
        return error.retry_delay
    return _turned_away(error)


def _turned_away(error: Exception) -> bool:
    """Whether the service could not take the call, or let it go: a server with too many calls, or one that ends, cancels some."""
    return isinstance(error, Unavailable) or (isinstance(error, Cancelled) and error.reason != _CLIENT_CLOSED)


def broken_off(error: AskTellError) -> bool:
    """Whether a stream that ended so was cut on its way, by a server that stopped or something in between: another one can go on."""
    reset = error.code is grpc.StatusCode.INTERNAL and "RST_STREAM" in str(error)
    return reset or _turned_away(error)


def closed_client() -> Cancelled:
    """The error of a call on a client that was closed."""
    return Cancelled("the client is closed", reason=_CLIENT_CLOSED)


def _details(status: status_pb2.Status) -> Iterator[Message]:
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                yield detail


def _status(call: grpc.Call) -> status_pb2.Status:
    """The rich status; empty where a proxy or another server sent none that can be read."""
    try:
        return rpc_status.from_call(call) or status_pb2.Status()
    except (ValueError, DecodeError):
        return status_pb2.Status()
