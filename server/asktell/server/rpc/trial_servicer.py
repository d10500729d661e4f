"""TrialService."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asktell.server.application import leases, trials
from asktell.server.application.ask import Answer
from asktell.server.application.clerk import Clerk
from asktell.server.application.desk import Desk
from asktell.server.application.failpoints import reach
from asktell.server.application.ports import Transaction
from asktell.server.application.reports import Reports
from asktell.server.application.tell import Taken, tell
from asktell.server.domain.study import StudyName
from asktell.server.domain.trial import Trial, TrialName
from asktell.server.rpc.aside import Aside
from asktell.server.rpc.convert import trial as convert
from asktell.server.rpc.convert.page import fitting, page_token
from asktell.v1 import trial_service_pb2 as pb
from asktell.v1.trial_service_pb2_grpc import TrialServiceServicer

# What is left of the caller's patience for writing the trial down and sending the reply, in seconds.
MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class TrialServicer(TrialServiceServicer):
    """Unpacks, calls the use case, packs."""

    desk: Desk
    clerk: Clerk
    renewals: leases.Renewals
    reports: Reports
    aside: Aside = field(default_factory=Aside)

    async def Ask(self, request: pb.AskRequest, context: Any) -> Any:
        remaining = context.time_remaining()
        patience = math.inf if remaining is None else remaining - MARGIN
        command = convert.read_ask(request, patience=patience)
        reply = await self.desk.ask(command, pack=_pack_answer)
        reach("ask.replying")
        return reply

    async def Tell(self, request: pb.TellRequest, context: Any) -> Any:
        command = await self.aside.read(request, partial(convert.read_tell, request))
        last = Taken(())
        packed = b""

        def pack(taken: Taken) -> bytes:
            nonlocal last, packed
            # The transaction may be run again: what it came to at last counts.
            last, packed = taken, convert.taken_message(command.study, taken).SerializeToString()
            return packed

        def note(reply: bytes) -> None:
            # Not what a run came to that was undone, before another replica answered this request.
            if reply is packed:
                self.desk.meter.told(last.changed)

        change = tell(command, pack=pack, note=note)
        self.desk.telling(command)
        reply = await self.clerk.make(change)
        reach("tell.committed")
        if reply is packed:
            self.desk.told(command, last.trials)
        reach("tell.replying")
        return reply

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportResponse:
        verdict = await self.reports.report(await self.aside.read(request, partial(convert.read_report, request)))
        reach("report.committed")
        return convert.report_message(verdict)

    async def RenewLeases(self, request: pb.RenewLeasesRequest, context: Any) -> pb.RenewLeasesResponse:
        return convert.renew_message(await self.renewals.renew(convert.read_renew(request)))

    async def ReleaseTrial(self, request: pb.ReleaseTrialRequest, context: Any) -> Any:
        command = convert.read_release(request)

        def pack(released: Trial) -> bytes:
            return convert.trial_message(command.trial.study, released).SerializeToString()

        return await self.clerk.make(leases.release(command, pack=pack))

    async def AddTrials(self, request: pb.AddTrialsRequest, context: Any) -> Any:
        command = await self.aside.read(request, partial(_checked_add, request, self.desk.new_nonce))

        def pack(added: Sequence[Trial]) -> bytes:
            return pb.AddTrialsResponse(trials=convert.trial_messages(command.study, added)).SerializeToString()

        def add(tx: Transaction) -> bytes:
            return trials.add_trials(tx, command, pack=pack)

        return await self.clerk.write(command.study, add, weight=command.weight)

    async def GetTrial(self, request: pb.GetTrialRequest, context: Any) -> pb.Trial:
        name = TrialName.parse(request.name, path="name")
        return convert.trial_message(name.study, await self.desk.store.read(lambda tx: trials.get_trial(tx, name)))

    async def ListTrials(self, request: pb.ListTrialsRequest, context: Any) -> pb.ListTrialsResponse:
        command = convert.read_list(request)
        size = command.limit - 1
        found = await self.desk.store.read(lambda tx: trials.list_trials(tx, command))
        page = fitting(convert.trial_message(command.study, trial) for trial in found[:size])
        token = page_token(request, page[-1].number) if len(found) > len(page) else ""
        return pb.ListTrialsResponse(trials=page, next_page_token=token)

    async def ListOptimalTrials(
        self, request: pb.ListOptimalTrialsRequest, context: Any
    ) -> pb.ListOptimalTrialsResponse:
        name = StudyName.parse(request.parent, path="parent")
        found = await trials.list_optimal_trials(self.desk.history, self.desk.engine, name)
        return convert.optimal_message(name, found)

    async def CancelTrial(self, request: pb.CancelTrialRequest, context: Any) -> pb.Trial:
        name = TrialName.parse(request.name, path="name")
        cancelled = await self.clerk.make(trials.cancel_trial(name))
        return convert.trial_message(name.study, cancelled)


def _checked_add(request: pb.AddTrialsRequest, new_nonce: Callable[[], str]) -> trials.AddTrials:
    command = convert.read_add(request, new_nonce=new_nonce)
    command.validate()
    return command


def _pack_answer(answer: Answer) -> bytes:
    return convert.answer_message(answer).SerializeToString()
