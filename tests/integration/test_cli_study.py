"""`asktell study` against a real server."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from asktell.client import Client, FinishedTrial, Float, Maximize, Measurement, MetricValue, Minimize, Study, TrialState
from asktell.client.connection import Connection
from tests.processes import ASKTELL

SPACE = ["--float", "rate=1e-5:1e-1:log", "--categorical", "opt=sgd,adam", "--float", "momentum=0:0.99 when opt=sgd"]


def test_constraints_and_references_are_created_shown_and_read_back(client: Client, study, tmp_path: Path) -> None:
    goals = ["--minimize", "loss=2.5", "--maximize", "speed", "--at-most", "latency_ms=50", "--at-least", "recall=0.9"]
    study("create", "bounded", *SPACE, *goals, "--noisy")
    shown = study("show", "bounded")
    assert "minimize loss (reference 2.5), maximize speed" in shown
    assert "latency_ms <= 50, recall >= 0.9" in shown
    document = tmp_path / "study.json"
    document.write_text(study("show", "bounded", "--json"))
    study("create", "again", "--spec", str(document))
    first, second = client.get_study("bounded"), client.get_study("again")
    assert second.outcome_constraints == first.outcome_constraints != ()
    assert second.objectives == first.objectives == (Minimize("loss", 2.5), Maximize("speed"))
    assert second.noisy
    assert "such as latency_ms=50" in study("create", "bad", *SPACE, "--minimize", "y", "--at-most", "x", status=2)


def test_a_study_starts_from_an_earlier_one(client: Client, study, tmp_path: Path) -> None:
    study("create", "earlier", *SPACE, "--minimize", "loss")
    study("create", "later", *SPACE, "--minimize", "loss", "--warm-start", "earlier")
    assert re.search(r"starts from +earlier", study("show", "later"))
    document = tmp_path / "study.json"
    document.write_text(study("show", "later", "--json"))
    study("create", "latest", "--spec", str(document))
    assert client.get_study("latest").warm_start == ("earlier",)
    assert "nowhere" in study("create", "bad", *SPACE, "--minimize", "loss", "--warm-start", "nowhere", status=1)


def populate(client: Client, name: str = "full") -> Study:
    """A study with a trial in every state, and awkward values."""
    study = client.create_study(
        name,
        parameters=[Float("x", -1, 1)],
        objectives=[Minimize("loss")],
        policy="random",
        max_trials=20,
        labels={"team": "vision"},
    )
    study.import_trials(
        [
            FinishedTrial(
                parameters={"x": 0.5},
                metrics={"loss": (0.25, 0.01), "time": 3},
                measurements=[
                    Measurement(0, {"loss": MetricValue(1.0)}),
                    Measurement(5, {"loss": MetricValue(0.5, 0.1)}),
                ],
                metadata={"host": "gpu-0"},
            ),
            FinishedTrial(parameters={"x": 0.25}, metrics={"loss": math.nan}),
            FinishedTrial(
                parameters={"x": -0.5}, metrics={"loss": math.inf}, state=TrialState.STOPPED, message="enough"
            ),
            FinishedTrial(parameters={"x": -1.0}, state=TrialState.INFEASIBLE, message="no memory"),
            FinishedTrial(
                parameters={"x": 1.0}, state=TrialState.FAILED, message='Traceback\n "x", ü\nValueError: odd'
            ),
        ]
    )
    study.enqueue({"x": 0.125}, metadata={"why": "a guess"})
    return study


def test_a_study_is_created_from_options_and_shown_as_json(study) -> None:
    created = json.loads(
        study("create", "digits", *SPACE, "--maximize", "accuracy", "--max-trials", "50", "--seed", "0", "--json")
    )
    shown = json.loads(study("show", "digits", "--json"))
    assert shown == created
    assert {parameter["name"]: parameter["kind"] for parameter in shown["parameters"]} == {
        "rate": "float",
        "opt": "categorical",
        "momentum": "float",
    }
    assert shown["objectives"] == [{"metric": "accuracy", "goal": "maximize"}]
    assert (shown["state"], shown["seed"], shown["budget"]["max_trials"]) == ("active", 0, 50)


def test_the_list_counts_all_that_ended_and_names_the_best_if_asked_for(client, study) -> None:
    study("create", "digits", "--float", "x=0:1", "--maximize", "accuracy", "--max-trials", "4", "--policy", "random")
    study("create", "pair", "--float", "x=0:1", "--maximize", "a", "--minimize", "b")
    study("create", "untouched", "--float", "x=0:1", "--maximize", "a")
    first, second, third, fourth = client.get_study("digits").ask(4)
    first.tell(accuracy=0.25)
    second.stop({"accuracy": 0.5})
    third.fail("no GPU")
    fourth.infeasible("too wide")
    (pair,) = client.get_study("pair").ask()
    pair.tell(a=1.0, b=2.0)
    lines = [line.split() for line in study("list").splitlines()[2:]]
    assert lines[0][:9] == ["digits", "spent", "max", "accuracy", "4", "of", "4", "0", "1"]
    heading, _, *rows = study("list", "--best").splitlines()
    assert heading.split() == ["study", "state", "objectives", "done", "active", "failed", "best", "changed"]
    assert rows[0].split()[7:10] == ["0", "1", "0.25"]
    assert [row.split()[-4] for row in rows[1:]] == ["–", "–"]
    documents = json.loads(study("list", "--best", "--json"))
    assert [document["best"] and document["best"]["number"] for document in documents] == [1, None, None]
    assert all("best" not in document for document in json.loads(study("list", "--json")))


def test_what_show_prints_as_json_makes_the_same_study_again(study, tmp_path: Path) -> None:
    study("create", "one", *SPACE, "--minimize", "loss", "--max-duration", "60", "--label", "a=b")
    spec = tmp_path / "spec.json"
    spec.write_text(study("show", "one", "--json"))
    study("create", "two", "--spec", str(spec))
    first, second = (json.loads(study("show", name, "--json")) for name in ("one", "two"))
    for document in (first, second):
        for changing in ("name", "create_time", "update_time"):
            del document[changing]
    assert first == second


def test_the_same_study_again_is_left_as_it_is_and_another_is_refused(study) -> None:
    study("create", "digits", *SPACE, "--maximize", "accuracy")
    study("create", "digits", *SPACE, "--maximize", "accuracy")
    error = study("create", "digits", "--bool", "a", "--maximize", "accuracy", status=1)
    assert error.startswith("asktell: study 'digits' exists with other parameters; ")
    assert error.endswith("else take another name, or delete it\n")


def test_what_the_service_refuses_of_a_parameter_is_said_with_its_name(study) -> None:
    error = study("create", "digits", "--bool", "a", "--float", "rate=1:0", "--maximize", "accuracy", status=1)
    assert error.startswith("asktell: parameter rate, low: ")


def test_export_and_import_and_export_give_the_same_bytes_but_for_the_name(
    client: Client, study, tmp_path: Path
) -> None:
    full = populate(client)
    full.enqueue({"x": 0.75}).cancel()
    paths = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    study("export", "full", "--output", str(paths[0]))
    study("import", str(paths[0]), "--name", "again")
    study("export", "again", "--output", str(paths[1]))
    first, second = (_without_digest(path) for path in paths)
    assert second.replace(b"/studies/again", b"/studies/full") == first
    lines = list(map(json.loads, first.splitlines()))
    assert [line["trial"]["state"] for line in lines if "trial" in line][-2:] == ["STATE_QUEUED", "STATE_CANCELLED"]
    assert lines[2]["reported"]["measurements"][1]["metrics"] == {"loss": {"value": 0.5, "standard_error": 0.1}}
    assert lines[3]["trial"]["metrics"]["loss"]["value"] == "NaN"


def _without_digest(path: Path) -> bytes:
    """The file without what covers the study's name."""
    return re.sub(rb'(?<="sha256":")[0-9a-f]{64}', b"", path.read_bytes())


