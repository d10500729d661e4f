"""Trials, and the calls that hand them out and end them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from asktell.server.application.ask import Answer, Ask, Reason
from asktell.server.application.leases import Directive, Release, Renew, Renewal, Report, Verdict
from asktell.server.application.ports import Request
from asktell.server.application.tell import (
    Failed,
    Infeasible,
    Outcome,
    Refusal,
    Result,
    Stopped,
    Succeeded,
    Taken,
    Tell,
)
from asktell.server.application.trials import AddTrials, Hypervolume, ListTrials, NewTrial, Optimal
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.study import StudyName
from asktell.server.domain.text import check_request_id, check_worker_id
from asktell.server.domain.trial import Lease, Origin, Prediction, Trial, TrialName, TrialState
from asktell.server.rpc.convert.metric import measurement_message, put_metrics, read_measurements, read_metrics
from asktell.server.rpc.convert.page import read_after_number, read_page_size
from asktell.server.rpc.convert.space import put_parameters, read_parameters
from asktell.server.rpc.convert.time import duration, put_duration, put_time, read_duration, read_time
from asktell.server.rpc.errors import MAX_MESSAGE, STATUS_OF
from asktell.v1 import trial_service_pb2 as pb

_STATES = {state: getattr(pb.Trial, f"STATE_{state.name}") for state in TrialState}
_STATES_READ = {message: state for state, message in _STATES.items()}
_REASONS = {reason: getattr(pb.AskResponse, f"REASON_{reason.name}") for reason in Reason}
_DIRECTIVES = {directive: getattr(pb, f"DIRECTIVE_{directive.name}") for directive in Directive}


def read_request(
    method: str, request: pb.AskRequest | pb.TellRequest | pb.ReleaseTrialRequest | pb.AddTrialsRequest
) -> Request | None:
    """What makes the call safe to repeat; None without a request id."""
    request_id = check_request_id("request_id", request.request_id)
    if not request_id:
        return None
    payload = request.SerializeToString(deterministic=True)
    return Request(method, request_id, hashlib.sha256(payload).hexdigest())


def read_ask(request: pb.AskRequest, *, patience: float) -> Ask:
    """The command of Ask; the caller waits `patience` seconds."""
    lease = read_duration("lease_duration", request.lease_duration) if request.HasField("lease_duration") else None
    return Ask(
        study=StudyName.parse(request.parent, path="parent"),
        count=request.count if request.HasField("count") else 1,
        worker_id=request.worker_id,
        lease_duration=lease,
        fixed=read_parameters("fixed_parameters", request.fixed_parameters),
        request=read_request("Ask", request),
        deadline=time.monotonic() + patience,
    )


def answer_message(answer: Answer) -> pb.AskResponse:
    """The message for an answer; its trials show their leases' tokens."""
    response = pb.AskResponse(
        study_state=pb.AskResponse.STATE_CLOSED if answer.closed else pb.AskResponse.STATE_OPEN,
        reason=_REASONS[answer.reason] if answer.reason else pb.AskResponse.REASON_UNSPECIFIED,
        retry_after=None if answer.retry_after is None else duration(answer.retry_after),
    )
    for trial in answer.trials:
        put_trial(response.trials.add(), answer.study, trial, token=True)
    return response


def read_tell(request: pb.TellRequest) -> Tell:
    """The command of Tell."""
    return Tell(
        study=StudyName.parse(request.parent, path="parent"),
        results=tuple(_read_result(result) for result in request.results),
        independent=request.independent,
        request=read_request("Tell", request),
    )


def taken_message(study: StudyName, taken: Taken) -> pb.TellResponse:
    """The reply of Tell."""
    response = pb.TellResponse(refusals=[_refusal_message(refusal) for refusal in taken.refusals])
    for trial in taken.trials:
        put_trial(response.trials.add(), study, trial)
    return response


def _refusal_message(refusal: Refusal) -> pb.TellResponse.Refusal:
    error = refusal.error
    return pb.TellResponse.Refusal(
        number=refusal.number,
        code=STATUS_OF[type(error)],
        reason=error.reason,
        message=str(error)[:MAX_MESSAGE],
        field=error.field[:MAX_MESSAGE] if isinstance(error, InvalidArgument) else "",
    )


def _read_result(result: pb.TrialResult) -> Result:
    return Result(
        number=result.number,
        lease_token=result.lease_token,
        outcome=_read_outcome(result),
        metadata=dict(result.metadata) if result.metadata else {},
        checkpoint_uri=result.checkpoint_uri,
    )


