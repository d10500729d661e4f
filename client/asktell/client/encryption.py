"""Encryption and identity of a connection, as the environment says: the same for the SDK, the command line, workers and their trainings."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc

from asktell.client.errors import InvalidArgument

TLS: Final = "ASKTELL_TLS"
"""Whether connections are encrypted. A certificate authority or a certificate says so too."""
CA: Final = "ASKTELL_TLS_CA"
"""A file of PEM certificates of the authorities that are trusted; without it those that gRPC brings along."""
CERTIFICATE: Final = "ASKTELL_TLS_CERT"
KEY: Final = "ASKTELL_TLS_KEY"
"""Files of this client's own certificate and its key, where the server asks for one."""
TOKEN: Final = "ASKTELL_TOKEN_FILE"  # noqa: S105 - the name of a variable.
"""A file of a bearer token, sent with each call as `authorization`, for a proxy that checks it. Read at each call: it may change."""

_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def credentials(environment: Mapping[str, str]) -> grpc.ChannelCredentials | None:
    """What the variables ask for; None for a connection without encryption.

    InvalidArgument for a file that cannot be read or used, a certificate without its key, and a token that would go unencrypted.
    """
    files = {name: environment.get(name, "") for name in (CA, CERTIFICATE, KEY)}
    if not (_is_on(environment) or any(files.values())):
        if environment.get(TOKEN):
            raise InvalidArgument.at(
                TOKEN, f"is set, and a token is sent over an encrypted connection alone: set {TLS}=1"
            )
        return None
    if bool(files[CERTIFICATE]) != bool(files[KEY]):
        lacking, given = (KEY, CERTIFICATE) if files[CERTIFICATE] else (CERTIFICATE, KEY)
        raise InvalidArgument.at(lacking, f"must be set along with {given}")
    roots, certificate, key = (_content(name, files[name]) for name in (CA, CERTIFICATE, KEY))
    _require_usable(files)
    channel = grpc.ssl_channel_credentials(roots, key, certificate)
    token = environment.get(TOKEN)
    if not token:
        return channel
    _token(Path(token))
    return grpc.composite_channel_credentials(channel, grpc.metadata_call_credentials(_Bearer(Path(token))))


def _is_on(environment: Mapping[str, str]) -> bool:
    said = environment.get(TLS, "").strip().lower()
    if said not in (*_YES, *_NO):
        raise InvalidArgument.at(TLS, f"must be 1 or 0, not {said!r}")
    if said in _NO[1:] and any(environment.get(name) for name in (CA, CERTIFICATE, KEY)):
        raise InvalidArgument.at(TLS, f"is {said!r}, but {CA} or {CERTIFICATE} is set")
    return said in _YES


def _content(name: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument.at(name, f"cannot be read: {error}") from error
    if b"-----BEGIN" not in content:
        raise InvalidArgument.at(name, f"{path} has no PEM block (-----BEGIN …)")
    return content


def _require_usable(files: Mapping[str, str]) -> None:
    """Raise InvalidArgument for certificates and keys of no use: gRPC would say at each call that it failed, and not why."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if files[CA]:
            context.load_verify_locations(files[CA])
    except ssl.SSLError as error:
        raise InvalidArgument.at(CA, f"{files[CA]} has no certificates of authorities that can be read") from error
    try:
        if files[CERTIFICATE]:
            context.load_cert_chain(files[CERTIFICATE], files[KEY], password="")
    except ssl.SSLError as error:
        words = f"{files[KEY]} is not the key, without a password, of the certificate in {files[CERTIFICATE]}"
        raise InvalidArgument.at(KEY, words) from error


def _token(path: Path) -> str:
    """The token in the file. Never in a message."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument.at(TOKEN, f"cannot be read: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise InvalidArgument.at(TOKEN, f"{path} holds no token: one line without spaces")
    return token


class _Bearer(grpc.AuthMetadataPlugin):
    """Says who calls, by the token that the file holds at that moment."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:  # noqa: ARG002 - as gRPC calls it.
        try:
            callback((("authorization", f"Bearer {_token(self._path)}"),), None)
        except InvalidArgument as error:
            callback((), error)
