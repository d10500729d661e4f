"""The SDK against the real service, embedded in this process."""

from __future__ import annotations

import itertools
import math
from contextlib import closing

import pytest

from asktell import client as at
from asktell.client import aio

PARAMETERS = [
    at.Float("learning_rate", 1e-5, 1e-1, log=True, default=1e-3),
    at.Float("dropout", 0, 0.5, step=0.25),
    at.Int("batch_size", 16, 256, log=True),
    at.Categorical("optimizer", ["sgd", "adam"]),
    at.Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
    at.Categorical("class_weight", [None, "balanced", 1, 1.5, True]),
    at.Bool("nesterov", default=True, when=("optimizer", ["sgd"])),
    at.Ordinal("width", [16, 32, 64]),
]
KINDS = {
    "learning_rate": float,
    "dropout": float,
    "batch_size": int,
    "optimizer": str,
    "momentum": float,
    "nesterov": bool,
    "width": int,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with at.Client.local(tmp_path_factory.mktemp("sdk") / "asktell.db", retry_for=5) as client:
        yield client


names = (f"study-{number}" for number in itertools.count())


def new_study(client, **options):
    defaults = {"parameters": [at.Float("x", 0, 1)], "objectives": [at.Minimize("y")], "policy": "random", "seed": 0}
    return client.create_study(next(names), **(defaults | options))


def test_a_whole_study_keeps_every_kind_of_parameter(client):
    study = new_study(client, parameters=PARAMETERS, objectives=[at.Maximize("accuracy")], max_trials=12)
    assert study.parameters == tuple(PARAMETERS)
    for trial in study.trials(worker_id="gpu-0"):
        for name, value in trial.parameters.items():
            assert name == "class_weight" or type(value) is KINDS[name]
        assert list(trial.parameters) == [spec.name for spec in PARAMETERS if spec.name in trial.parameters]
        assert ("momentum" in trial.parameters) == (trial.parameters["optimizer"] == "sgd")
        assert not trial.report(step=0, accuracy=0.1).should_stop
        trial.tell(accuracy=(trial.number / 12, 0.01))
    study.refresh()
    assert study.counts.succeeded == 12
    assert study.best_trial.number == 12
    assert study.best_trial.metrics["accuracy"] == at.MetricValue(1.0, 0.01)
    assert study.get_trial(3).measurements[0].metrics["accuracy"].value == 0.1


def test_the_same_study_again_is_the_same_and_another_is_refused(client):
    first = new_study(client, parameters=PARAMETERS, max_trials=5)
    options = {"objectives": [at.Minimize("y")], "policy": "random"}
    again = client.create_study(first.id, parameters=PARAMETERS, max_trials=5, **options)
    assert (again.create_time, again.seed) == (first.create_time, 0)
    with pytest.raises(at.AlreadyExists, match="other parameters"):
        client.create_study(first.id, parameters=PARAMETERS[:2], max_trials=5, **options)


def test_a_bad_spec_is_refused_with_the_path_of_its_field(client):
    with pytest.raises(at.InvalidArgument) as caught:
        new_study(client, parameters=[at.Float("x", 0, 1, log=True)])
    assert caught.value.field_violations[0][0] == "study.spec.parameters[0].float_spec.low"
    assert caught.value.reason == "INVALID_ARGUMENT"


def test_a_study_that_is_not_there_is_not_found(client):
    with pytest.raises(at.NotFound) as caught:
        client.get_study("nowhere")
    assert caught.value.reason == "STUDY_NOT_FOUND"


def test_the_plain_protocol_of_an_adapter_works(client):
    study = at.Client(client.target).create_study(
        next(names), parameters=[at.Float("x", 0.0, 1.0, log=False)], objectives=[at.Minimize("y")], seed=3
    )
    (trial,) = study.ask()
    assert 0 <= dict(trial.parameters)["x"] <= 1
    trial.tell({"y": 1.0})
    assert study.best_trial.number == 1


def test_optimize_tells_failures_and_finishes_the_budget(client):
    study = new_study(client, max_trials=4)

    def objective(trial):
        if trial.number == 2:
            raise ValueError("bad luck")
        if trial.number == 3:
            trial.infeasible("too wide")
            return None
        return trial.parameters["x"]

    study.optimize(objective)
    found = {trial.number: (trial.state.value, trial.message) for trial in study.list_trials()}
    assert found == {
        1: ("succeeded", ""),
        2: ("failed", "ValueError: bad luck"),
        3: ("infeasible", "too wide"),
        4: ("succeeded", ""),
    }


def test_a_metric_that_is_not_finite_is_kept_and_never_the_best(client):
    study = new_study(client, max_trials=2)
    for trial, value in zip(study.ask(2), [math.nan, 3.0], strict=True):
        trial.tell(value)
    assert math.isnan(study.get_trial(1).value())
    assert study.best_trial.number == 2


def test_a_lease_that_runs_out_goes_to_another_worker(client):
    study = new_study(client, lease_duration=1, max_trials=1, late_tells="refuse")
    (zombie,) = study.ask(worker_id="a")
    with closing(study.trials(worker_id="b")) as trials:
        trial = next(trials)
        assert (trial.number, trial.attempt, trial.worker_id) == (1, 2, "b")
        assert zombie.report(step=0, y=1).lost
        with pytest.raises(at.FailedPrecondition) as caught:
            zombie.tell(y=1)
        assert caught.value.reason == "LEASE_LOST"
        trial.tell(y=2)
    assert study.get_trial(1).value() == 2


def test_a_lease_is_renewed_in_the_background(client):
    study = new_study(client, lease_duration=1)
    (trial,) = study.ask()
    first = trial.lease.expire_time
    with trial.keep_alive():
        while trial.lease.expire_time == first:
            assert not trial.wait_for_stop(0.05)
    assert trial.lease.token
    trial.tell(y=1)


def test_a_cancelled_trial_stops_its_worker(client):
    study = new_study(client)
    (trial,) = study.ask()
    study.get_trial(trial.number).cancel()
    assert trial.report(step=0, y=1).should_stop
    assert study.get_trial(1).state is at.TrialState.CANCELLED


def test_a_released_trial_is_handed_out_again_with_its_checkpoint(client):
    study = new_study(client)
    (first,) = study.ask(worker_id="a")
    first.release(checkpoint_uri="file:///checkpoint")
    (second,) = study.ask(worker_id="b")
    assert (second.number, second.checkpoint_uri) == (first.number, "file:///checkpoint")
    assert second.parameters == first.parameters


def test_results_told_together_each_count_though_one_is_refused(client):
    study = new_study(client, max_trials=6)
    trials = study.ask(6)
    study.get_trial(trials[2].number).cancel()
    results = [1.0, {"y": (2.0, 0.1)}, 3.0, ValueError("too wide"), float("inf"), 6]
    with pytest.raises(at.ResultsRefused, match=r"1 of 6 results were refused.*trial 3 is cancelled") as caught:
        study.tell_all(zip(trials, results, strict=True))
    assert {number: (type(error), error.reason) for number, error in caught.value.refusals.items()} == {
        3: (at.FailedPrecondition, "TRIAL_ENDED")
    }
    states = [trial.state.name for trial in study.list_trials()]
    assert states == ["SUCCEEDED", "SUCCEEDED", "CANCELLED", "FAILED", "SUCCEEDED", "SUCCEEDED"]
    assert [trial.ended for trial in trials] == [True, True, False, True, True, True]
    assert trials[2].lost
    assert (trials[1].value(), trials[1].metrics["y"].standard_error) == (2.0, 0.1)
    assert trials[3].message == "ValueError: too wide"
    with pytest.raises(at.FailedPrecondition, match="was ended here before"):
        study.tell_all([(trials[0], 1.0)])


def test_a_result_that_the_service_finds_wrong_is_refused_by_field_and_its_trial_can_be_told_again(client):
    study = new_study(client, max_trials=2)
    trials = study.ask(2)
    with pytest.raises(at.ResultsRefused, match="1 of 2 results were refused, the others count") as caught:
        study.tell_all([(trials[0], 1.0), (trials[1], {"y": 2.0, "no name": 1.0})])
    refused = caught.value.refusals[2]
    assert isinstance(refused, at.InvalidArgument)
    ((field, _),) = refused.field_violations
    assert field == "results[1].succeeded.metrics[no name]"
    study.tell_all([(trials[1], 2.0)])
    assert [trial.value() for trial in trials] == [1.0, 2.0]


async def test_asyncio_tells_results_together(client):
    async with aio.Client(client.target) as asynchronous:
        study = await asynchronous.create_study(
            next(names), parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], policy="random"
        )
        trials = await study.ask(3)
        await (await study.get_trial(2)).cancel()
        with pytest.raises(at.ResultsRefused) as caught:
            await study.tell_all((trial, float(trial.number)) for trial in trials)
        assert list(caught.value.refusals) == [2]
        assert [trial.state.name for trial in await study.list_trials()] == ["SUCCEEDED", "CANCELLED", "SUCCEEDED"]


