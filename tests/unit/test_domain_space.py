"""Search spaces: what makes sense, what is active, what is in range."""

from __future__ import annotations

import math

import pytest

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
    SearchSpace,
    key,
    middle,
)

OPTIMISERS = Categorical(name="optimizer", choices=("sgd", "adam"))
MOMENTUM = Float(name="momentum", low=0.0, high=0.99, when=Condition("optimizer", ("sgd",)))
NESTEROV = Bool(name="nesterov", when=Condition("momentum", (0.99,)))


def space(*specs: ParameterSpec) -> SearchSpace:
    return SearchSpace(specs)


@pytest.mark.parametrize(
    ("specs", "field"),
    [
        ((), "parameters"),
        ((Float(name="", low=0, high=1),), "parameters[0].name"),
        ((Float(name="a b", low=0, high=1),), "parameters[0].name"),
        ((Float(name="x", low=0, high=1), Bool(name="x")), "parameters[1].name"),
        ((Float(name="x", low=1, high=0),), "parameters[0].float_spec.low"),
        ((Float(name="x", low=math.nan, high=1),), "parameters[0].float_spec.low"),
        ((Float(name="x", low=0, high=math.inf),), "parameters[0].float_spec.high"),
        ((Float(name="x", low=-1.7e308, high=1.7e308),), "parameters[0].float_spec.high"),
        ((Float(name="x", low=0, high=1, log=True),), "parameters[0].float_spec.low"),
        ((Float(name="x", low=0, high=1, step=2),), "parameters[0].float_spec.step"),
        ((Float(name="x", low=0, high=1, step=-1),), "parameters[0].float_spec.step"),
        ((Float(name="x", low=0, high=1e308, step=1e-10),), "parameters[0].float_spec.step"),
        ((Float(name="x", low=1, high=9, step=2, log=True),), "parameters[0].float_spec.step"),
        ((Float(name="x", low=0, high=1, default=2.0, has_default=True),), "parameters[0].default_value"),
        ((Int(name="x", low=-(2**63), high=0),), "parameters[0].int_spec.low"),
        ((Int(name="x", low=0, high=5, log=True),), "parameters[0].int_spec.low"),
        ((Categorical(name="x", choices=()),), "parameters[0].categorical_spec.choices"),
        ((Categorical(name="x", choices=("a", "a")),), "parameters[0].categorical_spec.choices[1]"),
        ((Categorical(name="x", choices=(math.nan,)),), "parameters[0].categorical_spec.choices[0]"),
        ((Ordinal(name="x", values=tuple(range(1001))),), "parameters[0].ordinal_spec.values"),
        ((Bool(name="x", when=Condition("y", (1,))),), "parameters[0].when.parent"),
        ((OPTIMISERS, Bool(name="x", when=Condition("optimizer", ()))), "parameters[1].when.values"),
        ((OPTIMISERS, Bool(name="x", when=Condition("optimizer", ("lion",)))), "parameters[1].when.values[0]"),
        ((Bool(name="x", when=Condition("x", (True,))),), "parameters[0].when.parent"),
        (
            (Bool(name="x", when=Condition("y", (True,))), Bool(name="y", when=Condition("x", (True,)))),
            "parameters[0].when.parent",
        ),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_with_the_field(specs: tuple[ParameterSpec, ...], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        space(*specs).validate()
    assert refused.value.field == field


def test_choices_of_other_kinds_are_other_choices() -> None:
    choices = Categorical(name="x", choices=(1, 1.0, True, "1", None))
    space(choices).validate()
    assert [type(choices.check(value)) for value in choices.choices] == [int, float, bool, str, type(None)]


def test_inactive_parameters_are_dropped_and_refused() -> None:
    conditional = space(NESTEROV, MOMENTUM, OPTIMISERS)
    conditional.validate()
    everything: Parameters = {"nesterov": True, "momentum": 0.5, "optimizer": "sgd"}
    assert conditional.active(everything) == {"momentum": 0.5, "optimizer": "sgd"}
    assert conditional.active({**everything, "momentum": 0.99}) == {**everything, "momentum": 0.99}
    assert conditional.active({**everything, "optimizer": "adam"}) == {"optimizer": "adam"}
    with pytest.raises(InvalidArgument, match="inactive"):
        conditional.check({"optimizer": "adam", "momentum": 0.5})
    with pytest.raises(InvalidArgument, match="missing"):
        conditional.check({"optimizer": "sgd"})
    with pytest.raises(InvalidArgument, match="not a parameter"):
        conditional.check({"optimizer": "adam", "depth": 3})


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (Float(name="x", low=0, high=1), 1.5),
        (Float(name="x", low=0, high=1), math.nan),
        (Float(name="x", low=0, high=1), True),
        (Float(name="x", low=0, high=1), "0.5"),
        (Float(name="x", low=0, high=1, step=0.25), 0.3),
        (Int(name="x", low=0, high=4), 2.0),
        (Int(name="x", low=0, high=4, step=2), 3),
        (Bool(name="x"), 1),
        (Ordinal(name="x", values=(16, 32)), 24),
        (Categorical(name="x", choices=("a",)), None),
    ],
)
def test_a_value_out_of_range_or_of_another_kind_is_refused(spec: ParameterSpec, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        spec.check(value)  # type: ignore[arg-type]


def test_a_whole_number_is_a_fine_float_and_a_step_is_snapped() -> None:
    assert repr(Float(name="x", low=0, high=4).check(2)) == "2.0"
    assert Float(name="x", low=0, high=1, step=0.1).check(0.30000000000000004) == pytest.approx(0.3)
    assert repr(Float(name="x", low=-1, high=1).check(-0.0)) == "0.0"


def test_the_size_of_a_space_counts_configurations() -> None:
    assert space(Bool(name="a"), Int(name="b", low=1, high=5, step=2), OPTIMISERS).size == 12
    assert space(Bool(name="a"), Float(name="b", low=0, high=1)).size is None
    assert space(Float(name="b", low=2, high=2)).size == 1
    assert space(Float(name="b", low=0, high=1, step=0.1)).size == 11


def test_defaults_fill_up_with_the_middle_of_the_range() -> None:
    rate = Float(name="rate", low=1e-4, high=1e-2, log=True)
    layers = Int(name="layers", low=1, high=4, default=2, has_default=True)
    assert space(rate, OPTIMISERS, MOMENTUM).defaults() is None
    defaults = space(rate, layers, OPTIMISERS, MOMENTUM).defaults()
    assert defaults == {"rate": pytest.approx(1e-3), "layers": 2, "optimizer": "sgd", "momentum": 0.495}


@pytest.mark.parametrize(
    "spec",
    [
        Float(name="x", low=1e-300, high=1e300, log=True),
        Float(name="x", low=-8e307, high=8e307),
        Float(name="x", low=0, high=1, step=0.3),
        Int(name="x", low=1, high=10**9, log=True),
        Int(name="x", low=0, high=7, step=3),
        Ordinal(name="x", values=(16, 32, 64)),
    ],
)
def test_the_middle_is_in_range(spec: ParameterSpec) -> None:
    assert spec.check(middle(spec)) == middle(spec)


def test_keys_tell_kinds_apart() -> None:
    assert len({key({"x": value}) for value in (1, 1.0, True, "1", None)}) == 5
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})


