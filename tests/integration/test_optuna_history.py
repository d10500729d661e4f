"""Studies of Optuna's that asktell goes on with, against a real server."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from asktell.client import (
    AtMost,
    Categorical,
    Client,
    Float,
    Int,
    InvalidArgument,
    Maximize,
    Minimize,
    TrialState,
)
from asktell.integrations.optuna_history import MOST_VALUES_OF_A_PARENT, import_study, infer_space
from tests.processes import Server


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of a project of the test's own."""
    with Client(server.target, project=request.node.name.replace("[", "-").rstrip("]")[:100]) as client:
        yield client


def train(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    layers = trial.suggest_int("layers", 1, 3)
    for layer in range(2, layers + 1):
        trial.suggest_int(f"units_{layer}", 8, 64, log=True)
    if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
        trial.suggest_float("momentum", 0.0, 0.9, step=0.1)
    trial.suggest_categorical("seed", [7])
    if trial.number == 4:
        raise ValueError("broken")
    for step in range(3):
        trial.report(layers / (step + 1), step)
    if trial.number == 5:
        raise optuna.TrialPruned
    trial.set_user_attr("commit", f"c{trial.number}")
    return abs(math.log10(rate) + 3) + layers


def studied(n_trials: int = 40) -> optuna.Study:
    study = optuna.create_study(study_name="nets", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(train, n_trials=n_trials, catch=ValueError)
    return study


def test_a_study_with_branches_is_imported_whole(client):
    theirs = studied()
    ours = import_study(client, theirs)
    assert ours.id == "nets"
    assert ours.objectives == (Maximize("value"),)
    assert set(ours.parameters) == {
        Float("rate", 1e-5, 1.0, log=True),
        Int("layers", 1, 3),
        Int("units_2", 8, 64, log=True, when=("layers", [2, 3])),
        Int("units_3", 8, 64, log=True, when=("layers", [3])),
        Categorical("optimizer", ["sgd", "adam"]),
        Float("momentum", 0.0, 0.9, step=0.1, when=("optimizer", ["sgd"])),
    }
    assert (ours.counts.succeeded, ours.counts.stopped, ours.counts.failed) == (38, 1, 1)
    assert ours.best_trial.value() == theirs.best_value
    for trial in ours.list_trials():
        original = theirs.trials[int(trial.metadata["optuna_trial"])]
        assert trial.parameters == {name: value for name, value in original.params.items() if name != "seed"}
        if original.state is OptunaState.COMPLETE:
            assert (trial.value(), trial.metadata["commit"]) == (original.value, f"c{original.number}")
    measured = ours.get_trial(1).measurements
    assert [(each.step, each.metrics["value"].value) for each in measured] == list(
        theirs.trials[0].intermediate_values.items()
    )
    (stopped,) = ours.list_trials([TrialState.STOPPED])
    assert stopped.value() == theirs.trials[5].value


def test_asktell_goes_on_where_optuna_was(client):
    ours = import_study(client, studied(), "mine", policy="gp", max_trials=43, seed=3)
    ours.optimize(lambda trial: float(trial.number))
    assert [trial.number for trial in ours.list_trials()][-3:] == [41, 42, 43]
    # The model knows the imported trials: no initial design.
    assert {trial.origin.method for trial in ours.list_trials()[-3:]} == {"acquisition"}


def test_what_was_imported_is_not_imported_again(client):
    theirs = studied(10)
    import_study(client, theirs)
    theirs.optimize(train, n_trials=3)
    ours = import_study(client, theirs)
    assert sorted(int(trial.metadata["optuna_trial"]) for trial in ours.list_trials()) == list(range(13))


def test_several_named_objectives_and_constraints(client):
    def constraints(trial):
        return (trial.params["x"] - 0.5,)

    theirs = optuna.create_study(
        study_name="front",
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(seed=0, constraints_func=constraints),
    )
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        theirs.set_metric_names(["accuracy", "seconds per step"])
    theirs.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 2.0), n_trials=12)
    ours = import_study(client, theirs)
    accuracy, seconds = ours.objectives
    assert accuracy == Maximize("accuracy")
    assert isinstance(seconds, Minimize)
    (constraint,) = ours.outcome_constraints
    assert isinstance(constraint, AtMost)
    for trial in ours.list_trials():
        assert trial.metrics[constraint.metric].value == pytest.approx(trial.parameters["x"] - 0.5)
    assert all(trial.parameters["x"] <= 0.5 for trial in ours.optimal_trials())


