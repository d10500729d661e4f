"""A gRPC client that costs little: prepared requests on bare HTTP/2 connections, each with one call under way.

gRPC's own Python client takes as much processor time for a call as a server does, which on few cores would be measured along.
Only unary calls, only against a server that speaks HTTP/2 by itself; a reply with a message is a success, one without is a refusal.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
FRAME_HEADER = 9
LARGEST_WINDOW = 2**31 - 1
INITIAL_WINDOW = 65_535
PATIENCE = 60.0
"""Seconds that all connections may be silent."""


class Stuck(Exception):
    """The server closed a connection, or said nothing for too long."""


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call: when it ended, on the monotonic clock, the seconds that it took, and the reply, None if it was refused."""

    at: float
    seconds: float
    reply: bytes | None


def prepared(method: str, body: bytes, *, deadline: int = 30) -> tuple[bytes, bytes]:
    """The payloads of a request's two frames: headers (HPACK literals that touch no table) and the message."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": f"{deadline}S",
    }
    headers = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    return headers, b"\0" + struct.pack(">I", len(body)) + body


@dataclass(slots=True)
class Connection:
    """One connection; `start` sends a request, `receive` returns what has ended."""

    socket: socket.socket
    stream: int = -1
    began: float = 0.0
    _received: bytearray = field(default_factory=bytearray)
    _message: bytearray = field(default_factory=bytearray)

    @classmethod
    def to(cls, target: str) -> Connection:
        """A connection to HOST:PORT whose windows never close."""
        host, _, port = target.rpartition(":")
        plug = socket.create_connection((host, int(port)))
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HI", 4, LARGEST_WINDOW)
        window = struct.pack(">I", LARGEST_WINDOW - INITIAL_WINDOW)
        plug.sendall(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, window))
        return cls(plug)

    def start(self, request: tuple[bytes, bytes]) -> None:
        """Send a request; the one before must have ended."""
        headers, message = request
        self.stream += 2
        self._message.clear()
        self.began = time.perf_counter()
        self.socket.sendall(
            _frame(HEADERS, END_HEADERS, self.stream, headers) + _frame(DATA, END_STREAM, self.stream, message)
        )

    def receive(self) -> Call | None:
        """Read what has come; the call if it has ended."""
        read = self.socket.recv(65_536)
        if not read:
            raise Stuck("the server closed a connection")
        self._received += read
        ended = None
        for kind, flags, payload in self._frames():
            ended = self._take(kind, flags, payload) or ended
        return ended

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        at = 0
        while len(self._received) >= at + FRAME_HEADER:
            length = int.from_bytes(self._received[at : at + 3], "big")
            if len(self._received) < at + FRAME_HEADER + length:
                break
            payload = bytes(self._received[at + FRAME_HEADER : at + FRAME_HEADER + length])
            yield self._received[at + 3], self._received[at + 4], payload
            at += FRAME_HEADER + length
        del self._received[:at]

    def _take(self, kind: int, flags: int, payload: bytes) -> Call | None:
        if kind == DATA:
            self._message += payload
        elif kind == HEADERS and flags & END_STREAM:
            now = time.perf_counter()
            return Call(now, now - self.began, bytes(self._message[5:]) if self._message else None)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self.socket.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GOAWAY:
            raise Stuck(f"the server went away: {payload[8:]!r}")
        return None


def drive(target: str, supplies: Iterable[Iterator[tuple[bytes, bytes]]], *, took: Callable[[int, Call], None]) -> None:
    """Send each supply's requests over a connection of its own, one after another, until all supplies are at their end.

    `took` is given the supply's index and each call as it ends.
    """
    with selectors.DefaultSelector() as selector:
        for index, requests in enumerate(supplies):
            connection = Connection.to(target)
            selector.register(connection.socket, selectors.EVENT_READ, (index, connection, requests))
            _proceed(selector, connection, requests)
        while selector.get_map():
            ready = selector.select(PATIENCE)
            if not ready:
                raise Stuck(f"the server said nothing for {PATIENCE:g} s")
            for key, _ in ready:
                index, connection, requests = key.data
                call = connection.receive()
                if call is not None:
                    took(index, call)
                    _proceed(selector, connection, requests)


def _proceed(selector: selectors.BaseSelector, connection: Connection, requests: Iterator[tuple[bytes, bytes]]) -> None:
    request = next(requests, None)
    if request is not None:
        connection.start(request)
        return
    selector.unregister(connection.socket)
    connection.socket.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    encoded = value.encode("ascii")
    assert len(encoded) < 127, "longer ones need HPACK's long integers"
    return bytes([len(encoded)]) + encoded
