"""The protocol, without a transport: each call as a request and what its reply means.

A request id is drawn when the call is made up, so that repeating the call repeats the id and the service does the work once.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from asktell.client import outcomes, wire
from asktell.client.archive import File
from asktell.client.claim import Claim
from asktell.client.errors import AskTellError, refused
from asktell.client.spec import Fidelity, Objective, OutcomeConstraint, ParameterSpec, ParameterValue, Population
from asktell.client.stopping import StoppingRule
from asktell.client.values import (
    KEEP,
    Answer,
    Budget,
    FinishedTrial,
    Hypervolume,
    Keep,
    LateTells,
    LeaveOneOut,
    MetricValue,
    Prediction,
    Progress,
    Seconds,
    StudyRecord,
    StudyState,
    TrialRecord,
    TrialState,
    Verdict,
    budget,
)
from asktell.v1 import search_space_pb2, study_service_pb2, surrogate_service_pb2, trial_service_pb2

T = TypeVar("T")
ItemT = TypeVar("ItemT")
Tidied: TypeAlias = Callable[[Mapping[str, ParameterValue]], Mapping[str, ParameterValue]]

PAGE = 500
BATCH = 1_000
BATCH_BYTES = 4 * 1024 * 1024
"""Of the trials that are added by one request; the service takes twice as much."""
LAST_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A method of a service, its request, and how its reply is read."""

    service: str
    method: str
    request: Message
    parse: Callable[[Any], T]

    @property
    def path(self) -> str:
        """The method's name, for people."""
        return f"{self.service}.{self.method}"


@dataclass(frozen=True, slots=True)
class Upload(Generic[T]):
    """A method of a service that takes a stream of requests, which are made anew for each attempt, and how its reply is read."""

    service: str
    method: str
    requests: Callable[[], Iterator[Message]]
    parse: Callable[[Any], T]

    @property
    def path(self) -> str:
        """The method's name, for people."""
        return f"{self.service}.{self.method}"


