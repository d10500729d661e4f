"""Replies of a stream that are made faster than a slow client takes them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from asktell.server.application.archive import Record
from asktell.server.rpc.convert.archive import record_message
from asktell.v1 import study_service_pb2 as pb

IN_MEMORY = 4 * 1024 * 1024
REPLY_BYTES = 256 * 1024
_LENGTH = 8


class Spool:
    """The replies of an export, in memory while they are few, else in a temporary file that is gone with the spool."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed by `__exit__`
        self._reply = pb.ExportStudyResponse()
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def fill(self, export: Callable[[Callable[[Record], None]], None]) -> None:
        """Take in all that `export` emits, in place of what an earlier attempt did."""
        self._file.seek(0)
        self._file.truncate()
        self._clear()
        export(self._add)
        self._flush()
        self._file.seek(0)

    def __iter__(self) -> Iterator[bytes]:
        """The replies, packed, of some hundred kilobytes each unless a record is larger."""
        while length := self._file.read(_LENGTH):
            yield self._file.read(int.from_bytes(length))

    def _add(self, record: Record) -> None:
        message = record_message(record)
        self._reply.records.append(message)
        self._bytes += message.ByteSize()
        if self._bytes >= REPLY_BYTES:
            self._flush()

    def _flush(self) -> None:
        packed = self._reply.SerializeToString()
        self._file.write(len(packed).to_bytes(_LENGTH) + packed)
        self._clear()

    def _clear(self) -> None:
        self._reply.Clear()
        self._bytes = 0
