"""Messages to values and back: each translation once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE
from google.protobuf.timestamp_pb2 import Timestamp

from asktell.client.errors import InvalidArgument
from asktell.client.spec import (
    NO_DEFAULT,
    AtLeast,
    AtMost,
    Bool,
    Categorical,
    Condition,
    Default,
    Fidelity,
    Float,
    Int,
    Maximize,
    Minimize,
    NoDefault,
    Objective,
    Ordinal,
    OutcomeConstraint,
    ParameterSpec,
    ParameterValue,
    Population,
    plain,
)
from asktell.client.stopping import STOPPING_RULES, Goal, StoppingRule
from asktell.client.values import (
    Answer,
    Budget,
    Change,
    Directive,
    Hypervolume,
    LateTells,
    Lease,
    LeaveOneOut,
    Measurement,
    MetricValue,
    Origin,
    Prediction,
    Progress,
    Reason,
    Seconds,
    StudyChanged,
    StudyRecord,
    StudyState,
    TrialChanged,
    TrialCounts,
    TrialRecord,
    TrialState,
    Verdict,
    seconds,
)
from asktell.v1 import (
    metric_pb2,
    search_space_pb2,
    stopping_pb2,
    study_service_pb2,
    surrogate_service_pb2,
    trial_service_pb2,
)

P = ParamSpec("P")
T = TypeVar("T")
MessageT = TypeVar("MessageT", bound=Message)

_STUDY_STATES = {
    StudyState.ACTIVE: study_service_pb2.Study.STATE_ACTIVE,
    StudyState.PAUSED: study_service_pb2.Study.STATE_PAUSED,
    StudyState.FINISHED: study_service_pb2.Study.STATE_FINISHED,
}
_TRIAL_STATES = {
    TrialState.QUEUED: trial_service_pb2.Trial.STATE_QUEUED,
    TrialState.ACTIVE: trial_service_pb2.Trial.STATE_ACTIVE,
    TrialState.SUCCEEDED: trial_service_pb2.Trial.STATE_SUCCEEDED,
    TrialState.STOPPED: trial_service_pb2.Trial.STATE_STOPPED,
    TrialState.INFEASIBLE: trial_service_pb2.Trial.STATE_INFEASIBLE,
    TrialState.FAILED: trial_service_pb2.Trial.STATE_FAILED,
    TrialState.CANCELLED: trial_service_pb2.Trial.STATE_CANCELLED,
}
_LATE_TELLS = {
    LateTells.ACCEPT: study_service_pb2.StudySpec.LATE_TELLS_ACCEPT,
    LateTells.REFUSE: study_service_pb2.StudySpec.LATE_TELLS_REFUSE,
}
_IMPORTANCE_METHODS = {
    "sobol": surrogate_service_pb2.ImportanceRequest.METHOD_SOBOL,
    "ped-anova": surrogate_service_pb2.ImportanceRequest.METHOD_PED_ANOVA,
}
_DIRECTIVES = {
    trial_service_pb2.DIRECTIVE_STOP: Directive.STOP,
    trial_service_pb2.DIRECTIVE_ABANDON: Directive.ABANDON,
}
_REASONS = {
    trial_service_pb2.AskResponse.REASON_EXHAUSTED: Reason.EXHAUSTED,
    trial_service_pb2.AskResponse.REASON_BUDGET_SPENT: Reason.BUDGET_SPENT,
    trial_service_pb2.AskResponse.REASON_PAUSED: Reason.PAUSED,
    trial_service_pb2.AskResponse.REASON_MAX_PARALLEL: Reason.MAX_PARALLEL,
    trial_service_pb2.AskResponse.REASON_FINISHED: Reason.FINISHED,
    trial_service_pb2.AskResponse.REASON_RESULTS_AWAITED: Reason.RESULTS_AWAITED,
    trial_service_pb2.AskResponse.REASON_REPLY_FULL: Reason.REPLY_FULL,
}
_GOALS: Mapping[Goal, metric_pb2.Objective.Goal.ValueType] = {
    "minimize": metric_pb2.Objective.GOAL_MINIMIZE,
    "maximize": metric_pb2.Objective.GOAL_MAXIMIZE,
}
_GOALS_BACK = {number: goal for goal, number in _GOALS.items()}
_STUDY_STATES_BACK = {number: state for state, number in _STUDY_STATES.items()}
_TRIAL_STATES_BACK = {number: state for state, number in _TRIAL_STATES.items()}
_LATE_TELLS_BACK = {number: late for late, number in _LATE_TELLS.items()}


def build_at(at: str, kind: Callable[P, MessageT], /, *args: P.args, **fields: P.kwargs) -> MessageT:
    """A message of `kind` with these fields; InvalidArgument that names the one, below the path `at`, that the protocol cannot carry.

    Such are numbers out of range, text that UTF-8 has no bytes for, and values of another type.
    """
    try:
        return kind(*args, **fields)
    except (TypeError, ValueError, OverflowError) as error:
        for path, part in _parts(fields):
            _try(kind, part, path=f"{at}.{path}" if at else path)
        raise InvalidArgument.at(at or "request", f"cannot be sent: {error}") from error


def build(kind: Callable[P, MessageT], /, *args: P.args, **fields: P.kwargs) -> MessageT:
    """As `build_at`, for a message whose fields are named from its own root."""
    return build_at("", kind, *args, **fields)


def _parts(fields: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field, and of a map each entry, by itself, with its path."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}[{_printable(key)}]", {name: {key: entry}}) for key, entry in value.items())
        else:
            yield name, {name: value}


def _try(kind: Callable[..., Message], part: Mapping[str, Any], *, path: str) -> None:
    try:
        kind(**part)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument.at(path, f"cannot be sent: {_printable(error)}") from error


def _printable(value: object) -> str:
    """Text that can be encoded, whatever was given: a message about a lone surrogate must not have one."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def members(given: Iterable[T], kind: Any, *, field: str, like: str) -> list[T]:
    """The members of a list of some kind; InvalidArgument that names `field` for anything else, such as a member by itself.

    A text or a dict can be gone through too, but nobody means its letters or keys. `like` is how to write it.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidArgument.at(field, f"{_shown(given)}, not a list: write {like}")
    found = list(given)
    for index, member in enumerate(found):
        if not isinstance(member, kind):
            raise InvalidArgument.at(f"{field}[{index}]", f"{_shown(member)}, which cannot stand there: write {like}")
    return found


def _shown(value: object) -> str:
    return f"{_printable(repr(value))[:100]} is a {type(value).__name__}"


def pack_value(value: ParameterValue, *, field: str) -> search_space_pb2.ParameterValue:
    """A value of a parameter; InvalidArgument that names `field` for what is none."""
    try:
        match plain(value):
            case None:
                return search_space_pb2.ParameterValue(null_value=NULL_VALUE)
            case bool(truth):
                return search_space_pb2.ParameterValue(bool_value=truth)
            case int(whole):
                return search_space_pb2.ParameterValue(int64_value=whole)
            case float(real):
                return search_space_pb2.ParameterValue(double_value=real)
            case str(text):
                return search_space_pb2.ParameterValue(string_value=text)
    except (TypeError, ValueError) as error:
        raise InvalidArgument.at(field, f"{value!r} cannot be sent: {error}") from error


def unpack_value(message: search_space_pb2.ParameterValue) -> ParameterValue:
    """The Python value, of the kind that was sent."""
    match message.WhichOneof("kind"):
        case "double_value":
            return message.double_value
        case "int64_value":
            return message.int64_value
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case _:
            return None


def pack_parameters(values: Mapping[str, ParameterValue], *, field: str) -> dict[str, search_space_pb2.ParameterValue]:
    """Values of parameters by name; InvalidArgument that names `field` for what is no mapping."""
    if not isinstance(values, Mapping):
        raise InvalidArgument.at(field, f"{_shown(values)}, not a dict of values by names of parameters")
    return {name: pack_value(value, field=f"{field}[{name}]") for name, value in values.items()}


def unpack_parameters(values: Mapping[str, search_space_pb2.ParameterValue]) -> dict[str, ParameterValue]:
    """Values of parameters by name."""
    return {name: unpack_value(value) for name, value in values.items()}


def pack_spec(spec: ParameterSpec) -> search_space_pb2.ParameterSpec:
    """One dial."""
    packed = build(search_space_pb2.ParameterSpec, name=spec.name, **_pack_kind(spec))
    if not isinstance(spec.default, NoDefault):
        packed.default_value.CopyFrom(pack_value(spec.default, field=f"{spec.name}.default"))
    if spec.when is not None:
        values = [pack_value(value, field=f"{spec.name}.when") for value in spec.when[1]]
        condition = build_at(f"{spec.name}.when", search_space_pb2.Condition, parent=spec.when[0], values=values)
        packed.when.CopyFrom(condition)
    return packed


def _pack_kind(spec: ParameterSpec) -> dict[str, Any]:
    match spec:
        case Float():
            return {
                "float_spec": build_at(
                    spec.name, search_space_pb2.FloatSpec, low=spec.low, high=spec.high, log=spec.log, step=spec.step
                )
            }
        case Int():
            return {
                "int_spec": build_at(
                    spec.name, search_space_pb2.IntSpec, low=spec.low, high=spec.high, log=spec.log, step=spec.step
                )
            }
        case Categorical():
            return {"categorical_spec": search_space_pb2.CategoricalSpec(choices=_pack_values(spec, spec.choices))}
        case Bool():
            return {"bool_spec": search_space_pb2.BoolSpec()}
        case Ordinal():
            return {"ordinal_spec": search_space_pb2.OrdinalSpec(values=_pack_values(spec, spec.values))}


def _pack_values(spec: ParameterSpec, values: Iterable[ParameterValue]) -> list[search_space_pb2.ParameterValue]:
    return [pack_value(value, field=spec.name) for value in values]


def unpack_spec(message: search_space_pb2.ParameterSpec) -> ParameterSpec:
    """One dial; InvalidArgument for a kind that this client does not know."""
    name = message.name
    options: dict[str, Any] = {"default": _unpack_default(message), "when": _unpack_condition(message)}
    match message.WhichOneof("kind"):
        case "float_spec":
            real = message.float_spec
            return Float(name, real.low, real.high, log=real.log, step=_optional(real, "step"), **options)
        case "int_spec":
            whole = message.int_spec
            return Int(name, whole.low, whole.high, log=whole.log, step=_optional(whole, "step"), **options)
        case "categorical_spec":
            return Categorical(name, [unpack_value(value) for value in message.categorical_spec.choices], **options)
        case "bool_spec":
            return Bool(name, **options)
        case "ordinal_spec":
            return Ordinal(name, [unpack_value(value) for value in message.ordinal_spec.values], **options)
        case _:
            raise InvalidArgument.at(name, "is of a kind that this version of asktell.client does not know")


def _unpack_default(message: search_space_pb2.ParameterSpec) -> Default:
    return unpack_value(message.default_value) if message.HasField("default_value") else NO_DEFAULT


def _unpack_condition(message: search_space_pb2.ParameterSpec) -> Condition | None:
    if not message.HasField("when"):
        return None
    return Condition(message.when.parent, tuple(unpack_value(value) for value in message.when.values))


def pack_objective(objective: Objective) -> metric_pb2.Objective:
    """A metric to optimise."""
    smaller = isinstance(objective, Minimize)
    goal = metric_pb2.Objective.GOAL_MINIMIZE if smaller else metric_pb2.Objective.GOAL_MAXIMIZE
    return build(metric_pb2.Objective, metric=objective.metric, goal=goal, reference=objective.reference)


def unpack_objective(message: metric_pb2.Objective) -> Objective:
    """A metric to optimise."""
    smaller = message.goal == metric_pb2.Objective.GOAL_MINIMIZE
    return (Minimize if smaller else Maximize)(message.metric, _optional(message, "reference"))


def pack_constraint(constraint: OutcomeConstraint) -> metric_pb2.OutcomeConstraint:
    """A bound on a metric."""
    above = isinstance(constraint, AtMost)
    relation = (
        metric_pb2.OutcomeConstraint.RELATION_AT_MOST if above else metric_pb2.OutcomeConstraint.RELATION_AT_LEAST
    )
    return build(metric_pb2.OutcomeConstraint, metric=constraint.metric, relation=relation, bound=constraint.bound)


def unpack_constraint(message: metric_pb2.OutcomeConstraint) -> OutcomeConstraint:
    """A bound on a metric."""
    above = message.relation == metric_pb2.OutcomeConstraint.RELATION_AT_MOST
    return (AtMost if above else AtLeast)(message.metric, message.bound)


def pack_fidelity(fidelity: Fidelity) -> study_service_pb2.Fidelity:
    """The parameter that is raised by rungs."""
    if not isinstance(fidelity, Fidelity):
        raise InvalidArgument.at("fidelity", f"{_shown(fidelity)}, not a Fidelity: write Fidelity('epochs')")
    return build_at(
        "fidelity",
        study_service_pb2.Fidelity,
        parameter=fidelity.parameter,
        reduction_factor=fidelity.reduction_factor,
    )


def unpack_fidelity(message: study_service_pb2.Fidelity) -> Fidelity:
    """The parameter that is raised by rungs."""
    return Fidelity(message.parameter, reduction_factor=message.reduction_factor)


def pack_population(population: Population) -> study_service_pb2.Population:
    """How a population evolves."""
    if not isinstance(population, Population):
        raise InvalidArgument.at("population", f"{_shown(population)}, not a Population: write Population(size=8)")
    given = {field.name: getattr(population, field.name) for field in fields(population)}
    return build_at("population", study_service_pb2.Population, **given)


def unpack_population(message: study_service_pb2.Population) -> Population:
    """How a population evolves."""
    return Population(**{field.name: value for field, value in message.ListFields()})


def pack_stopping_rule(rule: StoppingRule) -> stopping_pb2.StoppingRule:
    """What decides that trials may end early. The contract has a message for each kind, with the fields of the rule's own."""
    if not isinstance(rule, StoppingRule):
        raise InvalidArgument.at("stopping_rule", f"{_shown(rule)}, not a stopping rule")
    given = {field.name: getattr(rule, field.name) for field in fields(rule)}
    common = {field.name: given.pop(field.name) for field in fields(StoppingRule)}
    goal = common.pop("goal")
    if goal is not None and goal not in _GOALS:
        raise InvalidArgument.at("stopping_rule.goal", f"is {goal!r}, not minimize or maximize")
    kind = type(getattr(stopping_pb2.StoppingRule(), rule.kind))
    message: dict[str, Any] = {
        rule.kind: build_at(f"stopping_rule.{rule.kind}", kind, **given),
        "goal": None if goal is None else _GOALS[goal],
    }
    return build_at("stopping_rule", stopping_pb2.StoppingRule, **common, **message)


