"""Population based training through the SDK and the command line: who trains on from whose checkpoint."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from asktell import client as at
from asktell.client import aio

SPACE = [at.Float("rate", 1e-4, 1.0, log=True), at.Categorical("optimizer", ["sgd", "adam"])]
GAIN = [at.Maximize("gain")]
FOUR = at.Population(size=4)


def create(client: at.Client, name: str, **how) -> at.Study:
    usual = {"parameters": SPACE, "objectives": GAIN, "policy": "pbt", "population": FOUR, "seed": 1}
    return client.create_study(name, **{**usual, **how})


def train(trial: at.Trial) -> None:
    """One interval: the state that the checkpoint's name holds grows the better, the nearer the rate is to what it should be by then."""
    steps, gain = map(float, trial.checkpoint_uri.rpartition("/")[2].split("_")) if trial.checkpoint_uri else (0.0, 0.0)
    gain += math.exp(-abs(math.log10(trial.parameters["rate"]) + steps / 3))
    trial.tell({"gain": gain}, checkpoint_uri=f"file:///checkpoints/{steps + 1}_{gain!r}")


def trained(study: at.Study, intervals: int) -> at.Study:
    for _ in range(intervals):
        (trial,) = study.ask()
        train(trial)
    return study


def test_a_population_is_trained_interval_by_interval_from_its_checkpoints(client: at.Client) -> None:
    study = trained(create(client, "digits", max_trials=40), 40)
    trials = {trial.number: trial for trial in study.list_trials()}
    assert Counter(trial.member for trial in trials.values()) == dict.fromkeys(range(1, 5), 10)
    for trial in trials.values():
        parent = trials.get(trial.parent)
        steps = 0 if parent is None else float(parent.checkpoint_uri.rpartition("/")[2].split("_")[0])
        assert trial.checkpoint_uri.startswith(f"file:///checkpoints/{steps + 1.0}_")
        if parent is not None and parent.member == trial.member:
            assert parent.parameters == trial.parameters
    methods = Counter(trial.origin.method for trial in trials.values())
    assert methods["initial-design"] == 4
    assert methods["exploit"] > 3
    assert methods["continue"] > 20
    answer = study.ask_once()
    assert (answer.closed, answer.reason) == (True, at.Reason.BUDGET_SPENT)


def test_the_lineage_of_the_best_trial_is_the_schedule(client: at.Client) -> None:
    study = trained(create(client, "digits"), 40)
    line = study.lineage()
    assert (line[0].parent, line[-1].number) == (0, study.best_trial.number)
    assert [trial.parent for trial in line[1:]] == [trial.number for trial in line[:-1]]
    assert [trial.number for trial in study.lineage(line[2].number)] == [trial.number for trial in line[:3]]
    with pytest.raises(at.NotFound, match="no trial 99"):
        study.lineage(99)
    assert create(client, "new").lineage() == []


def test_a_worker_that_comes_while_all_members_are_trained_is_told_to_come_back(client: at.Client) -> None:
    study = create(client, "digits")
    answer = study.ask_once(5)
    assert [trial.member for trial in answer.trials] == [1, 2, 3, 4]
    assert (answer.closed, answer.reason) == (False, at.Reason.RESULTS_AWAITED)
    again = study.ask_once()
    assert (again.trials, again.closed, again.reason) == ([], False, at.Reason.RESULTS_AWAITED)
    assert again.retry_after == timedelta(seconds=1)
    train(answer.trials[2])
    (trial,) = study.ask()
    assert (trial.member, trial.parent) == (3, 3)


def test_a_trial_that_is_given_back_keeps_its_member_and_its_parents_checkpoint(client: at.Client) -> None:
    study = trained(create(client, "digits"), 4)
    (trial,) = study.ask()
    trial.release()
    others = study.ask(4)
    assert sorted(each.member for each in others) == [1, 2, 3, 4]
    (again,) = [each for each in others if each.number == trial.number]
    assert (again.member, again.parent, again.checkpoint_uri) == (trial.member, trial.parent, trial.checkpoint_uri)


def test_a_cancelled_interval_is_begun_again(client: at.Client) -> None:
    study = trained(create(client, "digits"), 4)
    (trial,) = study.ask()
    trial.cancel()
    (again,) = study.ask()
    assert (again.member, again.parent, again.parameters) == (trial.member, trial.parent, trial.parameters)


def test_an_enqueued_trial_goes_first_and_is_no_member(client: at.Client) -> None:
    study = trained(create(client, "digits"), 2)
    study.enqueue({"rate": 0.5, "optimizer": "sgd"})
    first, second = study.ask(2)
    assert (first.member, first.parent, first.checkpoint_uri) == (0, 0, "")
    assert second.member == 3