@dataclass(slots=True)
class Watched:
    """Requests that stop where making them failed, so that the service refuses what is not whole, and gRPC logs nothing; `failure` says why."""

    requests: Iterator[Message]
    failure: Exception | None = None

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        try:
            return next(self.requests)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise StopIteration from error


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Some items of a list, and the call that reads the next ones; None on the last page."""

    items: Sequence[ItemT]
    following: Call[Page[ItemT]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStudy:
    """What a study is created with; None leaves a field to the service."""

    parameters: Sequence[ParameterSpec]
    constraints: Sequence[str]
    objectives: Sequence[Objective]
    outcome_constraints: Sequence[OutcomeConstraint]
    noisy: bool
    warm_start: Sequence[str]
    stopping_rule: StoppingRule | None
    fidelity: Fidelity | None
    population: Population | None
    policy: str
    seed: int | None
    budget: Budget
    lease_duration: Seconds | None
    max_attempts: int | None
    late_tells: LateTells | str | None
    labels: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyUpdate:
    """What of a study is to change; KEEP leaves a part as it is, None drops a limit, a label or the rule."""

    max_trials: int | Keep | None
    max_duration: Seconds | Keep | None
    max_failures: int | Keep | None
    max_parallel: int | Keep | None
    labels: Mapping[str, str] | Keep
    label_changes: Mapping[str, str | None] | Keep
    parameters: Sequence[ParameterSpec] | Keep
    stopping_rule: StoppingRule | Keep | None

    @property
    def paths(self) -> list[str]:
        """What a mask names."""
        keys = () if isinstance(self.label_changes, Keep) else self.label_changes.keys()
        found = wire.members(keys, str, field="label_changes", like='{"team": "vision", "draft": None}')
        parts = {
            **{f"budget.{limit}": value for limit, value in self._limits().items()},
            "labels": self.labels,
            "spec.parameters": self.parameters,
            "spec.stopping_rule": self.stopping_rule,
        }
        return [*(path for path, part in parts.items() if part is not KEEP), *map(_label_path, found)]

    @property
    def texts(self) -> Mapping[str, str]:
        """The labels that are to be."""
        if not isinstance(self.labels, Keep):
            return self.labels
        changes = {} if isinstance(self.label_changes, Keep) else self.label_changes
        return {key: text for key, text in changes.items() if text is not None}

    def pack_budget(self) -> study_service_pb2.Budget:
        """The limits that are to be."""
        return wire.pack_budget(
            budget(**{limit: None if value is KEEP else value for limit, value in self._limits().items()})
        )

    def _limits(self) -> dict[str, Any]:
        return {
            "max_trials": self.max_trials,
            "max_duration": self.max_duration,
            "max_failures": self.max_failures,
            "max_parallel": self.max_parallel,
        }


def create_study(project: str, study_id: str, new: NewStudy) -> Call[StudyRecord]:
    """Create a study, or get the one with the same spec."""
    spec = wire.build(
        study_service_pb2.StudySpec,
        parameters=_pack_specs(new.parameters),
        input_constraints=wire.members(new.constraints, str, field="constraints", like='["a + b <= 1"]'),
        objectives=[
            wire.pack_objective(objective)
            for objective in wire.members(new.objectives, Objective, field="objectives", like='[Minimize("loss")]')
        ],
        outcome_constraints=[
            wire.pack_constraint(constraint)
            for constraint in wire.members(
                new.outcome_constraints,
                OutcomeConstraint,
                field="outcome_constraints",
                like='[AtMost("latency_ms", 50)]',
            )
        ],
        noisy=new.noisy,
        warm_start=wire.members(new.warm_start, str, field="warm_start", like='["last-month"]'),
        stopping_rule=None if new.stopping_rule is None else wire.pack_stopping_rule(new.stopping_rule),
        fidelity=None if new.fidelity is None else wire.pack_fidelity(new.fidelity),
        population=None if new.population is None else wire.pack_population(new.population),
        policy=new.policy,
        seed=new.seed,
        lease_duration=wire.pack_duration(new.lease_duration, field="lease_duration"),
        max_attempts=new.max_attempts or 0,
        late_tells=wire.pack_late_tells(new.late_tells),
    )
    study = wire.build(study_service_pb2.Study, spec=spec, budget=wire.pack_budget(new.budget), labels=new.labels or {})
    request = wire.build(
        study_service_pb2.CreateStudyRequest, parent=f"projects/{project}", study_id=study_id, study=study
    )
    return Call("StudyService", "CreateStudy", request, wire.unpack_study)


def _pack_specs(parameters: Iterable[ParameterSpec]) -> list[search_space_pb2.ParameterSpec]:
    given = wire.members(parameters, ParameterSpec, field="parameters", like='[Float("rate", 0, 1)]')
    return [wire.pack_spec(parameter) for parameter in given]


def get_study(name: str) -> Call[StudyRecord]:
    """Read a study."""
    return Call("StudyService", "GetStudy", wire.build(study_service_pb2.GetStudyRequest, name=name), wire.unpack_study)


def list_studies(project: str, *, page_token: str = "") -> Call[Page[StudyRecord]]:
    """Read a page of a project's studies."""
    request = wire.build(
        study_service_pb2.ListStudiesRequest, parent=f"projects/{project}", page_size=PAGE, page_token=page_token
    )

    def parse(reply: study_service_pb2.ListStudiesResponse) -> Page[StudyRecord]:
        token = reply.next_page_token
        following = list_studies(project, page_token=token) if token else None
        return Page([wire.unpack_study(study) for study in reply.studies], following)

    return Call("StudyService", "ListStudies", request, parse)


def set_state(name: str, state: StudyState) -> Call[StudyRecord]:
    """Pause, resume or finish a study."""
    return _update(wire.build(study_service_pb2.Study, name=name, state=wire.pack_study_state(state)), ["state"])


def update_study(name: str, update: StudyUpdate) -> Call[StudyRecord]:
    """Change what the update names."""
    study = wire.build(study_service_pb2.Study, name=name, budget=update.pack_budget(), labels=update.texts)
    study.spec.parameters.extend(_pack_specs(() if isinstance(update.parameters, Keep) else update.parameters))
    if update.stopping_rule is not None and not isinstance(update.stopping_rule, Keep):
        study.spec.stopping_rule.CopyFrom(wire.pack_stopping_rule(update.stopping_rule))
    return _update(study, update.paths)


def _label_path(key: str) -> str:
    """A label by itself, as a mask names it."""
    return f"labels.{key}" if re.fullmatch(r"[A-Za-z0-9_]+", key) else f"labels.`{key.replace('`', '``')}`"


def _update(study: study_service_pb2.Study, paths: Sequence[str]) -> Call[StudyRecord]:
    mask = wire.build_at("update_mask", FieldMask, paths=paths)
    request = wire.build(study_service_pb2.UpdateStudyRequest, study=study, update_mask=mask)
    return Call("StudyService", "UpdateStudy", request, wire.unpack_study)


