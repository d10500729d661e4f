"""What a command's output says of its metrics."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.worker.output import Measurement, Transcript, UnreadableLine, parse

NAMES = ("accuracy",)

numbers = st.floats(width=64) | st.integers(-(2**60), 2**60)
names = st.text(min_size=1, max_size=8).filter(lambda name: name != "step")


def read(*lines: str, objectives: tuple[str, ...] = NAMES) -> Transcript:
    transcript = Transcript(objectives)
    for number, line in enumerate(lines, 1):
        transcript, _ = transcript.read(line, number=number)
    return transcript


def test_an_object_of_numbers_with_a_step_is_a_measurement() -> None:
    assert parse('{"step": 3, "accuracy": 0.9}\n', names=NAMES) == Measurement({"accuracy": 0.9}, 3)


def test_an_object_without_a_step_is_a_result() -> None:
    assert parse(' {"accuracy": 1, "loss": [0.2, 0.01]}\r\n', names=NAMES) == Measurement(
        {"accuracy": 1.0, "loss": (0.2, 0.01)}
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "epoch 3: accuracy 0.9",
        "{}",
        "[1, 2]",
        '{"event": "start", "rate": 0.1}',
        '{"step": 3}',
        '{"loss": {"nested": 1}}',
        '{"loss": true}',
        '{"loss": [1, 2, 3]}',
        "{" * 100_000 + "}",
        '{"loss": 1' + "0" * 5_000 + "}",
        '{"accuracy": 0.9',
    ],
)
def test_other_output_is_no_measurement(line: str) -> None:
    assert parse(line, names=NAMES) is None


def test_nan_and_infinity_are_numbers() -> None:
    measurement = parse('{"accuracy": NaN, "loss": -Infinity}', names=NAMES)
    assert measurement is not None
    assert math.isnan(measurement.metrics["accuracy"])
    assert measurement.metrics["loss"] == -math.inf


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"accuracy": "0.9"}', 'accuracy is "0.9", not a number'),
        ('{"accuracy": null, "step": 1}', "accuracy is null, not a number"),
        ('{"accuracy": true}', "accuracy is true, not a number"),
        ('{"accuracy": 0.9, "step": "3"}', 'step is "3", not a whole number from 0'),
        ('{"accuracy": 0.9, "step": -1}', "step is -1, not a whole number from 0"),
        ('{"accuracy": 0.9, "step": 1.5}', "step is 1.5, not a whole number from 0"),
        ('{"accuracy": 0.9, "step": true}', "step is true, not a whole number from 0"),
        ('{"accuracy": 0.9, "step": 9223372036854775808}', "step is 9223372036854775808, not a whole number from 0"),
    ],
)
def test_a_metric_or_step_of_another_kind_is_named(line: str, complaint: str) -> None:
    with pytest.raises(UnreadableLine, match=complaint.replace("(", r"\(")):
        parse(line, names=NAMES)


@given(st.text())
def test_any_line_is_read_without_an_error_of_our_own(line: str) -> None:
    try:
        measurement = parse(line, names=NAMES)
    except UnreadableLine:
        return
    assert measurement is None or measurement.metrics


@given(st.dictionaries(names, numbers | st.tuples(numbers, numbers), min_size=1), st.none() | st.integers(0, 2**63 - 1))
def test_what_python_writes_is_read_as_it_was(metrics: dict, step: int | None) -> None:
    line = json.dumps({**metrics, **({} if step is None else {"step": step})})
    measurement = parse(line, names=())
    assert measurement is not None
    assert measurement.step == step
    assert repr({name: measurement.metrics[name] for name in metrics}) == repr(
        {
            name: tuple(map(float, value)) if isinstance(value, tuple) else float(value)
            for name, value in metrics.items()
        }
    )


def test_lines_without_a_step_make_the_result_together_and_the_later_one_wins() -> None:
    transcript = read('{"accuracy": 0.1}', '{"loss": 2}', '{"step": 9, "accuracy": 0.7}', '{"accuracy": 0.2}')
    assert transcript.metrics == {"accuracy": 0.2, "loss": 2.0}
    assert not transcript.shortcoming


def test_the_last_measurement_is_the_result_where_no_line_is() -> None:
    assert read('{"step": 1, "accuracy": 0.1}', '{"step": 2, "accuracy": 0.2}').metrics == {"accuracy": 0.2}


def test_a_missing_objective_is_named_with_what_was_seen() -> None:
    transcript = read('{"loss": 1, "f1": 2}', objectives=("accuracy", "latency"))
    assert transcript.shortcoming == "no value for accuracy, latency: the result has loss, f1"
    assert read("done").shortcoming == 'no value for accuracy: no line of metrics was seen, such as {"accuracy": 0.5}'


def test_the_first_unreadable_line_is_named_in_the_shortcoming() -> None:
    transcript = read("start", '{"accuracy": "high"}', '{"accuracy": "low"}')
    assert transcript.shortcoming.endswith('; line 2: accuracy is "high", not a number')
