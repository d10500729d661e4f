"""Domain values as JSON text that keeps their kinds.

A document is `[version, content]`. In it a number with a point or an exponent is a float and one without is an integer, of any size, so that
1, 1.0, true and "1" stay four values and -0.0 keeps its sign; `{"float": "nan"}`, `"inf"` and `"-inf"` are the numbers that JSON lacks.
Durations are whole microseconds. Names keep their order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from functools import lru_cache
from typing import Any

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.errors import FailedPrecondition
from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Goal, Metrics, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.population import Population
from asktell.server.domain.space import (
    Bool,
    Categorical,
    Condition,
    Float,
    Int,
    Ordinal,
    Parameters,
    ParameterSpec,
    ParameterValue,
    SearchSpace,
)
from asktell.server.domain.stopping import StoppingRule, make_kind
from asktell.server.domain.study import Budget, LateTells, StudySpec
from asktell.server.domain.trial import Origin, Prediction

VERSION = 1

_MICROSECOND = timedelta(microseconds=1)
# Made once: `json.dumps` makes an encoder for each call, and `json.loads` looks for spaces around.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode
_EMPTY = f"[{VERSION},{{}}]"
_KINDS: Mapping[str, type[ParameterSpec]] = {
    "float": Float,
    "int": Int,
    "categorical": Categorical,
    "bool": Bool,
    "ordinal": Ordinal,
}
_RANGE: Mapping[str, tuple[str, ...]] = {
    "float": ("low", "high", "log", "step"),
    "int": ("low", "high", "log", "step"),
    "categorical": ("choices",),
    "bool": (),
    "ordinal": ("values",),
}


class UnknownEncoding(Exception):
    """The database holds a document of a version that this server does not know."""


def pack_parameters(parameters: Parameters) -> str:
    return _dump({name: _value(value) for name, value in parameters.items()})


def unpack_parameters(text: str) -> dict[str, ParameterValue]:
    return {name: _read_value(value) for name, value in _load(text).items()}


def pack_metrics(metrics: Metrics) -> str:
    if not metrics:
        return _EMPTY
    return _dump({name: [_number(each.value), _number(each.standard_error)] for name, each in metrics.items()})


def unpack_metrics(text: str) -> dict[str, MetricValue]:
    return {name: MetricValue(_read_value(value), _read_value(error)) for name, (value, error) in _load(text).items()}


def pack_notes(notes: Mapping[str, str]) -> str:
    """Labels or metadata."""
    return _dump(dict(notes)) if notes else _EMPTY


def unpack_notes(text: str) -> dict[str, str]:
    notes: dict[str, str] = _load(text)
    return notes


def pack_origin(origin: Origin) -> str:
    return _dump(
        {
            "policy": origin.policy,
            "method": origin.method,
            "fallback": origin.fallback,
            "reason": origin.reason,
            "predictions": {
                name: [_number(each.mean), _number(each.standard_deviation)]
                for name, each in origin.predictions.items()
            },
            "acquisition": _number(origin.acquisition),
            "incumbent": _number(origin.incumbent),
            "compute_duration": _microseconds(origin.compute_duration),
            "made_for": origin.made_for,
        }
    )


def unpack_origin(text: str) -> Origin:
    content = _load(text)
    return Origin(
        policy=content["policy"],
        method=content["method"],
        fallback=content["fallback"],
        reason=content.get("reason", ""),
        predictions={
            name: Prediction(_read_value(mean), _read_value(deviation))
            for name, (mean, deviation) in content["predictions"].items()
        },
        acquisition=_read_value(content["acquisition"]),
        incumbent=_read_value(content["incumbent"]),
        compute_duration=timedelta(microseconds=content["compute_duration"]),
        made_for=content.get("made_for", 0),
    )


def pack_budget(budget: Budget) -> str:
    duration = budget.max_duration
    return _dump(
        {
            "max_trials": budget.max_trials,
            "max_duration": None if duration is None else _microseconds(duration),
            "max_failures": budget.max_failures,
            "max_parallel": budget.max_parallel,
        }
    )


@lru_cache(maxsize=256)
def unpack_budget(text: str) -> Budget:
    """As for specs: equal texts share one value."""
    content = _load(text)
    duration = content["max_duration"]
    return Budget(
        max_trials=content["max_trials"],
        max_duration=None if duration is None else timedelta(microseconds=duration),
        max_failures=content["max_failures"],
        max_parallel=content["max_parallel"],
    )


def pack_spec(spec: StudySpec) -> str:
    return _dump(
        {
            "parameters": [_parameter(parameter) for parameter in spec.space],
            "input_constraints": [constraint.text for constraint in spec.space.constraints],
            "objectives": [[each.metric, each.goal.value, _number(each.reference)] for each in spec.objectives],
            "outcome_constraints": [
                [each.metric, each.relation.value, _number(each.bound)] for each in spec.outcome_constraints
            ],
            "policy": spec.policy,
            "seed": spec.seed,
            "lease_duration": _microseconds(spec.lease_duration),
            "max_attempts": spec.max_attempts,
            "late_tells": spec.late_tells.value,
            "noisy": spec.noisy,
            "stopping_rule": None if spec.stopping_rule is None else _stopping_rule(spec.stopping_rule),
            "warm_start": list(spec.warm_start),
            "fidelity": None if spec.fidelity is None else asdict(spec.fidelity),
            "population": None if spec.population is None else asdict(spec.population),
        }
    )


@lru_cache(maxsize=256)
def unpack_spec(text: str) -> StudySpec:
    """Equal texts share one value: a spec hardly ever changes, may be large, and is read by every call."""
    try:
        return _read_spec(_load(text))
    except KeyError as error:
        raise FailedPrecondition(
            f"a study in the database has no {error}: an earlier asktell wrote it; export it with that one and import the file"
        ) from error


def _read_spec(content: Mapping[str, Any]) -> StudySpec:
    return StudySpec(
        space=SearchSpace(
            tuple(_read_parameter(parameter) for parameter in content["parameters"]),
            tuple(InputConstraint.parse(text) for text in content["input_constraints"]),
        ),
        objectives=tuple(
            Objective(metric, Goal(goal), _read_value(reference)) for metric, goal, reference in content["objectives"]
        ),
        outcome_constraints=tuple(
            OutcomeConstraint(metric, Relation(relation), _read_value(bound))
            for metric, relation, bound in content["outcome_constraints"]
        ),
        policy=content["policy"],
        seed=content["seed"],
        lease_duration=timedelta(microseconds=content["lease_duration"]),
        max_attempts=content["max_attempts"],
        late_tells=LateTells(content["late_tells"]),
        noisy=content["noisy"],
        stopping_rule=_read_stopping_rule(content.get("stopping_rule")),
        warm_start=tuple(content["warm_start"]),
        fidelity=None if content.get("fidelity") is None else Fidelity(**content["fidelity"]),
        population=None if content.get("population") is None else Population(**content["population"]),
    )


def _stopping_rule(rule: StoppingRule) -> dict[str, Any]:
    return {
        "kind": rule.name,
        "fields": asdict(rule.kind),
        "metric": rule.metric,
        "goal": None if rule.goal is None else rule.goal.value,
        "warmup_steps": rule.warmup_steps,
        "max_step": rule.max_step,
    }


def _read_stopping_rule(content: dict[str, Any] | None) -> StoppingRule | None:
    if content is None:
        return None
    goal = content["goal"]
    return StoppingRule(
        kind=make_kind(content["kind"], content["fields"]),
        metric=content["metric"],
        goal=None if goal is None else Goal(goal),
        warmup_steps=content["warmup_steps"],
        max_step=content["max_step"],
    )


def _parameter(spec: ParameterSpec) -> dict[str, Any]:
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(spec, cls))
    content: dict[str, Any] = {"kind": kind, "name": spec.name}
    content |= {field: _range(getattr(spec, field)) for field in _RANGE[kind]}
    if spec.has_default:
        content["default"] = _value(spec.default)
    if spec.when is not None:
        content["when"] = {"parent": spec.when.parent, "values": _range(spec.when.values)}
    return content


def _read_parameter(content: dict[str, Any]) -> ParameterSpec:
    fields: dict[str, Any] = {field: _read_range(content[field]) for field in _RANGE[content["kind"]]}
    if "default" in content:
        fields |= {"has_default": True, "default": _read_value(content["default"])}
    if "when" in content:
        fields["when"] = Condition(content["when"]["parent"], _read_range(content["when"]["values"]))
    return _KINDS[content["kind"]](name=content["name"], **fields)


def _range(part: Any) -> Any:
    return [_value(value) for value in part] if isinstance(part, tuple) else _value(part)


def _read_range(part: Any) -> Any:
    return tuple(_read_value(value) for value in part) if isinstance(part, list) else _read_value(part)


def _number(value: float | None) -> Any:
    return None if value is None else _value(float(value))


def _value(value: ParameterValue) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(float(value))}
    return value


def _read_value(value: Any) -> Any:
    return float(value["float"]) if isinstance(value, dict) else value


def _microseconds(duration: timedelta) -> int:
    return duration // _MICROSECOND


def _dump(content: Any) -> str:
    return _encode([VERSION, content])


def _load(text: str) -> Any:
    # Most documents of a trial are empty.
    if text == _EMPTY:
        return {}
    (version, content), _ = _decode(text)
    if version != VERSION:
        raise UnknownEncoding(f"a stored document has version {version!r}; this server knows {VERSION}")
    return content
