"""The sampler for Optuna against a real server: what asktell knows of Optuna's trials, and what Optuna gets."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import PartialFixedSampler
from optuna.trial import TrialState as OptunaState

from asktell.client import AtMost, Categorical, Client, Float, Int, Maximize, Minimize, Study, TrialState, Unavailable
from asktell.integrations.optuna import LINK, NUMBER, AskTellSampler
from asktell.integrations.optuna_space import MAX_RANGES
from tests.processes import Processes, Server, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of a project of the test's own."""
    with Client(server.target, project=request.node.name.replace("[", "-").rstrip("]")[:100]) as client:
        yield client


@pytest.fixture
def sampler(client: Client) -> AskTellSampler:
    return AskTellSampler(client.target, project=client.project, seed=0)


def mirror(client: Client) -> Study:
    """The only asktell study of the test."""
    (study,) = client.list_studies()
    return study


def ask(study: optuna.Study, **distributions: optuna.distributions.BaseDistribution) -> optuna.Trial:
    return study.ask(distributions)


X = FloatDistribution(-1.0, 1.0)
Y = IntDistribution(1, 100, log=True)


def test_all_trials_are_in_asktell_with_what_became_of_them(client, sampler):
    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        if trial.number == 3:
            raise ValueError("broken")
        if trial.number == 4:
            return float("nan")
        if trial.number == 5:
            trial.report(0.5, step=0)
            raise optuna.TrialPruned
        return x

    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.optimize(objective, n_trials=8, catch=ValueError)
    found = mirror(client)
    assert found.objectives == (Maximize("value"),)
    assert (found.counts.succeeded, found.counts.stopped, found.counts.failed, found.counts.active) == (5, 1, 2, 0)
    trials = {trial.number: trial for trial in found.list_trials()}
    for each in study.trials[1:]:
        there = trials[int(each.system_attrs[LINK].rpartition("#")[2])]
        assert there.parameters == each.params
        assert there.origin.policy == "gp"
        if each.state is not OptunaState.FAIL:
            assert there.value("value") == each.value
    assert [trial.metadata for trial in trials.values() if trial.metadata] == [{NUMBER: "0"}]


def test_a_trial_costs_an_ask_and_a_tell(client, sampler, monkeypatch):
    calls = []
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=3)
    connection = type(mirror(client)._connection)
    carry_out = connection.run_once
    monkeypatch.setattr(
        connection, "run_once", lambda self, call, **rest: calls.append(call.method) or carry_out(self, call, **rest)
    )
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=3)
    assert calls == ["Ask", "Tell"] * 3


def test_a_hundred_trials_that_are_never_told_are_all_different(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.tell(ask(study, x=X, y=Y), 0.5)
    trials = [ask(study, x=X, y=Y) for _ in range(100)]
    assert len({(trial.params["x"], trial.params["y"]) for trial in trials}) == 100
    assert mirror(client).counts.active == 100
    study.tell(trials[17], 0.1)
    assert mirror(client).best_trial.parameters == trials[17].params


def test_choices_keep_their_kinds(client, sampler):
    choices = [1, "a", True, None, 1.0, "1", False, 0]
    study = optuna.create_study(sampler=sampler)
    used = []

    def objective(trial):
        used.append(trial.suggest_categorical("c", choices))
        return trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=25)
    found = mirror(client)
    assert [repr(choice) for choice in found.parameters[0].choices] == [repr(choice) for choice in choices]
    assert {repr(choice) for choice in used} == {repr(choice) for choice in choices}
    told = [repr(trial.parameters["c"]) for trial in found.list_trials() if not trial.metadata]
    assert told == [repr(choice) for choice in used[1:]]


def test_choices_and_names_that_asktell_cannot_hold_are_chosen_all_the_same(client, sampler):
    choices = [(16, 16), (32, 32), (64, 64)]
    study = optuna.create_study(sampler=sampler)
    used = []

    def objective(trial):
        used.append(trial.suggest_categorical("hidden layers", choices))
        return trial.suggest_float("学習率", 0, 1) + trial.suggest_int("huge", 0, 2**60)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(objective, n_trials=8)
    found = mirror(client)
    assert [type(spec) for spec in found.parameters] == [Categorical, Float]
    assert set(used) <= set(choices)
    assert found.counts.succeeded == 8