def test_parameters_may_be_declared_and_what_is_outside_is_left_out(client, caplog):
    theirs = optuna.create_study(study_name="narrow")
    for x in (0.1, 0.2, 0.9):
        theirs.add_trial(create_trial(params={"x": x}, distributions={"x": FloatDistribution(0, 1)}, value=x))
    ours = import_study(client, theirs, parameters=[Float("x", 0, 0.5)])
    assert [trial.parameters["x"] for trial in ours.list_trials()] == [0.1, 0.2]
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["trials of Optuna that are outside the space are left out: 2"]


def finished(*trials):
    return [
        create_trial(params={name: value for name, (value, _) in params.items()},
                     distributions={name: distribution for name, (_, distribution) in params.items()}, value=1.0)
        for params in trials
    ]  # fmt: skip


def test_ranges_that_changed_are_joined():
    trials = finished(
        {"x": (0.5, FloatDistribution(0, 1)), "c": ("a", CategoricalDistribution(["a", "b"]))},
        {"x": (2.5, FloatDistribution(-1, 3)), "c": (1, CategoricalDistribution(["b", 1]))},
    )
    assert infer_space(trials).parameters == [Categorical("c", ["a", "b", 1]), Float("x", -1, 3)]


CHOICE = CategoricalDistribution(["a", "b"])
UNIT = FloatDistribution(0, 1)


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([], "parameters: must be given: no finished trial"),
        (
            [{"x": (0.5, UNIT)}, {"x": (0.5, FloatDistribution(0.1, 1, log=True))}],
            r"parameters\[x\]: changed its kind between trials",
        ),
        ([{"x": (0.5, UNIT)}, {"x": (1, IntDistribution(0, 1))}], r"parameters\[x\]: changed its kind between trials"),
        (
            [{"c": ("a", CHOICE), "x": (0.5, UNIT)}, {"c": ("a", CHOICE)}],
            r"parameters\[x\]: is in 1 of 2 trials, and no other parameter tells in which: declare the parameters",
        ),
        ([{"c": (0.5, FloatDistribution(-1e308, 1e308))}], r"parameters\[c\]: is more than asktell can hold"),
    ],
)
def test_what_the_trials_do_not_tell_has_to_be_declared(trials, words):
    with pytest.raises(InvalidArgument, match=words):
        infer_space(finished(*trials))


def test_an_integer_of_many_values_is_no_parent():
    values = IntDistribution(0, 1000)
    trials = finished(
        *({"n": (2 * value, values), "x": (0.5, UNIT)} for value in range(MOST_VALUES_OF_A_PARENT)),
        {"n": (1, values)},
    )
    with pytest.raises(InvalidArgument, match=r"parameters\[x\]"):
        infer_space(trials)


def test_a_parameter_under_another_conditional_one_has_that_as_its_parent():
    kind = CategoricalDistribution(["cnn", "mlp"])
    model = CategoricalDistribution(["net", "tree"])
    trials = finished(
        {"model": ("net", model), "kind": ("cnn", kind), "kernel": (3, IntDistribution(1, 7))},
        {"model": ("net", model), "kind": ("mlp", kind)},
        {"model": ("tree", model)},
    )
    space = {spec.name: spec.when for spec in infer_space(trials).parameters}
    assert space == {"kernel": ("kind", ("cnn",)), "kind": ("model", ("net",)), "model": None}
