"""StudyService."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.protobuf.empty_pb2 import Empty

from asktell.server.application import studies
from asktell.server.application.clerk import Clerk
from asktell.server.application.exports import export_study
from asktell.server.application.history import History
from asktell.server.application.imports import Importer
from asktell.server.application.ports import Engine, Store, Transaction
from asktell.server.application.watch import Feeds
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.study import StudyName
from asktell.server.rpc.aside import Aside
from asktell.server.rpc.convert.archive import read_batches, read_import
from asktell.server.rpc.convert.page import fitting, page_token, read_after_name, read_page_size
from asktell.server.rpc.convert.space import count_listed
from asktell.server.rpc.convert.study import read_create, read_project, read_update, study_message
from asktell.server.rpc.spool import Spool
from asktell.v1 import study_service_pb2 as pb
from asktell.v1.study_service_pb2_grpc import StudyServiceServicer

EXPORTS_AT_ONCE = 2
"""Further exports wait to begin, lest they take all the connections that read."""
LARGE_SPACE = 4_000
"""Values that a space names one by one; a message of as many takes some 5 ms."""


@dataclass(frozen=True, slots=True)
class StudyServicer(StudyServiceServicer):
    """Unpacks, calls the use case, packs."""

    store: Store
    clerk: Clerk
    engine: Engine
    history: History
    feeds: Feeds
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(EXPORTS_AT_ONCE))
    aside: Aside = field(default_factory=Aside)

    async def CreateStudy(self, request: pb.CreateStudyRequest, context: Any) -> pb.Study:
        command = await self.aside.read(request, partial(_checked_create, request, self.engine.policies()))
        return await self._message(await self.clerk.write(command.name, lambda tx: studies.create_study(tx, command)))

    async def GetStudy(self, request: pb.GetStudyRequest, context: Any) -> pb.Study:
        name = StudyName.parse(request.name, path="name")
        return await self.store.read(lambda tx: study_message(studies.get_study(tx, name)))

    async def ListStudies(self, request: pb.ListStudiesRequest, context: Any) -> pb.ListStudiesResponse:
        project = read_project("parent", request.parent)
        size, after = read_page_size(request.page_size), read_after_name(request)

        def read(tx: Transaction) -> pb.ListStudiesResponse:
            found = studies.list_studies(tx, project=project, after=after, limit=size + 1)
            page = fitting(study_message(item) for item in found[:size])
            token = page_token(request, found[len(page) - 1].study.name.study) if len(found) > len(page) else ""
            return pb.ListStudiesResponse(studies=page, next_page_token=token)

        return await self.store.read(read)

    async def UpdateStudy(self, request: pb.UpdateStudyRequest, context: Any) -> pb.Study:
        command = await self.aside.read(request, partial(_checked_update, request))
        return await self._message(await self.clerk.write(command.name, lambda tx: studies.update_study(tx, command)))

    async def DeleteStudy(self, request: pb.DeleteStudyRequest, context: Any) -> Empty:
        name = StudyName.parse(request.name, path="name")
        await self.clerk.write(name, lambda tx: studies.delete_study(tx, name))
        self.history.forget(name)
        return Empty()

    async def ExportStudy(self, request: pb.ExportStudyRequest, context: Any) -> AsyncGenerator[bytes, None]:  # type: ignore[override]
        name = StudyName.parse(request.name, path="name")
        with Spool() as spool:
            async with self.exports:
                await self.store.read(lambda tx: spool.fill(lambda emit: export_study(tx, name, emit=emit)))
            for reply in spool:
                yield reply

    async def ImportStudy(self, requests: AsyncIterator[pb.ImportStudyRequest], context: Any) -> Any:
        importer = Importer(
            store=self.store, policies=self.engine.policies(), new_nonce=secrets.token_urlsafe, pack=_pack
        )
        first = await anext(aiter(requests), None)
        if first is None:
            raise InvalidArgument("parent", "is missing: the first request says where the archive goes")
        batches = read_batches(first, requests)
        return await importer.take(read_import(first), batches)

    def WatchStudy(self, request: pb.WatchStudyRequest, context: Any) -> AsyncGenerator[bytes, None]:  # type: ignore[override]
        # Packed already, once for all who watch the study: they are sent as they are.
        return self.feeds.watch(StudyName.parse(request.name, path="name"), request.after_sequence)

    async def _message(self, found: studies.CountedStudy) -> pb.Study:
        large = count_listed(found.study.spec.space) > LARGE_SPACE
        return await self.aside.run(partial(study_message, found)) if large else study_message(found)


def _checked_create(request: pb.CreateStudyRequest, policies: Collection[str]) -> studies.CreateStudy:
    command = read_create(request, drawn_seed=secrets.randbits(31))
    try:
        command.validate(policies)
    except InvalidArgument as error:
        raise error.within("study") from None
    return command


def _checked_update(request: pb.UpdateStudyRequest) -> studies.UpdateStudy:
    command = read_update(request)
    try:
        command.validate()
    except InvalidArgument as error:
        raise error.within("study") from None
    return command


def _pack(counted: studies.CountedStudy) -> bytes:
    return study_message(counted).SerializeToString()