def test_a_range_that_changes_takes_what_fits_of_the_earlier_trials(client, sampler):
    study = optuna.create_study(sampler=sampler)

    def run(high, trials):
        study.optimize(lambda trial: trial.suggest_float("x", 0, high), n_trials=trials)

    run(10, 6)
    run(5, 6)
    wide, narrow = sorted(client.list_studies(), key=lambda each: -each.parameters[0].high)
    assert (wide.parameters[0].high, narrow.parameters[0].high) == (10, 5)
    fitting = [trial.number for trial in study.trials[:7] if trial.params["x"] <= 5]
    assert [int(trial.metadata[NUMBER]) for trial in narrow.list_trials() if trial.metadata] == fitting
    assert narrow.counts.succeeded == len(fitting) + 5


def test_a_range_that_depends_on_another_parameter_does_not_make_a_study_a_trial(client, sampler):
    study = optuna.create_study(sampler=sampler)

    def objective(trial):
        x = trial.suggest_float("x", 1, 2)
        return x + trial.suggest_float("y", 0, x)

    study.optimize(objective, n_trials=15)
    studies = client.list_studies()
    assert len(studies) <= MAX_RANGES + 1
    last = max(studies, key=lambda each: each.counts.succeeded)
    assert [spec.name for spec in last.parameters] == ["x"]
    assert last.counts.succeeded == 15


def test_what_was_used_is_told_and_not_what_was_chosen(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.tell(ask(study, x=X), 1.0)
    trial = study.ask()
    assert trial.relative_params.keys() == {"x"}
    trial._relative_params["x"] += 2.0
    x = trial.suggest_float("x", -1, 1)
    study.tell(trial, 0.25)
    found = mirror(client)
    assert found.counts.cancelled == 1
    (told,) = [each for each in found.list_trials() if each.metadata.get(NUMBER) == "1"]
    assert (told.parameters, told.value("value")) == ({"x": x}, 0.25)
    ask(study, x=X)
    assert mirror(client).counts.succeeded == 2


def test_trials_of_other_making_are_added_once(client, sampler):
    study = optuna.create_study(sampler=sampler)
    for x in (0.1, 0.2, 0.3):
        study.add_trial(optuna.create_trial(params={"x": x}, distributions={"x": X}, value=x))
    study.add_trial(
        optuna.create_trial(params={"x": -0.4}, distributions={"x": X}, state=OptunaState.PRUNED, value=None)
    )
    study.add_trial(optuna.create_trial(state=OptunaState.FAIL))
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=3)
    found = mirror(client)
    assert (found.counts.succeeded, found.counts.stopped, found.counts.failed) == (6, 1, 0)
    assert sorted(trial.metadata[NUMBER] for trial in found.list_trials() if trial.metadata) == ["0", "1", "2", "3"]


