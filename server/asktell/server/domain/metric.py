"""The numbers that trials yield, and what is wanted of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.text import check_variable, excerpt

MAX_METRICS = 100
MAX_OBJECTIVES = 16
MAX_CONSTRAINTS = 16
MAX_STEP = 2**53


class Goal(Enum):
    """Which way is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric to optimise. `reference` is a value just bad enough to be worthless, which hypervolume is measured from; None: inferred."""

    metric: str
    goal: Goal
    reference: float | None = None

    def loss(self, value: float) -> float:
        """The value with its sign turned so that smaller is better."""
        return -value if self.goal is Goal.MAXIMIZE else value


class Relation(Enum):
    """Which side of a bound is feasible."""

    AT_MOST = "at most"
    AT_LEAST = "at least"


@dataclass(frozen=True, slots=True)
class OutcomeConstraint:
    """A bound on a metric that a trial must meet to count as feasible."""

    metric: str
    relation: Relation
    bound: float

    def excess(self, value: float) -> float:
        """How far the value lies beyond the bound, in the metric's unit: feasible at or below 0."""
        return value - self.bound if self.relation is Relation.AT_MOST else self.bound - value

    def met(self, metrics: Metrics) -> bool:
        """Whether the metric is there, finite, and within its bound."""
        given = metrics.get(self.metric)
        return given is not None and math.isfinite(given.value) and self.excess(given.value) <= 0


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric's value, which may be NaN or infinite, and its standard error (None: unknown, 0: exact)."""

    value: float
    standard_error: float | None = None


Metrics = Mapping[str, MetricValue]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Metrics at one moment of a trial. `create_time` is set when it is stored."""

    step: int
    metrics: Metrics
    create_time: datetime | None = None


def count_metrics(measurements: Sequence[Measurement]) -> int:
    """How many metrics the measurements have in all, one that was measured at two steps counting twice."""
    return sum(len(measurement.metrics) for measurement in measurements)


def check_objectives(objectives: Sequence[Objective]) -> None:
    """Raise InvalidArgument with a path that starts at `objectives` if they make no sense."""
    if not 1 <= len(objectives) <= MAX_OBJECTIVES:
        raise InvalidArgument("objectives", f"has {len(objectives)} objectives; 1 to {MAX_OBJECTIVES} are allowed")
    seen: set[str] = set()
    for index, objective in enumerate(objectives):
        check_variable(f"objectives[{index}].metric", objective.metric)
        if objective.metric in seen:
            raise InvalidArgument(f"objectives[{index}].metric", f"{objective.metric!r} is an objective already")
        seen.add(objective.metric)
        if objective.reference is not None and not math.isfinite(objective.reference):
            raise InvalidArgument(f"objectives[{index}].reference", f"must be finite, not {objective.reference!r}")


def check_constraints(constraints: Sequence[OutcomeConstraint], objectives: Sequence[Objective]) -> None:
    """Raise InvalidArgument with a path that starts at `outcome_constraints` if they make no sense beside the objectives."""
    if len(constraints) > MAX_CONSTRAINTS:
        raise InvalidArgument(
            "outcome_constraints", f"has {len(constraints)} constraints; at most {MAX_CONSTRAINTS} are allowed"
        )
    taken = {objective.metric: "an objective" for objective in objectives}
    for index, constraint in enumerate(constraints):
        path = f"outcome_constraints[{index}]"
        check_variable(f"{path}.metric", constraint.metric)
        if constraint.metric in taken:
            raise InvalidArgument(f"{path}.metric", f"{constraint.metric!r} is {taken[constraint.metric]} already")
        taken[constraint.metric] = "constrained"
        if not math.isfinite(constraint.bound):
            raise InvalidArgument(f"{path}.bound", f"must be finite, not {constraint.bound!r}")


def check_metrics(metrics: Metrics, *, required: Sequence[Objective] = ()) -> None:
    """Raise InvalidArgument with a path that starts at `metrics` for bad names or standard errors, or a missing objective."""
    if len(metrics) > MAX_METRICS:
        raise InvalidArgument("metrics", f"has {len(metrics):,} metrics; at most {MAX_METRICS} are kept")
    for name, metric in metrics.items():
        check_variable(f"metrics[{name[:64]}]", name)
        error = metric.standard_error
        if error is not None and not (math.isfinite(error) and error >= 0):
            raise InvalidArgument(f"metrics[{name}].standard_error", f"must be finite and at least 0, not {error!r}")
    require_metrics(metrics, required)


def require_metrics(metrics: Metrics, objectives: Sequence[Objective]) -> None:
    """Raise InvalidArgument with a path that starts at `metrics` if an objective is missing."""
    for objective in objectives:
        if objective.metric not in metrics:
            given = ", ".join(excerpt(name) for name in sorted(metrics)[:10]) or "none"
            raise InvalidArgument(f"metrics[{objective.metric}]", f"is an objective and missing; given: {given}")


def check_measurements(measurements: Sequence[Measurement]) -> None:
    """Raise InvalidArgument with a path that starts at `measurements` for bad or repeated steps or bad metrics."""
    seen: set[int] = set()
    for index, measurement in enumerate(measurements):
        field = f"measurements[{index}]"
        if not 0 <= measurement.step <= MAX_STEP:
            raise InvalidArgument(f"{field}.step", f"must be from 0 to 2^53, not {measurement.step}")
        if measurement.step in seen:
            raise InvalidArgument(f"{field}.step", f"{measurement.step} stands there twice")
        seen.add(measurement.step)
        if not measurement.metrics:
            raise InvalidArgument(f"{field}.metrics", "is empty")
        try:
            check_metrics(measurement.metrics)
        except InvalidArgument as error:
            raise error.within(field) from None