def _read_outcome(result: pb.TrialResult) -> Outcome | None:
    match result.WhichOneof("outcome"):
        case "succeeded":
            return Succeeded(read_metrics(result.succeeded.metrics))
        case "failed":
            return Failed(result.failed.message, result.failed.retry)
        case "infeasible":
            return Infeasible(result.infeasible.message)
        case "stopped":
            return Stopped(read_metrics(result.stopped.metrics), result.stopped.message)
        case _:
            return None


def read_report(request: pb.ReportRequest) -> Report:
    """The command of Report."""
    return Report(
        trial=TrialName.parse(request.name, path="name"),
        lease_token=request.lease_token,
        measurements=read_measurements(request.measurements),
        checkpoint_uri=request.checkpoint_uri,
    )


def report_message(verdict: Verdict) -> pb.ReportResponse:
    """The reply of Report."""
    return pb.ReportResponse(
        directive=_DIRECTIVES[verdict.directive], message=verdict.message, lease=lease_message(verdict.lease)
    )


def read_renew(request: pb.RenewLeasesRequest) -> Renew:
    """The command of RenewLeases."""
    return Renew(
        study=StudyName.parse(request.parent, path="parent"),
        renewals=tuple(Renewal(renewal.number, renewal.lease_token) for renewal in request.renewals),
    )


def renew_message(verdicts: Sequence[Verdict]) -> pb.RenewLeasesResponse:
    """The reply of RenewLeases."""
    return pb.RenewLeasesResponse(
        leases=[
            pb.RenewedLease(
                number=verdict.number,
                directive=_DIRECTIVES[verdict.directive],
                message=verdict.message,
                lease=lease_message(verdict.lease),
            )
            for verdict in verdicts
        ]
    )


def read_release(request: pb.ReleaseTrialRequest) -> Release:
    """The command of ReleaseTrial."""
    return Release(
        trial=TrialName.parse(request.name, path="name"),
        lease_token=request.lease_token,
        checkpoint_uri=request.checkpoint_uri,
        request=read_request("ReleaseTrial", request),
    )


def read_add(request: pb.AddTrialsRequest, *, new_nonce: Callable[[], str]) -> AddTrials:
    """The command of AddTrials."""
    return AddTrials(
        study=StudyName.parse(request.parent, path="parent"),
        trials=tuple(_read_new(f"trials[{index}]", trial) for index, trial in enumerate(request.trials)),
        nonces=[new_nonce() for _ in request.trials],
        request=read_request("AddTrials", request),
    )


def read_trial(message: pb.Trial) -> Trial:
    """A trial of an archive, without its measurements; paths are relative to it."""
    present = {"name": message.name, "lease": message.HasField("lease"), "measurements": message.measurements}
    for name in (name for name, found in present.items() if found):
        raise InvalidArgument(name, "must be absent from an archive")
    return Trial(
        number=message.number,
        state=_read_state("state", message.state),
        parameters=read_parameters("parameters", message.parameters),
        origin=_read_origin(message.origin),
        nonce="",
        metrics=read_metrics(message.metrics),
        message=message.message,
        metadata=dict(message.metadata),
        worker_id=message.worker_id,
        attempt=message.attempt,
        spent_attempts=message.spent_attempts,
        checkpoint_uri=message.checkpoint_uri,
        parent=message.parent,
        member=message.member,
        sequence=message.sequence,
        create_time=read_time(message, "create_time"),
        start_time=read_time(message, "start_time") if message.HasField("start_time") else None,
        end_time=read_time(message, "end_time") if message.HasField("end_time") else None,
    )


def _read_origin(message: pb.Origin) -> Origin:
    return Origin(
        policy=message.policy,
        method=message.method,
        fallback=message.fallback,
        reason=message.reason,
        predictions={
            metric: Prediction(prediction.mean, prediction.standard_deviation)
            for metric, prediction in message.predictions.items()
        },
        acquisition=message.acquisition if message.HasField("acquisition") else None,
        incumbent=message.incumbent if message.HasField("incumbent") else None,
        compute_duration=read_duration("origin.compute_duration", message.compute_duration),
        made_for=message.made_for,
    )


def _read_new(path: str, message: pb.NewTrial) -> NewTrial:
    return NewTrial(
        parameters=read_parameters(f"{path}.parameters", message.parameters),
        state=_read_state(f"{path}.state", message.state) if message.state else TrialState.QUEUED,
        metrics=read_metrics(message.metrics),
        measurements=read_measurements(message.measurements),
        message=message.message,
        metadata=dict(message.metadata),
    )