def delete_study(name: str) -> Call[None]:
    """Remove a study with all its trials."""
    return Call("StudyService", "DeleteStudy", wire.build(study_service_pb2.DeleteStudyRequest, name=name), _nothing)


def export_study(name: str) -> Call[study_service_pb2.ExportStudyResponse]:
    """Stream the archive of a study."""
    request = wire.build(study_service_pb2.ExportStudyRequest, name=name)
    return Call("StudyService", "ExportStudy", request, lambda reply: reply)


def import_study(project: str, study_id: str, file: File) -> Upload[StudyRecord]:
    """Make a study from its archive; the study's id is that of the archive if it is empty."""
    request_id = _request_id()
    return Upload(
        "StudyService",
        "ImportStudy",
        lambda: file.requests(f"projects/{project}", study_id, request_id),
        wire.unpack_study,
    )


def watch_study(name: str, *, after: int) -> Call[Progress]:
    """Stream the changes of a study."""
    request = wire.build(study_service_pb2.WatchStudyRequest, name=name, after_sequence=after)
    return Call("StudyService", "WatchStudy", request, wire.unpack_progress)


def ask(
    study: str,
    *,
    count: int,
    worker_id: str,
    lease_duration: Seconds | None,
    fixed: Mapping[str, ParameterValue] | None,
    request_id: str | None = None,
) -> Call[Answer[TrialRecord]]:
    """Ask for trials; with the id of an earlier ask, get its answer, lest trials be handed out twice."""
    request = wire.build(
        trial_service_pb2.AskRequest,
        parent=study,
        count=count,
        worker_id=worker_id,
        lease_duration=wire.pack_duration(lease_duration, field="lease_duration"),
        request_id=request_id or _request_id(),
        fixed_parameters=wire.pack_parameters({} if fixed is None else fixed, field="fixed_parameters"),
    )
    return Call("TrialService", "Ask", request, wire.unpack_answer)


def tell(
    claim: Claim, outcome: outcomes.Outcome, *, metadata: Mapping[str, str] | None, checkpoint_uri: str
) -> Call[TrialRecord]:
    """Tell what became of a trial."""
    packed = pack_result(claim, outcome, metadata=metadata, checkpoint_uri=checkpoint_uri)
    request = wire.build(trial_service_pb2.TellRequest, parent=claim.study, results=[packed], request_id=_request_id())
    return Call("TrialService", "Tell", request, _only_trial)


def tell_all(study: str, results: Sequence[trial_service_pb2.TrialResult]) -> Call[list[TrialRecord | AskTellError]]:
    """Tell what became of trials, each by itself: for each the trial, or why its result was refused."""
    request = wire.build(
        trial_service_pb2.TellRequest, parent=study, results=results, independent=True, request_id=_request_id()
    )
    return Call("TrialService", "Tell", request, lambda reply: _taken(results, reply))


def pack_result(
    claim: Claim, outcome: outcomes.Outcome, *, metadata: Mapping[str, str] | None, checkpoint_uri: str
) -> trial_service_pb2.TrialResult:
    """What became of a trial, as a message."""
    ending: dict[str, Any] = {outcome.kind: outcome.message}
    return wire.build(
        trial_service_pb2.TrialResult,
        number=claim.number,
        lease_token=claim.token,
        metadata=metadata or {},
        checkpoint_uri=checkpoint_uri,
        **ending,
    )


def report(claim: Claim, *, step: int, metrics: Mapping[str, MetricValue], checkpoint_uri: str) -> Call[Verdict]:
    """Report metrics at a step, and hear whether to go on."""
    request = wire.build(
        trial_service_pb2.ReportRequest,
        name=_trial_name(claim.study, claim.number),
        lease_token=claim.token,
        measurements=[wire.pack_measurement(step, metrics)],
        checkpoint_uri=checkpoint_uri,
    )
    return Call("TrialService", "Report", request, lambda reply: wire.unpack_report(claim.number, reply))


def checkpoint(claim: Claim, *, uri: str) -> Call[Verdict]:
    """Report where a trial's state lies, and hear whether to go on."""
    request = wire.build(
        trial_service_pb2.ReportRequest,
        name=_trial_name(claim.study, claim.number),
        lease_token=claim.token,
        checkpoint_uri=uri,
    )
    return Call("TrialService", "Report", request, lambda reply: wire.unpack_report(claim.number, reply))


