"""A service that keeps its studies in memory: enough of the protocol to drive a client, with failures on demand."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from asktell.v1 import (
    study_service_pb2 as studies_pb2,
)
from asktell.v1 import (
    study_service_pb2_grpc,
    surrogate_service_pb2_grpc,
    trial_service_pb2_grpc,
)
from asktell.v1 import (
    trial_service_pb2 as trials_pb2,
)

Trial = trials_pb2.Trial


def refusal(code: int, message: str, *details: Message) -> grpc.Status:
    """A rich status, as the service sends it."""
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return rpc_status.to_status(status_pb2.Status(code=code, message=message, details=packed))


def unavailable() -> grpc.Status:
    """What a restarting server says."""
    return refusal(code_pb2.UNAVAILABLE, "restarting")


def precondition(message: str, reason: str) -> grpc.Status:
    """A call that the state does not allow."""
    return refusal(code_pb2.FAILED_PRECONDITION, message, error_details_pb2.ErrorInfo(reason=reason, domain="asktell"))


def tick(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let each look at the clock by which a client's patience ends be `seconds` after the one before, however long its tries take here."""
    monkeypatch.setattr("tenacity.time", SimpleNamespace(monotonic=count(0.0, seconds).__next__))


@dataclass
class Service:
    """The state behind the servicers. `scripted` failures come first; `directives` are what reports and renewals hear."""

    studies: dict[str, studies_pb2.Study] = field(default_factory=dict)
    trials: dict[str, dict[int, Trial]] = field(default_factory=lambda: defaultdict(dict))
    scripted: dict[str, deque[grpc.Status]] = field(default_factory=lambda: defaultdict(deque))
    requests: dict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))
    replies: dict[str, Message] = field(default_factory=dict)
    directives: dict[int, tuple[int, str]] = field(default_factory=dict)
    waits: deque[float] = field(default_factory=deque)
    reason: trials_pb2.AskResponse.Reason = trials_pb2.AskResponse.REASON_MAX_PARALLEL
    changed: threading.Condition = field(default_factory=threading.Condition)
    target: str = ""

    def fail(self, method: str, *statuses: grpc.Status) -> None:
        """Answer the next calls of a method so, before it does anything."""
        self.scripted[method].extend(statuses)

    def wait_for(self, method: str, count: int) -> list[Message]:
        """Block until a method was called that often; its requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests[method]) >= count, timeout=60)
            return list(self.requests[method])

    def begin(self, method: str, request: Message, context: grpc.ServicerContext) -> None:
        with self.changed:
            self.requests[method].append(request)
            self.changed.notify_all()
            if self.scripted[method]:
                context.abort_with_status(self.scripted[method].popleft())

    def study(self, name: str, context: grpc.ServicerContext) -> studies_pb2.Study:
        if name not in self.studies:
            context.abort_with_status(
                refusal(
                    code_pb2.NOT_FOUND,
                    f"there is no study {name}",
                    error_details_pb2.ErrorInfo(reason="STUDY_NOT_FOUND", domain="asktell"),
                )
            )
        return self.studies[name]

    def trial(self, name: str) -> Trial:
        study, _, number = name.rpartition("/trials/")
        return self.trials[study][int(number)]

    def add(self, study: str, state: Trial.State.ValueType, **fields: object) -> Trial:
        number = len(self.trials[study]) + 1
        trial = Trial(name=f"{study}/trials/{number}", number=number, state=state, **fields)
        self.trials[study][number] = trial
        return trial

    def lease(self, trial: Trial, request: trials_pb2.AskRequest) -> None:
        trial.state = Trial.STATE_ACTIVE
        trial.attempt += 1
        trial.lease.token = f"token-{trial.number}-{trial.attempt}"
        trial.lease.worker_id = trial.worker_id = request.worker_id
        trial.lease.expire_time.GetCurrentTime()
        spec = self.studies[request.parent].spec
        duration = request.lease_duration if request.HasField("lease_duration") else spec.lease_duration
        trial.lease.duration.CopyFrom(duration)

    def directive(self, number: int) -> tuple[int, str]:
        return self.directives.get(number, (trials_pb2.DIRECTIVE_CONTINUE, ""))


def take(path: str, source: Any, target: Any) -> None:
    """Have what a path of a mask names be as in another message."""
    name, _, part = path.partition(".")
    if name == "labels" and part:
        key = part[1:-1].replace("``", "`") if part.startswith("`") else part
        target.labels.pop(key, None)
        target.labels.update({key: source.labels[key]} if key in source.labels else {})
    elif part:
        take(part, getattr(source, name), getattr(target, name))
    else:
        target.ClearField(name)
        given = {found.name: value for found, value in source.ListFields()}
        target.MergeFrom(type(source)(**{name: given.get(name)}))


class Studies(study_service_pb2_grpc.StudyServiceServicer):
    def __init__(self, service: Service) -> None:
        self.service = service

    def CreateStudy(self, request, context):
        self.service.begin("CreateStudy", request, context)
        study = request.study
        study.name = f"{request.parent}/studies/{request.study_id}"
        study.state = studies_pb2.Study.STATE_ACTIVE
        if not study.spec.HasField("lease_duration"):
            study.spec.lease_duration.FromTimedelta(timedelta(seconds=60))
        return self.service.studies.setdefault(study.name, study)

    def GetStudy(self, request, context):
        self.service.begin("GetStudy", request, context)
        return self.service.study(request.name, context)

    def ListStudies(self, request, context):
        """Pages of one."""
        self.service.begin("ListStudies", request, context)
        names = sorted(self.service.studies)
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(names) else ""
        page = [self.service.studies[name] for name in names[start : start + 1]]
        return studies_pb2.ListStudiesResponse(studies=page, next_page_token=token)

    def UpdateStudy(self, request, context):
        self.service.begin("UpdateStudy", request, context)
        study = self.service.study(request.study.name, context)
        for path in request.update_mask.paths:
            take(path, request.study, study)
        return study

    def DeleteStudy(self, request, context):
        self.service.begin("DeleteStudy", request, context)
        self.service.study(request.name, context)
        del self.service.studies[request.name]
        return Empty()

    def WatchStudy(self, request, context):
        """The trials as changes, of which each connection carries two before it breaks."""
        self.service.begin("WatchStudy", request, context)
        yield studies_pb2.WatchStudyResponse(sequence=request.after_sequence)
        for trial in list(self.service.trials[request.name].values())[request.after_sequence :][:2]:
            change = studies_pb2.Change(sequence=trial.number, trial=trial)
            yield studies_pb2.WatchStudyResponse(changes=[change], sequence=trial.number)
        context.abort_with_status(unavailable())


class Trials(trial_service_pb2_grpc.TrialServiceServicer):
    def __init__(self, service: Service) -> None:
        self.service = service

    def Ask(self, request, context):
        self.service.begin("Ask", request, context)
        if request.request_id in self.service.replies:
            return self.service.replies[request.request_id]
        study = self.service.study(request.parent, context)
        if self.service.waits:
            reply = trials_pb2.AskResponse(study_state=trials_pb2.AskResponse.STATE_OPEN, reason=self.service.reason)
            reply.retry_after.FromTimedelta(timedelta(seconds=self.service.waits.popleft()))
            return reply
        with self.service.changed:
            reply = self._hand_out(study, request)
        self.service.replies[request.request_id] = reply
        return reply

    def _hand_out(self, study, request):
        trials = self.service.trials[study.name]
        found = [trial for trial in trials.values() if trial.state == Trial.STATE_QUEUED][: request.count]
        left = study.budget.max_trials - len(trials) if study.budget.HasField("max_trials") else request.count
        for _ in range(min(request.count - len(found), left)):
            trial = self.service.add(study.name, Trial.STATE_QUEUED)
            trial.parameters["x"].double_value = trial.number / 10
            found.append(trial)
        for trial in found:
            self.service.lease(trial, request)
        if len(found) == request.count:
            return trials_pb2.AskResponse(trials=found, study_state=trials_pb2.AskResponse.STATE_OPEN)
        return trials_pb2.AskResponse(
            trials=found,
            study_state=trials_pb2.AskResponse.STATE_CLOSED,
            reason=trials_pb2.AskResponse.REASON_BUDGET_SPENT,
        )

    def Tell(self, request, context):
        self.service.begin("Tell", request, context)
        return trials_pb2.TellResponse(trials=[self._end(request.parent, each, context) for each in request.results])

    def _end(self, study, result, context):
        trial = self.service.trials[study][result.number]
        if trial.lease.token != result.lease_token:
            context.abort_with_status(precondition(f"trial {trial.number}: the lease was lost", "LEASE_LOST"))
        ending = getattr(result, kind := result.WhichOneof("outcome"))
        trial.state = getattr(Trial, f"STATE_{kind.upper()}")
        trial.message = getattr(ending, "message", "")
        for name, metric in getattr(ending, "metrics", {}).items():
            trial.metrics[name].CopyFrom(metric)
        trial.metadata.update(result.metadata)
        trial.checkpoint_uri = result.checkpoint_uri or trial.checkpoint_uri
        trial.ClearField("lease")
        return trial

    def Report(self, request, context):
        self.service.begin("Report", request, context)
        trial = self.service.trial(request.name)
        trial.measurements.extend(request.measurements)
        trial.checkpoint_uri = request.checkpoint_uri or trial.checkpoint_uri
        directive, message = self.service.directive(trial.number)
        reply = trials_pb2.ReportResponse(directive=directive, message=message)
        if directive != trials_pb2.DIRECTIVE_ABANDON:
            reply.lease.CopyFrom(trial.lease)
            reply.lease.token = ""
        return reply

    def RenewLeases(self, request, context):
        self.service.begin("RenewLeases", request, context)
        reply = trials_pb2.RenewLeasesResponse()
        for renewal in request.renewals:
            directive, message = self.service.directive(renewal.number)
            renewed = reply.leases.add(number=renewal.number, directive=directive, message=message)
            if directive != trials_pb2.DIRECTIVE_ABANDON:
                renewed.lease.CopyFrom(self.service.trials[request.parent][renewal.number].lease)
                renewed.lease.token = ""
        return reply

    def ReleaseTrial(self, request, context):
        self.service.begin("ReleaseTrial", request, context)
        trial = self.service.trial(request.name)
        trial.state = Trial.STATE_QUEUED
        trial.checkpoint_uri = request.checkpoint_uri
        trial.ClearField("lease")
        return trial

    def AddTrials(self, request, context):
        self.service.begin("AddTrials", request, context)
        added = []
        for new in request.trials:
            trial = self.service.add(request.parent, new.state or Trial.STATE_QUEUED, metadata=new.metadata)
            for name, value in new.parameters.items():
                trial.parameters[name].CopyFrom(value)
            for name, metric in new.metrics.items():
                trial.metrics[name].CopyFrom(metric)
            added.append(trial)
        return trials_pb2.AddTrialsResponse(trials=added)

    def GetTrial(self, request, context):
        self.service.begin("GetTrial", request, context)
        return self.service.trial(request.name)

    def ListTrials(self, request, context):
        """Pages of two."""
        self.service.begin("ListTrials", request, context)
        after = int(request.page_token or 0)
        wanted = [
            trial
            for trial in self.service.trials[request.parent].values()
            if trial.number > after and (not request.states or trial.state in request.states)
        ]
        token = str(wanted[1].number) if len(wanted) > 2 else ""
        return trials_pb2.ListTrialsResponse(trials=wanted[:2], next_page_token=token)

    def ListOptimalTrials(self, request, context):
        """The smallest first objective."""
        self.service.begin("ListOptimalTrials", request, context)
        metric = self.service.study(request.parent, context).spec.objectives[0].metric
        done = [trial for trial in self.service.trials[request.parent].values() if metric in trial.metrics]
        return trials_pb2.ListOptimalTrialsResponse(
            trials=sorted(done, key=lambda trial: trial.metrics[metric].value)[:1]
        )

    def CancelTrial(self, request, context):
        self.service.begin("CancelTrial", request, context)
        trial = self.service.trial(request.name)
        trial.state = Trial.STATE_CANCELLED
        return trial


class Surrogates(surrogate_service_pb2_grpc.SurrogateServiceServicer):
    """Implements nothing."""

    def Predict(self, request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")

    Importance = Predict
    CrossValidate = Predict


@contextmanager
def serving() -> Iterator[Service]:
    """A service on a free port of the loopback."""
    service = Service()
    server = grpc.server(ThreadPoolExecutor(8))
    study_service_pb2_grpc.add_StudyServiceServicer_to_server(Studies(service), server)
    trial_service_pb2_grpc.add_TrialServiceServicer_to_server(Trials(service), server)
    surrogate_service_pb2_grpc.add_SurrogateServiceServicer_to_server(Surrogates(), server)
    service.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield service
    finally:
        server.stop(None).wait()
