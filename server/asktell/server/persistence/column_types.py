"""Column types that keep on both databases exactly what Python had."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Double, Integer, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

IDENTITY = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite counts up by itself in a column declared INTEGER only; it is 64 bits wide all the same."""

NAME = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point on both databases, whatever the locale."""


_WITHOUT_ZONE = len("2000-01-01 00:00:00.000000")


class Instant(TypeDecorator[datetime]):
    """An aware datetime in UTC, to the microsecond. SQLite keeps no zone: there it is text that sorts as time does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    # These take the place of SQLAlchemy's own, around which a decorator's would run: a row of trials has four times.
    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], datetime | str | None]:
        return _text_of if dialect.name == "sqlite" else _utc

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:  # noqa: ARG002
        return _time_of if dialect.name == "sqlite" else _utc


def _utc(value: datetime | None) -> datetime | None:
    return value if value is None or value.tzinfo is UTC else _in_utc(value)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no time zone; only aware times are stored")
    return value.astimezone(UTC)


def text_of(value: datetime) -> str:
    """The time in UTC as text that sorts as time does and names no zone."""
    return _in_utc(value).isoformat(" ", "microseconds")[:_WITHOUT_ZONE]


def _text_of(value: datetime | None) -> str | None:
    return None if value is None else text_of(value)


def _time_of(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text + "+00:00")


_MICROSECOND = timedelta(microseconds=1)


def microseconds_of(value: timedelta) -> int:
    """A length of time in whole microseconds."""
    return value // _MICROSECOND


class Duration(TypeDecorator[timedelta]):
    """A length of time in whole microseconds."""

    impl = BigInteger
    cache_ok = True

    # As those of `Instant`.
    def bind_processor(self, dialect: Dialect) -> Callable[[timedelta | None], int | None]:  # noqa: ARG002
        return _microseconds_of

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[int | None], timedelta | None]:  # noqa: ARG002
        return _duration_of


def _microseconds_of(value: timedelta | None) -> int | None:
    return None if value is None else microseconds_of(value)


def _duration_of(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(0, 0, value)


def digits_of(value: float) -> str:
    """The number as text that both databases read to the bit, NaN, infinities and -0.0 included."""
    return repr(float(value))


class ExactFloat(TypeDecorator[float]):
    """A double, NaN, infinities and -0.0 included. SQLite makes NULL of NaN and 0 of -0.0: there it is Python's text of the number."""

    impl = Double
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Double())

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | str | None:
        if value is None:
            return None
        return digits_of(value) if dialect.name == "sqlite" else float(value)

    def process_result_value(self, value: float | str | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        return None if value is None else float(value)