def renew(study: str, claims: Sequence[Claim]) -> Call[list[Verdict]]:
    """Renew leases of one study, at most 1,000."""
    renewals = [
        wire.build(trial_service_pb2.LeaseRenewal, number=claim.number, lease_token=claim.token) for claim in claims
    ]
    request = wire.build(trial_service_pb2.RenewLeasesRequest, parent=study, renewals=renewals)
    return Call("TrialService", "RenewLeases", request, wire.unpack_renewals)


def release(claim: Claim, *, checkpoint_uri: str) -> Call[TrialRecord]:
    """Give a trial back unfinished."""
    request = wire.build(
        trial_service_pb2.ReleaseTrialRequest,
        name=_trial_name(claim.study, claim.number),
        lease_token=claim.token,
        checkpoint_uri=checkpoint_uri,
        request_id=_request_id(),
    )
    return Call("TrialService", "ReleaseTrial", request, wire.unpack_trial)


def cancel(name: str) -> Call[TrialRecord]:
    """Withdraw a trial."""
    return Call(
        "TrialService",
        "CancelTrial",
        wire.build(trial_service_pb2.CancelTrialRequest, name=name),
        wire.unpack_trial,
    )


def enqueue(
    study: str, parameters: Mapping[str, ParameterValue], *, metadata: Mapping[str, str] | None
) -> Call[TrialRecord]:
    """Add a trial for a worker to evaluate."""
    return _add(study, [_pack_queued(0, parameters, metadata)], _only_trial)


def enqueue_all(
    study: str,
    configurations: Iterable[Mapping[str, ParameterValue]],
    *,
    metadata: Mapping[str, str] | None,
    tidied: Tidied,
) -> list[Call[list[TrialRecord]]]:
    """Add trials for workers to evaluate, in batches, each with its parameters as `tidied` gives them back."""
    given = wire.members(configurations, Mapping, field="trials", like='[{"rate": 0.1}]')
    return _add_all(study, [_pack_queued(index, tidied(each), metadata) for index, each in enumerate(given)])


def _pack_queued(
    index: int, parameters: Mapping[str, ParameterValue], metadata: Mapping[str, str] | None
) -> trial_service_pb2.NewTrial:
    return wire.build(
        trial_service_pb2.NewTrial,
        parameters=wire.pack_parameters(parameters, field=f"trials[{index}].parameters"),
        metadata=metadata or {},
    )


def import_trials(
    study: str, trials: Iterable[FinishedTrial], *, tidied: Tidied, request_id: str | None = None
) -> list[Call[list[TrialRecord]]]:
    """Add trials that ended elsewhere, in batches, each with an id of its own after `request_id`; parameters are as `tidied` gives them."""
    given = wire.members(trials, FinishedTrial, field="trials", like="[FinishedTrial(...)]")
    packed = [_pack_finished(index, trial, tidied(trial.parameters)) for index, trial in enumerate(given)]
    return _add_all(study, packed, request_id=request_id)


def _add_all(
    study: str, packed: Sequence[trial_service_pb2.NewTrial], *, request_id: str | None = None
) -> list[Call[list[TrialRecord]]]:
    return [
        _add(
            study,
            batch,
            lambda reply: wire.unpack_trials(reply.trials),
            request_id=f"{request_id}-{start}" if request_id else None,
        )
        for start, batch in _batches(packed)
    ]


def _batches(
    packed: Sequence[trial_service_pb2.NewTrial],
) -> Iterator[tuple[int, Sequence[trial_service_pb2.NewTrial]]]:
    """The trials in as many requests as it takes, each after the place of its first one."""
    start = size = 0
    for place, trial in enumerate(packed):
        size += trial.ByteSize()
        if place > start and (place - start == BATCH or size > BATCH_BYTES):
            yield start, packed[start:place]
            start, size = place, trial.ByteSize()
    if start < len(packed):
        yield start, packed[start:]


def _add(
    study: str,
    trials: Sequence[trial_service_pb2.NewTrial],
    parse: Callable[[Any], T],
    *,
    request_id: str | None = None,
) -> Call[T]:
    request = wire.build(
        trial_service_pb2.AddTrialsRequest, parent=study, trials=trials, request_id=request_id or _request_id()
    )
    return Call("TrialService", "AddTrials", request, parse)


