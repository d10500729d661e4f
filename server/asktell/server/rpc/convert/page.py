"""Pages: sizes and opaque tokens that say where the next one begins."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.text import check_identifier, excerpt

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_PAGE_BYTES = 3 * 1024 * 1024

M = TypeVar("M", bound=Message)


def read_page_size(size: int) -> int:
    """The page size: 1 to 1,000; 0 is 100."""
    if not 0 <= size <= MAX_PAGE:
        raise InvalidArgument("page_size", f"must be from 0 to {MAX_PAGE:,}, not {size}")
    return size or DEFAULT_PAGE


def fitting(messages: Iterable[M]) -> list[M]:
    """As many of the messages as fit a reply that a client with gRPC's own limit of 4 MiB can receive; at least one if there is any.

    No more messages are made than that, for a message may be large.
    """
    page, total = list[M](), 0
    for message in messages:
        total += message.ByteSize()
        if total > MAX_PAGE_BYTES and page:
            break
        page.append(message)
    return page


def page_token(last: str | int) -> str:
    """The token for the page after `last`."""
    return base64.urlsafe_b64encode(str(last).encode()).decode()


def read_after(token: str) -> str:
    """What the page before ended with; "" for the first page."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise _forged(token) from error


def read_after_name(token: str) -> str:
    """The study that the page before ended with; "" for the first page."""
    after = read_after(token)
    return after and check_identifier("page_token", after)


def read_after_number(token: str) -> int:
    """The number that the page before ended with; 0 for the first page."""
    after = read_after(token)
    if after and not (after.isascii() and after.isdecimal() and len(after) <= 16):
        raise _forged(token)
    return int(after or 0)


def _forged(token: str) -> InvalidArgument:
    return InvalidArgument("page_token", f"{excerpt(token)} is not a token of this service")
