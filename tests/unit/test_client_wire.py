"""Values survive the way to the wire and back, kinds included."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest

from asktell.client import (
    NO_DEFAULT,
    Bool,
    Budget,
    Categorical,
    Float,
    Int,
    InvalidArgument,
    Maximize,
    MetricValue,
    Minimize,
    Ordinal,
    outcomes,
    wire,
)
from asktell.v1 import search_space_pb2

SPECS = [
    Float("lr", 1e-5, 1e-1, log=True, default=1e-3),
    Float("dropout", 0, 1, step=0.25),
    Int("batch", 16, 256, log=True, default=32),
    Int("layers", 1, 9, step=2),
    Categorical("weight", [None, "balanced", 1, 1.0, True, "1"], default=None),
    Categorical("plain", ["a"]),
    Bool("nesterov", default=False, when=("optimizer", ["sgd"])),
    Ordinal("width", [16, 32, 64], default=32, when=("layers", [3, 5])),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_parameter_spec_survives_the_wire(spec):
    assert wire.unpack_spec(wire.pack_spec(spec)) == spec


@pytest.mark.parametrize("value", [1, 1.0, True, "1", None, False, 0, -0.0, "", 2**53, -(2**63), 5e-324])
def test_a_value_keeps_its_kind(value):
    back = wire.unpack_value(wire.pack_value(value, field="x"))
    assert (type(back), repr(back)) == (type(value), repr(value))


@pytest.mark.parametrize(
    ("given", "kept"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a"), (np.array(2.0), 2.0)],
)
def test_a_scalar_of_numpy_becomes_one_of_python(given, kept):
    back = wire.unpack_value(wire.pack_value(given, field="x"))
    assert (type(back), back) == (type(kept), kept)


@pytest.mark.parametrize("value", [object(), [1], np.array([1.0]), b"a", 1j, 2**63, "\ud800"])
def test_a_value_of_no_kind_is_refused_with_its_field(value):
    with pytest.raises(InvalidArgument) as caught:
        wire.pack_parameters({"x": value}, field="parameters")
    assert caught.value.field_violations[0][0] == "parameters[x]"


def test_none_as_a_default_differs_from_no_default():
    none, absent = Categorical("c", [None, "a"], default=None), Categorical("c", [None, "a"])
    assert wire.unpack_spec(wire.pack_spec(none)).default is None
    assert wire.unpack_spec(wire.pack_spec(absent)).default is NO_DEFAULT


def test_a_float_spec_keeps_whole_bounds_as_real_numbers():
    spec = Float("x", 0, 1, default=1)
    assert [type(number) for number in (spec.low, spec.high, spec.default)] == [float] * 3


def test_a_text_is_not_taken_for_its_letters():
    with pytest.raises(TypeError, match="one text"):
        Categorical("c", "adam")


@pytest.mark.parametrize("when", [{"optimizer": ["sgd"]}, "optimizer", ("optimizer",), (1, [2])])
def test_a_condition_of_another_shape_is_refused_with_how_to_write_it(when):
    with pytest.raises(TypeError, match=r'write when=\("optimizer", \["sgd"\]\)'):
        Float("momentum", 0, 1, when=when)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: Int("n", 1, 2.5), TypeError, "parameter n, high: 2.5 is not an int"),
        (lambda: Int("n", 1, 3, step=0.5), TypeError, "parameter n, step: 0.5 is not an int"),
        (lambda: Int("n", 1, 3, default="2"), TypeError, "parameter n, default: '2' is not an int"),
        (lambda: Float("x", "abc", 1), ValueError, "parameter x, low: 'abc' is not a number"),
        (lambda: Float("x", 0, None), TypeError, "parameter x, high: None is not a number"),
        (lambda: Float("x", 0, 10**400), ValueError, "parameter x, high: 1000"),
        (lambda: Float("x", 0, 1, when="y"), TypeError, "parameter x, when: 'y' is no condition"),
        (lambda: Categorical("c", [(1, 2)]), TypeError, "parameter c, choices: (1, 2) is a tuple, not a float"),
        (lambda: Categorical("c", ["a"], default=[]), TypeError, "parameter c, default: [] is a list"),
        (lambda: Ordinal("o", 5), TypeError, "parameter o, values: 'int' object"),
        (lambda: Bool("b", default=()), TypeError, "parameter b, default: () is a tuple"),
    ],
)
def test_what_a_parameter_cannot_have_is_said_with_its_name_and_argument(make, kind, said):
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value).startswith(said)


def test_metrics_are_read_in_the_order_of_their_names():
    names = [f"metric_{number}" for number in range(20)]
    packed = wire.pack_measurement(1, {name: MetricValue(1.0) for name in reversed(names)})
    assert list(wire.unpack_measurement(packed).metrics) == sorted(names)


def test_a_kind_of_a_newer_service_is_named():
    with pytest.raises(InvalidArgument, match="novel"):
        wire.unpack_spec(search_space_pb2.ParameterSpec(name="novel"))


@pytest.mark.parametrize("objective", [Minimize("loss"), Maximize("accuracy")])
def test_an_objective_survives_the_wire(objective):
    assert wire.unpack_objective(wire.pack_objective(objective)) == objective


@pytest.mark.parametrize(
    "budget", [Budget(), Budget(max_trials=5, max_duration=timedelta(hours=1), max_failures=2, max_parallel=1)]
)
def test_a_budget_survives_the_wire(budget):
    assert wire.unpack_budget(wire.pack_budget(budget)) == budget


def test_an_unknown_standard_error_differs_from_an_exact_value():
    metrics = {"a": MetricValue(1.0), "b": MetricValue(1.0, 0.0), "c": MetricValue(math.inf, 0.5)}
    assert wire.unpack_metrics(wire.pack_metrics(metrics)) == metrics


@pytest.mark.parametrize(
    ("told", "named", "value"),
    [
        (0.5, {}, MetricValue(0.5)),
        (np.float32(0.5), {}, MetricValue(0.5)),
        (np.array(0.5), {}, MetricValue(0.5)),
        ((0.5, 0.1), {}, MetricValue(0.5, 0.1)),
        (MetricValue(0.5, 0.0), {}, MetricValue(0.5, 0.0)),
        ({"y": 1}, {}, MetricValue(1.0)),
        (None, {"y": (1, None)}, MetricValue(1.0)),
    ],
)
def test_metrics_may_be_told_in_several_forms(told, named, value):
    assert outcomes.gather(told, named, ["y"]) == {"y": value}


@pytest.mark.parametrize("bad", ["0.5", None, [1, 2], (1, 2, 3), 10**400, 1j, np.ones(2)])
def test_a_metric_that_is_no_number_is_refused_with_its_name(bad):
    with pytest.raises(InvalidArgument) as caught:
        outcomes.gather({"y": bad}, {}, ["y"])
    assert caught.value.field_violations[0][0] == "metrics[y]"


def test_a_bare_number_needs_a_single_objective():
    with pytest.raises(InvalidArgument, match="accuracy, latency"):
        outcomes.gather(1.0, {}, ["accuracy", "latency"])


def test_a_metric_given_twice_is_refused():
    with pytest.raises(InvalidArgument, match="twice"):
        outcomes.gather({"y": 1}, {"y": 1}, ["y"])


def test_a_missing_objective_is_named_with_what_was_given():
    with pytest.raises(InvalidArgument, match=r"metrics\[accuracy\].*given: loss"):
        outcomes.succeeded({"loss": MetricValue(1.0)}, ["accuracy"])
