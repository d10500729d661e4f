"""`asktell study predict`, `importance`, `validate`, `plot` and `enqueue` against a real server."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from asktell.client import Client, FinishedTrial, Study, TrialState

SPACE = (
    *("--float", "rate=1e-5:1e-1:log", "--ordinal", "batch=16,32,64", "--categorical", "opt=sgd,adam"),
    *("--float", "momentum=0:0.99 when opt=sgd", "--int", "layers=1:4"),
)
ADAM = ("rate=0.01", "batch=32", "opt=adam", "layers=2")
PNG, SVG, PDF = b"\x89PNG", b"<?xml", b"%PDF"


def loss_of(parameters) -> float:
    return (math.log10(parameters["rate"]) + 3) ** 2 + (parameters["opt"] == "adam") + 0.1 * parameters["layers"]


@pytest.fixture
def told(client: Client, study) -> Study:
    """A study of two objectives with twenty results, a failure and a result that breaks a bound."""
    study(
        "create",
        "told",
        *SPACE,
        "--minimize",
        "loss",
        "--maximize",
        "speed",
        "--at-most",
        "memory=10",
        "--policy",
        "random",
    )
    found = client.get_study("told")
    for trial in found.ask(22):
        if trial.number == 7:
            trial.fail("out of memory")
        else:
            memory = 20.0 if trial.number == 9 else 5.0
            trial.tell(loss=loss_of(trial.parameters), speed=float(trial.parameters["batch"]), memory=memory)
    return found


def test_a_prediction_is_shown_and_printed_as_json(told: Study, study) -> None:
    assert "loss" in study("predict", "told", *ADAM).splitlines()[0]
    (found,) = json.loads(study("predict", "told", *ADAM, "--json"))
    assert found["parameters"] == {"rate": 0.01, "batch": 32, "opt": "adam", "layers": 2}
    expected = told.predict([found["parameters"]])[0]
    assert found["predictions"]["loss"]["mean"] == expected["loss"].mean


def test_a_trials_values_stand_where_none_are_given_and_what_is_inactive_goes(told: Study, study) -> None:
    sgd = next(trial for trial in told.list_trials() if trial.parameters["opt"] == "sgd")
    (found,) = json.loads(study("predict", "told", "--like", str(sgd.number), "opt=adam", "--json"))
    assert found["parameters"] == {**{k: v for k, v in sgd.parameters.items() if k != "momentum"}, "opt": "adam"}
    best = told.optimal_trials()[0]
    (found,) = json.loads(study("predict", "told", "--like", "best", "--json"))
    assert found["parameters"] == best.parameters


def test_predictions_for_a_file_are_in_its_order(told: Study, study, tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(study("export", "told", "--format", "csv"))
    found = json.loads(study("predict", "told", "--file", str(path), "--json"))
    assert [each["parameters"] for each in found] == [trial.parameters for trial in told.list_trials()]


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        ((), 2, "which configuration? give NAME=VALUE for each parameter, --like best, or --file FILE"),
        (("rate=0.01",), 1, "points[0].values[layers]: is missing"),
        (("rat=0.01",), 2, "rat is no parameter of the study; there are: rate,"),
        (("--like", "worst"), 2, "--like worst: expected a trial's number, or best"),
        (("--like", "99"), 1, "99"),
        ((*ADAM, "momentum=0.5"), 1, "points[0].values[momentum]: is inactive"),
        ((*ADAM, "--output", "picture.gif"), 2, "picture.gif: expected a name that ends in one of .pdf, .png, .svg"),
        ((*ADAM, "--output", "p.png", "--along", "optim"), 2, "--along optim: there is no such parameter"),
        ((*ADAM, "--output", "p.png", "--along", "momentum"), 1, "there is nothing to draw along"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(told: Study, study, words, status, why) -> None:
    assert why in study("predict", "told", *words, status=status)


def test_importance_is_shown_by_objective_and_printed_as_json(told: Study, study) -> None:
    for method in ("sobol", "ped-anova"):
        shown = study("importance", "told", "--method", method)
        assert shown.split()[:3] == ["parameter", "loss", "speed"]
        assert json.loads(study("importance", "told", "--method", method, "--json")) == told.importance(method=method)


def test_validation_has_a_verdict_for_each_objective(told: Study, study) -> None:
    shown = study("validate", "told")
    assert "loss: 21 results, " in shown
    assert "speed: 21 results, " in shown
    assert len(json.loads(study("validate", "told", "--json"))) == 42


def test_too_few_results_are_said_with_how_many_it_takes(client: Client, study) -> None:
    study("create", "new", "--bool", "a", "--minimize", "loss")
    for command in (("importance", "new"), ("validate", "new"), ("predict", "new", "a=true")):
        assert "too few trials have a finite 'loss': 0, this takes" in study(*command, status=1)
    assert study("plot", "new", "-o", "x.png", status=1) == "asktell: new has no trials yet\n"


@pytest.mark.parametrize(("ending", "magic"), [(".png", PNG), (".svg", SVG), (".pdf", PDF)])
def test_pictures_are_written_in_the_format_of_their_name(told: Study, study, tmp_path, ending, magic) -> None:
    for command in (
        ("predict", "told", "--like", "best"),
        ("importance", "told"),
        ("validate", "told"),
        ("predict", "told", *ADAM, "--along", "opt"),
        ("plot", "told"),
        ("plot-parallel", "told"),
        ("plot-parallel", "told", "--metric", "speed"),
        ("plot-contour", "told"),
        ("plot-contour", "told", "rate", "opt", "--like", "3", "--metric", "speed"),
    ):
        path = tmp_path / f"{command[0]}{ending}"
        study(*command, "--output", str(path))
        assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("plot-curves", "told", "-o", "x.png"), 1, "no trial of study 'told' reported 'loss'"),
        (("plot-parallel", "told", "-o", "x.png", "--metric", "memory"), 1, "'memory' is no objective of the study"),
        (("plot-contour", "told", "rate", "-o", "x.png"), 1, "give two parameters, or none"),
        (("plot-contour", "told", "rate", "speed", "-o", "x.png"), 1, "speed: is no parameter of the study"),
        (("plot-contour", "told", "--like", "first", "-o", "x.png"), 2, "--like first: expected a trial's number"),
        (("plot-contour", "told", "-o", "x.gif"), 2, "x.gif: expected a name that ends in one of .pdf, .png, .svg"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(told: Study, study, words, status, why) -> None:
    assert why in study(*words, status=status)


def test_learning_curves_are_drawn_of_what_was_reported(client: Client, study, tmp_path: Path) -> None:
    study(
        "create",
        "new",
        "--float",
        "a=0:1",
        "--minimize",
        "loss",
        "--stopping",
        "median:metric=validation,goal=minimize",
    )
    (trial,) = client.get_study("new").ask()
    trial.report(step=1, validation=0.5)
    trial.tell(loss=0.4)
    study("plot-curves", "new", "-o", str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_a_missing_extra_is_named(told: Study, study, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    import asktell.client

    for name in [name for name in sys.modules if name.startswith("asktell.client.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(asktell.client, "plots", raising=False)
    for command in ("importance", "plot", "plot-curves", "plot-parallel", "plot-contour"):
        assert "pictures need the plot extra: pip install 'asktell[plot]'" in study(
            command, "told", "-o", "x.png", status=1
        )


def test_enqueued_configurations_are_handed_out_first_and_in_order(client: Client, study, tmp_path: Path) -> None:
    study("create", "new", *SPACE, "--minimize", "loss")
    assert study("enqueue", "new", *ADAM) == "1 trial queued: 1\n"
    path = tmp_path / "favourites.csv"
    path.write_text("rate,batch,opt,momentum,layers,why\n0.02,16,sgd,0.9,1,as usual\n0.03,64,adam,,3.0,\n")
    assert study("enqueue", "new", "--file", str(path)) == "2 trials queued: 2 to 3\n"
    handed = client.get_study("new").ask(4)
    assert [trial.parameters["rate"] for trial in handed[:3]] == [0.01, 0.02, 0.03]
    assert handed[1].parameters["momentum"] == 0.9
    assert handed[3].origin.policy != "user"


def test_finished_trials_come_from_the_table_that_export_writes(
    told: Study, client: Client, study, tmp_path: Path
) -> None:
    told.enqueue({"rate": 0.01, "batch": 16, "opt": "adam", "layers": 1})
    path = tmp_path / "told.csv"
    study("export", "told", "--format", "csv", "--output", str(path))
    study("create", "again", *SPACE, "--minimize", "loss", "--maximize", "speed")
    said = study("enqueue", "again", "--finished", "--file", str(path))
    assert said == "22 trials added as finished: 1 to 22; 1 that had not finished left out\n"
    before, after = told.list_trials()[:22], client.get_study("again").list_trials()
    assert [(t.parameters, t.metrics, t.state, t.message) for t in after] == [
        (t.parameters, t.metrics, t.state, t.message) for t in before
    ]
    listed = tmp_path / "told.json"
    listed.write_text(study("trials", "told", "--state", "succeeded", "--json"))
    assert study("enqueue", "again", "--finished", "--file", str(listed)).startswith(
        "21 trials added as finished: 23 to 43"
    )


def test_a_finished_trial_can_be_typed(client: Client, study) -> None:
    study("create", "new", *SPACE, "--minimize", "loss")
    (added,) = json.loads(study("enqueue", "new", "--finished", *ADAM, "loss=0.5±0.1", "time=3", "--json"))
    assert added["state"] == "succeeded"
    assert added["metrics"] == {
        "loss": {"value": 0.5, "standard_error": 0.1},
        "time": {"value": 3.0, "standard_error": None},
    }


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        ((), 2, "which configuration? give NAME=VALUE for each parameter, or --file FILE"),
        (("rate=0.01",), 1, "asktell: layers is missing"),
        ((*ADAM, "loss=0.5"), 2, "loss is no parameter of the study; there are: rate,"),
        ((*ADAM[1:], "rate=7"), 1, "asktell: rate 7.0 is outside"),
        (("--finished", *ADAM), 1, "loss is an objective and missing; given: none"),
        (
            ("--finished", "last.csv"),
            2,
            "'last.csv': expected NAME=VALUE, such as learning_rate=0.01; a file is given as --file",
        ),
        (("--file", "nowhere.csv"), 2, "nowhere.csv: No such file or directory"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(client: Client, study, words, status, why) -> None:
    study("create", "new", *SPACE, "--minimize", "loss")
    assert why in study("enqueue", "new", *words, status=status)
    assert client.get_study("new").list_trials() == []


def test_a_bad_line_of_a_file_is_named_and_the_others_are_not_added(client: Client, study, tmp_path: Path) -> None:
    study("create", "new", *SPACE, "--minimize", "loss")
    path = tmp_path / "some.jsonl"
    good = {"rate": 0.01, "batch": 16, "opt": "adam", "layers": 1}
    path.write_text("\n".join(json.dumps(each) for each in (good, {**good, "batch": 17}, good)))
    assert study("enqueue", "new", "--file", str(path), status=1).startswith("asktell: some.jsonl line 2: batch ")
    assert client.get_study("new").list_trials() == []


def test_the_sdk_enqueues_many_in_order(client: Client, study) -> None:
    study("create", "new", "--int", "a=1:5000", "--minimize", "loss")
    found = client.get_study("new")
    added = found.enqueue_all({"a": number} for number in range(1, 1_502))
    assert [trial.number for trial in added] == list(range(1, 1_502))
    assert [trial.parameters["a"] for trial in found.ask(3)] == [1, 2, 3]


def test_imports_tell_the_model_and_are_tried_by_nobody(client: Client, study) -> None:
    study("create", "new", "--int", "a=1:4", "--minimize", "loss", "--policy", "gp")
    found = client.get_study("new")
    found.import_trials(
        [FinishedTrial(parameters={"a": number}, metrics={"loss": float(number)}) for number in (1, 2, 3)]
    )
    assert found.best_trial is not None
    assert found.best_trial.number == 1
    (left,) = found.ask(4)
    assert left.parameters == {"a": 4}
    assert found.list_trials([TrialState.ACTIVE])[0].number == 4


def test_slices_of_a_constrained_study_stay_where_trials_may_be(client: Client, study, tmp_path: Path) -> None:
    study("create", "new", "--float", "a=0:1", "--float", "b=0:1", "--minimize", "loss", "--constraint", "a + b <= 1")
    found = client.get_study("new")
    found.import_trials(
        [FinishedTrial(parameters={"a": a, "b": 0.5 - a}, metrics={"loss": a}) for a in (0.1, 0.2, 0.4)]
    )
    study("predict", "new", "a=0.5", "b=0.25", "--output", str(tmp_path / "slices.png"))
    assert (tmp_path / "slices.png").read_bytes().startswith(PNG)
    assert "points[0].values" in study("predict", "new", "a=0.5", "b=0.75", status=1)