def test_fixed_parameters_are_exactly_so(client):
    study = new_study(client, parameters=PARAMETERS)
    trials = study.ask(3, fixed={"optimizer": "sgd", "width": 64})
    assert {(trial.parameters["optimizer"], trial.parameters["width"]) for trial in trials} == {("sgd", 64)}


def test_trials_of_ones_own_come_first_and_imported_ones_count(client):
    study = new_study(client)
    study.enqueue({"x": 0.25}, metadata={"why": "hunch"})
    study.import_trials(
        [
            at.FinishedTrial(parameters={"x": 0.75}, metrics={"y": (0.1, 0.01)}),
            at.FinishedTrial(parameters={"x": 0.5}, state=at.TrialState.FAILED, message="broke"),
        ]
    )
    (trial,) = study.ask()
    assert (trial.parameters, trial.metadata, trial.origin.policy) == ({"x": 0.25}, {"why": "hunch"}, "user")
    assert study.best_trial.parameters == {"x": 0.75}
    assert [trial.number for trial in study.list_trials([at.TrialState.FAILED])] == [3]


def test_finished_trials_with_a_request_id_are_added_once(client):
    study = new_study(client)
    trials = [at.FinishedTrial(parameters={"x": 0.75}, metrics={"y": 1.0})]
    assert [[trial.number for trial in study.import_trials(trials, request_id="mine")] for _ in range(2)] == [[1], [1]]
    with pytest.raises(at.AlreadyExists):
        study.import_trials([at.FinishedTrial(parameters={"x": 0.5}, metrics={"y": 1.0})], request_id="mine")


