"""A search space becomes wider, and nothing else."""

from __future__ import annotations

import pytest

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, ParameterSpec, SearchSpace
from asktell.server.domain.widening import widened

RATE = Float(name="rate", low=1e-4, high=1e-2, log=True)
GRID = Float(name="grid", low=0.0, high=1.0, step=0.25)
SIZE = Int(name="size", low=2, high=8, step=3)
KIND = Categorical(name="kind", choices=("a", 1, None))
LEVEL = Ordinal(name="level", values=(16, 32))
FLAG = Bool(name="flag", when=Condition("kind", ("a", 1)))
SPACE = SearchSpace((RATE, GRID, SIZE, KIND, LEVEL, FLAG), (InputConstraint.parse("rate <= grid + 1"),))


def changed(*changes: ParameterSpec) -> SearchSpace:
    by_name = {spec.name: spec for spec in changes}
    return widened(SPACE, [by_name.get(spec.name, spec) for spec in SPACE])


@pytest.mark.parametrize(
    "spec",
    [
        Float(name="rate", low=1e-6, high=1.0, log=True),
        Float(name="rate", low=1e-4, high=1e-2, log=True, default=1e-3, has_default=True),
        Float(name="grid", low=-0.5, high=1.1, step=0.25),
        Int(name="size", low=-4, high=9, step=3),
        Categorical(name="kind", choices=(1.0, None, "a", 1)),
        Ordinal(name="level", values=(8, 16, 24, 32, 64)),
        Bool(name="flag", when=Condition("kind", ("a", 1)), default=True, has_default=True),
    ],
)
def test_ranges_widen_values_are_added_and_defaults_change(spec: ParameterSpec) -> None:
    space = changed(spec)
    assert space[spec.name] == spec
    assert space.constraints == SPACE.constraints
    assert [each.name for each in space] == [each.name for each in SPACE]


def test_the_order_of_parameters_stays_whatever_order_they_come_in() -> None:
    assert widened(SPACE, list(SPACE)[::-1]) == SPACE


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Float(name="rate", low=1e-3, high=1e-2, log=True), "parameters[0].float_spec.low"),
        (Float(name="rate", low=1e-4, high=1e-3, log=True), "parameters[0].float_spec.high"),
        (Float(name="rate", low=1e-4, high=1e-2), "parameters[0].float_spec.log"),
        (Float(name="rate", low=0.0, high=1e-2, log=True), "parameters[0].float_spec.low"),
        (Int(name="rate", low=0, high=1), "parameters[0].kind"),
        (Float(name="grid", low=-0.1, high=1.0, step=0.25), "parameters[1].float_spec.low"),
        (Float(name="grid", low=0.0, high=1.0, step=0.125), "parameters[1].float_spec.step"),
        (Float(name="grid", low=0.0, high=1.0), "parameters[1].float_spec.step"),
        (Int(name="size", low=0, high=8, step=3), "parameters[2].int_spec.low"),
        (Categorical(name="kind", choices=("a", True, None)), "parameters[3].categorical_spec.choices"),
        (Ordinal(name="level", values=(32, 16, 64)), "parameters[4].ordinal_spec.values"),
        (Bool(name="flag"), "parameters[5].when"),
        (Bool(name="flag", when=Condition("kind", ("a", 1, None))), "parameters[5].when"),
    ],
)
def test_what_would_take_something_from_earlier_trials_is_refused_by_parameter(spec: ParameterSpec, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        changed(spec)
    assert refused.value.field == field


def test_parameters_are_neither_added_nor_removed_nor_renamed() -> None:
    for given in ([*SPACE, Bool(name="new")], list(SPACE)[1:], [*list(SPACE)[:5], Bool(name="banner", when=FLAG.when)]):
        with pytest.raises(InvalidArgument, match=r"cannot be removed or renamed|none can be added"):
            widened(SPACE, given)


def test_a_default_that_breaks_a_constraint_is_refused() -> None:
    space = SearchSpace((RATE, GRID), (InputConstraint.parse("grid <= 0.5"),))
    with pytest.raises(InvalidArgument, match=r"default values grid = 0\.75"):
        widened(space, [RATE, Float(name="grid", low=0.0, high=1.0, step=0.25, default=0.75, has_default=True)])
