"""A line between a worker and its server that can be cut: nothing gets through any more, and neither side is told."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

CHUNK = 65_536


class SeverableLine:
    """Forwards connections on loopback to a port, until it is cut; then what is sent vanishes. Healed, old connections are reset."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> SeverableLine:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.heal()

    def cut(self) -> None:
        """Let nothing through."""
        self._whole.clear()

    def heal(self) -> None:
        """Let all through again, over new connections."""
        with self._lock:
            ended, self._sockets = self._sockets, []
        for each in ended:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._whole.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        # A connection that is made while the line is cut gets no answer until it is whole.
        self._whole.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._upstream))
        except OSError:
            near.close()
            return
        with self._lock:
            self._sockets += [near, far]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if self._whole.is_set():
                    sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