def _read_state(path: str, state: pb.Trial.State.ValueType) -> TrialState:
    if state not in _STATES_READ:
        raise InvalidArgument(path, f"{state} is not a state of a trial")
    return _STATES_READ[state]


def read_list(request: pb.ListTrialsRequest) -> ListTrials:
    """The command of ListTrials, which asks for one trial more than the page has, to see whether there is another page."""
    return ListTrials(
        study=StudyName.parse(request.parent, path="parent"),
        after=read_after_number(request),
        limit=read_page_size(request.page_size) + 1,
        states=[_read_state(f"states[{index}]", state) for index, state in enumerate(request.states)],
        worker_id=request.worker_id and check_worker_id("worker_id", request.worker_id),
    )


def trial_message(study: StudyName, trial: Trial, *, token: bool = False) -> pb.Trial:
    """The message for a trial; `token`: whether its lease shows the token, for its holder alone."""
    message = pb.Trial()
    put_trial(message, study, trial, token=token)
    return message


def asked_size(study: StudyName, trial: Trial) -> int:
    """How many bytes a leased trial takes in the reply of Ask."""
    return trial_message(study, trial, token=True).ByteSize()


def archived_trial_message(trial: Trial) -> pb.Trial:
    """The message for a trial, without name, lease and measurements."""
    message = pb.Trial()
    _put_archived(message, trial)
    return message


def put_trial(message: pb.Trial, study: StudyName, trial: Trial, *, token: bool = False) -> None:
    """Fill an empty message as `trial_message` does. Filled in its place a reply costs a third of what copies of its parts cost."""
    _put_archived(message, trial)
    message.name = str(TrialName(study, trial.number))
    if trial.measurements:
        message.measurements.extend(measurement_message(measurement) for measurement in trial.measurements)
    if trial.lease is not None and trial.state is TrialState.ACTIVE:
        _put_lease(message.lease, trial.lease, token=token)


def _put_archived(message: pb.Trial, trial: Trial) -> None:
    message.number = trial.number
    message.state = _STATES[trial.state]
    put_parameters(message.parameters, trial.parameters)
    put_metrics(message.metrics, trial.metrics)
    _put_origin(message.origin, trial.origin)
    message.message = trial.message
    if trial.metadata:
        message.metadata.update(trial.metadata)
    message.attempt = trial.attempt
    message.checkpoint_uri = trial.checkpoint_uri
    message.parent = trial.parent
    message.member = trial.member
    message.sequence = trial.sequence
    put_time(message.create_time, trial.create_time)
    put_time(message.start_time, trial.start_time)
    put_time(message.end_time, trial.end_time)
    message.worker_id = trial.worker_id
    message.spent_attempts = trial.spent_attempts


def lease_message(lease: Lease | None, *, token: bool = False) -> pb.Lease | None:
    """The message for a lease; None stays None."""
    if lease is None:
        return None
    message = pb.Lease()
    _put_lease(message, lease, token=token)
    return message


def _put_lease(message: pb.Lease, lease: Lease, *, token: bool) -> None:
    if token:
        message.token = lease.token
    message.worker_id = lease.worker_id
    put_time(message.expire_time, lease.expire_time)
    put_duration(message.duration, lease.duration)


def _put_origin(message: pb.Origin, origin: Origin) -> None:
    message.policy = origin.policy
    message.method = origin.method
    message.fallback = origin.fallback
    message.reason = origin.reason
    for metric, prediction in origin.predictions.items():
        predicted = message.predictions[metric]
        predicted.mean, predicted.standard_deviation = prediction.mean, prediction.standard_deviation
    if origin.acquisition is not None:
        message.acquisition = origin.acquisition
    if origin.incumbent is not None:
        message.incumbent = origin.incumbent
    put_duration(message.compute_duration, origin.compute_duration)
    message.made_for = origin.made_for


def trial_messages(study: StudyName, trials: Sequence[Trial]) -> list[pb.Trial]:
    """The messages for trials."""
    return [trial_message(study, trial) for trial in trials]


def optimal_message(study: StudyName, found: Optimal) -> pb.ListOptimalTrialsResponse:
    """The message for what is optimal."""
    hypervolume = None if found.hypervolume is None else _hypervolume_message(found.hypervolume)
    return pb.ListOptimalTrialsResponse(trials=trial_messages(study, found.trials), hypervolume=hypervolume)


def _hypervolume_message(hypervolume: Hypervolume) -> pb.Hypervolume:
    history = [pb.Hypervolume.Step(number=volume.number, value=volume.value) for volume in hypervolume.history]
    return pb.Hypervolume(value=hypervolume.value, reference=hypervolume.reference, history=history)
