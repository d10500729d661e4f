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
    # As `timestamp`; protobuf wants both parts of one sign.
    if value.days < 0:
        message = Duration()
        message.FromTimedelta(value)
        return message
    return Duration(seconds=value.days * 86_400 + value.seconds, nanos=value.microseconds * 1000)


def timestamp(value: datetime | None) -> Timestamp | None:
    """The message for a time; None stays None, which protobuf takes for an absent field."""
    if value is None:
        return None
    # Protobuf's own conversion takes three times as long, and each trial has three times.
    since = value - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


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
