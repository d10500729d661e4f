"""Archives of studies as lines of JSON, which `jq` and pandas read.

Each record of `asktell.v1.ArchiveRecord` is a line, in protobuf's JSON mapping with the names of the fields as in the contract and all names
in alphabetical order; so that equal studies are equal bytes. The last line has the SHA-256 of all before it. Whoever edits a file takes
`sha256` out of its last line; then the service alone checks what is in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeAlias

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from asktell.client.errors import InvalidArgument, Unavailable
from asktell.v1 import study_service_pb2 as pb

OnProgress: TypeAlias = Callable[[int, int], None]
"""Called now and then with how many trials are through, and how many there are."""

REQUEST_BYTES = 1024 * 1024
_RECORD = re.compile(r"^records\[(\d+)\]\.?(.*)$", re.DOTALL)


@dataclass(slots=True)
class Writer:
    """Makes the lines of a file, with their digest at the end."""

    progress: OnProgress | None = None
    trials: int = 0
    total: int = 0
    ended: bool = False
    _digest: Any = field(default_factory=hashlib.sha256)

    def lines(self, reply: pb.ExportStudyResponse) -> Iterator[bytes]:
        """The lines for the records of a reply."""
        for record in reply.records:
            yield self._line(record)
        if self.progress is not None:
            self.progress(self.trials, self.total)

    def require_end(self) -> None:
        """Raise Unavailable unless the records were all there: the stream was cut."""
        if not self.ended:
            raise Unavailable("the archive was cut off before its end: export it again", reason="ARCHIVE_CUT_OFF")

    def _line(self, record: pb.ArchiveRecord) -> bytes:
        match record.WhichOneof("record"):
            case "header":
                self.total = total(record)
            case "trial":
                self.trials += 1
            case "end":
                self.ended = True
                record.end.sha256 = self._digest.hexdigest()
        content = MessageToDict(record, preserving_proto_field_name=True)
        line = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        self._digest.update(line)
        return line


def total(header: pb.ArchiveRecord) -> int:
    """How many trials the header of an archive announces."""
    counts = header.header.study.trial_counts
    return sum(getattr(counts, each.name) for each in counts.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True)
class File:
    """An archive in a file, to be imported. It is read anew by each iteration."""

    path: Path
    progress: OnProgress | None = None

    def requests(self, parent: str, study_id: str, request_id: str) -> Iterator[pb.ImportStudyRequest]:
        """The requests of ImportStudy. InvalidArgument that names the line for what is no archive, OSError for what cannot be read."""
        request = pb.ImportStudyRequest(parent=parent, study_id=study_id, request_id=request_id)
        size = trials = expected = 0
        for record, length in self._records():
            expected = total(record) if record.HasField("header") else expected
            trials += record.HasField("trial")
            request.records.append(record)
            size += length
            if size >= REQUEST_BYTES:
                yield request
                request, size = pb.ImportStudyRequest(), 0
                if self.progress is not None:
                    self.progress(trials, expected)
        yield request
        if self.progress is not None:
            self.progress(trials, expected)

    def _records(self) -> Iterator[tuple[pb.ArchiveRecord, int]]:
        """The records and the lengths of their lines. The end comes only when there is nothing after it."""
        digest, ended, number = hashlib.sha256(), None, 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                record = self._read(number, line)
                self._require(number, ended is None, "follows the end")
                if record.HasField("end"):
                    self._require(number, record.end.sha256 in ("", digest.hexdigest()), _CHANGED)
                    ended = record
                else:
                    yield record, len(line)
                digest.update(line)
        if ended is None:
            raise self.error(number + 1, _TRUNCATED if number else _EMPTY)
        yield ended, 0

    def _read(self, number: int, line: bytes) -> pb.ArchiveRecord:
        try:
            content = json.loads(line, object_pairs_hook=_distinct, parse_constant=_refuse)
            if not isinstance(content, dict):
                raise ValueError("it is no object")
            return ParseDict(content, pb.ArchiveRecord())
        except (ValueError, ParseError, RecursionError) as error:
            raise self.error(number, f"is no record of an archive: {error}") from error

    def _require(self, number: int, holds: object, why: str) -> None:
        if not holds:
            raise self.error(number, why)

    def error(self, number: int, why: str) -> InvalidArgument:
        """The error of a line."""
        place = f"{self.path} line {number}"
        return InvalidArgument(f"{place}: {why}", reason="BAD_ARCHIVE", field_violations=((place, why),))

    def located(self, error: InvalidArgument) -> InvalidArgument:
        """What the service said of a record, as said of a line of the file."""
        for path, description in error.field_violations:
            found = _RECORD.match(path)
            if found is not None:
                why = f"{found[2]}: {description}" if found[2] else description
                return self.error(int(found[1]) + 1, why)
        return error


@dataclass(slots=True)
class Replacement:
    """A file that takes the place of another once it is whole; a context manager. A device or pipe is written to as it is."""

    path: Path
    _file: BinaryIO | None = None

    def __enter__(self) -> BinaryIO:
        try:
            self._file = self._part.open("wb")
        except OSError as error:
            # Of the other name nobody knows.
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return self._file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._part == self.path:
            return
        if error is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    @property
    def _part(self) -> Path:
        special = self.path.exists() and not self.path.is_file()
        return self.path if special else self.path.with_name(f"{self.path.name}.part")


def rewind(file: BinaryIO) -> None:
    """Begin the file anew, if it is one that can be; a pipe that has been written to cannot."""
    if file.seekable():
        file.seek(0)
        file.truncate()


_EMPTY = "is missing: the file is empty"
_TRUNCATED = "is missing: the file was cut off before its end"
_CHANGED = (
    "has not the digest of the lines before it: the file was damaged or edited;"
    ' after an edit of your own, take "sha256" out of this line'
)


def _distinct(pairs: Iterable[tuple[str, Any]]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands there twice")
        found[name] = value
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is not JSON; write "{constant}" with its quotation marks')
