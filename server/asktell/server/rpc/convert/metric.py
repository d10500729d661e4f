"""Metrics, measurements and objectives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.metric import Goal, Measurement, Metrics, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.rpc.convert.time import read_time, timestamp
from asktell.v1 import metric_pb2 as pb

_GOALS = {Goal.MINIMIZE: pb.Objective.GOAL_MINIMIZE, Goal.MAXIMIZE: pb.Objective.GOAL_MAXIMIZE}
_GOALS_READ = {message: goal for goal, message in _GOALS.items()}
_RELATIONS = {
    Relation.AT_MOST: pb.OutcomeConstraint.RELATION_AT_MOST,
    Relation.AT_LEAST: pb.OutcomeConstraint.RELATION_AT_LEAST,
}
_RELATIONS_READ = {message: relation for relation, message in _RELATIONS.items()}


def read_objectives(objectives: Iterable[pb.Objective]) -> tuple[Objective, ...]:
    """The objectives; paths start at `objectives`."""
    return tuple(_read_objective(index, objective) for index, objective in enumerate(objectives))


def _read_objective(index: int, message: pb.Objective) -> Objective:
    reference = message.reference if message.HasField("reference") else None
    return Objective(message.metric, read_goal(f"objectives[{index}].goal", message.goal), reference)


def read_goal(path: str, goal: pb.Objective.Goal.ValueType) -> Goal:
    """The goal, or InvalidArgument that names `path`."""
    if goal not in _GOALS_READ:
        raise InvalidArgument(path, "must be GOAL_MINIMIZE or GOAL_MAXIMIZE")
    return _GOALS_READ[goal]


def goal_message(goal: Goal) -> pb.Objective.Goal.ValueType:
    """The message's value for a goal."""
    return _GOALS[goal]


def objective_message(objective: Objective) -> pb.Objective:
    """The message for an objective."""
    return pb.Objective(metric=objective.metric, goal=goal_message(objective.goal), reference=objective.reference)


def read_constraints(constraints: Iterable[pb.OutcomeConstraint]) -> tuple[OutcomeConstraint, ...]:
    """The outcome constraints; paths start at `outcome_constraints`."""
    return tuple(_read_constraint(index, constraint) for index, constraint in enumerate(constraints))


def _read_constraint(index: int, message: pb.OutcomeConstraint) -> OutcomeConstraint:
    if message.relation not in _RELATIONS_READ:
        path = f"outcome_constraints[{index}].relation"
        raise InvalidArgument(path, "must be RELATION_AT_MOST or RELATION_AT_LEAST")
    return OutcomeConstraint(message.metric, _RELATIONS_READ[message.relation], message.bound)


def constraint_message(constraint: OutcomeConstraint) -> pb.OutcomeConstraint:
    """The message for an outcome constraint."""
    return pb.OutcomeConstraint(
        metric=constraint.metric, relation=_RELATIONS[constraint.relation], bound=constraint.bound
    )


def read_metrics(metrics: Mapping[str, pb.MetricValue]) -> dict[str, MetricValue]:
    """Values by name."""
    # By its keys: protobuf's maps leave their items to Python, which takes longer.
    return {name: _read_metric(metrics[name]) for name in metrics}


def _read_metric(metric: pb.MetricValue) -> MetricValue:
    return MetricValue(metric.value, metric.standard_error if metric.HasField("standard_error") else None)


def put_metrics(messages: MutableMapping[str, pb.MetricValue], metrics: Metrics) -> None:
    """Fill an empty map field with values by name."""
    for name, metric in metrics.items():
        message = messages[name]
        message.value = metric.value
        if metric.standard_error is not None:
            message.standard_error = metric.standard_error


def read_measurements(measurements: Iterable[pb.Measurement]) -> tuple[Measurement, ...]:
    """The measurements, in their order."""
    return tuple(Measurement(message.step, read_metrics(message.metrics)) for message in measurements)


def read_archived(measurements: Iterable[pb.Measurement]) -> tuple[Measurement, ...]:
    """Measurements of an archive, in their order, with their times; paths start at `measurements`."""
    return tuple(
        Measurement(
            message.step,
            read_metrics(message.metrics),
            read_time(message, "create_time", path=f"measurements[{index}]"),
        )
        for index, message in enumerate(measurements)
    )


def measurement_message(measurement: Measurement) -> pb.Measurement:
    """The message for a measurement."""
    message = pb.Measurement(step=measurement.step, create_time=timestamp(measurement.create_time))
    put_metrics(message.metrics, measurement.metrics)
    return message
