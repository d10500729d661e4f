"""Archives of studies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from asktell.server.application.archive import End, Header, Record, Reported
from asktell.server.application.imports import ImportStudy
from asktell.server.application.studies import CountedStudy
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.text import check_identifier, check_request_id
from asktell.server.domain.trial import Trial
from asktell.server.rpc.convert.metric import measurement_message, read_archived
from asktell.server.rpc.convert.study import read_project, read_study, study_message
from asktell.server.rpc.convert.trial import archived_trial_message, read_trial
from asktell.v1 import study_service_pb2 as pb

FORMAT_VERSION = 1


def read_import(request: pb.ImportStudyRequest) -> ImportStudy:
    """The command in the first request of ImportStudy."""
    return ImportStudy(
        project=read_project("parent", request.parent),
        study_id=request.study_id and check_identifier("study_id", request.study_id),
        request_id=check_request_id("request_id", request.request_id),
    )


async def read_batches(
    first: pb.ImportStudyRequest, others: AsyncIterator[pb.ImportStudyRequest]
) -> AsyncIterator[list[Record]]:
    """The records of the requests, a request at a time, read off the event loop."""
    place = 0
    request: pb.ImportStudyRequest | None = first
    while request is not None:
        yield await asyncio.to_thread(_read_records, place, request)
        place += len(request.records)
        request = await anext(others, None)
        if request is not None:
            _refuse_names(request)


def _read_records(place: int, request: pb.ImportStudyRequest) -> list[Record]:
    return [read_record(index, message) for index, message in enumerate(request.records, place)]


def _refuse_names(request: pb.ImportStudyRequest) -> None:
    """Raise InvalidArgument if a request after the first says what only the first may."""
    for name in ("parent", "study_id", "request_id"):
        if getattr(request, name):
            raise InvalidArgument(name, "may stand in the first request only")


def read_record(index: int, message: pb.ArchiveRecord) -> Record:
    """The record, unchecked but for what has no meaning at all; `index` is its place in the archive, for errors."""
    kind = message.WhichOneof("record")
    try:
        return _read_record(message)
    except InvalidArgument as error:
        inner = error.within(kind) if kind else error
        raise inner.within(f"records[{index}]") from None


def _read_record(message: pb.ArchiveRecord) -> Record:
    match message.WhichOneof("record"):
        case "header":
            return _read_header(message.header)
        case "trial":
            return read_trial(message.trial)
        case "reported":
            return Reported(message.reported.number, read_archived(message.reported.measurements))
        case "end":
            return End(message.end.trial_count)
        case _:
            raise InvalidArgument("", "is empty: a record is header, trial, reported or end")


def _read_header(message: pb.ArchiveHeader) -> Header:
    if message.format_version != FORMAT_VERSION:
        raise InvalidArgument("format_version", f"is {message.format_version}; this server knows {FORMAT_VERSION}")
    try:
        read = read_study(message.study, next_number=message.next_number)
    except InvalidArgument as error:
        raise error.within("study") from None
    return Header(replace(read.study, own_sequence=message.own_sequence), read.counts)


def record_message(record: Record) -> pb.ArchiveRecord:
    """The message for a record."""
    match record:
        case Header(study, counts):
            header = pb.ArchiveHeader(
                format_version=FORMAT_VERSION,
                study=study_message(CountedStudy(study, counts)),
                next_number=study.next_number,
                own_sequence=study.own_sequence,
            )
            return pb.ArchiveRecord(header=header)
        case Trial():
            return pb.ArchiveRecord(trial=archived_trial_message(record))
        case Reported(number, measurements):
            messages = [measurement_message(measurement) for measurement in measurements]
            return pb.ArchiveRecord(reported=pb.ArchivedMeasurements(number=number, measurements=messages))
        case End(trial_count):
            return pb.ArchiveRecord(end=pb.ArchiveEnd(trial_count=trial_count))
