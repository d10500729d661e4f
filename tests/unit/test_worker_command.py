"""Command lines with places for parameters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.worker.command import Template, TemplateError, variables

ALWAYS = ("learning_rate", "optimizer")
SOMETIMES = {"momentum": "optimizer is sgd"}
VALUES = {"learning_rate": 0.001, "optimizer": "sgd"}


def fill(*arguments: str, **values: object) -> list[str]:
    return Template.parse(arguments).fill({**VALUES, **values})


def check(*arguments: str) -> None:
    Template.parse(arguments).check(always=ALWAYS, sometimes=SOMETIMES)


def test_fields_become_the_values_as_json_writes_them_and_text_as_it_is() -> None:
    values = {"n": 3, "flag": True, "none": None, "small": 1e-07, "text": "two words"}
    assert fill("--n={n}", "{flag}/{none}", "{small}", "{text}", **values) == [
        "--n=3",
        "true/null",
        "1e-07",
        "two words",
    ]


def test_doubled_braces_are_braces() -> None:
    assert fill('{{"lr": {learning_rate}}}') == ['{"lr": 0.001}']


def test_a_bracket_is_kept_whole_when_its_parameter_is_active() -> None:
    assert fill("train", "[--momentum", "{momentum}]", "--fast", momentum=0.9) == [
        "train",
        "--momentum",
        "0.9",
        "--fast",
    ]


@pytest.mark.parametrize("bracket", [["[--momentum", "{momentum}]"], ["[--momentum {momentum}]"], ["[-m{momentum}]"]])
def test_a_bracket_is_left_out_whole_when_its_parameter_is_inactive(bracket: list[str]) -> None:
    assert fill("train", *bracket, "--fast") == ["train", "--fast"]


def test_a_quoted_bracket_splits_at_its_blanks_before_values_are_put_in() -> None:
    assert fill("[--name {name} 'a b']", name="two words") == ["--name", "two words", "a b"]


def test_brackets_without_a_field_are_ordinary_text() -> None:
    assert fill("[1,2,3]", "x[{optimizer}]", "[") == ["[1,2,3]", "x[sgd]", "["]


def test_a_field_that_is_no_parameter_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        TemplateError,
        match=r"\{lr\} is no parameter of the study: learning_rate, optimizer, momentum; a brace as such is written \{\{ or \}\}$",
    ):
        check("--lr={lr}")


def test_a_conditional_field_outside_a_bracket_is_refused_with_the_way_out() -> None:
    with pytest.raises(TemplateError, match=r"only when optimizer is sgd: .*'\[--momentum \{momentum\}\]'"):
        check("--momentum", "{momentum}")
    check("[--momentum", "{momentum}]")


def test_a_bracket_without_an_end_is_refused() -> None:
    with pytest.raises(TemplateError, match="no end"):
        check("[--momentum", "{momentum}")
    with pytest.raises(TemplateError, match="cannot be split"):
        check("[--name '{optimizer}]")


def test_the_trial_and_the_metrics_file_are_fields_too() -> None:
    check("{trial.number}", "{metrics_file}")


@given(st.lists(st.text(alphabet="abc []{}'\"-"), max_size=6))
def test_any_command_line_is_filled_or_refused_in_words(arguments: list[str]) -> None:
    try:
        template = Template.parse(arguments)
        template.check(always=["a", "b"], sometimes={})
    except TemplateError:
        return
    assert all(isinstance(argument, str) for argument in template.fill({"a": 1, "b": "x"}))


def test_the_environment_has_every_parameter_once_as_json_and_once_by_name() -> None:
    found = variables({"learning-rate": 0.1, "use.bias": True, "layers": 3})
    assert json.loads(found.pop("ASKTELL_PARAMETERS")) == {"learning-rate": 0.1, "use.bias": True, "layers": 3}
    assert found == {
        "ASKTELL_PARAM_LEARNING_RATE": "0.1",
        "ASKTELL_PARAM_USE_BIAS": "true",
        "ASKTELL_PARAM_LAYERS": "3",
    }


def test_names_that_become_one_variable_have_none() -> None:
    assert set(variables({"a.b": 1, "a_b": 2, "c": 3})) == {"ASKTELL_PARAMETERS", "ASKTELL_PARAM_C"}
