"""What is written at pictures, and the configurations that are asked about for them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from asktell.client import Bool, Categorical, Float, Int, Ordinal
from asktell.client.plots.canvas import wrapped
from asktell.client.plots.scales import dress, label, log_ticks, place, ticks
from asktell.client.points import completed, grid, usual


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (16, 1024, ["16", "32", "64", "128", "256", "512", "1024"]),
        (1, 1024, ["1", "4", "16", "64", "256", "1024"]),
        (2, 2**20, ["$2^{1}$", "$2^{5}$", "$2^{9}$", "$2^{13}$", "$2^{17}$"]),
        (3, 40, ["5", "10", "20"]),
        (0.001, 0.3, ["0.001", "0.003", "0.01", "0.03", "0.1", "0.3"]),
        (2, 3, ["2", "2.2", "2.4", "2.6", "2.8", "3"]),
        (1e-5, 1e-1, []),
        (7, 7, []),
    ],
)
def test_a_log_axis_has_labels_that_help(low: float, high: float, words: list[str]) -> None:
    assert [text for _, text in log_ticks(low, high)] == words


def test_the_ticks_of_a_parameters_log_axis_are_drawn() -> None:
    axes = Figure().subplots()
    dress(axes, "x", Int("width", 16, 1024, log=True))
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["16", "32", "64", "128", "256", "512", "1024"]


def test_many_or_long_choices_are_turned_and_shortened() -> None:
    axes = Figure().subplots()
    dress(axes, "x", Categorical("a", ["sgd", "adam"]))
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {0.0}
    dress(axes, "x", Categorical("a", ["sgd", "adamw-with-a-rather-long-name", "rmsprop", "lion", "adagrad"]))
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {30.0}
    assert axes.get_xticklabels()[1].get_text() == "adamw-with-a-rath…"


def test_choices_that_would_touch_their_neighbours_are_turned() -> None:
    axes = Figure().subplots()
    dress(axes, "x", Ordinal("batch", [2**power for power in range(4, 14)]), width=3.6)
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {60.0}


@given(text=st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=120), width=st.integers(4, 40))
def test_wrapped_text_fits_and_is_no_formula(text: str, width: int) -> None:
    rows = wrapped(text, width).replace(r"\$", "$").split("\n")
    assert len(rows) <= 3
    assert max(map(len, rows)) <= width + 1
    axes = Figure().subplots()
    axes.set_title(wrapped(text, width))
    axes.figure.draw_without_rendering()


def test_a_long_name_is_broken_behind_its_separators() -> None:
    assert wrapped("model.encoder.block_3.learning_rate", 15) == "model.encoder.\nblock_3.\nlearning_rate"
    assert wrapped("loss", 15) == "loss"


def test_values_lie_at_their_number_or_rank_and_inactive_ones_nowhere() -> None:
    assert place(Float("x", 0, 1), 0.5) == 0.5
    assert place(Categorical("c", [1, True, "1", None]), True) == 1.0
    assert place(Ordinal("o", [16, 32]), 64) is None
    assert place(Float("x", 0, 1), None) is None
    assert [label(each) for each in (True, 0.123456789, None, 3)] == ["true", "0.123457", "null", "3"]


@given(low=st.floats(1e-9, 1e6), ratio=st.floats(1.0, 1e9))
def test_an_axis_drawn_by_hand_has_ticks_within_its_range(low: float, ratio: float) -> None:
    for log in (False, True):
        found = ticks(low, low * ratio, log=log)
        assert all(low * 0.999999 <= at <= low * ratio * 1.000001 for at, _ in found)


SPACE = [
    Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
    Categorical("optimizer", ["adam", "sgd"]),
    Bool("nesterov", default=True, when=("optimizer", ["sgd"])),
    Float("dampening", 1e-4, 1.0, log=True, when=("nesterov", [False])),
]


def test_what_becomes_active_has_its_default_or_the_middle_and_what_is_inactive_goes() -> None:
    assert completed({"optimizer": "sgd"}, SPACE) == {"optimizer": "sgd", "momentum": 0.495, "nesterov": True}
    deep = completed({"optimizer": "sgd", "nesterov": False, "momentum": 0.9}, SPACE)
    assert deep["dampening"] == pytest.approx(0.01)
    assert completed({"optimizer": "adam", "nesterov": False, "momentum": 0.9}, SPACE) == {"optimizer": "adam"}


@pytest.mark.parametrize(
    ("spec", "middle"),
    [
        (Float("a", 1e-4, 1.0, log=True), 0.01),
        (Float("a", 0.0, 1.0, step=0.3), 0.6),
        (Int("a", 1, 7), 4),
        (Int("a", 3, 3), 3),
        (Ordinal("a", [16, 32, 64]), 32),
        (Categorical("a", [None, "x"]), None),
        (Bool("a"), False),
        (Int("a", 1, 7, default=6), 6),
    ],
)
def test_without_a_default_the_middle_is_usual(spec, middle) -> None:
    assert usual(spec) == (pytest.approx(middle) if isinstance(middle, float) else middle)


@given(low=st.floats(1e-300, 1e300), ratio=st.floats(1.0, 1e3), log=st.booleans())
def test_a_grid_stays_within_its_range(low: float, ratio: float, log: bool) -> None:
    high = min(low * ratio, 1e300)
    found = grid(Float("a", low, high, log=log), 25)
    assert found[0] == low
    assert found[-1] == high
    assert all(low <= each <= high for each in found)
    assert list(found) == sorted(found)


def test_a_grid_of_whole_numbers_keeps_their_step() -> None:
    assert list(grid(Int("a", 1, 8, step=3), 61)) == [1, 4, 7]
    assert list(grid(Int("a", 1, 3), 61)) == [1, 2, 3]
    assert len(grid(Categorical("a", [str(each) for each in range(100)]), 61)) == 24
    assert math.isclose(grid(Float("a", 1e-4, 1.0, log=True), 5)[2], 1e-2)
