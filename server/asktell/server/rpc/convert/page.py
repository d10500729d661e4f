"""Pages: sizes, and opaque tokens that say where the next one begins, and of what."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.text import check_identifier, excerpt
from asktell.v1.study_service_pb2 import ListStudiesRequest
from asktell.v1.trial_service_pb2 import ListTrialsRequest

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_PAGE_BYTES = 3 * 1024 * 1024

DIGEST = 16
"""Hexadecimal digits. A token is no secret: the digest is against mistakes."""

_DIGEST = re.compile(f"[0-9a-f]{{{DIGEST}}}")

M = TypeVar("M", bound=Message)
Listing = ListStudiesRequest | ListTrialsRequest


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


def page_token(request: Listing, last: str | int) -> str:
    """The token for the page after `last` of what the request lists."""
    return base64.urlsafe_b64encode(f"{_listed(request)}:{last}".encode()).decode()


def _listed(request: Listing) -> str:
    """A digest of what a request lists: the method, the parent and the filters. Where its page begins and how large it is do not count."""
    bare: Message = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("page_size")
    bare.ClearField("page_token")
    payload = request.DESCRIPTOR.full_name.encode() + b":" + bare.SerializeToString(deterministic=True)
    return hashlib.sha256(payload).hexdigest()[:DIGEST]


def _read_after(request: Listing) -> str:
    """What the page before ended with; "" for the first page."""
    token = request.page_token
    if not token:
        return ""
    try:
        listed, separator, after = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(":")
    except ValueError as error:
        raise _forged(token) from error
    if not (separator and after and _DIGEST.fullmatch(listed)):
        raise _forged(token)
    if listed != _listed(request):
        raise InvalidArgument("page_token", f"{excerpt(token)} is of another listing: only page_size may change")
    return after


def read_after_name(request: ListStudiesRequest) -> str:
    """The study that the page before ended with; "" for the first page."""
    after = _read_after(request)
    return after and check_identifier("page_token", after)


def read_after_number(request: ListTrialsRequest) -> int:
    """The number that the page before ended with; 0 for the first page."""
    after = _read_after(request)
    if after and not (after.isascii() and after.isdecimal() and len(after) <= 16):
        raise _forged(request.page_token)
    return int(after or 0)


def _forged(token: str) -> InvalidArgument:
    return InvalidArgument("page_token", f"{excerpt(token)} is not a token of this service")
