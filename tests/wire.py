"""The service as any client in any language sees it: raw stubs on a connection of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from asktell.v1 import metric_pb2 as metric
from asktell.v1 import search_space_pb2 as space
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import surrogate_service_pb2 as surrogates
from asktell.v1 import trial_service_pb2 as trials

SERVICES = {
    "StudyService": studies.DESCRIPTOR,
    "TrialService": trials.DESCRIPTOR,
    "SurrogateService": surrogates.DESCRIPTOR,
}
METHODS = {
    method.name: f"/asktell.v1.{service}/{method.name}"
    for service, file in SERVICES.items()
    for method in file.services_by_name[service].methods
}
DEADLINE = 30.0


class Wire:
    """One client with one connection. Each call has a deadline, and fails at once if nobody listens unless `wait` says so."""

    def __init__(self, target: str, *, wait: bool = False) -> None:
        # Without a pool of its own, all clients of this process share one connection and its backoff.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
        self.channel = grpc.insecure_channel(target, options=options)
        self._wait = wait

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def send(self, method: str, payload: bytes, *, deadline: float = DEADLINE, **options: Any) -> bytes:
        """The bytes of the reply to the bytes of a request."""
        call = self.channel.unary_unary(METHODS[method])
        reply: bytes = call(payload, timeout=deadline, wait_for_ready=self._wait, **options)
        return reply

    def call(self, method: str, request: Message, *, deadline: float = DEADLINE) -> Any:
        """The reply of a unary method."""
        return reply_type(method).FromString(self.send(method, request.SerializeToString(), deadline=deadline))

    def watch(self, study: str, after: int = 0, *, deadline: float = DEADLINE) -> Any:
        """The responses of WatchStudy, once it has begun; `cancel` it to hang up."""
        call = self.channel.unary_stream(
            METHODS["WatchStudy"],
            request_serializer=studies.WatchStudyRequest.SerializeToString,
            response_deserializer=studies.WatchStudyResponse.FromString,
        )
        request = studies.WatchStudyRequest(name=study, after_sequence=after)
        stream = call(request, timeout=deadline, wait_for_ready=self._wait)
        begun: studies.WatchStudyResponse = next(stream)
        assert (begun.sequence, len(begun.changes)) == (after, 0)
        return stream

    def surely(self, method: str, request: Message) -> Any:
        """The reply of a call that is safe to repeat, repeated for as long as servers come and go."""
        while True:
            try:
                return self.call(method, request)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise

    def create(self, study: str, message: studies.Study) -> studies.Study:
        """Create `projects/p/studies/{study}`."""
        request = studies.CreateStudyRequest(parent="projects/p", study_id=study, study=message)
        reply: studies.Study = self.call("CreateStudy", request)
        return reply

    def study(self, name: str) -> studies.Study:
        reply: studies.Study = self.call("GetStudy", studies.GetStudyRequest(name=name))
        return reply

    def trial(self, study: str, number: int) -> trials.Trial:
        reply: trials.Trial = self.call("GetTrial", trials.GetTrialRequest(name=f"{study}/trials/{number}"))
        return reply

    def all_trials(self, study: str) -> list[trials.Trial]:
        """Every trial, page by page."""
        found: list[trials.Trial] = []
        token = ""
        while True:
            request = trials.ListTrialsRequest(parent=study, page_size=1000, page_token=token)
            page = self.call("ListTrials", request)
            found.extend(page.trials)
            token = page.next_page_token
            if not token:
                return found

    def ask(self, study: str, worker_id: str = "w", **fields: Any) -> trials.AskResponse:
        request = trials.AskRequest(parent=study, worker_id=worker_id, **fields)
        reply: trials.AskResponse = self.call("Ask", request)
        return reply

    def one(self, study: str, worker_id: str = "w", **fields: Any) -> trials.Trial:
        """The one trial that an ask gets."""
        (trial,) = self.ask(study, worker_id, **fields).trials
        return trial

    def tell(self, trial: trials.Trial, value: float, *, request_id: str = "") -> trials.Trial:
        """Tell an asked trial as succeeded."""
        reply = self.call("Tell", tell_request(trial, value, request_id=request_id))
        told: trials.Trial = reply.trials[0]
        return told

    def enqueue(self, study: str, values: Iterable[float], *, request_id: str = "") -> list[trials.Trial]:
        """Add trials of a `small_study` for workers to evaluate."""
        new = [trials.NewTrial(parameters={"x": real(value)}) for value in values]
        reply = self.call("AddTrials", trials.AddTrialsRequest(parent=study, trials=new, request_id=request_id))
        return list(reply.trials)


def reply_type(method: str) -> type[Message]:
    """The class of a method's reply."""
    found: type[Message] = _descriptor(method).output_type._concrete_class
    return found


