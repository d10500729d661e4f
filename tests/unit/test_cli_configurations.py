"""Configurations as they are typed or stand in files."""

from __future__ import annotations

import json
import math

import pytest

from asktell.cli.configurations import Reader
from asktell.cli.dials import Unreadable
from asktell.client import Bool, Categorical, Float, Int, MetricValue, Ordinal, TrialState

PARAMETERS = (
    Float("rate", 1e-5, 1e-1, log=True),
    Int("layers", 1, 4),
    Bool("nesterov"),
    Categorical("mode", [None, "1", 1, 1.5, True, "sgd"]),
    Ordinal("batch", [16, 32, 64]),
    Float("momentum", 0, 1, when=("mode", ["sgd"])),
)
PLAIN, RESULTS = Reader(PARAMETERS), Reader(PARAMETERS, results=True)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "0.01", 0.01),
        ("rate", "1", 1.0),
        ("layers", "3", 3),
        ("layers", "3.0", 3),
        ("nesterov", "True", True),
        ("nesterov", "false", False),
        ("mode", "null", None),
        ("mode", "None", None),
        ("mode", '"1"', "1"),
        ("mode", "1", 1),
        ("mode", "1.5", 1.5),
        ("mode", "true", True),
        ("mode", "sgd", "sgd"),
        ("batch", "32", 32),
        ("batch", "32.0", 32),
    ],
)
def test_a_text_becomes_a_value_of_its_parameters_kind(name, text, value):
    found = PLAIN.value(name, text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("rate", "'rate': expected NAME=VALUE"),
        ("rate=", "'rate=': expected NAME=VALUE"),
        ("=1", "'=1': expected NAME=VALUE"),
        ("rate=fast", "rate: could not convert string to float: 'fast'"),
        ("layers=2.5", "layers: '2.5' is not a whole number"),
        ("nesterov=maybe", "nesterov: 'maybe' is none of: false, true"),
        ("batch=17", "batch: '17' is none of: 16, 32, 64"),
        ("typo=1", "typo is no parameter of the study; there are: rate, layers, nesterov, mode, batch, momentum"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_name(word, why):
    with pytest.raises(Unreadable) as refused:
        PLAIN.assignments([word])
    assert why in str(refused.value)


def test_words_are_a_configuration_and_with_results_its_metrics():
    row = RESULTS.assignments(["rate=0.1", "layers=2", "loss=0.3±0.01", "time=12+-2", "odd=nan"])
    assert row.parameters == {"rate": 0.1, "layers": 2}
    assert row.metrics["loss"] == MetricValue(0.3, 0.01)
    assert row.metrics["time"] == MetricValue(12.0, 2.0)
    assert math.isnan(row.metrics["odd"].value)


def test_a_table_has_a_row_a_line_and_empty_cells_are_absent(tmp_path):
    path = tmp_path / "past.csv"
    path.write_text(
        "\ufeffnumber,state,rate,layers,loss,loss standard error,time,message,end_time\n"
        "1,succeeded,0.01,2,0.5,0.1,3,,2026-01-01\n"
        '2,failed,0.02,3.0,,,,"out of\nmemory",\n'
    )
    first, second = RESULTS.file(path)
    assert (first.parameters, first.state, first.place) == (
        {"rate": 0.01, "layers": 2},
        TrialState.SUCCEEDED,
        "past.csv line 2",
    )
    assert first.metrics == {"loss": MetricValue(0.5, 0.1), "time": MetricValue(3.0)}
    assert (second.parameters, second.state, second.metrics) == ({"rate": 0.02, "layers": 3}, TrialState.FAILED, {})
    assert second.message == "out of\nmemory"
    assert [row.metrics for row in PLAIN.file(path)] == [{}, {}]


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\f", "\x1e"])
def test_a_line_ends_only_where_a_file_says_so(tmp_path, end):
    table, lines = tmp_path / "past.csv", tmp_path / "past.jsonl"
    table.write_text(f"rate,state,message\n0.1,failed,out{end}of memory\n0.2,failed,\n")
    lines.write_text(json.dumps({"rate": 0.1, "state": "failed", "message": f"a{end}b"}, ensure_ascii=False) + "\n")
    assert [row.message for row in RESULTS.file(table)] == [f"out{end}of memory", ""]
    assert [row.message for row in RESULTS.file(lines)] == [f"a{end}b"]


@pytest.mark.parametrize(
    "text",
    [
        '{"rate": 0.01, "mode": null, "loss": 0.5}\n\n{"rate": 0.02, "mode": 1, "loss": [0.25, 0.1]}\n',
        (
            '[{"parameters": {"rate": 0.01, "mode": null}, "metrics": {"loss": {"value": 0.5, "standard_error": null}}},'
            '{"parameters": {"rate": 0.02, "mode": 1}, "metrics": {"loss": {"value": 0.25, "standard_error": 0.1}}}]'
        ),
    ],
)
def test_json_lines_and_lists_say_the_same(tmp_path, text):
    path = tmp_path / "past.json"
    path.write_text(text)
    first, second = RESULTS.file(path)
    assert (first.parameters, second.parameters) == ({"rate": 0.01, "mode": None}, {"rate": 0.02, "mode": 1})
    assert (first.metrics["loss"], second.metrics["loss"]) == (MetricValue(0.5), MetricValue(0.25, 0.1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "odd.csv is empty"),
        (" \n", "odd.csv is empty"),
        ("rate,layers\n", "has a heading and nothing below it"),
        ("a,b\n1,2\n", "odd.csv line 1: the heading names no parameter of the study; there are: rate,"),
        ("rate,layers\n0.1,2,3\n", "odd.csv line 2: it has more cells than the heading"),
        ("rate,layers\n0.1,2\n0.1,x\n", "odd.csv line 3: layers: could not convert"),
        ("rate,host\n0.1,gpu-0\n", "odd.csv line 2: host: 'gpu-0' is not a number, and host is no parameter"),
        ("rate,state\n0.1,done\n", "odd.csv line 2: the state 'done' is none of: queued,"),
        ("[]", "odd.csv has no configurations"),
        ("[1", "odd.csv: is no JSON"),
        ("[1]", "odd.csv entry 1: a configuration is an object"),
        ('{"rate": 0.1}\n{"rate"', "odd.csv line 2: is no JSON"),
        ('{"rate": 0.1, "loss": true}', "odd.csv line 1: loss: True is not a number"),
        ('{"header": {"format_version": 1}}', "odd.csv line 1: the file is a whole study: asktell study import"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_its_line(tmp_path, text, why):
    path = tmp_path / "odd.csv"
    path.write_text(text)
    with pytest.raises(Unreadable) as refused:
        RESULTS.file(path)
    assert why in str(refused.value)


FRAME = (
    ",number,state,parameters.rate,parameters.layers,parameters.mode,parameters.momentum,metrics.loss,"
    "metrics.loss.standard_error,metrics.time,feasible,policy,parent,worker_id,message,create_time,duration,metadata.commit\n"
    "0,1,succeeded,0.01,2.0,sgd,0.5,0.25,0.1,3,True,gp,0,vm-1,,2026-01-01,0 days 00:00:01,abc\n"
    "1,2,succeeded,0.02,3.0,1.5,{gap},0.5,{gap},{gap},True,gp,0,vm-1,,2026-01-01,0 days 00:00:01,{gap}\n"
    "2,3,failed,0.03,4.0,1.5,{gap},{gap},{gap},{gap},{gap},gp,0,vm-1,no GPU,2026-01-01,{gap},{gap}\n"
)


@pytest.mark.parametrize("gap", ["", "NaN", "nan", "<NA>"])
def test_a_table_of_pandas_is_read_by_its_headings(tmp_path, gap):
    path = tmp_path / "frame.csv"
    path.write_text(FRAME.format(gap=gap))
    first, second, third = RESULTS.file(path)
    assert first.parameters == {"rate": 0.01, "layers": 2, "mode": "sgd", "momentum": 0.5}
    assert first.metrics == {"loss": MetricValue(0.25, 0.1), "time": MetricValue(3.0)}
    assert second.parameters == {"rate": 0.02, "layers": 3, "mode": 1.5}
    assert second.metrics["loss"] == MetricValue(0.5)
    assert (third.state, third.metrics, third.message) == (TrialState.FAILED, {}, "no GPU")
    assert [row.parameters for row in PLAIN.file(path)] == [row.parameters for row in (first, second, third)]


def test_records_of_a_table_of_pandas_say_the_same(tmp_path):
    path = tmp_path / "frame.json"
    path.write_text(
        '[{"number": 1, "state": "succeeded", "parameters.rate": 0.02, "parameters.mode": null, "parameters.momentum": null,'
        ' "metrics.loss": 0.5, "policy": "gp", "feasible": true}]'
    )
    (row,) = RESULTS.file(path)
    assert (row.parameters, row.metrics) == ({"rate": 0.02, "mode": None}, {"loss": MetricValue(0.5)})


def test_a_study_whose_parameters_have_such_names_is_read_as_it_is(tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("parameters.rate,metrics.loss\n0.5,1\n")
    (row,) = Reader((Float("parameters.rate", 0, 1),), results=True).file(path)
    assert (row.parameters, row.metrics) == ({"parameters.rate": 0.5}, {"metrics.loss": MetricValue(1.0)})


def test_a_gap_of_a_parameter_that_every_trial_has_is_no_gap(tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("rate,loss\nnan,1\n")
    (row,) = RESULTS.file(path)
    assert math.isnan(row.parameters["rate"])
    path.write_text("layers,loss\nNaN,1\n")
    with pytest.raises(Unreadable, match="layers: 'NaN' is not a whole number"):
        RESULTS.file(path)
