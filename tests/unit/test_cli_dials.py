"""Parameters as they are typed, and as documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.cli import document, specfile
from asktell.cli.dials import Unreadable, read
from asktell.cli.document import Malformed
from asktell.client import Bool, Categorical, Float, Int, Maximize, MetricValue, Ordinal
from asktell.client.values import Budget


@pytest.mark.parametrize(
    ("flag", "text", "parameter"),
    [
        ("--float", "lr=1e-5:1e-1:log", Float("lr", 1e-5, 1e-1, log=True)),
        ("--float", "dropout=0:0.5:0.1", Float("dropout", 0, 0.5, step=0.1)),
        ("--float", " m = -1:1 when opt = sgd, adam ", Float("m", -1, 1, when=("opt", ["sgd", "adam"]))),
        ("--int", "layers=1:4", Int("layers", 1, 4)),
        ("--int", "width=16:64:16 when layers=2,3", Int("width", 16, 64, step=16, when=("layers", [2, 3]))),
        ("--ordinal", "batch=16,32,64", Ordinal("batch", [16, 32, 64])),
        ("--categorical", "opt=sgd,adam", Categorical("opt", ["sgd", "adam"])),
        ("--categorical", 'c=1,1.0,true,"1",null', Categorical("c", [1, 1.0, True, "1", None])),
        ("--bool", "nesterov", Bool("nesterov")),
        ("--bool", "nesterov when opt=sgd", Bool("nesterov", when=("opt", ["sgd"]))),
    ],
)
def test_a_flag_is_read_as_the_parameter_that_it_says(flag: str, text: str, parameter: object) -> None:
    found = read(flag, text)
    assert (found, repr(found)) == (parameter, repr(parameter))


@pytest.mark.parametrize(
    ("flag", "text", "why"),
    [
        ("--float", "lr", "expected NAME=LOW:HIGH"),
        ("--float", "lr=", "expected NAME=LOW:HIGH"),
        ("--float", "=0:1", "expected NAME=LOW:HIGH"),
        ("--float", "lr=1", "a range has a low and a high end"),
        ("--float", "lr=0:1:2:3", "a range has a low and a high end"),
        ("--float", "lr=a:1", "'a' is not a number"),
        ("--int", "n=1:2.5", "'2.5' is not a whole number"),
        ("--int", "n=1:8:linear", "'linear' is not a whole number"),
        ("--float", "m=0:1 when opt", "expected a condition such as"),
        ("--bool", "b=1", "true and false are all there is"),
        ("--categorical", "c", "expected NAME=CHOICE,CHOICE"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named_with_its_text_and_what_was_expected(
    flag: str, text: str, why: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        read(flag, text)
    assert str(caught.value).startswith(f"{flag} {text!r}: ")
    assert why in str(caught.value)


@given(st.sampled_from(["--float", "--int", "--ordinal", "--categorical", "--bool"]), st.text())
def test_any_text_is_read_or_refused_in_words(flag: str, text: str) -> None:
    try:
        parameter = read(flag, text)
    except Unreadable as error:
        said = str(error)
    else:
        said = f"{text!r} is {parameter}"
        assert parameter.name
    assert repr(text) in said


values = st.integers(-(2**40), 2**40) | st.text(max_size=5) | st.booleans() | st.none() | st.floats(allow_nan=False)
conditions = st.none() | st.tuples(st.just("parent"), st.lists(values, min_size=1, max_size=3))
finite = st.floats(-1e6, 1e6)
parameters = (
    st.builds(Float, st.just("a"), finite, finite, log=st.booleans(), default=finite, when=conditions)
    | st.builds(
        Int, st.just("b"), st.integers(-9, 9), st.integers(-9, 9), step=st.none() | st.integers(1, 9), when=conditions
    )
    | st.builds(Categorical, st.just("c"), st.lists(values, min_size=1), default=values, when=conditions)
    | st.builds(Ordinal, st.just("d"), st.lists(values, min_size=1), when=conditions)
    | st.builds(Bool, st.just("e"), default=st.booleans(), when=conditions)
)


@given(parameters)
def test_a_parameter_survives_its_document(parameter) -> None:
    text = json.dumps(document.of_parameter(parameter))
    assert repr(document.parameter(json.loads(text))) == repr(parameter)


@given(st.floats())
def test_every_metric_survives_strict_json(value: float) -> None:
    text = json.dumps(document.number(value), allow_nan=False)
    assert repr(MetricValue(float(json.loads(text)))) == repr(MetricValue(value))


SPEC = """
policy = "random"
seed = 3

[budget]
max_trials = 5
max_duration = 60

[labels]
team = "vision"

[[parameters]]
name = "rate"
kind = "float"
low = 1e-5
high = 0.1
log = true

[[parameters]]
name = "momentum"
kind = "float"
low = 0
high = 0.99
when = { parent = "rate", values = [1] }

[[objectives]]
metric = "accuracy"
goal = "maximize"
"""


def test_a_spec_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "digits.toml"
    path.write_text(SPEC)
    draft = specfile.read(path)
    assert draft.parameters == (Float("rate", 1e-5, 0.1, log=True), Float("momentum", 0, 0.99, when=("rate", [1])))
    assert draft.objectives == (Maximize("accuracy"),)
    assert draft.budget.max_trials == 5
    assert draft.budget.max_duration is not None
    assert draft.budget.max_duration.total_seconds() == 60
    assert (draft.settings, draft.labels) == ({"policy": "random", "seed": 3}, {"team": "vision"})
    assert draft.budget != Budget()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("kind = ", "type = ", "parameters[0]: the kind of rate is None"),
        ('kind = "float"', 'kind = "real"', "parameters[0]: the kind of rate is 'real', not one of float, int"),
        ("high = 0.1\n", "", "parameters[0]: rate: it lacks high"),
        ("log = true", "logarithmic = true", "parameters[0]: rate: it cannot have 'logarithmic'"),
        ("low = 1e-5", 'low = "small"', "parameters[0]: parameter rate, low: 'small' is not a number"),
        ('name = "momentum"', "", "parameters[1]: it has no name"),
        ('parent = "rate", ', "", "parameters[1]: when is written as"),
        ('goal = "maximize"', 'goal = "up"', "objectives[0]: an objective is written as"),
        ("max_trials", "max_trails", "budget: it has max_trails; known are max_duration"),
        ("policy", "polity", "the study has polity; known are budget"),
        ("[labels]", "labels = 3\n[x]", "is not TOML"),
        ("seed = 3", "seed = = 3", "is not TOML: Invalid value (at line 3"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_with_the_place(tmp_path: Path, old: str, new: str, why: str) -> None:
    path = tmp_path / "digits.toml"
    assert old in SPEC
    path.write_text(SPEC.replace(old, new, 1))
    with pytest.raises(Malformed) as caught:
        specfile.read(path)
    assert str(path) in str(caught.value)
    assert why in str(caught.value) or "labels" in new
