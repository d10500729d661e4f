"""How a search space may change while its study runs: it becomes wider, so that earlier trials stay what they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.space import (
    Bool,
    Categorical,
    Float,
    Int,
    Ordinal,
    ParameterSpec,
    ParameterValue,
    SearchSpace,
    describe,
    kinds,
)
from asktell.server.domain.text import excerpt


def widened(space: SearchSpace, parameters: Sequence[ParameterSpec]) -> SearchSpace:
    """The space with these parameters in place of its own, and its order and constraints.

    Each has a range that contains the earlier one: lower or higher bounds, more choices, more values of an ordinal one between or around the
    earlier ones in their order. Kinds, log scales, steps and conditions stay; defaults may change. InvalidArgument, with a path that
    starts at `parameters`, for anything else, and if the new space makes no sense.
    """
    given = {spec.name: (f"parameters[{index}]", spec) for index, spec in enumerate(parameters)}
    own = {spec.name for spec in space}
    for name, (field, _) in given.items():
        if name not in own:
            raise InvalidArgument(
                f"{field}.name", f"{excerpt(name)} is not a parameter of the study, and none can be added"
            )
    missing = [spec.name for spec in space if spec.name not in given]
    if missing:
        raise InvalidArgument("parameters", f"lacks {', '.join(missing[:10])}: parameters cannot be removed or renamed")
    for spec in space:
        _check(spec, *given[spec.name])
    # In the caller's order, for the paths of errors.
    SearchSpace(tuple(parameters), space.constraints).validate()
    return replace(space, parameters=tuple(given[spec.name][1] for spec in space))


def _check(old: ParameterSpec, field: str, new: ParameterSpec) -> None:
    if type(old) is not type(new):
        raise _refused(f"{field}.kind", old, f"cannot become {type(new).__name__.lower()}")
    # Python holds 1, 1.0 and True for equal; their written forms differ.
    if repr(old.when) != repr(new.when):
        raise _refused(f"{field}.when", old, "keeps its condition: earlier trials have it exactly where that is met")
    match old, new:
        case Float() | Int(), Float() | Int():
            _check_range(old, f"{field}.{type(old).__name__.lower()}_spec", new)
        case Categorical(), Categorical():
            _check_members(old, f"{field}.categorical_spec.choices", old.choices, new.choices)
        case Ordinal(), Ordinal():
            _check_members(old, f"{field}.ordinal_spec.values", old.values, new.values)
            _check_order(old, f"{field}.ordinal_spec.values", new.values)
        case Bool(), Bool():
            pass


def _check_range(old: Float | Int, field: str, new: Float | Int) -> None:
    if new.low > old.low:
        raise _refused(f"{field}.low", old, f"cannot begin at {new.low!r} instead of {old.low!r}: ranges only widen")
    if new.high < old.high:
        raise _refused(f"{field}.high", old, f"cannot end at {new.high!r} instead of {old.high!r}: ranges only widen")
    if new.log != old.log:
        raise _refused(f"{field}.log", old, "keeps its scale")
    if new.step != old.step:
        raise _refused(f"{field}.step", old, f"keeps its step, {old.step!r}")
    if old.step is not None and not _on_steps(old.low - new.low, old.step):
        raise _refused(
            f"{field}.low", old, f"cannot begin at {new.low!r}: earlier values would be off the steps of {old.step!r}"
        )


def _on_steps(distance: float, step: float) -> bool:
    steps = distance / step
    return math.isfinite(steps) and math.isclose(steps, round(steps), abs_tol=1e-9)


def _check_members(
    old: ParameterSpec, field: str, before: Sequence[ParameterValue], after: Sequence[ParameterValue]
) -> None:
    lost = [value for value in before if (type(value), value) not in kinds(after)]
    if lost:
        raise _refused(field, old, f"cannot lose {describe(lost[0])}: values are only added")


def _check_order(old: Ordinal, field: str, after: Sequence[ParameterValue]) -> None:
    kept = [value for value in after if (type(value), value) in old.members]
    if repr(kept) != repr(list(old.values)):
        raise _refused(field, old, "keeps the order of its values")


def _refused(field: str, spec: ParameterSpec, why: str) -> InvalidArgument:
    return InvalidArgument(field, f"{spec.name!r} {why}")