def test_more_trials_than_a_call_takes_are_added(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.add_trials(
        optuna.create_trial(params={"x": n / 2000}, distributions={"x": X}, value=n / 2000) for n in range(1_100)
    )
    ask(study, x=X)
    assert mirror(client).counts.succeeded == 1_100


def test_an_enqueued_trial_has_its_parameters_and_asktell_chooses_the_others(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.tell(ask(study, x=X, y=Y), 1.0)
    study.enqueue_trial({"x": 0.25})
    study.enqueue_trial({"x": 0.5, "y": 7})
    study.enqueue_trial({"x": 0.75, "y": 1_000})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1,000 is out of range, as Optuna says.
        study.optimize(lambda trial: trial.suggest_float("x", -1, 1) + trial.suggest_int("y", 1, 100, log=True), 3)
    first, second, third = study.trials[1:]
    assert first.params["x"] == 0.25
    assert second.params == {"x": 0.5, "y": 7}
    assert third.params == {"x": 0.75, "y": 1_000}
    found = mirror(client)
    assert [trial.parameters["x"] for trial in found.list_trials() if trial.origin.policy == "gp"] == [0.25]
    ask(study, x=X, y=Y)
    assert mirror(client).counts.succeeded == 3


def test_a_part_of_the_space_is_a_study_of_its_own(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1) + trial.suggest_float("z", -1, 1), n_trials=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = PartialFixedSampler({"z": 0.5}, sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1) + trial.suggest_float("z", -1, 1), n_trials=3)
    assert [trial.params["z"] for trial in study.trials[3:]] == [0.5] * 3
    whole, part = sorted(client.list_studies(), key=lambda each: -len(each.parameters))
    assert [spec.name for spec in part.parameters] == ["x"]
    assert (whole.counts.succeeded, part.counts.succeeded) == (3, 6)


def test_one_value_only_is_nothing_to_choose(client, sampler):
    study = optuna.create_study(sampler=sampler)
    one = {"a": FloatDistribution(2.0, 2.0), "b": IntDistribution(3, 3), "c": CategoricalDistribution(["only"])}
    for _ in range(3):
        trial = ask(study, x=X, **one)
        assert {name: trial.params[name] for name in one} == {"a": 2.0, "b": 3, "c": "only"}
        study.tell(trial, 1.0)
    assert [spec.name for spec in mirror(client).parameters] == ["x"]


def test_a_space_that_is_used_up_is_drawn_from_at_random(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_int("n", 1, 4), n_trials=8)
    assert {trial.params["n"] for trial in study.trials[:4]} == {1, 2, 3, 4}
    assert [LINK in trial.system_attrs for trial in study.trials] == [False, *[True] * 3, *[False] * 4]


def test_constraints_reach_asktell_by_either_way_of_optuna(client):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        sampler = AskTellSampler(
            client.target, project=client.project, constraints_func=lambda trial: (trial.params["x"] - 0.5, -1.0)
        )
    study = optuna.create_study(sampler=sampler, direction="maximize")

    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        trial.set_constraint("memory use", abs(x) - 0.9)
        return x

    study.optimize(objective, n_trials=12)
    found = mirror(client)
    assert [constraint.bound for constraint in found.outcome_constraints] == [0.0] * 3
    assert AtMost("constraint_0", 0.0) in found.outcome_constraints
    assert found.counts.succeeded == 12
    for trial in found.list_trials():
        assert trial.value("constraint_0") == trial.parameters["x"] - 0.5
    assert found.best_trial.value("value") == study.best_value <= 0.5


def test_several_objectives_are_told_in_their_order(client, sampler):
    study = optuna.create_study(sampler=sampler, directions=["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_float("x", -1, 1), 7.0), n_trials=4)
    found = mirror(client)
    assert found.objectives == (Minimize("value_0"), Maximize("value_1"))
    assert {trial.value("value_1") for trial in found.list_trials()} == {7.0}
    assert len(found.optimal_trials()) == len(study.best_trials)


def test_a_declared_space_is_chosen_from_the_first_trial_with_its_conditions(client):
    sampler = AskTellSampler(
        client.target,
        project=client.project,
        parameters=[
            Categorical("optimizer", ["adam", "sgd"]),
            Float("momentum", 0, 0.99, when=("optimizer", ["sgd"])),
            Int("layers", 1, 3),
        ],
    )

    def objective(trial):
        loss = trial.suggest_int("layers", 1, 3)
        if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "sgd":
            loss += trial.suggest_float("momentum", 0, 0.99)
        return loss

    study = optuna.create_study(sampler=sampler)
    study.add_trial(
        optuna.create_trial(
            params={"optimizer": "adam", "layers": 2},
            distributions={"optimizer": CategoricalDistribution(["adam", "sgd"]), "layers": IntDistribution(1, 3)},
            value=2.0,
        )
    )
    study.enqueue_trial({"momentum": 0.5})
    study.optimize(objective, n_trials=12)
    assert all(LINK in trial.system_attrs for trial in study.trials[1:])
    found = mirror(client)
    assert (found.counts.succeeded, found.counts.cancelled) == (13, 0)
    assert {("momentum" in trial.parameters, trial.parameters["optimizer"]) for trial in found.list_trials()} == {
        (True, "sgd"),
        (False, "adam"),
    }


def test_threads_share_a_channel_and_no_choice(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.tell(ask(study, x=X), 0.0)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=20, n_jobs=2)
    found = mirror(client)
    assert (found.counts.succeeded, found.counts.active) == (21, 0)
    assert len({trial.params["x"] for trial in study.trials}) == 21


def test_studies_in_threads_that_share_a_sampler_stay_apart(client, sampler):
    studies = [optuna.create_study(sampler=sampler, study_name="same") for _ in range(2)]
    threads = [
        threading.Thread(target=study.optimize, args=(lambda trial: trial.suggest_float("x", -1, 1), 6))
        for study in studies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.counts.succeeded for found in client.list_studies()] == [6, 6]


PROGRAM = """
import sys, optuna
from asktell.integrations.optuna import AskTellSampler
target, project, storage = sys.argv[1:]
study = optuna.create_study(
    study_name="shared", storage=storage, load_if_exists=True, sampler=AskTellSampler(target, project=project)
)
study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=8)
"""


def test_processes_that_share_a_storage_share_what_asktell_knows(client, tmp_path):
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(study_name="shared", storage=storage)
    command = [sys.executable, "-c", PROGRAM, client.target, client.project, storage]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    study = optuna.load_study(
        study_name="shared", storage=storage, sampler=AskTellSampler(client.target, project=client.project)
    )
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=1)
    last = study.trials[-1].system_attrs[LINK].rpartition("#")[0]
    found = client.get_study(last)
    assert len(study.trials) == 17
    assert found.counts.active == 0
    values = sorted(trial.value("value") for trial in found.list_trials([TrialState.SUCCEEDED]))
    assert values == sorted(trial.value for trial in study.trials)


def test_a_study_that_is_loaded_again_goes_on_with_what_asktell_knows(client, sampler, tmp_path):
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="again", storage=storage, sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=4)
    left = study.ask()
    left.suggest_float("x", -1, 1)
    sampler.close()
    again = AskTellSampler(client.target, project=client.project)
    study = optuna.load_study(study_name="again", storage=storage, sampler=again)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=3)
    assert (mirror(client).counts.succeeded, mirror(client).counts.active) == (7, 1)
    study.tell(left.number, 0.5)
    ask(study, x=X)
    found = mirror(client)
    assert (found.counts.succeeded, found.counts.cancelled) == (8, 1)
    assert left.params["x"] in [trial.parameters["x"] for trial in found.list_trials([TrialState.SUCCEEDED])]


