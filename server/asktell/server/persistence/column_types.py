"""Column types that keep on both databases exactly what Python had."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Double, Integer, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

IDENTITY = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite counts up by itself in a column declared INTEGER only; it is 64 bits wide all the same."""

NAME = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point on both databases, whatever the locale."""


class Instant(TypeDecorator[datetime]):
    """An aware datetime in UTC, to the microsecond. SQLite keeps no zone: there it is text that sorts as time does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone; only aware times are stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Duration(TypeDecorator[timedelta]):
    """A length of time in whole microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else value // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:  # noqa: ARG002
        return None if value is None else timedelta(microseconds=value)


class ExactFloat(TypeDecorator[float]):
    """A double, NaN, infinities and -0.0 included. SQLite makes NULL of NaN and 0 of -0.0: there it is Python's text of the number."""

    impl = Double
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Double())

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | str | None:
        if value is None:
            return None
        return repr(float(value)) if dialect.name == "sqlite" else float(value)

    def process_result_value(self, value: float | str | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        return None if value is None else float(value)
