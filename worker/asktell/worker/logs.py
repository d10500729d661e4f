"""A trial's log file: all that its trainings wrote, byte by byte, readable while they write."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from asktell.cli import places
from asktell.client import Trial

logger = logging.getLogger("asktell.worker")

LIMIT = 100_000_000
LEFT_OUT = "[asktell: {} bytes of output are left out here]\n"


class LogFile:
    """A file that output is added to, in which at most `limit` bytes of it are kept: its first half, and the latest.

    Once it is full, what follows the first half is cut down to the last quarter, again and again: so it stays one file that can be read,
    and each byte is written twice at most. A disk that is full, or gone, ends the log, not the training.
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._limit = limit
        self._start = self._size = os.fstat(self._file).st_size
        self._head = 0
        self._left_out = 0
        self._unended = ""

    def write(self, data: bytes, *, source: str = "") -> None:
        """Add bytes. Where `source` left a line without an end, another's begin on a line of their own."""
        if self._file < 0:
            return
        strange = self._unended not in ("", source)
        self._unended = "" if data.endswith((b"\n", b"\r")) else source
        try:
            for piece in self._pieces(b"\n" + data if strange else data):
                self._write(piece)
        except OSError as error:
            logger.warning("the log %s is not written on: %s", self._path, error)
            self.close()

    def _pieces(self, data: bytes) -> list[bytes]:
        """What is small to the limit as a whole, else line by line: so no piece makes the file much larger than it may be."""
        return [data] if len(data) <= self._limit // 8 else data.splitlines(keepends=True)

    def begin(self, title: str) -> None:
        """Add a line that says what follows, on a line of its own whatever is there; what follows has the whole limit."""
        ended = not self._size or os.pread(self._file, 1, self._size - 1) == b"\n"
        self.write(f"{'' if ended else chr(10)}{title}\n".encode("utf-8", "replace"))
        self._start = self._size

    def _write(self, data: bytes) -> None:
        self._add(data)
        if not self._head and self._size - self._start >= self._limit // 2:
            self._head = self._size
        if self._size - self._start > self._limit:
            self._cut()

    def _cut(self) -> None:
        """Leave out what lies between the head and the last quarter, and say how much in its place."""
        kept = os.pread(self._file, self._limit // 4, max(self._size - self._limit // 4, self._head))
        kept = kept[kept.find(b"\n") + 1 :]
        before = len(self._mark()) if self._left_out else 0
        self._left_out += self._size - self._head - before - len(kept)
        os.ftruncate(self._file, self._head)
        self._size = self._head
        self._add(self._mark() + kept)

    def _add(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.write(self._file, rest)
            self._size += written
            rest = rest[written:]

    def _mark(self) -> bytes:
        return LEFT_OUT.format(self._left_out).encode()

    def close(self) -> None:
        """Let go of the file. A second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True, slots=True)
class Logs:
    """The log files of all trials, in a directory. At most `limit` bytes of each attempt are kept."""

    root: Path
    worker_id: str
    limit: int = LIMIT

    @contextmanager
    def of(self, trial: Trial) -> Iterator[LogFile | None]:
        """The log of a trial, with a line that says which attempt follows; None where it cannot be written, which is said."""
        log = self._open(trial)
        try:
            yield log
        finally:
            if log is not None:
                log.close()

    def _open(self, trial: Trial) -> LogFile | None:
        path = places.log_of_trial(self.root, trial)
        try:
            log = LogFile(path, limit=self.limit)
        except OSError as error:
            logger.warning("trial %d has no log: %s", trial.number, error)
            return None
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        log.begin(f"=== trial {trial.number}, attempt {trial.attempt}, {now}, {self.worker_id}")
        return log