def unpack_stopping_rule(message: stopping_pb2.StoppingRule) -> StoppingRule | None:
    """What decides that trials may end early; None for a kind that this client does not know, as for no rule."""
    kind: str | None = message.WhichOneof("kind")
    if kind is None or kind not in STOPPING_RULES:
        return None
    own = {field.name: value for field, value in getattr(message, kind).ListFields()}
    return STOPPING_RULES[kind](
        metric=message.metric or None,
        goal=_GOALS_BACK.get(message.goal),
        warmup_steps=message.warmup_steps,
        max_step=_optional(message, "max_step"),
        **own,
    )


def pack_metrics(metrics: Mapping[str, MetricValue]) -> dict[str, metric_pb2.MetricValue]:
    """Values of metrics by name."""
    return {
        name: build_at(
            f"metrics[{_printable(name)}]",
            metric_pb2.MetricValue,
            value=metric.value,
            standard_error=metric.standard_error,
        )
        for name, metric in metrics.items()
    }


def unpack_metrics(metrics: Mapping[str, metric_pb2.MetricValue]) -> dict[str, MetricValue]:
    """Values of metrics in the order of their names: a map's own order changes from message to message."""
    found = {name: metrics[name] for name in sorted(metrics)}
    return {name: MetricValue(metric.value, _optional(metric, "standard_error")) for name, metric in found.items()}