async def test_asyncio_adds_finished_trials_with_a_request_id_once(client):
    trials = [at.FinishedTrial(parameters={"x": 0.75}, metrics={"y": 1.0})]
    async with aio.Client(client.target) as asynchronous:
        study = await asynchronous.get_study(new_study(client).id)
        added = [await study.import_trials(trials, request_id="mine") for _ in range(2)]
    assert [[trial.number for trial in each] for each in added] == [[1], [1]]


def test_several_objectives_have_a_front(client):
    study = new_study(client, objectives=[at.Minimize("y"), at.Maximize("z")], max_trials=3)
    for trial, told in zip(study.ask(3), [(1, 1), (2, 2), (3, 1)], strict=True):
        trial.tell(y=told[0], z=told[1])
    assert [trial.number for trial in study.optimal_trials()] == [1, 2]


def test_a_front_has_a_hypervolume_and_a_history_of_it(client):
    study = new_study(client, objectives=[at.Minimize("y", reference=4), at.Maximize("z", reference=0)], max_trials=4)
    assert study.hypervolume() is None
    trials = study.ask(4)
    for index, told in [(2, (3, 1)), (0, (1, 1)), (3, (2, 1)), (1, (2, 2))]:
        trials[index].tell(y=told[0], z=told[1])
    found = study.hypervolume()
    assert found.reference == {"y": 4, "z": 0}
    assert list(found.history) == [(3, pytest.approx(1.0)), (1, pytest.approx(3.0)), (2, pytest.approx(5.0))]
    assert found.value == found.history[-1][1]


