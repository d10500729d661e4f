"""A study with a fidelity through the SDK and the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from asktell import client as at
from asktell.client import aio
from asktell.client.plots.course import best_so_far

SPACE = [at.Float("rate", 1e-5, 1e-1, log=True), at.Int("epochs", 1, 81, log=True)]
LOSS = [at.Minimize("loss")]


def test_a_study_shows_the_fidelity_that_it_was_created_with(client: at.Client) -> None:
    fidelity = at.Fidelity("epochs", reduction_factor=4)
    created = client.create_study("raised", parameters=SPACE, objectives=LOSS, fidelity=fidelity)
    assert created.fidelity == client.get_study("raised").fidelity == fidelity
    with pytest.raises(at.AlreadyExists, match="exists with fidelity epochs, reduction_factor 4, not none"):
        client.create_study("raised", parameters=SPACE, objectives=LOSS)


async def test_asyncio_says_the_same(client: at.Client) -> None:
    async with aio.Client(client.target) as asynchronous:
        study = await asynchronous.create_study(
            "aio-raised", parameters=SPACE, objectives=LOSS, fidelity=aio.Fidelity("epochs")
        )
        assert study.fidelity == at.Fidelity("epochs", reduction_factor=3)


def test_what_the_service_refuses_names_the_field(client: at.Client) -> None:
    with pytest.raises(at.InvalidArgument, match=r"^fidelity\.parameter: 'steps' is not a parameter"):
        client.create_study("refused", parameters=SPACE, objectives=LOSS, fidelity=at.Fidelity("steps"))
    with pytest.raises(at.InvalidArgument, match="fidelity: 'epochs' is a str, not a Fidelity"):
        client.create_study("refused", parameters=SPACE, objectives=LOSS, fidelity="epochs")  # type: ignore[arg-type]
    with pytest.raises(at.NotFound):
        client.get_study("refused")


def test_what_does_well_goes_on_from_its_checkpoint(client: at.Client) -> None:
    study = client.create_study(
        "goes-on", parameters=SPACE, objectives=LOSS, fidelity=at.Fidelity("epochs"), policy="random", seed=2
    )
    for place, trial in enumerate(study.ask(3)):
        assert (trial.parameters["epochs"], trial.parent, trial.checkpoint_uri) == (1, 0, "")
        trial.tell(loss=float(place), checkpoint_uri=f"file:///{place}")
    (trial,) = study.ask()
    first = study.get_trial(1)
    assert trial.parameters == {**first.parameters, "epochs": 3}
    assert (trial.parent, trial.checkpoint_uri) == (1, "file:///0")
    assert (trial.origin.method, trial.origin.reason) == ("promotion", "among the best 1 of 3 at epochs=1")
    trial.tell(loss=0.5)
    assert study.best_trial is not None
    assert study.best_trial.number == trial.number
    records = [each.record for each in study.list_trials()]
    assert best_so_far(records, LOSS[0], study.fidelity) == [0.0, 0.0, 0.0, 0.5]
    assert best_so_far([*reversed(records)], LOSS[0], study.fidelity) == [0.5] * 4
    (direct,) = study.ask(fixed={"epochs": 81})
    assert (direct.parameters["epochs"], direct.parent) == (81, 0)


def test_the_surrogate_predicts_at_any_fidelity_and_is_validated(client: at.Client) -> None:
    study = client.create_study("asked", parameters=SPACE, objectives=LOSS, fidelity=at.Fidelity("epochs"), seed=2)
    for _ in range(14):
        (trial,) = study.ask()
        rate, epochs = float(trial.parameters["rate"]), int(trial.parameters["epochs"])  # type: ignore[arg-type]
        trial.tell(loss=abs(math.log10(rate) + 3) + 3 / epochs)
    low, high = study.predict([{"rate": 1e-3, "epochs": 1}, {"rate": 1e-3, "epochs": 81}])
    assert low["loss"].mean > high["loss"].mean
    assert set(study.importance()["loss"]) == {"rate", "epochs"}
    assert len(study.cross_validate()) == 14


def test_the_command_line_creates_and_shows_fidelities(client: at.Client, study, tmp_path: Path) -> None:
    dials = ["--float", "rate=1e-5:1e-1:log", "--int", "epochs=1:81:log", "--minimize", "loss"]
    study("create", "typed", *dials, "--fidelity", "epochs:4")
    assert client.get_study("typed").fidelity == at.Fidelity("epochs", reduction_factor=4)
    assert "epochs, by rungs: the best 1/4 of each go on" in " ".join(study("show", "typed").split())
    document = tmp_path / "study.json"
    document.write_text(study("show", "typed", "--json"))
    assert json.loads(document.read_text())["fidelity"] == {"parameter": "epochs", "reduction_factor": 4}
    study("create", "again", "--spec", str(document))
    assert client.get_study("again").fidelity == at.Fidelity("epochs", reduction_factor=4)
    study("create", "other", "--spec", str(document), "--fidelity", "epochs")
    assert client.get_study("other").fidelity == at.Fidelity("epochs")


def test_a_fidelity_that_cannot_be_read_is_explained(study, tmp_path: Path) -> None:
    dials = ["--int", "epochs=1:81", "--minimize", "loss"]
    assert "it names no parameter; expected NAME or" in study("create", "bad", *dials, "--fidelity", ":3", status=2)
    document = tmp_path / "study.json"
    document.write_text(json.dumps({"fidelity": {"parameter": "epochs", "reduction_factor": "3"}}))
    error = study("create", "bad", "--spec", str(document), *dials, status=2)
    assert 'fidelity: a fidelity is written as {"parameter": "epochs"' in error
