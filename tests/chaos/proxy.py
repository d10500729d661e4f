"""A proxy on loopback that loses replies: the server did the work, the client does not know.

It reads what HTTP/2 says of itself in clear: a frame begins with nine bytes that hold its length, type, flags and stream (RFC 9113, 4.1).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

HEADER = 9
HEADERS_FRAME = 1
END_STREAM = 1
CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that sends RST and drops what was not sent yet."""


@dataclass(slots=True)
class Frames:
    """Cuts what a server sends into HTTP/2 frames."""

    rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are complete now."""
        self.rest += data
        while len(self.rest) >= HEADER:
            end = HEADER + int.from_bytes(self.rest[:3], "big")
            if len(self.rest) < end:
                return
            yield bytes(self.rest[:end])
            del self.rest[:end]


def begins_reply(frame: bytes) -> bool:
    """Whether the frame is the first of a reply that is no error: an error's only headers end the stream, as a reply's last ones do."""
    return frame[3] == HEADERS_FRAME and not frame[4] & END_STREAM


@dataclass(slots=True)
class LossyProxy:
    """Forwards connections to a server on loopback, and resets the client's instead of bringing it a reply, for a share of the replies.

    The server has done its work by then. `replies` counts those that the server began, `lost` those that the proxy kept from their client;
    other replies that were on the same connection are lost with them and not counted.
    """

    upstream: int
    share: float
    seed: int
    port: int = 0
    replies: int = 0
    lost: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _random: random.Random = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._thread = threading.Thread(target=self._loop.run_forever, name="lossy-proxy", daemon=True)

    def __enter__(self) -> LossyProxy:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended: Future[None] = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def target(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self.port}"

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            _reset(writer)
            return
        ways = [asyncio.create_task(_forward(reader, requests)), asyncio.create_task(self._bring(answers, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            _reset(writer)
            requests.close()

    async def _bring(self, answers: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Bring the client what the server sends, until a reply is to be lost."""
        frames = Frames()
        with suppress(OSError):
            while data := await answers.read(CHUNK):
                for frame in frames.feed(data):
                    if self._loses(frame):
                        return
                    client.write(frame)
                await client.drain()

    def _loses(self, frame: bytes) -> bool:
        if not begins_reply(frame):
            return False
        self.replies += 1
        lost = self._random.random() < self.share
        self.lost += lost
        return lost


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset, as when a machine or a router died."""
    connection: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
