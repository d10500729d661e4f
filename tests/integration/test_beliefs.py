"""What the surrogate believes, asked through the service."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import replace

import psutil
import pytest

from asktell import client as at
from asktell.client import aio
from asktell.server.domain.beliefs import CrossValidate, ImportanceMethod, Predict, RankParameters
from asktell.server.domain.errors import FailedPrecondition, OutOfTime, Overloaded
from asktell.server.policies import engine as engines
from asktell.server.policies.engine import ProcessPoolEngine
from asktell.server.policies.questions import answer
from tests.integration.test_engine import FIRST, LATER

SPACE = [
    at.Float("rate", 1e-5, 1e-1, log=True),
    at.Categorical("optimizer", ["sgd", "adam"]),
    at.Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
    at.Int("width", 1, 64),
]


def results(parameters):
    loss = (math.log10(parameters["rate"]) + 3.0) ** 2 + (parameters["optimizer"] == "sgd")
    return {"loss": loss, "speed": 100.0 * parameters["width"]}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with at.Client.local(tmp_path_factory.mktemp("beliefs") / "asktell.db", retry_for=5) as client:
        yield client


@pytest.fixture(scope="module")
def study(client):
    """Two objectives, twenty trials, one of which failed."""
    goals = [at.Minimize("loss"), at.Maximize("speed")]
    study = client.create_study("told", parameters=SPACE, objectives=goals, policy="random", seed=1)
    for trial in study.ask(20):
        if trial.number == 5:
            trial.fail("out of memory")
        else:
            trial.tell(results(trial.parameters))
    return study


def test_predictions_have_each_objective_in_its_own_unit_and_hold_nearby(study):
    told = study.list_trials([at.TrialState.SUCCEEDED])
    found = study.predict([trial.parameters for trial in told])
    for trial, prediction in zip(told, found, strict=True):
        assert list(prediction) == ["loss", "speed"]
        assert prediction["speed"].mean == pytest.approx(trial.metrics["speed"].value, abs=700.0)
        assert prediction["loss"].standard_deviation > 0.0


def test_predictions_are_what_a_trial_of_gp_says_was_expected(client):
    study = client.create_study("gp", parameters=SPACE, objectives=[at.Minimize("loss")], policy="gp", seed=1)
    for _ in range(8):
        (trial,) = study.ask()
        trial.tell(loss=results(trial.parameters)["loss"])
    (trial,) = study.ask()
    assert trial.origin.method in ("acquisition", "exploration")
    trial.cancel()  # Fits leave out as many of the latest results as trials are pending.
    (prediction,) = study.predict([trial.parameters])
    assert prediction == trial.origin.predictions


def test_importance_ranks_parameters_by_objective(study):
    for method in ("sobol", "ped-anova"):
        found = study.importance(method=method)
        assert list(found) == ["loss", "speed"]
        for shares in found.values():
            assert set(shares) == {spec.name for spec in SPACE}
            assert list(shares.values()) == sorted(shares.values(), reverse=True)
            assert all(0.0 <= share <= 1.0 for share in shares.values())
        assert next(iter(found["speed"])) == "width"
    assert next(iter(study.importance()["loss"])) == "rate"


def test_cross_validation_has_every_result_and_no_failure(study):
    found = study.cross_validate()
    expected = [(number, metric) for number in range(1, 21) if number != 5 for metric in ("loss", "speed")]
    assert [(left.number, left.metric) for left in found] == expected
    for left in found:
        assert left.observed == study.get_trial(left.number).metrics[left.metric].value


async def test_asyncio_gets_the_same_answers(client, study):
    async with aio.Client(client.target) as other:
        same = await other.get_study("told")
        points = [study.get_trial(1).parameters]
        assert await same.predict(points) == study.predict(points)
        assert await same.importance(method="ped-anova") == study.importance(method="ped-anova")
        assert await same.cross_validate() == study.cross_validate()


def test_too_few_results_are_a_failed_precondition_that_says_how_many_it_takes(client):
    study = client.create_study("fresh", parameters=SPACE, objectives=[at.Minimize("loss")])
    with pytest.raises(at.FailedPrecondition, match="'loss': 0, this takes 2") as refused:
        study.importance()
    assert refused.value.reason == "TOO_FEW_OBSERVATIONS"


def test_a_point_that_could_be_no_trial_is_refused_by_its_field(study):
    good = study.get_trial(1).parameters
    for bad, field in (
        ({**good, "rate": 1.0}, "points[1].values[rate]"),
        ({**good, "typo": 1.0}, "points[1].values[typo]"),
        ({"rate": 1e-3, "optimizer": "adam", "momentum": 0.5, "width": 3}, "points[1].values[momentum]"),
        ({"rate": 1e-3, "optimizer": "adam"}, "points[1].values[width]"),
    ):
        with pytest.raises(at.InvalidArgument) as refused:
            study.predict([good, bad])
        assert refused.value.field_violations[0][0] == field


@asynccontextmanager
async def engine(**options):
    made = ProcessPoolEngine(**{"workers": 1, **options})
    try:
        yield made
    finally:
        await made.close()


async def test_the_engine_answers_in_a_process_what_the_policies_answer():
    async with engine() as running:
        for question in (
            Predict((LATER.observations[0].parameters,)),
            RankParameters(ImportanceMethod.SOBOL),
            CrossValidate(),
        ):
            assert await running.answer(LATER, question) == answer(LATER, question)


async def test_what_cannot_be_answered_starts_no_process():
    async with engine() as running:
        with pytest.raises(FailedPrecondition):
            await running.answer(FIRST, CrossValidate())
        with pytest.raises(OutOfTime, match="no process was ready within 0"):
            await running.answer(replace(LATER, time_limit=0.0), CrossValidate())


async def test_a_question_without_time_is_refused_and_asks_go_on():
    async with engine() as running:
        await running.warm_up()
        with pytest.raises(OutOfTime):
            await running.answer(replace(LATER, time_limit=1e-4), RankParameters(ImportanceMethod.SOBOL))
        (candidate,) = (await running.suggest(LATER)).candidates
        assert not candidate.origin.fallback


async def test_questions_take_turns_and_too_many_are_told_to_come_later():
    async with engine(workers=2) as running:
        await running.warm_up()
        asked = [asyncio.create_task(running.answer(LATER, CrossValidate())) for _ in range(engines.MAX_QUESTIONS + 3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        late = [each for each in found if isinstance(each, Overloaded)]
        assert len(late) == 3
        assert all(each == answer(LATER, CrossValidate()) for each in found if each not in late)
        assert await running.answer(LATER, CrossValidate())


async def test_a_process_of_its_own_answers_so_that_no_ask_waits():
    async with engine() as running:
        await running.warm_up()
        await running.suggest(LATER)
        before = set(psutil.Process().children(recursive=True))
        await running.answer(LATER, CrossValidate())
        answering = set(psutil.Process().children(recursive=True)) - before
        assert answering
        await running.suggest(LATER)
        await running.answer(LATER, CrossValidate())
        assert set(psutil.Process().children(recursive=True)) == before | answering


async def test_a_question_is_answered_though_the_process_was_killed():
    async with engine() as running:
        before = set(psutil.Process().children(recursive=True))
        expected = await running.answer(LATER, CrossValidate())
        for process in set(psutil.Process().children(recursive=True)) - before:
            if "resource_tracker" not in " ".join(process.cmdline()):
                process.kill()
        assert await running.answer(LATER, CrossValidate()) == expected