WHOLE = (
    Int(name="n", low=0, high=9),
    Ordinal(name="batch", values=(16, 32)),
    Categorical(name="kind", choices=(1, 1.0, True, 2)),
    Float(name="x", low=0, high=4),
)


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("n", 2.0, 2),
        ("n", -0.0, 0),
        ("batch", 32.0, 32),
        ("kind", 1.0, 1.0),
        ("kind", 2.0, 2),
        ("kind", True, True),
        ("kind", 1, 1),
        ("x", 2.0, 2.0),
    ],
)
def test_a_float_stands_for_a_whole_number_where_the_parameter_has_no_such_float(
    name: str, given: object, kept: object
) -> None:
    (value,) = SearchSpace(WHOLE).check_fixed({name: given}).values()  # type: ignore[dict-item]
    assert (type(value), value) == (type(kept), kept)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("n", 2.5, "float 2.5 is not a whole number"),
        ("n", 10.0, "10 is outside"),
        ("n", float("nan"), "float nan is not a whole number"),
        ("n", float("inf"), "float inf is not a whole number"),
        ("n", 1e300, "is not a whole number"),
        ("n", True, "bool True is not a whole number"),
        ("batch", 17.0, "float 17.0 is none of: int 16"),
        ("kind", 3.0, "float 3.0 is none of"),
    ],
)
def test_no_other_float_does(name: str, given: object, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        SearchSpace(WHOLE).check_fixed({name: given})  # type: ignore[dict-item]


def test_what_a_space_is_described_with_is_of_the_kind_that_it_has() -> None:
    condition = Float(name="y", low=0, high=1, when=Condition("n", (2.0,)))
    with pytest.raises(InvalidArgument, match=r"float 2\.0 is not a whole number"):
        SearchSpace((WHOLE[0], condition)).validate()