def pack_measurement(step: int, metrics: Mapping[str, MetricValue]) -> metric_pb2.Measurement:
    """Metrics at a step."""
    return build(metric_pb2.Measurement, step=step, metrics=pack_metrics(metrics))


def unpack_measurement(message: metric_pb2.Measurement) -> Measurement:
    """Metrics at a step."""
    return Measurement(message.step, unpack_metrics(message.metrics), _time(message, "create_time"))


def pack_duration(duration: Seconds | None, *, field: str) -> Duration | None:
    """A duration; absent for None. InvalidArgument that names `field` for one that is none or too long."""
    if duration is None:
        return None
    packed = Duration()
    try:
        packed.FromTimedelta(timedelta(seconds=seconds(duration)))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument.at(field, f"{duration!r} cannot be sent: {error}") from error
    return packed


def pack_budget(budget: Budget) -> study_service_pb2.Budget:
    """How much a study may spend."""
    return build_at(
        "budget",
        study_service_pb2.Budget,
        max_trials=budget.max_trials,
        max_duration=pack_duration(budget.max_duration, field="budget.max_duration"),
        max_failures=budget.max_failures,
        max_parallel=budget.max_parallel,
    )


def unpack_budget(message: study_service_pb2.Budget) -> Budget:
    """How much a study may spend."""
    return Budget(
        max_trials=_optional(message, "max_trials"),
        max_duration=_duration(message, "max_duration"),
        max_failures=_optional(message, "max_failures"),
        max_parallel=_optional(message, "max_parallel"),
    )


