"""The client for asyncio keeps the promises of the one for threads."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from contextlib import aclosing

import pytest

from asktell import client as sync
from asktell.client import aio as at
from asktell.client.aio.drawn import DrawnStudy as AsyncDrawnStudy
from asktell.client.drawn import DrawnStudy
from asktell.v1 import trial_service_pb2 as pb2
from tests.unit.client_fake import precondition, serving, unavailable

STOP = (pb2.DIRECTIVE_STOP, "no longer promising")
ABANDON = (pb2.DIRECTIVE_ABANDON, "leased to another worker")


@pytest.fixture
def service():
    with serving() as service:
        yield service


@pytest.fixture
async def client(service):
    async with at.Client(service.target, retry_for=30) as client:
        yield client


@pytest.fixture
async def study(client):
    return await client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], max_trials=3)


def states(service):
    return [trial.state for trial in service.trials["projects/default/studies/s"].values()]


@pytest.mark.parametrize("name", ["Client", "Study", "Trial"])
def test_the_twins_have_the_same_methods_with_the_same_parameters(name):
    threads, loop = getattr(sync, name), getattr(at, name)
    twins = [each for each in vars(threads) if not each.startswith("_")]
    missing = {each for each in twins if not hasattr(loop, each)}
    assert missing <= {"wait_for_stop"}
    for each in set(twins) - missing:
        if inspect.isfunction(vars(threads)[each]):
            ours, theirs = inspect.signature(vars(threads)[each]), inspect.signature(vars(loop)[each])
            assert list(ours.parameters.values()) == list(theirs.parameters.values()) or each == "optimize"


def test_the_twins_draw_the_same_pictures():
    ours, theirs = (
        {name: inspect.signature(method) for name, method in vars(kind).items() if name.startswith("plot")}
        for kind in (DrawnStudy, AsyncDrawnStudy)
    )
    assert len(ours) == 9
    assert [(name, list(each.parameters.values())) for name, each in ours.items()] == [
        (name, list(each.parameters.values())) for name, each in theirs.items()
    ]


def test_the_modules_export_the_same_names():
    assert sync.__all__ == at.__all__


async def test_ask_and_tell_are_one_call_each(service, study):
    (trial,) = await study.ask(worker_id="w")
    await trial.tell({"y": (0.5, 0.1)})
    assert (trial.state, trial.value()) == (at.TrialState.SUCCEEDED, 0.5)
    assert {method: len(calls) for method, calls in service.requests.items()} == {"CreateStudy": 1, "Ask": 1, "Tell": 1}


async def test_a_retried_ask_repeats_its_request_id_and_yields_one_trial(service, study):
    service.fail("Ask", *[unavailable()] * 9)
    (trial,) = await study.ask()
    assert len(service.requests["Ask"]) == 10
    assert len({request.request_id for request in service.requests["Ask"]}) == 1
    assert (trial.number, len(states(service))) == (1, 1)


async def test_what_the_protocol_cannot_carry_is_refused_with_its_field(study):
    (trial,) = await study.ask()
    with pytest.raises(at.InvalidArgument) as caught:
        await trial.tell({"y": 1, "\ud800": 1})
    assert caught.value.field_violations[0][0] == "metrics[\\ud800]"
    with pytest.raises(at.InvalidArgument) as caught:
        await trial.report(y=1, step=2**70)
    assert caught.value.field_violations[0][0] == "step"


async def test_a_result_told_again_after_an_unknown_fate_is_the_same_request(service):
    async with at.Client(service.target, retry_for=0) as client:
        study = await client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")])
        (trial,) = (await study.ask_once(request_id="mine")).trials
        service.fail("Tell", *[unavailable()] * 5)
        with pytest.raises(at.Unavailable):
            await trial.tell(y=1)
        service.scripted["Tell"].clear()
        await trial.tell(y=1)
    assert service.requests["Ask"][0].request_id == "mine"
    assert len({request.request_id for request in service.requests["Tell"]}) == 1


async def test_retries_end_when_the_patience_ends(service):
    service.fail("GetStudy", *[unavailable()] * 1000)
    async with at.Client(service.target, retry_for=0.5) as client:
        with pytest.raises(at.Unavailable, match="restarting"):
            await client.get_study("s")


async def test_an_error_has_reason_and_code(client):
    with pytest.raises(at.NotFound) as caught:
        await client.get_study("nowhere")
    assert caught.value.reason == "STUDY_NOT_FOUND"


async def test_a_closed_client_says_so(client, study):
    await client.close()
    with pytest.raises(at.Cancelled, match="closed"):
        await study.ask()


async def test_closing_the_client_ends_a_call_as_closed_and_not_as_a_cancelled_task(service, client, study):
    stuck, original = threading.Event(), service.study
    service.study = lambda *args: stuck.wait(60) and original(*args)
    try:
        call = asyncio.create_task(study.ask())
        await asyncio.to_thread(service.wait_for, "Ask", 1)
        await client.close()
        with pytest.raises(at.Cancelled, match="closed"):
            await call
    finally:
        stuck.set()


def test_a_client_is_for_one_event_loop(service):
    client = at.Client(service.target)
    assert asyncio.run(client.list_studies()) == []
    with pytest.raises(at.FailedPrecondition, match="another event loop"):
        asyncio.run(client.list_studies())


async def test_trials_runs_until_the_study_is_closed(service, study):
    service.waits.append(0.01)
    async for trial in study.trials():
        assert not (await trial.report(step=0, y=1)).should_stop
        await trial.tell(y=trial.parameters["x"])
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED] * 3
    assert (await study.best_trial()).number == 1
    assert list((await study.to_dataframe())["number"]) == [1, 2, 3]


async def test_leaving_the_loop_gives_the_trial_back(service, study):
    async with aclosing(study.trials()) as trials:
        async for _ in trials:
            break
    assert states(service) == [pb2.Trial.STATE_QUEUED]


async def test_a_turn_that_tells_nothing_is_an_error_at_the_next(service, study):
    with pytest.raises(at.FailedPrecondition, match="trial 1 was left without a result"):
        async for _ in study.trials():
            pass
    assert states(service) == [pb2.Trial.STATE_QUEUED]


async def test_an_exception_in_a_trial_is_told_as_a_failure(service, study):
    async for trial in study.trials(on_error="continue"):
        async with trial:
            if trial.number == 2:
                raise RuntimeError("odd")
            await trial.tell(y=1)
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED, pb2.Trial.STATE_FAILED, pb2.Trial.STATE_SUCCEEDED]


async def test_cancelling_a_task_gives_its_trial_back(service, study):
    started = asyncio.Event()

    async def objective(trial):
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(study.optimize(objective))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert states(service) == [pb2.Trial.STATE_QUEUED]


async def test_optimize_evaluates_at_most_count_trials(service, study):
    seen = []

    async def objective(trial):
        return trial.parameters["x"]

    await study.optimize(objective, count=2, callbacks=[lambda study, trial: seen.append(trial.number)])
    assert seen == [1, 2]
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED] * 2


async def test_nan_that_an_objective_returns_is_a_failure(service, study):
    async def objective(trial):
        return math.nan

    await study.optimize(objective, count=1)
    assert states(service) == [pb2.Trial.STATE_FAILED]
    assert (await study.get_trial(1)).message == "y is NaN, which is no result"


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (None, at.FailedPrecondition, "returned None for trial 1"),
        ([0.5], at.InvalidArgument, "is not a number"),
        ({"Y": 0.5}, at.InvalidArgument, "is an objective and missing"),
    ],
)
async def test_an_objective_that_returns_no_result_ends_at_its_first_trial(service, study, result, error, words):
    async def objective(trial):
        return result

    with pytest.raises(error, match=words) as caught:
        await study.optimize(objective)
    assert "another would fail alike" in caught.value.__notes__[0]
    assert states(service) == [pb2.Trial.STATE_FAILED]


async def test_an_objective_that_is_no_coroutine_function_ends_at_its_first_trial(service, study):
    with pytest.raises(at.InvalidArgument, match=r"objective: .* returned 0.5, which cannot be awaited; write `async"):
        await study.optimize(lambda trial: 0.5)
    assert states(service) == [pb2.Trial.STATE_FAILED]


async def test_optimize_gives_up_after_three_failures_in_a_row_with_the_last_exception(service, client):
    study = await client.create_study(
        "s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], max_trials=9
    )

    async def broken(trial):
        raise TypeError(f"trial {trial.number}")

    with pytest.raises(TypeError, match="trial 3") as caught:
        await study.optimize(broken)
    assert caught.value.__notes__[0].startswith("trials 1, 2, 3 all failed, and none has succeeded; the objective is")
    await study.optimize(broken, give_up_after=None, count=4)
    assert states(service) == [pb2.Trial.STATE_FAILED] * 7


async def test_failures_after_a_success_are_a_matter_of_the_parameters(service, client):
    study = await client.create_study(
        "s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], max_trials=9
    )

    async def objective(trial):
        if trial.number != 1:
            raise ValueError("bad luck")
        return 1.0

    await study.optimize(objective, count=5)
    assert states(service).count(pb2.Trial.STATE_FAILED) == 4


async def test_an_objective_that_takes_no_trial_is_refused_before_one_is_asked_for(service, study):
    async def objective(parameters, trial):
        return 1.0

    with pytest.raises(
        at.InvalidArgument, match=r"objective takes \(parameters, trial\); study.optimize calls it with"
    ):
        await study.optimize(objective)
    assert "Ask" not in service.requests


async def test_a_pair_that_an_objective_returns_is_said_once_to_be_a_value_with_its_standard_error(study, caplog):
    async def objective(trial):
        return 0.25, 0.5

    await study.optimize(objective)
    assert len(caplog.records) == 1
    assert "taken as y 0.25 with the standard error 0.5" in caplog.text


async def test_a_loop_that_is_handed_no_trial_says_why_and_what_helps(study, caplog):
    async def objective(trial):
        return 1.0

    await study.optimize(objective)
    assert not caplog.records
    await study.optimize(objective)
    assert [record.message for record in caplog.records] == [
        "study 's' hands out no more trials: its budget is spent; study.update(max_trials=...) raises it"
    ]


async def test_a_report_without_the_metric_of_the_stopping_rule_is_warned_of_once(client, caplog):
    study = await client.create_study(
        "s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], stopping_rule=at.MedianRule()
    )
    (trial,) = await study.ask()
    for step in (1, 2):
        await trial.report(step=step, z=0.5)
    assert [record.message for record in caplog.records] == [
        "study 's': its stopping rule watches y, and a report has but z: a trial that does not report y is never stopped early"
    ]


async def test_optimize_drops_a_result_that_comes_too_late(service, study):
    service.fail("Tell", precondition("trial 1: the lease was lost", "LEASE_LOST"))

    async def objective(trial):
        return 1.0

    await study.optimize(objective, on_error="raise")
    assert states(service)[1:] == [pb2.Trial.STATE_SUCCEEDED] * 2


async def test_a_trial_that_was_asked_to_stop_is_told_as_stopped(service, study):
    service.directives[1] = STOP
    (trial,) = await study.ask()
    assert (await trial.report(step=1, y=0.9)).should_stop
    await trial.tell(y=0.9)
    assert (trial.state, trial.message) == (at.TrialState.STOPPED, "no longer promising")


async def test_a_checkpoint_is_a_report_without_measurements(service, study):
    (trial,) = await study.ask()
    assert not (await trial.checkpoint("file:///a")).should_stop
    (request,) = service.requests["Report"]
    assert (request.checkpoint_uri, list(request.measurements)) == ("file:///a", [])
    await trial.fail("broke", retry=True, checkpoint_uri="file:///b")
    assert trial.checkpoint_uri == "file:///b"


async def test_leases_are_renewed_in_the_background_until_lost(service, study):
    service.fail("RenewLeases", *[unavailable()] * 5)
    (trial,) = await study.ask(lease_duration=0.06)
    async with trial.keep_alive():
        await asyncio.to_thread(service.wait_for, "RenewLeases", 8)
        assert not trial.lost
        service.directives[1] = ABANDON
        calls = len(service.requests["RenewLeases"])
        await asyncio.to_thread(service.wait_for, "RenewLeases", calls + 1)
        while not trial.lost:
            await asyncio.sleep(0)
    assert trial.message == "leased to another worker"


async def test_lists_go_through_all_pages(study):
    await study.ask(3)
    assert [trial.number for trial in await study.list_trials()] == [1, 2, 3]


async def test_a_watch_goes_on_where_it_broke(service, study):
    await study.ask(3)
    async with aclosing(study.watch()) as changes:
        seen = [(await anext(changes)).sequence for _ in range(3)]
    assert seen == [1, 2, 3]
    assert [request.after_sequence for request in service.requests["WatchStudy"]] == [0, 2]


async def test_a_watch_up_to_a_sequence_number_ends_there(study):
    await study.ask(3)
    assert [change.sequence async for change in study.watch(until=3)] == [1, 2, 3]


async def test_a_watch_that_is_turned_away_tries_again(service, study):
    await study.ask()
    service.fail("WatchStudy", *[unavailable()] * 6)
    assert [change.sequence async for change in study.watch(until=1)] == [1]


async def test_a_closed_client_ends_its_watches(study, client):
    await study.ask()
    async with aclosing(study.watch()) as changes:
        await anext(changes)
        await client.close()
        with pytest.raises(at.Cancelled) as caught:
            await anext(changes)
    assert caught.value.reason == "CLIENT_CLOSED"
