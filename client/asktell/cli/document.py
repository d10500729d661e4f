"""Studies and trials as plain JSON: what `--json` prints, what files contain.

Numbers that JSON lacks are the texts "NaN", "Infinity" and "-Infinity", durations are seconds, times ISO 8601 in UTC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from asktell.client import (
    AtLeast,
    AtMost,
    Bool,
    Categorical,
    Fidelity,
    Float,
    Int,
    Maximize,
    Minimize,
    Ordinal,
    Population,
)
from asktell.client.spec import NO_DEFAULT, Objective, OutcomeConstraint, ParameterSpec
from asktell.client.stopping import STOPPING_RULES, StoppingRule
from asktell.client.values import Budget, MetricValue, StudyRecord, TrialRecord

Document = dict[str, Any]

KINDS: Mapping[str, type[ParameterSpec]] = {
    "float": Float,
    "int": Int,
    "categorical": Categorical,
    "bool": Bool,
    "ordinal": Ordinal,
}
_SETTINGS = ("policy", "seed", "lease_duration", "max_attempts", "late_tells", "noisy", "warm_start")


class Malformed(ValueError):
    """A document that describes no study or trial; the message names the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A study to be created. `settings` are those of `_SETTINGS` that are given."""

    name: str = ""
    parameters: tuple[ParameterSpec, ...] = ()
    constraints: tuple[str, ...] = ()
    objectives: tuple[Objective, ...] = ()
    outcome_constraints: tuple[OutcomeConstraint, ...] = ()
    stopping_rule: StoppingRule | None = None
    fidelity: Fidelity | None = None
    population: Population | None = None
    budget: Budget = field(default_factory=Budget)
    labels: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def of_study(record: StudyRecord) -> Document:
    """The document of a study."""
    budget = asdict(record.budget)
    return {
        "name": record.name.rpartition("/")[2],
        "project": record.name.split("/")[1],
        "state": record.state.value,
        "parameters": [of_parameter(parameter) for parameter in record.parameters],
        "constraints": list(record.constraints),
        "objectives": [_of_objective(objective) for objective in record.objectives],
        "outcome_constraints": [_of_constraint(constraint) for constraint in record.outcome_constraints],
        "noisy": record.noisy,
        "warm_start": list(record.warm_start),
        "stopping_rule": None if record.stopping_rule is None else of_stopping_rule(record.stopping_rule),
        "fidelity": None if record.fidelity is None else asdict(record.fidelity),
        "population": None if record.population is None else asdict(record.population),
        "policy": record.policy,
        "seed": record.seed,
        "lease_duration": _seconds(record.lease_duration),
        "max_attempts": record.max_attempts,
        "late_tells": None if record.late_tells is None else record.late_tells.value,
        "budget": {**budget, "max_duration": _seconds(record.budget.max_duration)},
        "labels": dict(record.labels),
        "counts": asdict(record.counts),
        "create_time": time(record.create_time),
        "update_time": time(record.update_time),
    }


def _of_objective(objective: Objective) -> Document:
    reference = {} if objective.reference is None else {"reference": objective.reference}
    return {"metric": objective.metric, "goal": objective.goal, **reference}


def _of_constraint(constraint: OutcomeConstraint) -> Document:
    return {"metric": constraint.metric, "at_most" if isinstance(constraint, AtMost) else "at_least": constraint.bound}


def of_stopping_rule(rule: StoppingRule) -> Document:
    """The document of a stopping rule: its kind, and what differs from the plain case."""
    given = {
        field.name: getattr(rule, field.name) for field in fields(rule) if getattr(rule, field.name) != field.default
    }
    return {"kind": rule.kind, **given}


def of_parameter(parameter: ParameterSpec) -> Document:
    """The document of a parameter: its kind, range, and what else differs from the plain case."""
    document: Document = {"name": parameter.name, "kind": kind(parameter)}
    match parameter:
        case Float() | Int():
            document |= {"low": parameter.low, "high": parameter.high, "log": parameter.log}
            document |= {} if parameter.step is None else {"step": parameter.step}
        case Categorical():
            document["choices"] = list(parameter.choices)
        case Ordinal():
            document["values"] = list(parameter.values)
    if parameter.default is not NO_DEFAULT:
        document["default"] = parameter.default
    if parameter.when is not None:
        document["when"] = {"parent": parameter.when[0], "values": list(parameter.when[1])}
    return document


def kind(parameter: ParameterSpec) -> str:
    """`float`, `int`, `categorical`, `bool` or `ordinal`."""
    return type(parameter).__name__.lower()


def of_trial(record: TrialRecord) -> Document:
    """The document of a trial; `measurements` are there if the record has them."""
    return {
        "number": record.number,
        "state": record.state.value,
        "parameters": dict(record.parameters),
        "metrics": _of_metrics(record.metrics),
        "measurements": [
            {"step": each.step, "metrics": _of_metrics(each.metrics), "create_time": time(each.create_time)}
            for each in record.measurements
        ],
        "message": record.message,
        "metadata": dict(record.metadata),
        "attempt": record.attempt,
        "worker_id": record.worker_id,
        "checkpoint_uri": record.checkpoint_uri,
        "parent": record.parent,
        "member": record.member,
        "origin": {
            "policy": record.origin.policy,
            "method": record.origin.method,
            "fallback": record.origin.fallback,
            "reason": record.origin.reason,
            "predictions": {name: asdict(prediction) for name, prediction in record.origin.predictions.items()},
            "acquisition": record.origin.acquisition,
            "incumbent": record.origin.incumbent,
            "compute_duration": _seconds(record.origin.compute_duration),
        },
        "create_time": time(record.create_time),
        "start_time": time(record.start_time),
        "end_time": time(record.end_time),
    }


def _of_metrics(metrics: Mapping[str, MetricValue]) -> Document:
    return {
        name: {"value": number(metric.value), "standard_error": metric.standard_error}
        for name, metric in metrics.items()
    }


def number(value: float) -> float | str:
    """A number as JSON has it."""
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def time(instant: datetime | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")


def draft(document: Any) -> Draft:
    """Return the study that a document describes, or raise Malformed. What only the service sets is passed over."""
    members = _members("the study", document)
    known = {
        "name",
        "project",
        "state",
        "parameters",
        "constraints",
        "objectives",
        "outcome_constraints",
        "stopping_rule",
        "fidelity",
        "population",
        "budget",
        "labels",
        "counts",
        "create_time",
        "update_time",
    }
    _no_others("the study", members, {*known, *_SETTINGS})
    parameters = _list("parameters", members.get("parameters"))
    objectives = _list("objectives", members.get("objectives"))
    bounds = _list("outcome_constraints", members.get("outcome_constraints"))
    rule, dial, crowd = (members.get(name) for name in ("stopping_rule", "fidelity", "population"))
    return Draft(
        name=str(members.get("name", "")),
        parameters=tuple(_at(f"parameters[{place}]", parameter, each) for place, each in enumerate(parameters)),
        constraints=tuple(
            _at(f"constraints[{place}]", _text, each)
            for place, each in enumerate(_list("constraints", members.get("constraints")))
        ),
        objectives=tuple(_at(f"objectives[{place}]", objective, each) for place, each in enumerate(objectives)),
        outcome_constraints=tuple(
            _at(f"outcome_constraints[{place}]", constraint, each) for place, each in enumerate(bounds)
        ),
        stopping_rule=None if rule is None else _at("stopping_rule", stopping_rule, rule),
        fidelity=None if dial is None else _at("fidelity", fidelity, dial),
        population=None if crowd is None else _at("population", population, crowd),
        budget=_at("budget", _budget, members.get("budget") or {}),
        labels=_members("labels", members.get("labels") or {}),
        settings={name: members[name] for name in _SETTINGS if members.get(name) is not None},
    )


def parameter(document: Any) -> ParameterSpec:
    """Return the parameter that a document describes, or raise ValueError or TypeError."""
    members = dict(_members("it", document))
    name, kind_name, when = members.pop("name", None), members.pop("kind", None), members.pop("when", None)
    if not isinstance(name, str):
        raise ValueError("it has no name")
    if kind_name not in KINDS:
        raise ValueError(f"the kind of {name} is {kind_name!r}, not one of {', '.join(KINDS)}")
    if when is not None:
        members["when"] = _condition(when)
    try:
        return KINDS[kind_name](name, **members)
    except TypeError as error:
        said = _plain(error)
        raise ValueError(said if said.startswith(f"parameter {name}, ") else f"{name}: {said}") from error


def _plain(error: TypeError) -> str:
    """What Python says of a call, as it looks from the document."""
    lacks = re.search(r"missing \d+ required positional arguments?: (.*)", str(error))
    if lacks:
        return f"it lacks {lacks[1].replace(chr(39), '')}"
    strange = re.search(r"unexpected keyword argument '(.*)'", str(error))
    return f"it cannot have {strange[1]!r}" if strange else str(error)


def _condition(document: Any) -> tuple[str, Sequence[Any]]:
    members = _members("when", document)
    _no_others("when", members, {"parent", "values"})
    if not isinstance(members.get("parent"), str) or not isinstance(members.get("values"), list):
        raise ValueError('when is written as {"parent": "optimizer", "values": ["sgd"]}')
    return members["parent"], members["values"]


def objective(document: Any) -> Objective:
    """Return the objective that a document describes, or raise ValueError."""
    members = _members("it", document)
    _no_others("it", members, {"metric", "goal", "reference"})
    goals: Mapping[str, type[Minimize | Maximize]] = {"minimize": Minimize, "maximize": Maximize}
    if members.get("goal") not in goals or not isinstance(members.get("metric"), str):
        raise ValueError('an objective is written as {"metric": "loss", "goal": "minimize"}, or "maximize"')
    reference = members.get("reference")
    return goals[members["goal"]](members["metric"], None if reference is None else _finite("reference", reference))


def constraint(document: Any) -> OutcomeConstraint:
    """Return the outcome constraint that a document describes, or raise ValueError."""
    members = _members("it", document)
    match members:
        case {"metric": str(metric), "at_most": bound} if len(members) == 2:
            return AtMost(metric, _finite("at_most", bound))
        case {"metric": str(metric), "at_least": bound} if len(members) == 2:
            return AtLeast(metric, _finite("at_least", bound))
    raise ValueError('a constraint is written as {"metric": "latency_ms", "at_most": 50}, or with "at_least"')


def _text(document: Any) -> str:
    if not isinstance(document, str):
        raise ValueError('a constraint between parameters is written as "a + b <= 1"')
    return document


def stopping_rule(document: Any) -> StoppingRule:
    """Return the stopping rule that a document describes, or raise ValueError."""
    members = dict(_members("it", document))
    kind_name = members.pop("kind", None)
    if kind_name not in STOPPING_RULES:
        raise ValueError(f"the kind is {kind_name!r}, not one of {', '.join(STOPPING_RULES)}")
    try:
        return STOPPING_RULES[kind_name](**members)
    except TypeError as error:
        raise ValueError(f"{kind_name}: {_plain(error)}") from error


def fidelity(document: Any) -> Fidelity:
    """Return the fidelity that a document describes, or raise ValueError."""
    members = _members("it", document)
    _no_others("it", members, {"parameter", "reduction_factor"})
    parameter, factor = members.get("parameter"), members.get("reduction_factor", Fidelity("").reduction_factor)
    if not isinstance(parameter, str) or isinstance(factor, bool) or not isinstance(factor, int):
        raise ValueError('a fidelity is written as {"parameter": "epochs", "reduction_factor": 3}')
    return Fidelity(parameter, reduction_factor=factor)


def population(document: Any) -> Population:
    """Return the population that a document describes, or raise ValueError."""
    members = dict(_members("it", document))
    _no_others("it", members, {each.name for each in fields(Population)})
    size = members.pop("size", Population().size)
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError('a population is written as {"size": 8, "exploit_fraction": 0.25}')
    return Population(size=size, **{name: _finite(name, value) for name, value in members.items()})


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}, not a number")
    return float(value)


def _budget(document: Any) -> Budget:
    members = dict(_members("it", document))
    _no_others("it", members, {"max_trials", "max_duration", "max_failures", "max_parallel"})
    if members.get("max_duration") is not None:
        members["max_duration"] = timedelta(seconds=members["max_duration"])
    return Budget(**members)


def _at(place: str, build: Callable[[Any], Any], document: Any) -> Any:
    try:
        return build(document)
    except (ValueError, TypeError, KeyError) as error:
        raise Malformed(f"{place}: {error}") from error


def _members(what: str, document: Any) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise Malformed(f"{what} is not an object of names and values")
    return document


def _list(what: str, document: Any) -> Sequence[Any]:
    if document is None:
        return ()
    if not isinstance(document, list):
        raise Malformed(f"{what} is not a list")
    return document


def _no_others(what: str, members: Mapping[str, Any], known: set[str]) -> None:
    if others := sorted(set(members) - known):
        raise Malformed(f"{what} has {', '.join(others)}; known are {', '.join(sorted(known))}")