def pack_study_state(state: StudyState) -> study_service_pb2.Study.State.ValueType:
    """How a study stands."""
    return _STUDY_STATES[state]


def pack_trial_state(state: TrialState) -> trial_service_pb2.Trial.State.ValueType:
    """How a trial stands."""
    return _TRIAL_STATES[TrialState(state)]


def pack_late_tells(late_tells: LateTells | str | None) -> study_service_pb2.StudySpec.LateTells.ValueType:
    """What becomes of late results; the service's default for None."""
    if late_tells is None:
        return study_service_pb2.StudySpec.LATE_TELLS_UNSPECIFIED
    return _LATE_TELLS[LateTells(late_tells)]


def unpack_study(message: study_service_pb2.Study) -> StudyRecord:
    """A study."""
    spec, counts = message.spec, message.trial_counts
    return StudyRecord(
        name=message.name,
        parameters=tuple(unpack_spec(parameter) for parameter in spec.parameters),
        objectives=tuple(unpack_objective(objective) for objective in spec.objectives),
        constraints=tuple(spec.input_constraints),
        outcome_constraints=tuple(unpack_constraint(constraint) for constraint in spec.outcome_constraints),
        noisy=spec.noisy,
        warm_start=tuple(spec.warm_start),
        stopping_rule=unpack_stopping_rule(spec.stopping_rule),
        fidelity=unpack_fidelity(spec.fidelity) if spec.HasField("fidelity") else None,
        population=unpack_population(spec.population) if spec.HasField("population") else None,
        policy=spec.policy,
        seed=_optional(spec, "seed"),
        lease_duration=_duration(spec, "lease_duration"),
        max_attempts=spec.max_attempts or None,
        late_tells=_LATE_TELLS_BACK.get(spec.late_tells),
        budget=unpack_budget(message.budget),
        labels=dict(message.labels),
        state=_STUDY_STATES_BACK.get(message.state, StudyState.ACTIVE),
        counts=TrialCounts(**{field.name: getattr(counts, field.name) for field in counts.DESCRIPTOR.fields}),
        sequence=message.sequence,
        create_time=_time(message, "create_time"),
        update_time=_time(message, "update_time"),
    )