def test_a_population_moves_to_another_study_to_the_byte(client: at.Client, tmp_path: Path) -> None:
    study = trained(create(client, "digits"), 21)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    study.export(first)
    copy = client.import_study(first, "copy")
    copy.export(second)
    strip = [path.read_text().replace("/studies/copy", "/studies/digits").splitlines()[:-1] for path in (first, second)]
    assert strip[0] == strip[1]
    assert copy.population == FOUR
    for _ in range(6):
        (mine,), (its,) = study.ask(), copy.ask()
        assert (mine.parent, mine.member, mine.checkpoint_uri) == (its.parent, its.member, its.checkpoint_uri)
        assert mine.parameters == its.parameters
        train(mine)
        train(its)


def test_a_study_shows_its_population(client: at.Client) -> None:
    usual = create(client, "usual", population=None)
    assert usual.population == at.Population() == client.get_study("usual").population
    assert create(client, "usual", population=at.Population(size=8)).name == usual.name
    with pytest.raises(at.AlreadyExists, match=r"exists with population size 8, .*, not size 4, "):
        create(client, "usual")
    assert client.create_study("other", parameters=SPACE, objectives=GAIN).population is None


def test_what_the_service_refuses_names_the_field(client: at.Client) -> None:
    with pytest.raises(at.InvalidArgument, match=r"^population: goes with the policy 'pbt'"):
        create(client, "refused", policy="auto")
    with pytest.raises(at.InvalidArgument, match=r"^population\.size: must be from 2 to 1,000, not 1"):
        create(client, "refused", population=at.Population(size=1))
    with pytest.raises(at.InvalidArgument, match=r"^noisy: cannot go with a population"):
        create(client, "refused", noisy=True)
    with pytest.raises(at.InvalidArgument, match="population: '8' is a str, not a Population"):
        create(client, "refused", population="8")
    with pytest.raises(at.InvalidArgument, match=r"population\.size"):
        create(client, "refused", population=at.Population(size=2**40))
    with pytest.raises(at.NotFound):
        client.get_study("refused")


async def test_asyncio_says_the_same(client: at.Client) -> None:
    study = trained(create(client, "digits"), 12)
    async with aio.Client(client.target, project=client.project) as asynchronous:
        same = await asynchronous.create_study(
            "digits", parameters=SPACE, objectives=GAIN, policy="pbt", population=aio.Population(size=4)
        )
        assert same.population == FOUR
        assert [each.number for each in await same.lineage()] == [each.number for each in study.lineage()]
        assert [each.number for each in await same.lineage(5)] == [each.number for each in study.lineage(5)]


DIALS = ["--float", "rate=1e-4:1:log", "--categorical", "optimizer=sgd,adam", "--maximize", "gain", "--policy", "pbt"]


def test_the_command_line_creates_and_shows_a_population(client: at.Client, study, tmp_path: Path) -> None:
    study("create", "digits", *DIALS, "--population", "4")
    assert "4 trainings, of which the worst goes on from the state of the best" in " ".join(
        study("show", "digits").split()
    )
    document = tmp_path / "study.json"
    document.write_text(study("show", "digits", "--json"))
    assert json.loads(document.read_text())["population"]["exploit_fraction"] == 0.25
    study("create", "again", "--spec", str(document))
    assert client.get_study("again").population == FOUR
    document.write_text(json.dumps({"population": {"size": "8"}}))
    assert 'a population is written as {"size": 8' in study("create", "bad", "--spec", str(document), status=2)


def test_the_command_line_shows_the_lineage_and_draws_the_schedule(client: at.Client, study, tmp_path: Path) -> None:
    assert "no trial of digits has succeeded yet" in (
        create(client, "digits").id and study("lineage", "digits", status=1)
    )
    trained(client.get_study("digits"), 24)
    line = client.get_study("digits").lineage()
    shown = json.loads(study("lineage", "digits", "--json"))
    assert [(each["number"], each["parent"], each["member"]) for each in shown] == [
        (each.number, each.parent, each.member) for each in line
    ]
    assert "member" in study("lineage", "digits", str(line[1].number))
    for name in ("schedule.png", "schedule.svg"):
        study("lineage", "digits", "-o", str(tmp_path / name))
    assert (tmp_path / "schedule.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "schedule.svg").read_text()
    assert "<svg" in drawn
    assert "expected a name that ends in" in study("lineage", "digits", "--output", "schedule.txt", status=2)
