"""What is written as JSON comes back as it was, kinds included."""

from __future__ import annotations

import json
import string
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.errors import FailedPrecondition
from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.population import Population
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace
from asktell.server.domain.stopping import (
    Extrapolation,
    Folds,
    Hyperband,
    Median,
    Patience,
    Percentile,
    StoppingRule,
    SuccessiveHalving,
    Threshold,
)
from asktell.server.domain.study import Budget, LateTells, StudySpec
from asktell.server.domain.trial import Origin, Prediction
from asktell.server.persistence import encoding

names = st.text(string.ascii_letters + string.digits + "_.:/-", min_size=1, max_size=12) | st.just("float")
floats = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(max_size=20)
integers = st.integers(-(2**63), 2**63 - 1)
values = st.none() | st.booleans() | integers | floats | texts
durations = st.timedeltas(timedelta(0), timedelta(days=36_500))
limits = st.none() | st.integers(1, 2**53)


@given(st.dictionaries(names, values, max_size=8))
def test_parameters_keep_value_kind_and_order(parameters):
    assert repr(encoding.unpack_parameters(encoding.pack_parameters(parameters))) == repr(parameters)


@pytest.mark.parametrize(
    "value",
    [
        1,
        1.0,
        True,
        "1",
        None,
        0,
        0.0,
        -0.0,
        False,
        1e16,
        5e-324,
        1e308,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        "NaN",
        "",
        "\0",
        "\ud800",
    ],
    ids=repr,
)
def test_look_alikes_stay_apart(value):
    assert repr(encoding.unpack_parameters(encoding.pack_parameters({"x": value}))) == repr({"x": value})


@given(st.dictionaries(names, st.builds(MetricValue, floats, st.none() | floats), max_size=5))
def test_metrics_keep_nan_infinities_and_signed_zeros(metrics):
    assert repr(encoding.unpack_metrics(encoding.pack_metrics(metrics))) == repr(metrics)


@given(st.dictionaries(texts | st.just("float"), texts, max_size=5))
def test_notes_are_never_taken_for_numbers(notes):
    assert encoding.unpack_notes(encoding.pack_notes(notes)) == notes


@given(
    st.builds(
        Origin,
        policy=texts,
        method=texts,
        fallback=texts,
        reason=texts,
        predictions=st.dictionaries(names, st.builds(Prediction, floats, floats), max_size=3),
        acquisition=st.none() | floats,
        incumbent=st.none() | floats,
        compute_duration=durations,
    )
)
def test_origins_come_back(origin):
    assert repr(encoding.unpack_origin(encoding.pack_origin(origin))) == repr(origin)


@given(
    st.builds(Budget, max_trials=limits, max_duration=st.none() | durations, max_failures=limits, max_parallel=limits)
)
def test_budgets_come_back(budget):
    assert encoding.unpack_budget(encoding.pack_budget(budget)) == budget


conditions = st.none() | st.builds(Condition, names, st.lists(values, max_size=3).map(tuple))
several = st.lists(values, max_size=5).map(tuple)
common = {"name": names, "default": values, "has_default": st.just(True), "when": conditions}
written = st.sampled_from(["a + 2*b <= 1", "`a.b/c-1` * width <= 5e2", "0 <= a <= b**2"])
constraints = st.lists(written.map(InputConstraint.parse), max_size=3).map(tuple)
parameter_specs = st.one_of(
    st.builds(Float, **common, low=floats, high=floats, log=st.booleans(), step=st.none() | floats),
    st.builds(Int, **common, low=integers, high=integers, log=st.booleans(), step=st.none() | integers),
    st.builds(Categorical, **common, choices=several),
    st.builds(Bool, name=names, when=conditions),
    st.builds(Ordinal, **common, values=several),
)


finite = st.floats(allow_nan=False, allow_infinity=False)
stopping_rules = st.builds(
    StoppingRule,
    kind=st.one_of(
        st.builds(Median, min_trials=limits.filter(bool), averages=st.booleans()),
        st.builds(Percentile, percentile=finite),
        st.builds(SuccessiveHalving, reduction_factor=st.integers(2, 9)),
        st.builds(Hyperband, min_step=st.integers(1, 9)),
        st.builds(Threshold, at_most=st.none() | finite, at_least=st.none() | finite),
        st.builds(Patience, steps=st.integers(1, 9), min_delta=finite),
        st.builds(Extrapolation, probability=finite),
        st.builds(Folds, folds=st.integers(3, 9)),
    ),
    metric=names | st.just(""),
    goal=st.none() | st.sampled_from(Goal),
    warmup_steps=integers,
    max_step=st.none() | integers,
)


@given(
    st.builds(
        StudySpec,
        space=st.builds(SearchSpace, st.lists(parameter_specs, max_size=5).map(tuple), constraints),
        objectives=st.lists(st.builds(Objective, names, st.sampled_from(Goal), st.none() | floats), max_size=3).map(
            tuple
        ),
        outcome_constraints=st.lists(
            st.builds(OutcomeConstraint, names, st.sampled_from(Relation), floats), max_size=3
        ).map(tuple),
        noisy=st.booleans(),
        stopping_rule=st.none() | stopping_rules,
        warm_start=st.lists(st.from_regex(r"[a-z][a-z0-9_.-]{0,9}", fullmatch=True), max_size=3, unique=True).map(
            tuple
        ),
        fidelity=st.none() | st.builds(Fidelity, parameter=names, reduction_factor=st.integers(2, 1_000)),
        population=st.none()
        | st.builds(Population, size=st.integers(2, 1_000), exploit_fraction=st.floats(0.001, 0.5)),
        policy=texts,
        seed=st.none() | integers,
        lease_duration=durations,
        max_attempts=st.integers(1, 100),
        late_tells=st.sampled_from(LateTells),
    )
)
def test_specs_come_back(spec):
    assert repr(encoding.unpack_spec(encoding.pack_spec(spec))) == repr(spec)


def test_the_text_is_strict_json_with_a_version():
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = encoding.pack_metrics({"loss": MetricValue(float("nan"), float("inf"))})
    assert json.loads(text, parse_constant=refuse) == [1, {"loss": [{"float": "nan"}, {"float": "inf"}]}]


def test_a_document_of_another_version_is_refused_by_name():
    with pytest.raises(encoding.UnknownEncoding, match="version 2"):
        encoding.unpack_notes('[2,{"a":"b"}]')


def test_a_study_that_an_earlier_version_wrote_is_refused_with_what_to_do():
    study = StudySpec(space=SearchSpace((Bool(name="flag"),)), objectives=(Objective("loss", Goal.MINIMIZE),))
    spec = json.loads(encoding.pack_spec(study))
    del spec[1]["input_constraints"]
    with pytest.raises(FailedPrecondition, match="no 'input_constraints': an earlier asktell wrote it; export"):
        encoding.unpack_spec(json.dumps(spec))