def unpack_trial(message: trial_service_pb2.Trial) -> TrialRecord:
    """A trial."""
    return TrialRecord(
        name=message.name,
        number=message.number,
        state=_TRIAL_STATES_BACK[message.state],
        parameters=unpack_parameters(message.parameters),
        metrics=unpack_metrics(message.metrics),
        measurements=tuple(unpack_measurement(measurement) for measurement in message.measurements),
        lease=_unpack_lease(message),
        origin=_unpack_origin(message.origin),
        message=message.message,
        metadata=dict(message.metadata),
        attempt=message.attempt,
        checkpoint_uri=message.checkpoint_uri,
        parent=message.parent,
        member=message.member,
        sequence=message.sequence,
        create_time=_time(message, "create_time"),
        start_time=_time(message, "start_time"),
        end_time=_time(message, "end_time"),
        worker_id=message.worker_id,
    )


def unpack_trials(messages: Iterable[trial_service_pb2.Trial]) -> list[TrialRecord]:
    """Trials, in their order."""
    return [unpack_trial(message) for message in messages]


def unpack_hypervolume(message: trial_service_pb2.ListOptimalTrialsResponse) -> Hypervolume | None:
    """The hypervolume of the front, if it has one."""
    if not message.HasField("hypervolume"):
        return None
    found = message.hypervolume
    history = tuple((step.number, step.value) for step in found.history)
    return Hypervolume(found.value, dict(found.reference), history)


