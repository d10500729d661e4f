"""A study with a fidelity through the SDK and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asktell import client as at
from asktell.client import aio

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
    with pytest.raises(at.InvalidArgument, match=r"study\.spec\.fidelity\.parameter: 'steps' is not a parameter"):
        client.create_study("refused", parameters=SPACE, objectives=LOSS, fidelity=at.Fidelity("steps"))
    with pytest.raises(at.InvalidArgument, match="fidelity: 'epochs' is a str, not a Fidelity"):
        client.create_study("refused", parameters=SPACE, objectives=LOSS, fidelity="epochs")  # type: ignore[arg-type]
    with pytest.raises(at.NotFound):
        client.get_study("refused")


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