def test_an_inferred_reference_follows_the_front(client):
    study = new_study(client, objectives=[at.Minimize("y"), at.Maximize("z")], max_trials=3)
    for trial, told in zip(study.ask(3), [(1, 1), (3, 2), (4, 1)], strict=True):
        trial.tell(y=told[0], z=told[1])
    found = study.hypervolume()
    assert found.reference == {"y": pytest.approx(3.2), "z": pytest.approx(0.9)}
    assert found.value == pytest.approx(2.2 * 0.1 + 0.2 * 1.0)


def test_one_objective_has_no_hypervolume(client):
    study = new_study(client)
    study.ask()[0].tell(1.0)
    assert study.hypervolume() is None


def test_the_best_trial_is_feasible_and_a_missing_constrained_metric_is_tolerated(client):
    constraints = [at.AtMost("latency", 50), at.AtLeast("recall", 0.5)]
    study = new_study(client, outcome_constraints=constraints, noisy=True, max_trials=4)
    assert study.outcome_constraints == tuple(constraints)
    assert study.noisy
    told = [{"y": 1, "latency": 60, "recall": 1}, {"y": 2}, {"y": 4, "latency": 50, "recall": 0.5}]
    for trial, metrics in zip(study.ask(3), told, strict=True):
        trial.tell(metrics)
    assert study.best_trial.number == 3
    with pytest.raises(at.AlreadyExists, match=r"latency at most 50[.]0, recall at least 0.5, not none"):
        client.create_study(
            study.id, parameters=study.parameters, objectives=study.objectives, policy="random", noisy=True
        )


def test_an_objective_keeps_its_reference(client):
    objectives = [at.Minimize("y", reference=3.5), at.Maximize("z")]
    assert new_study(client, objectives=objectives).objectives == tuple(objectives)


def test_a_paused_study_hands_out_nothing_and_a_finished_one_ends_the_loop(client):
    study = new_study(client)
    study.pause()
    answer = study.ask_once()
    assert (list(answer.trials), answer.closed, answer.reason) == ([], False, at.Reason.PAUSED)
    study.finish()
    assert list(study.trials()) == []
    study.resume()
    assert len(study.ask()) == 1


def test_a_loop_that_is_handed_no_trial_says_what_the_service_answered_and_what_helps(client, caplog):
    study = new_study(client, parameters=[at.Bool("flag")], max_trials=None)
    study.optimize(lambda trial: 1.0)
    assert not caplog.records
    study.optimize(lambda trial: 1.0)
    study.update(max_trials=2)
    study.optimize(lambda trial: 1.0)
    study.update(max_trials=10, max_duration=0.001)
    study.optimize(lambda trial: 1.0)
    study.finish()
    assert list(study.trials()) == []
    assert [record.message.partition("; ")[2] for record in caplog.records] == [
        "study.update(parameters=[...]) widens its space",
        "study.update(max_trials=...) raises it",
        "study.update(max_duration=...) raises it",
        "study.resume() opens it again",
    ]


def test_a_budget_can_be_raised(client):
    study = new_study(client, max_trials=1, max_parallel=5)
    study.optimize(lambda trial: 1.0)
    study.update(max_trials=3, labels={"raised": "yes"})
    assert (study.budget, study.labels) == (at.Budget(max_trials=3, max_parallel=5), {"raised": "yes"})
    study.optimize(lambda trial: 1.0)
    assert len(study.to_dataframe()) == 3


