"""Constraints between parameters: what can be written, what it means, what a space refuses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain.constraints import Inequality, InputConstraint, Term
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.space import Bool, Condition, Float, Int, Ordinal, ParameterSpec, SearchSpace

A, B = Float(name="a", low=0.0, high=1.0), Float(name="b", low=0.0, high=1.0)
WIDTH, DEPTH = Int(name="width", low=1, high=1024), Int(name="depth", low=1, high=64)


def space(*specs: ParameterSpec, where: tuple[str, ...]) -> SearchSpace:
    return SearchSpace(specs, tuple(map(InputConstraint.parse, where)))


@pytest.mark.parametrize(
    ("text", "inequality"),
    [
        ("a + 2*b <= 1", Inequality((Term(1, ("a",)), Term(2, ("b",))), 1)),
        ("1 >= 2*b + a", Inequality((Term(1, ("a",)), Term(2, ("b",))), 1)),
        ("a >= b", Inequality((Term(-1, ("a",)), Term(1, ("b",))), 0)),
        ("b * a <= 512", Inequality((Term(1, ("a", "b")),), 512)),
        ("(a + b)**2 / 2 <= 3 + a*b", Inequality((Term(0.5, ("a", "a")), Term(0.5, ("b", "b"))), 3)),
        ("-a <= -(0.5)", Inequality((Term(-1, ("a",)),), -0.5)),
        ("`opt.beta-1` <= lambda", Inequality((Term(-1, ("lambda",)), Term(1, ("opt.beta-1",))), 0)),
    ],
)
def test_a_text_is_multiplied_out(text: str, inequality: Inequality) -> None:
    (read,) = InputConstraint.parse(text).inequalities
    assert (set(read.terms), read.bound) == (set(inequality.terms), inequality.bound)


ALPHABET = st.sampled_from(
    ["a", "b", "`c.d`", "1", "2.5", "1e3", "+", "-", "*", "/", "**", "<=", ">=", "(", ")", " ", "<", "and", "lambda"]
)


@given(st.lists(ALPHABET, max_size=14).map("".join) | st.text(max_size=60))
def test_whatever_the_text_it_is_read_or_refused_with_a_reason(text: str) -> None:
    with suppress(ValueError):
        assert InputConstraint.parse(text).names


@given(
    st.lists(
        st.tuples(st.integers(-9, 9), st.sampled_from(["a", "b", "a*b", "a**2", "(a - b)"])), min_size=1, max_size=5
    ),
    st.integers(-20, 20),
    st.integers(-6, 6),
    st.integers(-6, 6),
)
def test_what_a_text_means_is_what_python_computes(
    terms: list[tuple[int, str]], bound: int, first: int, second: int
) -> None:
    text = " + ".join(f"{number} * {factor}" for number, factor in terms) + f" <= {bound}"
    values = {"a": first, "b": second}
    with suppress(ValueError):
        # What depends on no parameter is refused.
        assert InputConstraint.parse(text).holds(values) is eval(text, {}, dict(values))


def test_a_chain_is_a_comparison_of_each_pair() -> None:
    chain = InputConstraint.parse("0.1 <= a <= b")
    apart = [*InputConstraint.parse("0.1 <= a").inequalities, *InputConstraint.parse("a <= b").inequalities]
    assert list(chain.inequalities) == apart


@pytest.mark.parametrize(
    ("where", "met", "broken"),
    [
        ("a + b <= 0.3", {"a": 0.1, "b": 0.2}, {"a": 0.1, "b": 0.2000001}),
        ("width * depth <= 512", {"width": 8, "depth": 64}, {"width": 9, "depth": 57}),
        ("a <= b", {"a": 2**53 - 1, "b": 2**53 - 1}, {"a": 2**53, "b": 2**53 - 1}),
        ("a * a * b <= 2**53", {"a": 2**26, "b": 2}, {"a": 2**20 + 1, "b": 2**33 - 2**13 + 1}),
    ],
)
def test_whole_numbers_are_compared_exactly_and_others_up_to_rounding(
    where: str, met: dict[str, float], broken: dict[str, float]
) -> None:
    constraint = InputConstraint.parse(where)
    assert constraint.holds(met)
    assert not constraint.holds(broken)


def test_a_comparison_that_mentions_an_absent_parameter_is_met_and_the_others_of_its_chain_count() -> None:
    constraint = InputConstraint.parse("a <= b <= c")
    assert constraint.holds({"a": 1.0})
    assert not constraint.holds({"a": 1.0, "b": 0.5})


@pytest.mark.parametrize(
    ("specs", "where", "words"),
    [
        ((A, B), ("a <= c",), "'c' is not a parameter"),
        ((A, Bool(name="flag")), ("a <= flag",), "'flag' is bool, and"),
        ((A, Ordinal(name="o", values=(1, "2"))), ("a <= o",), "'o' is ordinal"),
        ((A, B), ("a + b <= 1", "a + b >= 2.5"), "met nowhere"),
        ((A, B), ("a - b <= -0.5", "b - a <= 0.25"), "contradicts"),
        ((A, B), ("a <= b", "b <= a"), "an equation of real numbers"),
        ((A, B), ("a < b",), "write <= or >="),
        ((A, B), ("sin(a) <= b",), "calls a function"),
        ((A, B), ("a <= 1", "a b"), "is not a comparison"),
        (
            (Float(name="a", low=0.0, high=1.0, default=0.7, has_default=True), Float(name="b", low=0.0, high=1.0)),
            ("a <= 0.5",),
            "default values a = 0.7",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_place_text_and_reason(
    specs: tuple[ParameterSpec, ...], where: tuple[str, ...], words: str
) -> None:
    with pytest.raises((InvalidArgument, ValueError), match=words):
        space(*specs, where=where).validate()


def test_equations_of_whole_numbers_and_defaults_beside_an_open_parameter_are_fine() -> None:
    space(WIDTH, DEPTH, where=("width <= depth", "depth <= width")).validate()
    first = Float(name="a", low=0.0, high=1.0, default=0.7, has_default=True)
    space(first, B, where=("a + b <= 1",)).validate()


def test_a_configuration_that_breaks_a_constraint_is_refused_with_its_values() -> None:
    bounded = space(WIDTH, DEPTH, where=("width * depth <= 512",))
    assert bounded.check({"width": 16, "depth": 32}) == {"width": 16, "depth": 32}
    with pytest.raises(
        InvalidArgument, match=r"depth = 33, width = 16 does not meet the constraint 'width \* depth <= 512'"
    ):
        bounded.check({"width": 16, "depth": 33})


def test_fixed_parameters_that_break_a_constraint_by_themselves_are_refused() -> None:
    bounded = space(A, B, WIDTH, where=("a + b <= 1",))
    assert bounded.check_fixed({"a": 1.0}) == {"a": 1.0}
    with pytest.raises(InvalidArgument, match=r"^fixed_parameters: a = 1\.0, b = 0\.5 does not meet"):
        bounded.check_fixed({"a": 1.0, "b": 0.5}, path="fixed_parameters")


def test_a_constraint_on_an_inactive_parameter_is_met() -> None:
    momentum = Float(name="m", low=0.0, high=1.0, when=Condition("sgd", (True,)))
    conditional = space(Bool(name="sgd"), momentum, A, where=("m + a <= 1",))
    conditional.validate()
    assert conditional.allows(conditional.check({"sgd": False, "a": 0.9}))
    with pytest.raises(InvalidArgument, match=r"m = 0\.5"):
        conditional.check({"sgd": True, "a": 0.9, "m": 0.5})


def test_spaces_differ_by_what_their_constraints_mean_and_not_by_how_they_are_written() -> None:
    one = space(A, B, where=("a + b <= 1",))
    assert one.difference(space(A, B, where=("1 >= b+a",))) is None
    assert one.difference(space(A, B, where=("a + b <= 0.5",))) == "input constraint 'a + b <= 1'"
    assert one.difference(space(A, B, where=())) == "input constraint 'a + b <= 1'"
    assert space(A, B, where=()).difference(one) == "0 input constraints"