def test_an_export_to_standard_output_is_that_to_a_file(client: Client, study, tmp_path: Path) -> None:
    populate(client)
    path = tmp_path / "full.jsonl"
    study("export", "full", "--output", str(path))
    command = [ASKTELL, "study", "export", "full", "--target", client.target, "--project", client.project]
    assert subprocess.run(command, capture_output=True, timeout=60, check=True).stdout == path.read_bytes()


def test_an_active_trial_is_imported_as_a_queued_one(client: Client, study, tmp_path: Path) -> None:
    full = populate(client)
    (active,) = full.ask()
    path = tmp_path / "full.jsonl"
    study("export", "full", "--output", str(path))
    full.finish()
    study("import", str(path), "--name", "again")
    states = [trial.state.value for trial in client.get_study("again").list_trials()]
    assert states == ["succeeded", "succeeded", "stopped", "infeasible", "failed", "queued"]
    active.release()


def test_a_finished_study_is_imported_as_a_finished_one(client: Client, study, tmp_path: Path) -> None:
    populate(client).finish()
    path = tmp_path / "full.jsonl"
    study("export", "full", "--output", str(path))
    study("import", str(path), "--name", "again")
    assert client.get_study("again").state.value == "finished"


def test_an_import_into_an_equal_study_changes_nothing_and_into_another_is_refused(
    client: Client, study, tmp_path: Path
) -> None:
    full = populate(client)
    path = tmp_path / "full.jsonl"
    study("export", "full", "--output", str(path))
    study("import", str(path))
    assert client.get_study("full").counts.succeeded == 2
    full.pause()
    assert study("import", str(path), status=1) == ("asktell: study 'full' exists and is not equal to the archive\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "odd.jsonl line 1: is missing: the file is empty"),
        ("hello", "odd.jsonl line 1: is no record of an archive: "),
        ("3", "odd.jsonl line 1: is no record of an archive: "),
        ('{"end": {"trial_count": 0}}', "odd.jsonl line 1: must be the header"),
        ('{"study": {"parameters": []}}', "odd.jsonl line 1: is no record of an archive: "),
        (
            '{"header": {"format_version": 7}}\n{"end": {}}',
            "odd.jsonl line 1: header.format_version: is 7; this server",
        ),
        ('{"header": {"next_number": NaN}}', "odd.jsonl line 1: is no record of an archive: NaN is not JSON"),
    ],
)
def test_a_file_that_is_no_archive_is_refused(study, tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(text)
    assert why in study("import", str(path), "--name", "odd", status=1)
    assert json.loads(study("list", "--json")) == []


def test_csv_has_a_row_for_each_trial(client: Client, study) -> None:
    populate(client)
    rows = list(csv.DictReader(io.StringIO(study("export", "full", "--format", "csv"))))
    assert [row["state"] for row in rows] == ["succeeded", "succeeded", "stopped", "infeasible", "failed", "queued"]
    assert (rows[0]["x"], rows[0]["loss"], rows[0]["loss standard error"]) == ("0.5", "0.25", "0.01")
    assert rows[4]["message"] == 'Traceback\n "x", ü\nValueError: odd'


def test_every_json_output_is_strict_json_and_nothing_else(client: Client, study) -> None:
    populate(client)
    for command in (
        ["list"],
        ["show", "full"],
        ["best", "full"],
        ["trials", "full"],
        ["pause", "full"],
        ["finish", "full"],
    ):
        json.loads(study(*command, "--json"), parse_constant=pytest.fail)
    assert [trial["number"] for trial in json.loads(study("best", "full", "--json"))] == [1]
    assert [trial["number"] for trial in json.loads(study("trials", "full", "--state", "failed", "--json"))] == [5]


def test_the_best_of_a_study_without_success_is_an_empty_list_or_an_error(study) -> None:
    study("create", "new", "--bool", "a", "--minimize", "loss")
    assert json.loads(study("best", "new", "--json")) == []
    assert study("best", "new", status=1) == "asktell: no trial of new has succeeded yet\n"


def test_a_study_without_a_feasible_trial_says_which_bounds_are_not_kept(client: Client, study) -> None:
    study("create", "bounded", "--float", "x=0:1", "--minimize", "loss", "--at-most", "latency_ms=50")
    study("enqueue", "bounded", "--finished", "x=0.5", "loss=1", "latency_ms=60")
    study("enqueue", "bounded", "--finished", "x=0.6", "loss=1")
    message = (
        "asktell: bounded has no best trial yet: none of 2 that succeeded is known to be feasible: latency_ms <= 50\n"
    )
    assert study("best", "bounded", status=1) == message
    assert study("predict", "bounded", "--like", "best", status=1) == message
    assert json.loads(study("best", "bounded", "--json")) == []


def test_objectives_come_before_other_metrics_in_tables_and_files(client: Client, study) -> None:
    study("create", "ordered", "--float", "x=0:1", "--minimize", "loss")
    study("enqueue", "ordered", "--finished", "x=0.5", "accuracy=0.5", "loss=1", "a=2")
    assert "trial 1: loss = 1, a = 2, accuracy = 0.5" in study("best", "ordered")
    assert study("export", "ordered", "--format", "csv").startswith("number,state,x,loss,a,accuracy,")


def test_a_pareto_front_is_shown_as_a_table(client: Client, study) -> None:
    front = client.create_study(
        "front", parameters=[Float("x", 0, 1)], objectives=[Minimize("latency"), Maximize("accuracy")]
    )
    points = [(1, 0.1), (2, 0.2), (3, 0.15)]
    front.import_trials(
        [FinishedTrial(parameters={"x": x / 4}, metrics={"latency": x, "accuracy": a}) for x, a in points]
    )
    rows = [line.split() for line in study("best", "front").splitlines() if "succeeded" in line]
    assert rows == [["1", "succeeded", "1", "0.1", "0.25"], ["2", "succeeded", "2", "0.2", "0.5"]]


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(client: Client, study, columns: int) -> None:
    wide = client.create_study(
        "wide",
        parameters=[Float(f"a_long_parameter_name_{number}", 0, 1) for number in range(9)],
        objectives=[Minimize("loss")],
        policy="random",
    )
    for trial in wide.ask(3):
        trial.fail("ValueError: " + "long " * 40)
    for command in (["list"], ["show", "wide"], ["trials", "wide"]):
        lines = study(*command, columns=columns).splitlines()
        assert max(map(len, lines)) <= columns
        assert lines[0].split()[0] in ("study", "trial")
    assert "a_long_parameter_name_8=" in study("trials", "wide", columns=columns).replace("\n", "")


def test_an_update_changes_what_is_given_and_nothing_else(client: Client, study) -> None:
    before = json.loads(
        study("create", "digits", *SPACE, "--minimize", "loss", "--max-trials", "5", "--label", "a=1", "--json")
    )
    after = json.loads(
        study("update", "digits", "--max-failures", "2", "--max-duration", "60", "--label", "b=2", "--json")
    )
    assert after["budget"] == {**before["budget"], "max_failures": 2, "max_duration": 60}
    assert after["budget"]["max_trials"] == 5
    assert after["labels"] == {"a": "1", "b": "2"}
    for changed in ("budget", "labels", "update_time"):
        del before[changed], after[changed]
    assert after == before
    assert json.loads(study("update", "digits", "--label", "a=3", "--json"))["labels"] == {"a": "3", "b": "2"}
    assert client.get_study("digits").budget.max_failures == 2


def test_an_update_adds_replaces_and_removes_single_labels(study) -> None:
    study("create", "digits", *SPACE, "--minimize", "loss", "--label", "a=1", "--label", "b c=2", "--label", "d=3")
    changed = study("update", "digits", "--label", "d=4", "--label", "e.f`=5", "--remove-label", "b c", "--json")
    assert json.loads(changed)["labels"] == {"a": "1", "d": "4", "e.f`": "5"}
    assert json.loads(study("update", "digits", "--remove-label", "not there", "--json")) == json.loads(changed)
    assert "is not a key" in study("update", "digits", "--remove-label", "k" * 64, status=1)


def test_an_update_keeps_what_another_changes_at_the_same_time(client: Client, study, monkeypatch) -> None:
    study("create", "digits", *SPACE, "--minimize", "loss", "--max-trials", "5", "--label", "a=1", "--label", "b=2")
    run = Connection.run

    def run_late(self: Connection, call: Any, **options: Any) -> Any:
        # Whatever the command has read by now is out of date.
        if call.method == "UpdateStudy":
            monkeypatch.setattr(Connection, "run", run)
            client.get_study("digits").update(max_parallel=2, label_changes={"a": None, "c": "3"})
        return run(self, call, **options)

    monkeypatch.setattr(Connection, "run", run_late)
    changed = json.loads(study("update", "digits", "--max-trials", "9", "--label", "b=4", "--json"))
    assert (changed["budget"]["max_trials"], changed["budget"]["max_parallel"]) == (9, 2)
    assert changed["labels"] == {"b": "4", "c": "3"}


def test_an_update_is_shown_as_a_table(study) -> None:
    study("create", "digits", *SPACE, "--minimize", "loss", "--max-trials", "5")
    shown = study("update", "digits", "--max-parallel", "4")
    (budget,) = (line for line in shown.splitlines() if line.startswith("budget"))
    assert budget.split(maxsplit=1)[1].strip() == "trials 5, at one time 4"


def test_a_study_with_more_to_spend_hands_out_trials_again(client: Client, study) -> None:
    spent = populate(client)
    study("update", "full", "--max-trials", "6")
    (queued,) = spent.ask()
    queued.tell({"loss": 1.0})
    assert spent.ask_once().closed
    study("update", "full", "--max-trials", "7")
    (trial,) = spent.ask()
    trial.release()


def test_pause_resume_and_finish_say_how_the_study_stands(study) -> None:
    study("create", "digits", "--bool", "a", "--minimize", "loss")
    for command, state in (("pause", "paused"), ("resume", "active"), ("finish", "finished"), ("resume", "active")):
        assert f"digits is: {state}, trials: none yet" in study(command, "digits")


def test_delete_asks_first(client: Client, study) -> None:
    populate(client)
    assert "nobody to ask, say --yes" in study("delete", "full", status=1)
    assert len(client.list_studies()) == 1
    study("delete", "full", "--yes")
    assert client.list_studies() == []


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", 0), (b"\n", 1), (b"no\n", 1)])
def test_delete_takes_only_yes_for_an_answer(client: Client, answer: bytes, left: int) -> None:
    populate(client, "asked")
    ours, theirs = pty.openpty()
    command = [ASKTELL, "study", "delete", "asked", "--target", client.target, "--project", client.project]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(ours, answer)
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert b"with 6 trials for good? [y/N]" in out
    assert len(client.list_studies()) == left


def test_a_service_that_is_away_is_one_line_and_status_1() -> None:
    commands = [
        ("asktell", ["study", "list", "--json"]),
        ("asktell work", ["work", "--study", "any", "module:function"]),
    ]
    running = [
        subprocess.Popen([ASKTELL, *command, "--target", "127.0.0.1:1"], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for _, command in commands
    ]
    for (who, _), process in zip(commands, running, strict=True):
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, b"")
        (line,) = errors.decode().splitlines()
        assert line.startswith(f"{who}: the service could not be reached: ")
        assert line.endswith("; `asktell serve` runs a service; --target says where it is")


def test_a_study_that_is_not_there_is_one_line_and_status_1(study) -> None:
    for command in ("show", "best", "trials", "export", "pause", "delete", "update --max-trials 9"):
        (line,) = study(*command.split(), "nope", status=1).splitlines()
        assert line.startswith("asktell: there is no study ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--float", "lr=0:1:log", "--minimize", "y"), "parameter lr, low: must be above 0 on a log scale, not 0.0"),
        (
            ("--float", "a.b=0:1", "--float", "a.b=0:1", "--minimize", "y"),
            "parameter a.b: 'a.b' is the name of an earlier",
        ),
        (("--bool", "a", "--minimize", "y", "--maximize", "y"), "objective y: 'y' is an objective already"),
        (("--float", "a=0:1 when b=2", "--minimize", "y"), "parameter a, when.parent: 'b' is not a parameter"),
        (("--categorical", "a=x,x", "--minimize", "y"), "parameter a, choices[1]: text 'x' stands there twice"),
        (("--bool", "a", "--minimize", "y", "--policy", "telepathy"), "--policy: 'telepathy' is no policy"),
        (("--bool", "a", "--minimize", "y", "--lease-duration", "0.1"), "--lease-duration: must be from 1 s"),
        (("--bool", "a", "--minimize", "y", "--at-most", "y z=3"), "outcome constraint y z: 'y z' is not a name"),
    ],
)
def test_a_study_that_is_refused_is_said_in_the_words_that_were_typed(study, words, said) -> None:
    assert study("create", "new", *words, status=1).startswith(f"asktell: {said}")


