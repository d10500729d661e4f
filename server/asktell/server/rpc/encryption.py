"""Encryption of connections, with certificates that may be replaced while the server runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from asktell.server.application.sparing import Sparing

log = structlog.get_logger("asktell.encryption")

_UNREADABLE = "a PEM block cannot be read, or has a password"
"""Why, where OpenSSL has no word for it."""

_Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Encryption:
    """Files in PEM: the server's certificate, with those that lead to its authority, and its key; `client_ca` are the authorities of clients
    that may connect: with it nobody else can.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What a server listens with; it looks at each new connection whether the files have changed. OSError for files that are no such."""
        kept = _Kept(self)
        return grpc.dynamic_ssl_server_credentials(
            kept.current, kept.renewed, require_client_authentication=self.client_ca is not None
        )

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What the files hold now. OSError if one cannot be read, is no PEM or no certificate, or if the key is not the certificate's."""
        for path in self._files():
            if b"-----BEGIN" not in path.read_bytes():
                raise OSError(f"{path} has no PEM block (-----BEGIN ...)")
        self._require_pair()
        self._require_authorities()
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration(
            [pair], None if self.client_ca is None else self.client_ca.read_bytes()
        )

    def _require_pair(self) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password="")
        except ssl.SSLError as error:
            raise OSError(
                f"{self.certificate} and {self.key} are no certificate with its key: {error.reason or _UNREADABLE}"
            ) from error

    def _require_authorities(self) -> None:
        if self.client_ca is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.client_ca)
        except ssl.SSLError as error:
            raise OSError(
                f"{self.client_ca} has no certificates of authorities: {error.reason or _UNREADABLE}"
            ) from error

    def stamp(self) -> _Stamp:
        """What changes with the files."""
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in map(Path.stat, self._files()))

    def _files(self) -> tuple[Path, ...]:
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))


class _Kept:
    """The certificate in use, until files that hold another one are whole: they are seldom replaced at the same instant."""

    def __init__(self, encryption: Encryption) -> None:
        self._encryption = encryption
        self._failures = Sparing()
        self._stamp = encryption.stamp()
        self.current = encryption.read()

    def renewed(self) -> grpc.ServerCertificateConfiguration:
        """The configuration of now. Called by gRPC for each connection; what keeps files from being used is logged once a minute."""
        try:
            stamp = self._encryption.stamp()
            if stamp != self._stamp:
                self.current, self._stamp = self._encryption.read(), stamp
                log.info("certificate_renewed", certificate=str(self._encryption.certificate))
        except OSError as error:
            if connections := self._failures.count("certificate"):
                log.warning("certificate_not_renewed", error=str(error), connections=connections)
        return self.current