def request_type(method: str) -> type[Message]:
    """The class of a method's request."""
    found: type[Message] = _descriptor(method).input_type._concrete_class
    return found


def _descriptor(method: str) -> Any:
    service = METHODS[method].split("/")[1].removeprefix("asktell.v1.")
    return SERVICES[service].services_by_name[service].methods_by_name[method]


def small_study(*, budget: Mapping[str, Any] | None = None, **spec: Any) -> studies.Study:
    """A study with one float `x` in [0, 1] that minimises `loss`, by random search unless `spec` says otherwise.

    Its leases are long: one that ran out during a long run of the tests would change the database under another test.
    """
    chosen: dict[str, Any] = {"policy": "random", "seed": 1, "lease_duration": seconds(3600), **spec}
    return studies.Study(
        spec=studies.StudySpec(
            parameters=[space.ParameterSpec(name="x", float_spec=space.FloatSpec(low=0, high=1))],
            objectives=[metric.Objective(metric="loss", goal=metric.Objective.GOAL_MINIMIZE)],
            **chosen,
        ),
        budget=studies.Budget(**(budget or {})),
    )


def tell_request(trial: trials.Trial, value: float, *, request_id: str = "") -> trials.TellRequest:
    """The request that tells an asked trial as succeeded with a loss."""
    outcome = trials.TrialResult.Succeeded(metrics={"loss": metric.MetricValue(value=value)})
    result = trials.TrialResult(number=trial.number, lease_token=trial.lease.token, succeeded=outcome)
    return trials.TellRequest(parent=study_of(trial), results=[result], request_id=request_id)


def report_request(trial: trials.Trial, step: int, value: float) -> trials.ReportRequest:
    """The request that reports one measurement."""
    measurement = metric.Measurement(step=step, metrics={"loss": metric.MetricValue(value=value)})
    return trials.ReportRequest(name=trial.name, lease_token=trial.lease.token, measurements=[measurement])


def renew_request(trial: trials.Trial) -> trials.RenewLeasesRequest:
    """The request that renews one lease."""
    renewal = trials.LeaseRenewal(number=trial.number, lease_token=trial.lease.token)
    return trials.RenewLeasesRequest(parent=study_of(trial), renewals=[renewal])


def study_of(trial: trials.Trial) -> str:
    """The name of a trial's study."""
    return trial.name.partition("/trials/")[0]


def real(value: float) -> space.ParameterValue:
    return space.ParameterValue(double_value=value)


def changes(stream: Iterable[studies.WatchStudyResponse], count: int) -> list[studies.Change]:
    """The next changes of a watch, at least that many."""
    found: list[studies.Change] = []
    while len(found) < count:
        found.extend(next(iter(stream)).changes)
    return found


def whole(value: int) -> space.ParameterValue:
    return space.ParameterValue(int64_value=value)


def text(value: str) -> space.ParameterValue:
    return space.ParameterValue(string_value=value)


def seconds(value: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=value))
    return message


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused: the status, the reason for programs, and the field at fault, if any."""

    code: grpc.StatusCode
    message: str
    reason: str
    field: str


def refusal(call: Callable[[], Any]) -> Refusal:
    """The refusal that a call must get."""
    try:
        reply = call()
    except grpc.RpcError as error:
        return refusal_of(error)
    raise AssertionError(f"the call was not refused; it got {str(reply)[:500]!r}")


def refusal_of(error: Any) -> Refusal:
    """What an error of a call says."""
    status = rpc_status.from_call(error)
    details = status.details if status is not None else ()
    info, bad = ErrorInfo(), BadRequest()
    for detail in details:
        detail.Unpack(info)
        detail.Unpack(bad)
    field = bad.field_violations[0].field if bad.field_violations else ""
    return Refusal(error.code(), error.details() or "", info.reason, field)
