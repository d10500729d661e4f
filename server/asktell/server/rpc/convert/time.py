"""Durations and timestamps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from asktell.server.domain.errors import InvalidArgument

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_duration(path: str, message: Duration) -> timedelta:
    """The duration, or InvalidArgument that names `path` if it is out of protobuf's range (10,000 years) or has two signs."""
    try:
        # Only the way through JSON looks at the signs.
        message.ToJsonString()
        return message.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(path, f"{message.seconds} s {message.nanos} ns is not a duration") from error


def duration(value: timedelta) -> Duration:
    """The message for a duration."""
    message = Duration()
    put_duration(message, value)
    return message


def put_duration(message: Duration, value: timedelta) -> None:
    """Set a message to a duration."""
    # As `put_time`; protobuf wants both parts of one sign.
    if value.days < 0:
        message.FromTimedelta(value)
    else:
        message.seconds, message.nanos = value.days * 86_400 + value.seconds, value.microseconds * 1000


def timestamp(value: datetime | None) -> Timestamp | None:
    """The message for a time; None stays None, which protobuf takes for an absent field."""
    if value is None:
        return None
    message = Timestamp()
    put_time(message, value)
    return message


def put_time(message: Timestamp, value: datetime | None) -> None:
    """Set a message to a time; None leaves it absent."""
    if value is not None:
        # Protobuf's own conversion takes three times as long, and each trial has three times.
        since = value - _EPOCH
        message.seconds, message.nanos = since.days * 86_400 + since.seconds, since.microseconds * 1000


def read_time(message: Message, field: str, *, path: str = "") -> datetime:
    """The time in a message's field, to the microsecond; InvalidArgument below `path` if it is absent or out of protobuf's range, or finer."""
    path = f"{path}.{field}" if path else field
    if not message.HasField(field):
        raise InvalidArgument(path, "is missing")
    return _read_timestamp(path, getattr(message, field))


def _read_timestamp(path: str, message: Timestamp) -> datetime:
    try:
        time = message.ToDatetime(tzinfo=UTC)
        # Only the way through JSON looks at the range.
        message.ToJsonString()
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(path, f"{message.seconds} s {message.nanos} ns is not a time") from error
    if message.nanos % 1_000:
        raise InvalidArgument(path, f"{message.nanos} ns is finer than microseconds")
    return time