def _unpack_lease(
    message: trial_service_pb2.Trial | trial_service_pb2.ReportResponse | trial_service_pb2.RenewedLease,
) -> Lease | None:
    if not message.HasField("lease"):
        return None
    lease = message.lease
    return Lease(
        token=lease.token,
        worker_id=lease.worker_id,
        expire_time=lease.expire_time.ToDatetime(tzinfo=UTC),
        duration=lease.duration.ToTimedelta(),
    )


def _unpack_origin(message: trial_service_pb2.Origin) -> Origin:
    return Origin(
        policy=message.policy,
        method=message.method,
        fallback=message.fallback,
        reason=message.reason,
        predictions=unpack_predictions(message.predictions),
        acquisition=_optional(message, "acquisition"),
        incumbent=_optional(message, "incumbent"),
        compute_duration=message.compute_duration.ToTimedelta(),
        made_for=message.made_for,
    )


def unpack_prediction(message: trial_service_pb2.PredictedMetric) -> Prediction:
    """What a surrogate expects of a metric."""
    return Prediction(message.mean, message.standard_deviation)


def unpack_predictions(messages: Mapping[str, trial_service_pb2.PredictedMetric]) -> dict[str, Prediction]:
    """What a surrogate expects, by the name of the metric."""
    return {name: unpack_prediction(message) for name, message in messages.items()}


def unpack_answer(message: trial_service_pb2.AskResponse) -> Answer[TrialRecord]:
    """What an ask yielded."""
    return Answer(
        trials=unpack_trials(message.trials),
        closed=message.study_state == trial_service_pb2.AskResponse.STATE_CLOSED,
        reason=_REASONS.get(message.reason, Reason.NONE),
        retry_after=_duration(message, "retry_after"),
    )


def unpack_report(number: int, message: trial_service_pb2.ReportResponse) -> Verdict:
    """What the service says to a report on trial `number`."""
    return Verdict(number, _directive(message.directive), message.message, _unpack_lease(message))


def unpack_renewals(message: trial_service_pb2.RenewLeasesResponse) -> list[Verdict]:
    """What became of each renewal, in their order."""
    return [
        Verdict(renewed.number, _directive(renewed.directive), renewed.message, _unpack_lease(renewed))
        for renewed in message.leases
    ]


def _directive(number: trial_service_pb2.Directive.ValueType) -> Directive:
    return _DIRECTIVES.get(number, Directive.CONTINUE)


def pack_importance_method(method: str) -> surrogate_service_pb2.ImportanceRequest.Method.ValueType:
    """How importance is measured: `sobol` or `ped-anova`."""
    if method not in _IMPORTANCE_METHODS:
        known = ", ".join(_IMPORTANCE_METHODS)
        raise InvalidArgument.at("method", f"{method!r} is no way to measure importance; there are: {known}")
    return _IMPORTANCE_METHODS[method]


def unpack_importances(message: surrogate_service_pb2.ImportanceResponse) -> dict[str, dict[str, float]]:
    """Name of the objective -> name of the parameter -> importance, the most important first."""
    found: dict[str, dict[str, float]] = {}
    for entry in message.importances:
        found.setdefault(entry.metric, {})[entry.parameter] = entry.importance
    return found


def unpack_left_out(message: surrogate_service_pb2.LeaveOneOut) -> LeaveOneOut:
    """How the surrogate predicts an observation that it was not shown."""
    return LeaveOneOut(message.metric, message.number, message.observed, unpack_prediction(message.predicted))


def unpack_progress(message: study_service_pb2.WatchStudyResponse) -> Progress:
    """What a watch brings at once. Changes of a kind that this client does not know are left out."""
    return Progress([change for each in message.changes for change in _unpack_change(each)], message.sequence)


def _unpack_change(message: study_service_pb2.Change) -> list[Change]:
    match message.WhichOneof("change"):
        case "study":
            return [StudyChanged(message.sequence, unpack_study(message.study))]
        case "trial":
            return [TrialChanged(message.sequence, unpack_trial(message.trial))]
        case _:
            return []


def _optional(message: Message, field: str) -> Any:
    """The value of a field with presence; None if it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def _time(message: Message, field: str) -> datetime | None:
    stamp: Timestamp | None = _optional(message, field)
    return None if stamp is None else stamp.ToDatetime(tzinfo=UTC)


def _duration(message: Message, field: str) -> timedelta | None:
    duration: Duration | None = _optional(message, field)
    return None if duration is None else duration.ToTimedelta()
