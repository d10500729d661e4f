"""What clients saw: each attempt of each call, from when to when, with what it was answered; one JSON object a line in a file."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from asktell.client import Client
from asktell.client.calls import Call
from asktell.client.connection import Connection
from asktell.client.errors import AskTellError, Unavailable
from asktell.client.leases import LeaseKeeper
from tests.wire import reply_type, request_type

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One attempt of a call. Times are seconds of this machine's monotonic clock; `end` is None if the attempt never ended.

    `allowed` is how long it might take. An attempt that ended has a `reply`, or a `code` and, if the service named one, a `reason`.
    """

    worker: str
    method: str
    request: Message
    start: float
    allowed: float
    end: float | None = None
    reply: Message | None = None
    code: str = ""
    reason: str = ""

    @property
    def request_id(self) -> str:
        """What makes the call safe to repeat; empty for methods that need none."""
        return getattr(self.request, "request_id", "")


class Recorder:
    """Writes events to a file as they begin and end, so that an attempt that hangs shows. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()
        self._ids = itertools.count()

    def begin(self, worker: str, method: str, request: Message, *, allowed: float) -> int:
        """Note that an attempt begins; the number is for `end`."""
        number = next(self._ids)
        self._write(
            id=number,
            start=time.monotonic(),
            worker=worker,
            method=method,
            allowed=allowed,
            request=MessageToDict(request),
        )
        return number

    def end(self, number: int, *, reply: Message | None = None, code: str = "", reason: str = "") -> None:
        """Note how an attempt ended."""
        answer = None if reply is None else MessageToDict(reply)
        self._write(id=number, end=time.monotonic(), reply=answer, code=code, reason=reason)

    def _write(self, **entry: Any) -> None:
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")


class RecordedConnection(Connection):
    """The SDK's connection, with each attempt recorded.

    A share of the calls is made once more after it succeeded, as by a client that forgot: the reply has to be the same.
    """

    def __init__(self, target: str, *, recorder: Recorder, timeout: float, retry_for: float, again: float) -> None:
        super().__init__(target, timeout=timeout, retry_for=retry_for)
        self._recorder = recorder
        self._allowed = timeout
        self._again = again
        self._random = random.Random(0)

    def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """As the SDK's, some of them twice."""
        result = super().run(call, timeout=timeout)
        if getattr(call.request, "request_id", "") and self._random.random() < self._again:
            with suppress(Unavailable):
                self.run_once(call, timeout=timeout)
        return result

    def run_once(self, call: Call[T], *, timeout: float | None = None) -> T:
        """As the SDK's, recorded."""
        worker = threading.current_thread().name
        number = self._recorder.begin(worker, call.method, call.request, allowed=timeout or self._allowed)

        def parse(reply: Any) -> T:
            self._recorder.end(number, reply=reply)
            return call.parse(reply)

        try:
            return super().run_once(replace(call, parse=parse), timeout=timeout)
        except AskTellError as error:
            self._recorder.end(number, code=error.code.name, reason=error.reason)
            raise


class RecordedClient(Client):
    """The SDK's client on a recorded connection."""

    def __init__(self, target: str, *, project: str, connection: RecordedConnection) -> None:
        super().__init__(target, project=project)
        super().close()
        self._connection = connection
        self._keeper = LeaseKeeper(connection)


def read(paths: Iterable[Path]) -> list[Event]:
    """The events of several recorders, in the order in which they began."""
    return sorted((event for path in paths for event in _events(path)), key=lambda event: event.start)


def _events(path: Path) -> Iterator[Event]:
    entries: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        entries.setdefault(entry.pop("id"), {}).update(entry)
    for entry in entries.values():
        request = ParseDict(entry.pop("request"), request_type(entry["method"])())
        answer = entry.pop("reply", None)
        reply = None if answer is None else ParseDict(answer, reply_type(entry["method"])())
        yield Event(request=request, reply=reply, **entry)
