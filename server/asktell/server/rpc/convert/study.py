"""Studies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from asktell.server.application.studies import CountedStudy, CreateStudy, UpdateStudy
from asktell.server.application.watch import Change, StudyChanged
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.fidelity import DEFAULT_REDUCTION, Fidelity
from asktell.server.domain.population import POLICY, Population
from asktell.server.domain.stopping import NewRule, StoppingRule
from asktell.server.domain.study import (
    DEFAULT_ATTEMPTS,
    DEFAULT_LEASE,
    LIMITS,
    Budget,
    LateTells,
    Study,
    StudyName,
    StudySpec,
    StudyState,
    TrialCounts,
)
from asktell.server.domain.text import check_identifier, excerpt
from asktell.server.rpc.convert.mask import read_mask
from asktell.server.rpc.convert.metric import constraint_message, objective_message, read_constraints, read_objectives
from asktell.server.rpc.convert.space import read_space, read_specs, spec_message
from asktell.server.rpc.convert.stopping import read_stopping_rule, stopping_message
from asktell.server.rpc.convert.time import duration, read_duration, read_time, timestamp
from asktell.server.rpc.convert.trial import trial_message
from asktell.v1 import study_service_pb2 as pb

_STATES = {
    StudyState.ACTIVE: pb.Study.STATE_ACTIVE,
    StudyState.PAUSED: pb.Study.STATE_PAUSED,
    StudyState.FINISHED: pb.Study.STATE_FINISHED,
}
_STATES_READ = {message: state for state, message in _STATES.items()}
_LATE_TELLS = {
    LateTells.ACCEPT: pb.StudySpec.LATE_TELLS_ACCEPT,
    LateTells.REFUSE: pb.StudySpec.LATE_TELLS_REFUSE,
}
_LATE_TELLS_READ = {message: late for late, message in _LATE_TELLS.items()} | {
    pb.StudySpec.LATE_TELLS_UNSPECIFIED: LateTells.ACCEPT
}
T = TypeVar("T")


def read_project(path: str, name: str) -> str:
    """The project of `projects/{project}`, or InvalidArgument that names `path`."""
    prefix, separator, project = name.partition("/")
    if prefix != "projects" or not separator:
        raise InvalidArgument(path, f"{excerpt(name)} is not of the form projects/{{project}}")
    return check_identifier(path, project)


def read_create(request: pb.CreateStudyRequest, *, drawn_seed: int) -> CreateStudy:
    """The command of CreateStudy."""
    project = read_project("parent", request.parent)
    study_id = check_identifier("study_id", request.study_id)
    try:
        return CreateStudy(
            name=StudyName(project, study_id),
            spec=_within("spec", lambda: _read_spec(request.study.spec)),
            budget=_within("budget", lambda: read_budget(request.study.budget)),
            labels=dict(request.study.labels),
            drawn_seed=drawn_seed,
        )
    except InvalidArgument as error:
        raise error.within("study") from None


def _read_spec(message: pb.StudySpec) -> StudySpec:
    if message.late_tells not in _LATE_TELLS_READ:
        raise InvalidArgument("late_tells", f"{message.late_tells} is not a value of LateTells")
    has_lease = message.HasField("lease_duration")
    return StudySpec(
        space=read_space(message.parameters, message.input_constraints),
        objectives=read_objectives(message.objectives),
        outcome_constraints=read_constraints(message.outcome_constraints),
        policy=message.policy or "auto",
        seed=message.seed if message.HasField("seed") else None,
        lease_duration=read_duration("lease_duration", message.lease_duration) if has_lease else DEFAULT_LEASE,
        max_attempts=message.max_attempts or DEFAULT_ATTEMPTS,
        late_tells=_LATE_TELLS_READ[message.late_tells],
        noisy=message.noisy,
        stopping_rule=_read_rule(message),
        warm_start=tuple(message.warm_start),
        fidelity=_read_fidelity(message.fidelity) if message.HasField("fidelity") else None,
        population=_read_population(message),
    )


def _read_rule(message: pb.StudySpec) -> StoppingRule | None:
    return read_stopping_rule(message.stopping_rule) if message.HasField("stopping_rule") else None


def _read_fidelity(message: pb.Fidelity) -> Fidelity:
    given = message.HasField("reduction_factor")
    return Fidelity(
        parameter=message.parameter, reduction_factor=message.reduction_factor if given else DEFAULT_REDUCTION
    )


def _read_population(message: pb.StudySpec) -> Population | None:
    """The population; of a study whose policy needs one and that names none, the usual one."""
    if not message.HasField("population"):
        return Population() if message.policy == POLICY else None
    given = {field.name: value for field, value in message.population.ListFields()}
    return Population(**given)


def _population_message(population: Population) -> pb.Population:
    return pb.Population(**asdict(population))


def _fidelity_message(fidelity: Fidelity) -> pb.Fidelity:
    return pb.Fidelity(parameter=fidelity.parameter, reduction_factor=fidelity.reduction_factor)


def read_budget(message: pb.Budget, limits: Collection[str] = LIMITS) -> Budget:
    """The budget, or its named limits alone; paths are relative to it."""
    given: dict[str, Any] = {limit: getattr(message, limit) for limit in limits if message.HasField(limit)}  # type: ignore[arg-type]
    if "max_duration" in given:
        given["max_duration"] = read_duration("max_duration", message.max_duration)
    return Budget(**given)


def read_update(request: pb.UpdateStudyRequest) -> UpdateStudy:
    """The command of UpdateStudy."""
    name = StudyName.parse(request.study.name, path="study.name")
    mask = read_mask(request.update_mask)
    study = request.study
    try:
        return UpdateStudy(
            name=name,
            state=_read_state(study.state) if "state" in mask.paths else None,
            budget=_within("budget", lambda: read_budget(study.budget, mask.limits)) if mask.limits else None,
            limits=mask.limits,
            labels=dict(study.labels) if "labels" in mask.paths else None,
            label_changes={key: study.labels.get(key) for key in mask.keys},
            parameters=_within("spec", lambda: read_specs(study.spec.parameters))
            if "spec.parameters" in mask.paths
            else None,
            stopping_rule=NewRule(_within("spec", lambda: _read_rule(study.spec)))
            if "spec.stopping_rule" in mask.paths
            else None,
        )
    except InvalidArgument as error:
        raise error.within("study") from None


def _read_state(state: pb.Study.State.ValueType) -> StudyState:
    if state not in _STATES_READ:
        raise InvalidArgument("state", "must be STATE_ACTIVE, STATE_PAUSED or STATE_FINISHED")
    return _STATES_READ[state]


def _within(prefix: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except InvalidArgument as error:
        raise error.within(prefix) from None


def read_study(message: pb.Study, *, next_number: int) -> CountedStudy:
    """A study of an archive; paths are relative to it."""
    if not message.spec.HasField("seed"):
        raise InvalidArgument("spec.seed", "is missing: without it the study would go on otherwise")
    study = Study(
        id=0,
        name=StudyName.parse(message.name, path="name"),
        spec=_within("spec", lambda: _read_spec(message.spec)),
        seed=message.spec.seed,
        budget=_within("budget", lambda: read_budget(message.budget)),
        labels=dict(message.labels),
        state=_read_state(message.state),
        next_number=next_number,
        sequence=message.sequence,
        create_time=read_time(message, "create_time"),
        update_time=read_time(message, "update_time"),
    )
    return CountedStudy(study, _read_counts(message.trial_counts))


def _read_counts(message: pb.TrialCounts) -> TrialCounts:
    return TrialCounts(**{field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields})


def study_message(counted: CountedStudy) -> pb.Study:
    """The message for a study."""
    study = counted.study
    return pb.Study(
        name=str(study.name),
        spec=_spec_message(study.spec, seed=study.seed),
        budget=_budget_message(study.budget),
        labels=dict(study.labels),
        state=_STATES[study.state],
        trial_counts=_counts_message(counted.counts),
        sequence=study.sequence,
        create_time=timestamp(study.create_time),
        update_time=timestamp(study.update_time),
    )


def pack_changes(name: StudyName, changes: Sequence[Change], sequence: int) -> bytes:
    """A response of WatchStudy, packed."""
    messages = [_change_message(name, change) for change in changes]
    return pb.WatchStudyResponse(changes=messages, sequence=sequence).SerializeToString()


def _change_message(name: StudyName, change: Change) -> pb.Change:
    if isinstance(change, StudyChanged):
        return pb.Change(sequence=change.sequence, study=study_message(change.study))
    return pb.Change(sequence=change.sequence, trial=trial_message(name, change.trial))


def _spec_message(spec: StudySpec, *, seed: int) -> pb.StudySpec:
    return pb.StudySpec(
        parameters=[spec_message(parameter) for parameter in spec.space],
        input_constraints=[constraint.text for constraint in spec.space.constraints],
        objectives=[objective_message(objective) for objective in spec.objectives],
        outcome_constraints=[constraint_message(constraint) for constraint in spec.outcome_constraints],
        policy=spec.policy,
        seed=seed,
        lease_duration=duration(spec.lease_duration),
        max_attempts=spec.max_attempts,
        late_tells=_LATE_TELLS[spec.late_tells],
        noisy=spec.noisy,
        stopping_rule=None if spec.stopping_rule is None else stopping_message(spec.stopping_rule),
        warm_start=spec.warm_start,
        fidelity=None if spec.fidelity is None else _fidelity_message(spec.fidelity),
        population=None if spec.population is None else _population_message(spec.population),
    )


def _budget_message(budget: Budget) -> pb.Budget:
    return pb.Budget(
        max_trials=budget.max_trials,
        max_duration=None if budget.max_duration is None else duration(budget.max_duration),
        max_failures=budget.max_failures,
        max_parallel=budget.max_parallel,
    )


def _counts_message(counts: TrialCounts) -> pb.TrialCounts:
    return pb.TrialCounts(
        queued=counts.queued,
        active=counts.active,
        succeeded=counts.succeeded,
        stopped=counts.stopped,
        infeasible=counts.infeasible,
        failed=counts.failed,
        cancelled=counts.cancelled,
    )
