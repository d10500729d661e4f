"""StudyService."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.empty_pb2 import Empty

from asktell.server.application import studies
from asktell.server.application.clerk import Clerk
from asktell.server.application.exports import export_study
from asktell.server.application.history import History
from asktell.server.application.imports import Importer
from asktell.server.application.ports import Engine, Store
from asktell.server.application.watch import Feeds
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.study import StudyName
from asktell.server.rpc.convert.archive import read_batches, read_import
from asktell.server.rpc.convert.page import fitting, page_token, read_after_name, read_page_size
from asktell.server.rpc.convert.study import read_create, read_project, read_update, study_message
from asktell.server.rpc.spool import Spool
from asktell.v1 import study_service_pb2 as pb
from asktell.v1.study_service_pb2_grpc import StudyServiceServicer

EXPORTS_AT_ONCE = 2
"""Further exports wait to begin, lest they take all the connections that read."""


@dataclass(frozen=True, slots=True)
class StudyServicer(StudyServiceServicer):
    """Unpacks, calls the use case, packs."""

    store: Store
    clerk: Clerk
    engine: Engine
    history: History
    feeds: Feeds
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(EXPORTS_AT_ONCE))

    async def CreateStudy(self, request: pb.CreateStudyRequest, context: Any) -> pb.Study:
        command = read_create(request, drawn_seed=secrets.randbits(31))
        try:
            command.validate(self.engine.policies())
        except InvalidArgument as error:
            raise error.within("study") from None
        return study_message(await self.store.write(lambda tx: studies.create_study(tx, command)))

    async def GetStudy(self, request: pb.GetStudyRequest, context: Any) -> pb.Study:
        name = StudyName.parse(request.name, path="name")
        return study_message(await self.store.read(lambda tx: studies.get_study(tx, name)))

    async def ListStudies(self, request: pb.ListStudiesRequest, context: Any) -> pb.ListStudiesResponse:
        project = read_project("parent", request.parent)
        size, after = read_page_size(request.page_size), read_after_name(request)
        found = await self.store.read(lambda tx: studies.list_studies(tx, project=project, after=after, limit=size + 1))
        page = fitting(study_message(item) for item in found[:size])
        token = page_token(request, found[len(page) - 1].study.name.study) if len(found) > len(page) else ""
        return pb.ListStudiesResponse(studies=page, next_page_token=token)

    async def UpdateStudy(self, request: pb.UpdateStudyRequest, context: Any) -> pb.Study:
        command = read_update(request)
        try:
            command.validate()
        except InvalidArgument as error:
            raise error.within("study") from None
        return study_message(await self.clerk.write(command.name, lambda tx: studies.update_study(tx, command)))

    async def DeleteStudy(self, request: pb.DeleteStudyRequest, context: Any) -> Empty:
        name = StudyName.parse(request.name, path="name")
        await self.store.write(lambda tx: studies.delete_study(tx, name))
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
        # Packed already, once for all who watch the study: the interceptor sends them as they are.
        return self.feeds.watch(StudyName.parse(request.name, path="name"), request.after_sequence)


def _pack(counted: studies.CountedStudy) -> bytes:
    return study_message(counted).SerializeToString()