def test_a_study_of_another_budget_says_once_which_call_changes_it(client):
    study = new_study(client, max_trials=3)
    with pytest.raises(at.AlreadyExists) as caught:
        client.create_study(
            study.id, parameters=study.parameters, objectives=study.objectives, policy="random", seed=0, max_trials=6
        )
    assert str(caught.value) == (
        f"study '{study.id}' exists with max_trials 3, not 6: study = client.get_study(\"{study.id}\"); study.update(max_trials=6),"
        f" or `asktell study update {study.id} --max-trials 6`, changes it"
    )


def test_rows_of_a_table_are_configurations_again(client):
    study = new_study(client, parameters=PARAMETERS, max_trials=12)
    study.optimize(lambda trial: trial.parameters["learning_rate"])
    again = new_study(client, parameters=PARAMETERS)
    table = study.to_dataframe()
    assert table["parameters.momentum"].isna().any()
    prefix = "parameters."
    rows = [
        {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        for _, row in table.iterrows()
    ]
    # As pandas has whole numbers in a column with gaps.
    floats = [{**row, "batch_size": float(row["batch_size"]), "width": float(row["width"])} for row in rows]
    queued = again.enqueue_all(floats)
    assert [trial.parameters for trial in queued] == [trial.parameters for trial in study.list_trials()]
    for trial in queued:
        assert all(name == "class_weight" or type(value) is KINDS[name] for name, value in trial.parameters.items())
    finished = [at.FinishedTrial(parameters=row, metrics={"y": 1.0}) for row in floats]
    assert [trial.parameters for trial in again.import_trials(finished)] == [trial.parameters for trial in queued]


def test_all_that_was_reported_is_read_at_once(client):
    study = new_study(client, max_trials=3)
    assert study.measurements() == []

    def objective(trial):
        for step in range(trial.number):
            trial.report(step=step, y=trial.number / 8, grad=(step, 0.5))
        return 1.0

    study.optimize(objective)
    rows = study.measurements()
    assert [(row["number"], row["step"]) for row in rows] == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    last = study.get_trial(3).measurements[-1]
    assert rows[-1] == {
        "number": 3,
        "step": 2,
        "metrics.y": 3 / 8,
        "metrics.grad": 2.0,
        "metrics.grad.standard_error": 0.5,
        "create_time": last.create_time,
    }


async def test_all_that_was_reported_is_read_at_once_by_asyncio_too(client):
    study = new_study(client, max_trials=3)
    study.optimize(lambda trial: trial.report(step=1, y=0.5) and 1.0)
    async with aio.Client(client.target) as asynchronous:
        assert await (await asynchronous.get_study(study.id)).measurements() == study.measurements()


def test_studies_are_listed_and_deleted(client):
    study = new_study(client)
    assert study.id in [each.id for each in client.list_studies()]
    client.delete_study(study.id)
    assert study.id not in [each.id for each in client.list_studies()]


async def test_asyncio_has_the_same(client):
    async with aio.Client(client.target) as asynchronous:
        study = await asynchronous.create_study(
            next(names),
            parameters=PARAMETERS,
            objectives=[at.Minimize("y")],
            policy="random",
            max_trials=5,
        )

        async def objective(trial):
            await trial.report(step=0, y=trial.number)
            return float(trial.number)

        await study.optimize(objective)
        assert (await study.best_trial()).number == 1
        assert await study.hypervolume() is None
        assert len(await study.list_trials([at.TrialState.SUCCEEDED])) == 5
        with pytest.raises(at.NotFound):
            await asynchronous.get_study("nowhere")


def test_a_notebook_cell_that_runs_twice_gets_the_server_that_is_there(tmp_path):
    first = at.Client.local(tmp_path / "a.db")
    second = at.Client.local(tmp_path / "a.db")
    study = second.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], policy="random")
    first.close()
    first.close()
    (trial,) = study.ask()
    trial.tell(0.5)
    second.close()
    with at.Client.local(tmp_path / "a.db") as third:
        assert third.get_study("s").best_trial.number == 1
