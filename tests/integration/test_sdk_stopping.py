"""Early stopping through the SDK and the command line, and at two replicas of one database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asktell import client as at
from asktell.cli import watching
from asktell.client import aio
from asktell.v1 import stopping_pb2 as stopping
from asktell.v1 import trial_service_pb2 as trials
from tests.processes import Processes
from tests.wire import Wire, report_request, small_study

SPACE = [at.Float("x", 0, 1)]
RULES = [
    at.MedianRule(min_trials=2, averages=True),
    at.PercentileRule(25, warmup_steps=3),
    at.SuccessiveHalvingRule(min_step=2, reduction_factor=4),
    at.HyperbandRule(max_step=81),
    at.ThresholdRule(at_most=9.5, metric="gradient", goal="minimize"),
    at.PatienceRule(5, min_delta=0.25),
    at.ExtrapolationRule(probability=0.1, max_step=81),
    at.FoldsRule(5, min_folds=3, significance=0.1),
]


def new_study(client: at.Client, name: str, rule: at.StoppingRule | None) -> at.Study:
    return client.create_study(
        name, parameters=SPACE, objectives=[at.Maximize("accuracy")], policy="random", stopping_rule=rule
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_study_shows_the_rule_that_it_was_created_with(client: at.Client, rule: at.StoppingRule) -> None:
    created = new_study(client, f"sdk-{rule.kind}", rule)
    assert created.stopping_rule == client.get_study(created.id).stopping_rule == rule
    with pytest.raises(at.AlreadyExists, match=rule.kind):
        new_study(client, created.id, None)


def test_a_study_without_a_rule_has_none(client: at.Client) -> None:
    assert new_study(client, "unruled", None).stopping_rule is None


def test_a_trial_that_shall_stop_is_told_as_stopped_with_the_reason(client: at.Client) -> None:
    study = new_study(client, "sdk-stops", at.MedianRule(min_trials=2))
    for trial, accuracy in zip(study.ask(2), (0.75, 0.5), strict=True):
        assert not trial.report(step=1, accuracy=accuracy).should_stop
        trial.tell(accuracy=accuracy)
    with study.ask()[0] as trial:
        said = trial.report(step=1, accuracy=0.25)
        assert (said.should_stop, said.lost) == (True, False)
        assert said.message == "the median of 2 trials at step 1 is 0.625, this trial's best is 0.25"
    ended = study.get_trial(trial.number)
    assert (ended.state, ended.metrics["accuracy"].value) == (at.TrialState.STOPPED, 0.25)
    assert ended.message == said.message
    assert study.best_trial is not None
    assert study.best_trial.metrics["accuracy"].value == 0.75


async def test_asyncio_hears_the_same(client: at.Client) -> None:
    async with aio.Client(client.target) as asynchronous:
        study = await asynchronous.create_study(
            "aio-stops",
            parameters=SPACE,
            objectives=[at.Minimize("loss")],
            policy="random",
            stopping_rule=at.ThresholdRule(at_most=1.0),
        )
        assert study.stopping_rule == at.ThresholdRule(at_most=1.0)
        first, second = await study.ask(2)
        assert not (await first.report(step=1, loss=0.5)).should_stop
        said = await second.report(step=1, loss=2.0)
        assert (said.should_stop, said.message) == (True, "loss at step 1 is 2, above 1")


def test_a_goal_that_is_none_is_refused_before_anything_is_sent(client: at.Client) -> None:
    with pytest.raises(at.InvalidArgument, match="not minimize or maximize"):
        new_study(client, "odd", at.MedianRule(metric="loss", goal="up"))  # type: ignore[arg-type]
    with pytest.raises(at.InvalidArgument, match=r"stopping_rule\.folds\.folds: is required"):
        new_study(client, "odd", at.FoldsRule(None))  # type: ignore[arg-type]


def test_the_command_line_creates_and_shows_rules(client: at.Client, study, tmp_path: Path) -> None:
    dial = ["--float", "x=0:1", "--maximize", "accuracy"]
    study("create", "typed", *dial, "--stopping", "percentile:percentile=25,metric=loss,goal=minimize,warmup_steps=3")
    rule = client.get_study("typed").stopping_rule
    assert rule == at.PercentileRule(25, metric="loss", goal="minimize", warmup_steps=3)
    assert "percentile: metric loss, goal minimize, warmup_steps 3, percentile 25" in " ".join(
        study("show", "typed").split()
    )
    document = tmp_path / "study.json"
    document.write_text(study("show", "typed", "--json"))
    assert json.loads(document.read_text())["stopping_rule"]["kind"] == "percentile"
    study("create", "again", "--spec", str(document))
    assert client.get_study("again").stopping_rule == rule
    study("create", "other", "--spec", str(document), "--stopping", "median")
    assert client.get_study("other").stopping_rule == at.MedianRule()


async def test_the_rule_of_a_running_study_can_be_changed_and_dropped_and_a_watch_shows_it(
    client: at.Client, study
) -> None:
    created = new_study(client, "ruled-late", None)
    trial = created.ask()[0]
    assert not trial.report(step=1, accuracy=float("nan")).should_stop
    created.update(stopping_rule=at.ThresholdRule(at_least=0.5), max_trials=20)
    assert created.stopping_rule == at.ThresholdRule(at_least=0.5)
    assert trial.report(step=2, accuracy=float("nan")).should_stop
    assert trial.renew().should_stop
    created.refresh()
    lines = [watching.line(change).plain for change in created.watch(until=created.sequence)]
    assert any("stops: threshold: at_least 0.5" in line for line in lines)
    async with aio.Client(client.target, project=client.project) as other:
        same = await other.get_study("ruled-late")
        await same.update(max_trials=30)
        assert same.stopping_rule == at.ThresholdRule(at_least=0.5)
        await same.update(stopping_rule=None)
    study("update", "ruled-late", "--stopping", "patience:steps=3")
    assert client.get_study("ruled-late").stopping_rule == at.PatienceRule(3)
    study("update", "ruled-late", "--stopping", "none")
    assert client.get_study("ruled-late").stopping_rule is None


def test_a_rule_that_cannot_be_read_is_explained(study, tmp_path: Path) -> None:
    dial = ["--float", "x=0:1", "--maximize", "accuracy"]
    assert "the kind is 'mean', not one of median" in study("create", "bad", *dial, "--stopping", "mean", status=2)
    assert "patience: it lacks steps" in study("create", "bad", *dial, "--stopping", "patience", status=2)
    document = tmp_path / "study.json"
    document.write_text(
        json.dumps(
            {
                "parameters": [{"name": "x", "kind": "float", "low": 0, "high": 1}],
                "objectives": [{"metric": "accuracy", "goal": "maximize"}],
                "stopping_rule": {"kind": "median", "trials": 3},
            }
        )
    )
    error = study("create", "bad", "--spec", str(document), status=2)
    assert "stopping_rule: median: it cannot have 'trials'" in error


def test_two_replicas_judge_alike_by_what_either_was_told(processes: Processes, migrated_url: str) -> None:
    rule = stopping.StoppingRule(successive_halving=stopping.StoppingRule.SuccessiveHalving(reduction_factor=2))
    with Wire(processes.serve(migrated_url).target) as one, Wire(processes.serve(migrated_url).target) as other:
        study = one.create("shared", small_study(stopping_rule=rule)).name
        replicas = (one, other)
        handed = [replicas[place % 2].one(study) for place in range(8)]
        heard = []
        for place, trial in enumerate(handed):
            # Each trial is worse than the one before; they report at the replicas in turn.
            request = report_request(trial, 1, 0.1 * (place + 1))
            heard.append([replicas[(place + turn) % 2].call("Report", request) for turn in range(2)])
    for first, second in heard:
        assert (first.directive, first.message) == (second.directive, second.message)
    # With n trials at the rung the best n // 2 go on, and at least one.
    assert [first.directive == trials.DIRECTIVE_STOP for first, _ in heard] == [False, *[True] * 7]
    assert heard[-1][0].message.startswith("of 8 trials at rung 1 the best 4 go on, and 7 are better")