def _pack_finished(
    index: int, trial: FinishedTrial, parameters: Mapping[str, ParameterValue]
) -> trial_service_pb2.NewTrial:
    field = f"trials[{index}]"
    return wire.build(
        trial_service_pb2.NewTrial,
        parameters=wire.pack_parameters(parameters, field=f"{field}.parameters"),
        state=wire.pack_trial_state(trial.state),
        metrics=wire.pack_metrics(outcomes.metric_values(trial.metrics, field=f"{field}.metrics")),
        measurements=[wire.pack_measurement(entry.step, entry.metrics) for entry in trial.measurements],
        message=trial.message,
        metadata=trial.metadata,
    )


def get_trial(study: str, number: int) -> Call[TrialRecord]:
    """Read a trial with its measurements."""
    request = wire.build(trial_service_pb2.GetTrialRequest, name=_trial_name(study, number))
    return Call("TrialService", "GetTrial", request, wire.unpack_trial)


def list_trials(
    study: str, *, states: Sequence[TrialState], worker_id: str, page_token: str = ""
) -> Call[Page[TrialRecord]]:
    """Read a page of a study's trials, without measurements."""
    request = wire.build(
        trial_service_pb2.ListTrialsRequest,
        parent=study,
        page_size=PAGE,
        page_token=page_token,
        states=[wire.pack_trial_state(state) for state in states],
        worker_id=worker_id,
    )

    def parse(reply: trial_service_pb2.ListTrialsResponse) -> Page[TrialRecord]:
        token = reply.next_page_token
        following = list_trials(study, states=states, worker_id=worker_id, page_token=token) if token else None
        return Page(wire.unpack_trials(reply.trials), following)

    return Call("TrialService", "ListTrials", request, parse)


def list_optimal_trials(study: str) -> Call[list[TrialRecord]]:
    """Read the best feasible trial, or the Pareto front."""
    request = wire.build(trial_service_pb2.ListOptimalTrialsRequest, parent=study)
    return Call("TrialService", "ListOptimalTrials", request, lambda reply: wire.unpack_trials(reply.trials))


def read_hypervolume(study: str) -> Call[Hypervolume | None]:
    """Read the Pareto front's hypervolume."""
    request = wire.build(trial_service_pb2.ListOptimalTrialsRequest, parent=study)
    return Call("TrialService", "ListOptimalTrials", request, wire.unpack_hypervolume)


def predict(study: str, points: Sequence[Mapping[str, ParameterValue]]) -> Call[list[dict[str, Prediction]]]:
    """What the surrogate expects at points."""
    packed = [
        wire.build(search_space_pb2.Parameters, values=wire.pack_parameters(point, field=f"points[{index}]"))
        for index, point in enumerate(wire.members(points, Mapping, field="points", like='[{"rate": 0.1}]'))
    ]
    request = wire.build(surrogate_service_pb2.PredictRequest, parent=study, points=packed)
    return Call(
        "SurrogateService",
        "Predict",
        request,
        lambda reply: [wire.unpack_predictions(prediction.metrics) for prediction in reply.predictions],
    )


def importance(study: str, *, method: str) -> Call[dict[str, dict[str, float]]]:
    """How much each parameter matters for each objective."""
    request = wire.build(
        surrogate_service_pb2.ImportanceRequest, parent=study, method=wire.pack_importance_method(method)
    )
    return Call("SurrogateService", "Importance", request, wire.unpack_importances)


def cross_validate(study: str) -> Call[list[LeaveOneOut]]:
    """How well the surrogate predicts each observation from the others."""
    request = wire.build(surrogate_service_pb2.CrossValidateRequest, parent=study)
    return Call(
        "SurrogateService",
        "CrossValidate",
        request,
        lambda reply: [wire.unpack_left_out(prediction) for prediction in reply.predictions],
    )


def _only_trial(reply: trial_service_pb2.TellResponse | trial_service_pb2.AddTrialsResponse) -> TrialRecord:
    return wire.unpack_trial(reply.trials[0])


def _taken(
    results: Sequence[trial_service_pb2.TrialResult], reply: trial_service_pb2.TellResponse
) -> list[TrialRecord | AskTellError]:
    taken: dict[int, TrialRecord | AskTellError] = {trial.number: wire.unpack_trial(trial) for trial in reply.trials}
    taken |= {
        each.number: refused(each.code, each.message, reason=each.reason, field=each.field) for each in reply.refusals
    }
    return [taken[result.number] for result in results]


def _nothing(_: Message) -> None:
    return None


def study_name(project: str, study_id: str) -> str:
    """The resource name of a study."""
    return f"projects/{project}/studies/{study_id}"


def _trial_name(study: str, number: int) -> str:
    return f"{study}/trials/{number}"


def _request_id() -> str:
    return uuid.uuid4().hex
