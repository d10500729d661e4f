"""Search spaces and parameter values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE

from asktell.server.domain.constraints import read_constraints
from asktell.server.domain.errors import InvalidArgument
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
    check_choice_count,
)
from asktell.v1 import search_space_pb2 as pb


def read_value(path: str, message: pb.ParameterValue) -> ParameterValue:
    """The value with its kind, or InvalidArgument if the message has none."""
    match message.WhichOneof("kind"):
        case "double_value":
            return message.double_value
        case "int64_value":
            return message.int64_value
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "null_value":
            return None
        case _:
            raise InvalidArgument(path, "has no value")


def value_message(value: ParameterValue) -> pb.ParameterValue:
    """The message for a value."""
    message = pb.ParameterValue()
    _put_value(message, value)
    return message


def _put_value(message: pb.ParameterValue, value: ParameterValue) -> None:
    match value:
        case bool():
            message.bool_value = value
        case int():
            message.int64_value = value
        case float():
            message.double_value = value
        case str():
            message.string_value = value
        case None:
            message.null_value = NULL_VALUE


def read_parameters(path: str, values: Mapping[str, pb.ParameterValue]) -> dict[str, ParameterValue]:
    """Values by name."""
    return {name: read_value(f"{path}[{name[:64]}]", value) for name, value in values.items()}


def put_parameters(messages: MutableMapping[str, pb.ParameterValue], parameters: Parameters) -> None:
    """Fill an empty map field with values by name."""
    for name, value in parameters.items():
        _put_value(messages[name], value)


def read_space(specs: Iterable[pb.ParameterSpec], constraints: Sequence[str]) -> SearchSpace:
    """The search space, unchecked but for values that are missing and constraints that cannot be read; paths start at `parameters` or
    `input_constraints`.
    """
    return SearchSpace(read_specs(specs), read_constraints("input_constraints", constraints))


def read_specs(specs: Iterable[pb.ParameterSpec]) -> tuple[ParameterSpec, ...]:
    """The parameters, unchecked but for values that are missing; paths start at `parameters`."""
    return tuple(_read_spec(f"parameters[{index}]", spec) for index, spec in enumerate(specs))


def _read_spec(path: str, spec: pb.ParameterSpec) -> ParameterSpec:
    common: dict[str, Any] = {"name": spec.name}
    if spec.HasField("default_value"):
        common |= {"default": read_value(f"{path}.default_value", spec.default_value), "has_default": True}
    if spec.HasField("when"):
        values = _read_values(f"{path}.when.values", spec.when.values)
        common["when"] = Condition(spec.when.parent, values)
    return _read_kind(path, spec, common)


def _read_kind(path: str, spec: pb.ParameterSpec, common: Mapping[str, Any]) -> ParameterSpec:
    match spec.WhichOneof("kind"):
        case "float_spec":
            real = spec.float_spec
            step = real.step if real.HasField("step") else None
            return _with_float_default(Float(low=real.low, high=real.high, log=real.log, step=step, **common))
        case "int_spec":
            whole = spec.int_spec
            stride = whole.step if whole.HasField("step") else None
            return Int(low=whole.low, high=whole.high, log=whole.log, step=stride, **common)
        case "categorical_spec":
            choices = _read_values(f"{path}.categorical_spec.choices", spec.categorical_spec.choices)
            return Categorical(choices=choices, **common)
        case "bool_spec":
            return Bool(**common)
        case "ordinal_spec":
            values = _read_values(f"{path}.ordinal_spec.values", spec.ordinal_spec.values)
            return Ordinal(values=values, **common)
        case _:
            raise InvalidArgument(f"{path}.kind", "is missing: a parameter is float, int, categorical, bool or ordinal")


def _with_float_default(spec: Float) -> Float:
    """A whole number is a fine default of a float; it is kept as the float that it stands for."""
    if isinstance(spec.default, int) and not isinstance(spec.default, bool):
        return replace(spec, default=float(spec.default))
    return spec


def _read_values(path: str, values: Sequence[pb.ParameterValue]) -> tuple[ParameterValue, ...]:
    # Counted before they are read: a million of them would keep all other calls waiting.
    check_choice_count(path, len(values))
    return tuple(read_value(f"{path}[{index}]", value) for index, value in enumerate(values))


def count_listed(space: SearchSpace) -> int:
    """How many values the parameters and their conditions name one by one: what a message of the space takes its time for."""
    return sum(_count_own(spec) + (0 if spec.when is None else len(spec.when.values)) for spec in space.parameters)


def _count_own(spec: ParameterSpec) -> int:
    match spec:
        case Categorical():
            return len(spec.choices)
        case Ordinal():
            return len(spec.values)
        case _:
            return 0


def spec_message(spec: ParameterSpec) -> pb.ParameterSpec:
    """The message for a parameter."""
    message = pb.ParameterSpec(name=spec.name)
    if spec.has_default:
        message.default_value.CopyFrom(value_message(spec.default))
    if spec.when is not None:
        message.when.parent = spec.when.parent
        message.when.values.extend(value_message(value) for value in spec.when.values)
    match spec:
        case Float():
            message.float_spec.CopyFrom(pb.FloatSpec(low=spec.low, high=spec.high, log=spec.log, step=spec.step))
        case Int():
            message.int_spec.CopyFrom(pb.IntSpec(low=spec.low, high=spec.high, log=spec.log, step=spec.step))
        case Categorical():
            message.categorical_spec.choices.extend(value_message(value) for value in spec.choices)
        case Bool():
            message.bool_spec.SetInParent()
        case Ordinal():
            message.ordinal_spec.values.extend(value_message(value) for value in spec.values)
    return message
