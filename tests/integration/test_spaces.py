"""Constraints between parameters and spaces that become wider, through the SDK, the command line and archives, on the real service."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from asktell import client as at
from asktell.client import aio

RATE, KIND = at.Float("rate", 1e-4, 1e-2, log=True), at.Categorical("kind", ["a", "b"])
WIDE, KINDS = at.Float("rate", 1e-4, 1.0, log=True), at.Categorical("kind", ["a", "b", "c"])
names = (f"study-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with at.Client.local(tmp_path_factory.mktemp("spaces") / "asktell.db", retry_for=5) as client:
        yield client


def new_study(client, **options):
    defaults = {"parameters": [RATE, KIND], "objectives": [at.Minimize("y")], "seed": 0}
    return client.create_study(next(names), **(defaults | options))


def loss(trial):
    return (math.log10(trial.parameters["rate"]) + 1.0) ** 2 - 0.5 * (trial.parameters["kind"] == "c")


def work(study, count):
    trials = study.ask(count)
    for trial in trials:
        trial.tell(y=loss(trial))
    return trials


def test_every_trial_meets_the_constraints_that_the_study_shows(client):
    width, depth = at.Int("net.width", 1, 512, log=True), at.Int("depth", 1, 64)
    study = new_study(client, parameters=[width, depth], constraints=["`net.width` * depth <= 512", "depth <= 32"])
    assert study.constraints == ("`net.width` * depth <= 512", "depth <= 32")
    for trial in itertools.chain(*(study.ask(2) for _ in range(6))):
        assert trial.parameters["net.width"] * trial.parameters["depth"] <= 512
        trial.tell(y=-float(trial.parameters["net.width"] * trial.parameters["depth"]))
    study.refresh()
    assert study.best_trial.value() < -384


def test_what_breaks_a_constraint_is_refused_with_its_values(client):
    study = new_study(client, parameters=[at.Float("a", 0, 1), at.Float("b", 0, 1)], constraints=["a + b <= 1"])
    with pytest.raises(at.InvalidArgument, match=r"a = 0.75, b = 0.5 does not meet the constraint 'a \+ b <= 1'"):
        study.enqueue({"a": 0.75, "b": 0.5})
    with pytest.raises(at.InvalidArgument, match=r"fixed_parameters: a = 1.0, b = 0.5"):
        study.ask(fixed={"a": 1.0, "b": 0.5})
    study.enqueue({"a": 0.5, "b": 0.5})
    assert study.ask(fixed={"a": 0.5})[0].parameters == {"a": 0.5, "b": 0.5}
    (trial,) = study.ask(fixed={"a": 0.75})
    assert trial.parameters["b"] <= 0.25


def test_another_constraint_is_another_study_and_other_spaces_in_it_are_not(client):
    study = new_study(client, parameters=[at.Float("a", 0, 1), at.Float("b", 0, 1)], constraints=["a + b <= 1"])
    options = {"parameters": [at.Float("a", 0, 1), at.Float("b", 0, 1)], "objectives": [at.Minimize("y")]}
    assert client.create_study(study.id, constraints=["a+b<=1"], **options).create_time == study.create_time
    with pytest.raises(at.AlreadyExists, match=r"input constraint 'a \+ b <= 1'"):
        client.create_study(study.id, constraints=["a + b <= 0.5"], **options)


def test_constraints_move_with_an_archive(client, tmp_path):
    study = new_study(client, constraints=["rate <= 1e-3"])
    work(study, 3)
    study.export(tmp_path / "study.jsonl")
    moved = client.import_study(tmp_path / "study.jsonl", next(names))
    assert moved.constraints == ("rate <= 1e-3",)
    lines = (tmp_path / "study.jsonl").read_text().replace('"rate <= 1e-3"', '"rate >= 9e-3"').splitlines()
    end = json.loads(lines[-1])
    del end["end"]["sha256"]
    (tmp_path / "study.jsonl").write_text("\n".join([*lines[:-1], json.dumps(end)]) + "\n")
    with pytest.raises(at.InvalidArgument, match=r"line 2: trial.*does not meet the constraint 'rate >= 9e-3'"):
        client.import_study(tmp_path / "study.jsonl", next(names))


def test_a_wider_space_is_searched_at_once_with_all_that_was_learned_before(client):
    study = new_study(client)
    for _ in range(6):
        work(study, 1)
    before, (pending,) = study.list_trials(), study.ask()
    study.update(parameters=[WIDE, KINDS])
    assert study.parameters == (WIDE, KINDS)
    later = [work(study, 1)[0] for _ in range(8)]
    assert all(trial.origin.predictions and not trial.origin.fallback for trial in later)
    assert max(trial.parameters["rate"] for trial in later) > 0.03
    assert "c" in {trial.parameters["kind"] for trial in later}
    pending.tell(y=loss(pending))
    assert [trial.parameters for trial in study.list_trials()[:6]] == [trial.parameters for trial in before]
    assert {name: trial.metrics for name, trial in enumerate(study.list_trials()[:6])} == {
        name: trial.metrics for name, trial in enumerate(before)
    }
    study.enqueue({"rate": 0.5, "kind": "c"})


def test_what_is_no_wider_space_is_refused_by_parameter_and_changes_nothing(client):
    study = new_study(client)
    sequence = study.sequence
    for parameters, words in (
        ([at.Float("rate", 1e-3, 1e-2, log=True), KIND], "'rate' cannot begin at 0.001"),
        ([RATE, at.Categorical("kind", ["a"])], "'kind' cannot lose text 'b'"),
        ([RATE], "lacks kind"),
        ([RATE, KIND, at.Bool("more")], "'more' is not a parameter of the study"),
    ):
        with pytest.raises(at.InvalidArgument, match=words):
            study.update(parameters=parameters)
    study.refresh()
    assert (study.parameters, study.sequence) == ((RATE, KIND), sequence)


def test_widening_is_one_change_that_watchers_see_and_repeating_it_is_none(client):
    study = new_study(client)
    study.update(parameters=[WIDE, KIND], labels={"why": "too narrow"})
    sequence = study.sequence
    study.update(parameters=[WIDE, KIND])
    assert study.sequence == sequence == 2
    (change,) = study.watch(after=1, until=sequence)
    assert change.study.parameters == (WIDE, KIND)


async def test_the_asynchronous_client_constrains_and_widens_too(client):
    async with aio.Client(client.target) as other:
        study = await other.create_study(
            next(names),
            parameters=[at.Int("a", 0, 3), at.Int("b", 0, 3)],
            constraints=["a <= b"],
            objectives=[at.Minimize("y")],
        )
        assert study.constraints == ("a <= b",)
        assert len(await study.ask(20)) == 10
        await study.update(parameters=[at.Int("a", 0, 3), at.Int("b", 0, 4)])
        assert len(await study.ask(20)) == 4


def test_a_finite_space_that_was_exhausted_goes_on_when_it_is_wider(client):
    study = new_study(client, parameters=[at.Bool("flag"), at.Ordinal("level", [1, 3])], max_trials=10)
    study.optimize(lambda trial: {"y": float(trial.parameters["level"])})
    assert study.counts.succeeded == 4
    study.update(parameters=[at.Bool("flag"), at.Ordinal("level", [1, 2, 3, 4])])
    study.optimize(lambda trial: {"y": float(trial.parameters["level"])})
    assert study.counts.succeeded == 8
