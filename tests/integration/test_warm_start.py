"""Studies that start from earlier ones, through the real service."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from asktell import client as at
from asktell.client import aio

X = at.Float("x", 0, 1)
Y = at.Float("y", 0, 1)
names = (f"warm-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[at.Client]:
    with at.Client.local(tmp_path_factory.mktemp("warm") / "asktell.db", retry_for=5) as client:
        yield client


LOSS = at.Minimize("loss")
BEST = {"x": 0.8, "y": 0.8}


def new_study(client, *, parameters=(X, Y), objectives=(LOSS,), **options) -> at.Study:
    return client.create_study(next(names), parameters=parameters, objectives=objectives, seed=0, **options)


def loss(parameters, best: float = 0.8) -> float:
    return sum((value - best) ** 2 for value in parameters.values())


def told(client, *, count: int = 12, extra=None, **options) -> at.Study:
    """A study with random trials, and one at its best."""
    study = new_study(client, policy="random", **options)
    for trial in study.ask(count):
        trial.tell(loss=loss(trial.parameters))
    study.import_trials([at.FinishedTrial(parameters=BEST | (extra or {}), metrics={"loss": 0.0})])
    return study


def test_a_study_begins_with_the_best_of_the_earlier_one_and_says_so(client):
    earlier = told(client)
    study = new_study(client, warm_start=[earlier.id])
    assert study.warm_start == (earlier.id,)
    (first,) = study.ask()
    assert first.parameters == BEST
    assert first.record.origin.method == "warm-start"
    assert f"starts from {earlier.id}" in first.record.origin.reason
    first.tell(loss=0.0)
    for trial in study.ask(8):
        trial.tell(loss=loss(trial.parameters))
    (modelled,) = study.ask()
    assert modelled.record.origin.method in ("acquisition", "exploration")
    assert f"starts from {earlier.id}" in modelled.record.origin.reason
    assert client.get_study(study.id).warm_start == (earlier.id,)


def test_what_the_earlier_study_learns_later_counts_too(client):
    earlier = told(client)
    study = new_study(client, warm_start=[earlier.id])
    earlier.import_trials([at.FinishedTrial(parameters={"x": 0.25, "y": 0.75}, metrics={"loss": -1.0})])
    (first,) = study.ask()
    assert first.parameters == {"x": 0.25, "y": 0.75}


def test_only_what_both_studies_have_is_taken(client):
    earlier = told(client, parameters=(X, Y, at.Int("old", 0, 1)), extra={"old": 1})
    earlier.import_trials(
        [at.FinishedTrial(parameters={"x": 0.9, "y": 0.1, "old": 1}, metrics={"loss": -9.0, "other": 1.0})]
    )
    narrow = at.Float("x", 0, 0.85)
    study = new_study(client, parameters=(narrow, Y, at.Categorical("new", ["a", "b"])), warm_start=[earlier.id])
    (first,) = study.ask()
    assert first.parameters == BEST | {"new": "a"}


def test_a_source_that_was_deleted_is_done_without(client):
    kept, lost = told(client), told(client)
    study = new_study(client, warm_start=[lost.id, kept.id])
    lost.delete()
    (first,) = study.ask()
    assert first.parameters == BEST
    assert first.record.origin.reason.endswith(f"starts from {kept.id}; goes on without {lost.id}, which is gone")
    again = client.create_study(
        study.id, parameters=study.parameters, objectives=study.objectives, seed=0, warm_start=[lost.id, kept.id]
    )
    assert again.counts.active == 1
    kept.delete()
    (second,) = study.ask()
    assert "goes on without" in second.record.origin.reason


@pytest.mark.parametrize(
    ("warm_start", "message"),
    [
        (["nowhere"], "there is no study"),
        (["no id!"], "is not an id"),
        ([""], "is not an id"),
        ([f"s{number}" for number in range(11)], "at most 10"),
    ],
)
def test_sources_that_make_no_sense_are_refused(client, warm_start, message):
    with pytest.raises(at.InvalidArgument, match=message) as refused:
        new_study(client, warm_start=warm_start)
    assert refused.value.field_violations[0][0].startswith("study.spec.warm_start")


def test_a_source_must_have_something_in_common(client):
    earlier = told(client)
    for options, message in (
        ({"parameters": [at.Float("z", 0, 1)]}, "has no parameter of this study"),
        ({"parameters": [at.Categorical("x", ["a", "b"])]}, "has no parameter of this study"),
        ({"objectives": [at.Maximize("accuracy")]}, "has none of this study's objectives, but loss"),
        ({"warm_start": [earlier.id, earlier.id]}, "is named already"),
    ):
        with pytest.raises(at.InvalidArgument, match=message):
            new_study(client, **{"warm_start": [earlier.id], **options})


def test_a_population_is_no_source(client):
    client.create_study("population", parameters=[X], objectives=[at.Minimize("loss")], policy="pbt")
    with pytest.raises(at.InvalidArgument, match="'population' trains a population, whose results tell of more"):
        new_study(client, warm_start=["population"])


def test_a_refused_study_is_not_there(client):
    with pytest.raises(at.InvalidArgument):
        client.create_study("refused", parameters=[X], objectives=[at.Minimize("loss")], warm_start=["refused"])
    with pytest.raises(at.NotFound):
        client.get_study("refused")


def test_other_sources_make_another_study(client):
    earlier = told(client)
    study = new_study(client, warm_start=[earlier.id])
    with pytest.raises(at.AlreadyExists, match="warm_start"):
        client.create_study(study.id, parameters=study.parameters, objectives=study.objectives, seed=0)


def test_an_archive_keeps_the_sources(client, tmp_path):
    earlier = told(client)
    study = new_study(client, warm_start=[earlier.id])
    study.export(tmp_path / "study.jsonl")
    study.delete()
    assert client.import_study(tmp_path / "study.jsonl").warm_start == (earlier.id,)


def test_several_objectives_begin_with_the_best_for_each(client):
    objectives = (at.Minimize("loss"), at.Minimize("cost"))
    earlier = new_study(client, objectives=objectives, policy="random")
    for x, y in ((0.25, 0.75), (0.5, 0.5), (0.75, 0.25)):
        earlier.import_trials([at.FinishedTrial(parameters={"x": x, "y": y}, metrics={"loss": x, "cost": y})])
    study = new_study(client, objectives=objectives, warm_start=[earlier.id])
    first, _, third = study.ask(3)
    assert [first.parameters["x"], third.parameters["x"]] == [0.25, 0.75]
    for trial in study.ask(6):
        trial.tell(loss=trial.parameters["x"], cost=trial.parameters["y"])
    (modelled,) = study.ask()
    assert modelled.record.origin.fallback == ""


async def test_asyncio_starts_from_earlier_studies_too(client):
    earlier = told(client)
    async with aio.Client(client.target) as asynchronous:
        study = await asynchronous.create_study(
            next(names), parameters=[X, Y], objectives=[at.Minimize("loss")], warm_start=[earlier.id]
        )
        (first,) = await study.ask()
        assert first.parameters == BEST


def test_the_example_gains_by_the_earlier_week(example) -> None:
    *regrets, reason = example("warm_start")
    cold, warm = map(float, re.findall(r"([0-9.]+) above", "".join(regrets)))
    assert warm < cold / 2
    assert "starts from week-0" in reason


def test_a_source_with_a_fidelity_tells_what_configurations_came_to_at_their_highest(client):
    earlier = new_study(client, parameters=(X, at.Int("epochs", 1, 9)), fidelity=at.Fidelity("epochs"))
    losses = {(0.2, 1): 0.1, (0.2, 9): 0.9, (0.6, 9): 0.5}
    earlier.import_trials(
        [
            at.FinishedTrial(parameters={"x": x, "epochs": epochs}, metrics={"loss": loss})
            for (x, epochs), loss in losses.items()
        ]
    )
    (first,) = new_study(client, parameters=(X,), warm_start=[earlier.id]).ask()
    assert first.parameters == {"x": 0.6}
