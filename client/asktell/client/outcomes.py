"""What may be said of a trial: metrics as users write them, and the ways in which a trial ends."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsFloat, TypeAlias

from google.protobuf.message import Message

from asktell.client import wire
from asktell.client.errors import Cancelled, DeadlineExceeded, InvalidArgument, Unavailable
from asktell.client.values import MetricLike, Metrics, MetricValue
from asktell.v1 import trial_service_pb2

MAX_MESSAGE = 65_536
MAX_EXCERPT = 1_000
"""Characters of metrics in a message."""

Told: TypeAlias = MetricLike | Metrics
_Result = trial_service_pb2.TrialResult


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended: the field of the result and its message."""

    kind: Literal["succeeded", "failed", "infeasible", "stopped"]
    message: Message


def gather(told: Told | None, named: Metrics, objectives: Sequence[str]) -> dict[str, MetricValue]:
    """Metrics given as a mapping, by name, or as one value where there is one objective. InvalidArgument for what is none."""
    if told is None:
        return metric_values(named)
    if not isinstance(told, Mapping):
        told = {_only(objectives): told}
    if repeated := told.keys() & named.keys():
        raise InvalidArgument.at(f"metrics[{min(repeated)}]", "is given twice")
    return metric_values({**told, **named})


def metric_values(metrics: Metrics, *, field: str = "metrics") -> dict[str, MetricValue]:
    """The metrics as values."""
    return {name: _metric_value(f"{field}[{name}]", metric) for name, metric in metrics.items()}


def lack(metrics: Mapping[str, MetricValue], objectives: Sequence[str]) -> str:
    """Why metrics that an evaluation came to are no result: an objective is NaN. Empty if none is; infinity is a value."""
    absent = [name for name in objectives if name in metrics and math.isnan(metrics[name].value)]
    if not absent:
        return ""
    others = ", ".join(f"{name}={metric.value:.6g}" for name, metric in metrics.items() if name not in absent)
    return (
        f"{', '.join(absent)} is NaN, which is no result{f'; besides it was {others[:MAX_EXCERPT]}' if others else ''}"
    )


def succeeded(metrics: Mapping[str, MetricValue], objectives: Sequence[str]) -> Outcome:
    """The trial was evaluated. InvalidArgument if an objective is missing."""
    for objective in objectives:
        if objective not in metrics:
            given = ", ".join(sorted(metrics)) or "none"
            raise InvalidArgument.at(f"metrics[{objective}]", f"is an objective and missing; given: {given}")
    return Outcome("succeeded", wire.build(_Result.Succeeded, metrics=wire.pack_metrics(metrics)))


def stopped(metrics: Mapping[str, MetricValue], message: str) -> Outcome:
    """The trial was ended early."""
    return Outcome("stopped", wire.build(_Result.Stopped, metrics=wire.pack_metrics(metrics), message=message))


def failed(message: str, *, retry: bool) -> Outcome:
    """The attempt broke."""
    return Outcome("failed", wire.build(_Result.Failed, message=message[:MAX_MESSAGE], retry=retry))


def infeasible(message: str) -> Outcome:
    """These parameters cannot work."""
    return Outcome("infeasible", wire.build(_Result.Infeasible, message=message[:MAX_MESSAGE]))


def explain(error: BaseException) -> str:
    """An exception as the message of a failed trial."""
    text = "".join(traceback.format_exception_only(error)).strip().replace("\0", "\\0")
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_MESSAGE]


def is_objectives_fault(error: BaseException) -> bool:
    """Whether an exception says something about the trial: not Ctrl-C, not an exit, not a service out of reach."""
    return isinstance(error, Exception) and not isinstance(error, Unavailable | DeadlineExceeded | Cancelled)


def _only(objectives: Sequence[str]) -> str:
    if len(objectives) != 1:
        raise InvalidArgument.at("metrics", f"name the metrics: the study has the objectives {', '.join(objectives)}")
    return objectives[0]


def _metric_value(field: str, metric: MetricLike) -> MetricValue:
    if isinstance(metric, MetricValue):
        return metric
    if not isinstance(metric, tuple):
        return MetricValue(_number(field, metric))
    if len(metric) != 2:
        raise InvalidArgument.at(field, f"{metric!r} is not a pair of mean and standard error")
    mean, error = metric
    return MetricValue(_number(field, mean), None if error is None else _number(f"{field}.standard_error", error))


def _number(field: str, value: SupportsFloat) -> float:
    if isinstance(value, str | bytes):
        raise InvalidArgument.at(field, f"{value!r} is text, not a number")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument.at(field, f"{value!r} is not a number: {error}") from error
