"""Configurations to codes and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace, same
from asktell.server.policies.columns import column
from asktell.server.policies.encoding import Encoder

UNIT = st.floats(0, 1)
TEXTS = st.lists(st.text("abc", max_size=3), min_size=1, max_size=6, unique=True).map(tuple)


@st.composite
def ranges(draw, bounds):
    low, high = sorted((draw(bounds), draw(bounds)))
    return low, high


@st.composite
def discrete_specs(draw):
    kind = draw(st.sampled_from(["int", "log int", "step", "choice", "bool", "ordinal"]))
    if kind == "int":
        low, high = draw(ranges(st.integers(-(10**9), 10**9)))
        return Int(name="p", low=low, high=high, step=draw(st.integers(1, high - low)) if high > low else None)
    if kind == "log int":
        low, high = draw(ranges(st.integers(1, 10**9)))
        return Int(name="p", low=low, high=high, log=True)
    if kind == "step":
        low, count, step = (
            draw(st.floats(-100, 100)),
            draw(st.integers(1, 1000)),
            draw(st.sampled_from([0.1, 0.25, 1.0, 3.0])),
        )
        return Float(name="p", low=low, high=low + count * step, step=step)
    if kind == "bool":
        return Bool(name="p")
    values = draw(TEXTS)
    return Categorical(name="p", choices=values) if kind == "choice" else Ordinal(name="p", values=values)


@given(discrete_specs(), UNIT)
@settings(max_examples=300)
def test_discrete_values_survive_the_way_there_and_back_exactly(spec, unit):
    codes = column(spec)
    drawn = codes.draw(np.array([min(unit, 1 - 1e-9)]))
    value = codes.decode(float(drawn[0]))
    assert same(spec.check(value), value)
    assert codes.encode(value) == drawn[0]
    assert same(codes.decode(codes.encode(value)), value)
    assert codes.snap(drawn)[0] == drawn[0]


@given(ranges(st.floats(-1e307, 1e307)), UNIT)
@settings(max_examples=300)
def test_linear_floats_stay_in_range_and_come_back(bounds, unit):
    low, high = bounds
    codes = column(Float(name="p", low=low, high=high))
    value = codes.decode(unit)
    assert low <= value <= high
    assert math.isclose(codes.decode(codes.encode(value)), value, rel_tol=1e-12, abs_tol=1e-12 * (high - low))


@given(ranges(st.floats(1e-300, 1e300)), UNIT)
@settings(max_examples=300)
def test_log_floats_stay_in_range_and_come_back(bounds, unit):
    low, high = bounds
    codes = column(Float(name="p", low=low, high=high, log=True))
    value = codes.decode(unit)
    assert low <= value <= high
    assert math.isclose(codes.decode(codes.encode(value)), value, rel_tol=1e-9)


@pytest.mark.parametrize(
    "spec",
    [
        Float(name="p", low=1e-300, high=1e300, log=True),
        Float(name="p", low=5e-324, high=1.7e308, log=True),
        Float(name="p", low=-8e307, high=8e307),
        Float(name="p", low=3.0, high=3.0),
        Float(name="p", low=3.0, high=3.0, log=True),
        Int(name="p", low=7, high=7),
        Int(name="p", low=7, high=7, log=True),
        Int(name="p", low=1, high=2**53, log=True),
        Int(name="p", low=-(2**53), high=2**53),
        Categorical(name="p", choices=(None,)),
        Ordinal(name="p", values=(16,)),
    ],
    ids=repr,
)
def test_extreme_ranges_never_leave_the_space_nor_give_nan(spec):
    codes = column(spec)
    for unit in (0.0, 1e-12, 0.3, 0.5, 1 - 1e-12, 1.0):
        drawn = codes.draw(np.array([min(unit, 1 - 1e-16)]))
        assert np.isfinite(drawn).all()
        spec.check(codes.decode(float(drawn[0])))
        spec.check(codes.decode(unit))
    assert codes.encode(codes.decode(0.0)) == 0.0


def test_log_integers_are_drawn_in_log_measure_with_half_integer_ends():
    codes = column(Int(name="p", low=1, high=4, log=True))
    values = [codes.decode(code) for code in codes.draw((np.arange(10_000) + 0.5) / 10_000)]
    expected = [math.log((k + 0.5) / (k - 0.5)) / math.log(4.5 / 0.5) for k in range(1, 5)]
    shares = [values.count(k) / 10_000 for k in range(1, 5)]
    assert shares == pytest.approx(expected, abs=1e-3)


def test_values_of_different_kinds_are_different_choices():
    codes = column(Categorical(name="p", choices=(1, 1.0, True, "1", None)))
    assert [codes.encode(value) for value in (1, 1.0, True, "1", None)] == [0, 1, 2, 3, 4]


SPACE = SearchSpace(
    (
        Float(name="momentum", low=0.0, high=1.0, when=Condition("optimizer", ("sgd",))),
        Categorical(name="optimizer", choices=("sgd", "adam")),
        Bool(name="nesterov", when=Condition("momentum", (0.5,))),
    )
)


def test_inactive_parameters_are_absent_and_their_codes_constant():
    encoder = Encoder.of(SPACE)
    left, right = np.array([[0.1, 1, 0], [0.9, 1, 1]])
    assert encoder.decode(left) == encoder.decode(right) == {"optimizer": "adam"}
    settled = encoder.settle(np.array([left, right]))
    assert (settled[0] == settled[1]).all()
    assert (settled[0] == encoder.encode([{"optimizer": "adam"}])[0]).all()


@given(st.lists(UNIT, min_size=3, max_size=3))
def test_a_settled_row_is_the_code_of_its_configuration(unit):
    encoder = Encoder.of(SPACE)
    latent = encoder.draw(np.minimum(np.array([unit]), 1 - 1e-9))
    parameters = encoder.decode(latent[0])
    assert SPACE.check(parameters) == parameters
    assert encoder.encode([parameters]) == pytest.approx(encoder.settle(latent), abs=1e-12)
    assert encoder.decode(encoder.encode([parameters])[0]) == pytest.approx(parameters)


def test_near_is_judged_by_every_number_and_name():
    encoder = Encoder.of(SearchSpace((Float(name="x", low=0.0, high=1.0), Bool(name="b"))))
    others = np.array([[0.5, 0.0], [0.50001, 1.0], [0.6, 1.0]])
    assert encoder.near(np.array([0.5, 1.0]), others).tolist() == [False, True, False]