def test_a_study_whose_budget_is_spent_is_shown_so(client: Client, study) -> None:
    populate(client)
    assert study("list").splitlines()[2].split()[1] == "active"
    study("update", "full", "--max-trials", "6")
    assert study("list").splitlines()[2].split()[1] == "spent"
    assert "active, its budget is spent" in study("show", "full")


def test_the_list_of_studies_fits_eighty_columns(client: Client, study) -> None:
    study("create", "handwritten-digits", *SPACE, "--maximize", "accuracy", "--max-trials", "1000")
    shown = study("list", columns=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) == 3


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("out of memory", "out of memory"),
        ("out of memory\n\ntried 3 times", "out of memory … tried 3 times"),
        ('Traceback (most recent call last):\n  File "x", line 1\n    f()\nValueError: odd', "ValueError: odd"),
        (
            'Traceback (most recent call last):\n  File "x", line 1\nValueError: odd\nand so on',
            "ValueError: odd … and so on",
        ),
    ],
)
def test_a_failures_first_and_last_line_are_shown(client: Client, study, message: str, shown: str) -> None:
    full = client.create_study("broken", parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")])
    full.import_trials([FinishedTrial(parameters={"x": 0.5}, state=TrialState.FAILED, message=message)])
    assert study("trials", "broken").splitlines()[-1].rstrip().endswith(shown)


def test_files_that_cannot_be_written_or_read_are_named_as_they_were_typed(
    client: Client, study, tmp_path: Path
) -> None:
    populate(client)
    for form in ("jsonl", "csv"):
        path = tmp_path / "nowhere" / f"full.{form}"
        said = study("export", "full", "--format", form, "--output", str(path), status=2)
        assert said == f"asktell: {path}: No such file or directory\n"
    table = tmp_path / "full.csv"
    study("export", "full", "--format", "csv", "--output", str(table))
    assert "is a table, without all that a study is" in study("import", str(table), status=2)


def test_constraints_are_created_shown_and_read_back_and_a_range_is_widened(
    client: Client, study, tmp_path: Path
) -> None:
    bounded = ["--int", "width=1:512:log", "--ordinal", "depth=2,8", "--constraint", "width * depth <= 512"]
    study("create", "narrow", *bounded, "--minimize", "loss")
    assert "width * depth <= 512" in study("show", "narrow")
    document = tmp_path / "study.json"
    document.write_text(study("show", "narrow", "--json"))
    study("create", "copy", "--spec", str(document))
    assert client.get_study("copy").constraints == ("width * depth <= 512",)
    assert "1 to 1024" in study("widen", "narrow", "width", "--high", "1024")
    assert "1 < 2 < 4 < 8" in study("widen", "narrow", "depth", "--add-choice", "4", "--add-choice", "1")
    assert "ranges only widen" in study("widen", "narrow", "width", "--high", "100", status=1)
    assert "--add-choice" in study("widen", "narrow", "depth", "--low", "1", status=2)
    assert "there are width, depth" in study("widen", "narrow", "height", "--low", "1", status=2)
    bad = ["create", "bad", *bounded, "--minimize", "loss", "--constraint", "width < 3"]
    assert "constraint 'width < 3' compares by < or >" in study(*bad, status=1)