def test_a_trial_that_another_process_tells_is_told_to_asktell(client, sampler, tmp_path):
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="handed", storage=storage, sampler=sampler)
    study.tell(ask(study, x=X), 0.0)
    trial = ask(study, x=X)
    other = optuna.load_study(
        study_name="handed", storage=storage, sampler=AskTellSampler(client.target, project=client.project)
    )
    other.tell(trial.number, 0.25)
    ask(study, x=X)
    assert (mirror(client).counts.succeeded, mirror(client).counts.active) == (2, 1)


def test_a_study_that_was_deleted_from_asktell_is_begun_anew(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=4)
    trial = ask(study, x=X)
    mirror(client).delete()
    study.tell(trial, 0.5)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=2)
    assert mirror(client).counts.succeeded == 7


def reachable(client: Client) -> bool:
    try:
        client.list_studies()
    except Unavailable:
        return False
    return True


def test_what_a_service_out_of_reach_was_not_told_is_told_later(tmp_path, caplog):
    with Processes(tmp_path) as processes:
        server = processes.serve(str(tmp_path / "asktell.db"))
        with Client(server.target, retry_for=0.5) as client, caplog.at_level(logging.WARNING, "asktell"):
            study = optuna.create_study(sampler=AskTellSampler(client=client))
            study.tell(ask(study, x=X), 0.0)
            trial = ask(study, x=X)
            server.kill()
            study.tell(trial, 0.25)
            assert "told later" in caplog.text
            processes.again(server)
            until(lambda: reachable(client))
            ask(study, x=X)
            found = mirror(client)
            assert (found.counts.succeeded, found.counts.active) == (2, 1)
            assert found.best_trial.value("value") == 0.0


def test_a_copy_of_the_sampler_connects_by_itself(client, sampler):
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=2)
    study.sampler = pickle.loads(pickle.dumps(sampler))
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=2)
    assert mirror(client).counts.succeeded == 4


def test_a_seed_makes_the_choices_repeatable(client):
    def choices():
        study = optuna.create_study(sampler=AskTellSampler(client.target, project=client.project, seed=7))
        study.optimize(lambda trial: (trial.suggest_float("x", -1, 1) - 0.3) ** 2, n_trials=9)
        return [trial.params["x"] for trial in study.trials]

    assert choices() == choices()


def test_the_example_finds_the_branch_that_is_better() -> None:
    command = [sys.executable, "-m", "examples.optuna_sampler"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["inferred space", "declared space"]
    assert done.stdout.count("'optimizer': 'sgd'") == 2
