"""What names, notes and identifiers may look like."""

from __future__ import annotations

import re
from collections.abc import Mapping

from asktell.server.domain.errors import InvalidArgument

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,127}")
_OPAQUE = re.compile(r"[\x21-\x7e]{1,128}")
_URI = re.compile(r"(?:file|s3|gs|az|abfs|hdfs|http|https)://[\x21-\x7e]+")

MAX_MESSAGE = 65_536
MAX_NOTES = 64


def check_identifier(field: str, text: str) -> str:
    """Return the id of a project or study, or raise: a letter or digit, then letters, digits and `_ . -`; 1 to 128 characters."""
    if not _IDENTIFIER.fullmatch(text):
        raise InvalidArgument(
            field,
            f"{excerpt(text)} is not an id: a letter or digit, then letters, digits and _ . -; 1 to 128 characters",
        )
    return text


def check_variable(field: str, text: str) -> str:
    """Return the name of a parameter or metric, or raise: a letter or _, then letters, digits and `_ . : / -`; 1 to 128 characters."""
    if not _VARIABLE.fullmatch(text):
        raise InvalidArgument(
            field,
            f"{excerpt(text)} is not a name: a letter or _, then letters, digits and _ . : / -; 1 to 128 characters",
        )
    return text


def check_request_id(field: str, text: str) -> str:
    """Return a request id, which may be empty, or raise: at most 128 printable ASCII characters."""
    if text and not _OPAQUE.fullmatch(text):
        raise InvalidArgument(
            field, f"{excerpt(text)} is not a request id: 1 to 128 printable ASCII characters, no spaces"
        )
    return text


def check_lease_token(field: str, text: str) -> str:
    """Return what may be a lease token, or raise: 1 to 128 printable ASCII characters."""
    if not text:
        raise InvalidArgument(field, "is missing: the lease of the trial in Ask's reply has it")
    if not _OPAQUE.fullmatch(text):
        raise InvalidArgument(
            field, f"{excerpt(text)} is not a lease token: the lease of the trial in Ask's reply has it"
        )
    return text


def check_worker_id(field: str, text: str) -> str:
    """Return a worker id, or raise: 1 to 256 printable characters."""
    if not 1 <= len(text) <= 256 or not text.isprintable():
        raise InvalidArgument(field, f"{excerpt(text)} is not a worker id: 1 to 256 printable characters")
    return text


def check_message(field: str, text: str) -> str:
    """Return text for people, or raise: at most 65,536 characters, no NUL."""
    return check_text(field, text, limit=MAX_MESSAGE)


def check_text(field: str, text: str, *, limit: int) -> str:
    """Return text of at most `limit` characters without NUL (PostgreSQL keeps none), or raise."""
    if len(text) > limit:
        raise InvalidArgument(field, f"has {len(text):,} characters; at most {limit:,} are kept")
    if "\0" in text:
        raise InvalidArgument(field, f"{excerpt(text)} contains NUL")
    return text


def check_notes(field: str, notes: Mapping[str, str]) -> Mapping[str, str]:
    """Return labels or metadata, or raise: at most 64 pairs, keys of 1 to 63 characters, values of at most 1,024."""
    if len(notes) > MAX_NOTES:
        raise InvalidArgument(field, f"has {len(notes):,} pairs; at most {MAX_NOTES} are kept")
    for key, value in notes.items():
        check_text(f"{field}[{check_key(field, key)}]", value, limit=1024)
    return notes


def check_key(field: str, key: str) -> str:
    """Return the key of a label or of metadata, or raise: 1 to 63 printable characters."""
    if not 1 <= len(key) <= 63 or not key.isprintable():
        raise InvalidArgument(field, f"{excerpt(key)} is not a key: 1 to 63 printable characters")
    return key


def check_checkpoint_uri(field: str, uri: str) -> str:
    """Return a URI, which may be empty, or raise: an allowed scheme, at most 2,048 printable ASCII characters. It is never opened."""
    if uri and (len(uri) > 2048 or not _URI.fullmatch(uri)):
        schemes = "file, s3, gs, az, abfs, hdfs, http or https"
        raise InvalidArgument(field, f"{excerpt(uri)} is not a URI of scheme {schemes}, of at most 2,048 characters")
    return uri


def excerpt(text: str) -> str:
    """A quoted, escaped and shortened form of any text, fit for an error message."""
    return ascii(text if len(text) <= 64 else text[:61] + "...")
