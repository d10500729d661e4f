"""What a child process says, and the way from its pipes to whoever listens: in order, and no faster than it is listened to."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import IO, Literal

MAX_LINE = 1 << 20
"""Bytes after which a line without an end is passed on in pieces."""
CHUNK = 1 << 16
"""Bytes that are read at once."""
MAX_BATCHES = 8
"""Batches that wait to be heard, so that memory is bounded and the pipe holds the writer back; more than a process has readers."""
LAST_READS = 1 + (1 << 20) // CHUNK
"""Reads that empty a pipe of the largest size, 1 MiB."""
SILENT_SECONDS = 2.0
"""How long output is awaited after the end: a daemon that left the process group may hold it open for ever."""
POLL = 0.05

Stream = Literal["stdout", "stderr"]

_FIRST_OBJECT = re.compile(rb"\s*\{")
# Blank lines are not gone through again from each of them: thousands would take seconds.
_LATER_OBJECT = re.compile(rb"[\r\n][^\S\r\n]*\{")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that the process wrote, with the end it had: a newline, a carriage return, or none."""

    stream: Stream
    data: bytes

    @property
    def text(self) -> str:
        """The line as text; what is not UTF-8 in it is replaced."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines of one stream that came together, each with its end but perhaps the last one: hundreds of megabytes are not taken line by line."""

    stream: Stream
    data: bytes

    @property
    def lines(self) -> list[Line]:
        """The lines one by one."""
        return [Line(self.stream, line) for line in self.data.splitlines(keepends=True)]

    @property
    def count(self) -> int:
        """How many lines there are."""
        ends = self.data.count(b"\n") + self.data.count(b"\r") - self.data.count(b"\r\n")
        return ends + (not self.data.endswith((b"\n", b"\r")))

    @property
    def has_objects(self) -> bool:
        """Whether a line begins as a JSON object does."""
        # The first question alone is fast, and mostly enough.
        return b"{" in self.data and bool(_FIRST_OBJECT.match(self.data) or _LATER_OBJECT.search(self.data))

    def last(self, count: int) -> list[Line]:
        """The last lines that are not blank."""
        size = 1 << 12
        while True:
            found = [line for line in self.data[-size:].splitlines(keepends=True) if line.strip()]
            # The first one may have lost its beginning.
            if len(found) > count or size >= len(self.data):
                return [Line(self.stream, line) for line in found[-count:]]
            size *= 4


@dataclass(frozen=True, slots=True)
class Message:
    """A line that a Python objective's process sent over its channel."""

    text: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended; every line it wrote came before."""

    code: int
    """Exit status, or minus the number of the signal that ended it."""

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit status {self.code}"
        name = signal.Signals(-self.code).name if -self.code in set(signal.Signals) else f"signal {-self.code}"
        hint = ", perhaps for want of memory" if -self.code == signal.SIGKILL else ""
        return f"killed by {name}{hint}"

    @property
    def asked_to_end(self) -> bool:
        """Whether a signal ended it that asks politely, as schedulers send to all processes of a job."""
        return -self.code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    @property
    def killed(self) -> bool:
        """Whether somebody else ended it: by SIGKILL (the kernel, for want of memory) or a signal that asks.

        A shell whose last command was killed so exits with 128 and the signal's number. A crash of its own, as by SIGSEGV, is none.
        """
        ended_by = -self.code if self.code < 0 else self.code - 128
        return ended_by in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


Event = Line | Message | Exited
Piece = Event | Chunk
Batch = tuple[Piece, ...]


class Events:
    """Events on their way from threads that read to one that listens. Who puts waits while too many are under way."""

    def __init__(self) -> None:
        self._batches: Queue[Batch] = Queue(MAX_BATCHES)
        self._heard: deque[Piece] = deque()
        self._deaf = threading.Event()

    def put(self, batch: Batch) -> None:
        """Add events; wait for room, unless nobody listens any more."""
        if batch and not self._deaf.is_set():
            self._batches.put(batch)

    def next(self, timeout: float) -> Event | None:
        """Return the next event, or None after `timeout` seconds without one. For one thread."""
        piece = self.next_piece(timeout)
        if not isinstance(piece, Chunk):
            return piece
        first, *others = piece.lines
        self._heard.extendleft(reversed(others))
        return first

    def next_piece(self, timeout: float) -> Piece | None:
        """As `next`, with lines that came together in one chunk."""
        with suppress(Empty):
            while not self._heard:
                self._heard.extend(self._batches.get(timeout=timeout))
            return self._heard.popleft()
        return None

    def ignore(self) -> None:
        """Let go of all events from now on, so that nobody waits for room. Repeated, it does nothing more."""
        self._deaf.set()
        # Each reader has at most one put under way, for all of which there is room once the queue is empty.
        with suppress(Empty):
            while True:
                self._batches.get_nowait()


class Reader(threading.Thread):
    """Passes on what one pipe or channel says, to its end."""

    def __init__(self, batches: Iterator[Batch], *, events: Events, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._source = batches
        self._events = events
        self._over = over
        self._waits_for_room = False

    def run(self) -> None:
        """Read to the end, or, once the process is over, what it had written by then."""
        left = LAST_READS
        for batch in self._source:
            self._waits_for_room = True
            self._events.put(batch)
            self._waits_for_room = False
            left -= self._over.is_set()
            if not left:
                return

    def finish(self) -> None:
        """Wait until all is passed on, however long the listener takes; a pipe that says nothing is not waited for long."""
        silent = 0.0
        while self.is_alive() and silent < SILENT_SECONDS:
            self.join(POLL)
            silent += 0.0 if self._waits_for_room else POLL


def lines(pipe: IO[bytes], stream: Stream) -> Iterator[Batch]:
    """What a pipe says, as soon as lines are complete; a carriage return ends one too, so that progress bars move."""
    rest = b""
    with pipe:
        while read := os.read(pipe.fileno(), CHUNK):
            end = max(read.rfind(b"\n"), read.rfind(b"\r")) + 1
            whole, rest = (rest + read[:end], read[end:]) if end else (b"", rest + read)
            if len(rest) > MAX_LINE:
                whole, rest = whole + rest, b""
            yield _batch(whole, stream)
        yield _batch(rest, stream)


def _batch(data: bytes, stream: Stream) -> Batch:
    return (Chunk(stream, data),) if data else ()
