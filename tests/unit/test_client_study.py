"""Studies and trials as a program drives them, against a service in memory."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy
import pandas
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from asktell import client as at
from asktell.client import closure
from asktell.client.study import Study
from asktell.v1 import trial_service_pb2 as pb2
from tests.unit.client_fake import precondition, refusal, serving, tick, unavailable

STOP = (pb2.DIRECTIVE_STOP, "no longer promising")
ABANDON = (pb2.DIRECTIVE_ABANDON, "leased to another worker")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def service():
    with serving() as service:
        yield service


@pytest.fixture
def client(service):
    with at.Client(service.target, retry_for=30) as client:
        yield client


@pytest.fixture
def study(client):
    return new_study(client)


def new_study(client, **options):
    defaults = {"parameters": [at.Float("x", 0, 1)], "objectives": [at.Minimize("y")], "max_trials": 3}
    return client.create_study("s", **(defaults | options))


def states(service):
    return [trial.state for trial in service.trials["projects/default/studies/s"].values()]


def test_a_study_is_created_with_all_that_was_asked(client):
    study = new_study(
        client,
        objectives=[at.Maximize("accuracy"), at.Minimize("latency")],
        policy="random",
        seed=7,
        max_duration=3600,
        max_failures=2,
        max_parallel=4,
        lease_duration=timedelta(seconds=30),
        max_attempts=5,
        late_tells="refuse",
        labels={"team": "vision"},
    )
    assert (study.id, study.name) == ("s", "projects/default/studies/s")
    assert study.parameters == (at.Float("x", 0, 1),)
    assert study.objectives == (at.Maximize("accuracy"), at.Minimize("latency"))
    assert (study.policy, study.seed, study.labels) == ("random", 7, {"team": "vision"})
    assert study.budget == at.Budget(max_trials=3, max_duration=timedelta(hours=1), max_failures=2, max_parallel=4)
    assert study.lease_duration == timedelta(seconds=30)
    assert (study.record.max_attempts, study.record.late_tells) == (5, at.LateTells.REFUSE)
    assert study.state is at.StudyState.ACTIVE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objectives": at.Minimize("loss")}, r"objectives: Minimize\(.* is a Minimize, not a list: write \[Minimize"),
        ({"objectives": ["loss"]}, r"objectives\[0\]: 'loss' is a str, which cannot stand there: write \[Minimize"),
        ({"parameters": at.Bool("x")}, "parameters: Bool.* not a list"),
        ({"outcome_constraints": ["latency <= 50"]}, r"outcome_constraints\[0\]: .* write \[AtMost"),
        ({"constraints": "x <= y"}, "constraints: 'x <= y' is a str, not a list"),
        ({"warm_start": "earlier"}, "warm_start: 'earlier' is a str, not a list"),
        ({"stopping_rule": "median"}, "stopping_rule: 'median' is a str, not a stopping rule"),
    ],
)
def test_a_study_of_other_things_than_lists_of_specs_is_refused_with_how_to_write_it(service, client, options, words):
    with pytest.raises(at.InvalidArgument, match=words):
        new_study(client, **options)
    assert not service.requests


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda study: study.predict({"x": 0.5}), r"points: {'x': 0.5} is a dict, not a list: write \[{"),
        (lambda study: study.predict(["x"]), r"points\[0\]: 'x' is a str"),
        (lambda study: study.enqueue([{"x": 0.5}]), r"trials\[0\].parameters: \[.* is a list, not a dict of values"),
        (lambda study: study.enqueue_all({"x": 0.5}), "trials: .* is a dict, not a list"),
        (lambda study: study.import_trials([{"x": 0.5}]), r"trials\[0\]: .* write \[FinishedTrial"),
        (lambda study: study.ask(fixed=["x"]), "fixed_parameters: .* is a list, not a dict"),
    ],
)
def test_configurations_of_another_shape_are_refused_with_how_to_write_them(study, call, words):
    with pytest.raises(at.InvalidArgument, match=words):
        call(study)


def test_ask_and_tell_are_one_call_each(service, study):
    (trial,) = study.ask(worker_id="w")
    assert (trial.number, trial.parameters, trial.worker_id, trial.attempt) == (1, {"x": 0.1}, "w", 1)
    trial.tell({"y": (0.5, 0.1)}, metadata={"host": "a"})
    assert (trial.state, trial.value(), trial.metrics["y"].standard_error) == (at.TrialState.SUCCEEDED, 0.5, 0.1)
    assert trial.metadata == {"host": "a"}
    assert {method: len(calls) for method, calls in service.requests.items()} == {"CreateStudy": 1, "Ask": 1, "Tell": 1}


def test_a_retried_ask_repeats_its_request_id_and_yields_one_trial(service, study):
    service.fail("Ask", *[unavailable()] * 9)
    (trial,) = study.ask()
    sent = service.requests["Ask"]
    assert len(sent) == 10
    assert len({request.request_id for request in sent}) == 1
    assert sent[0].request_id
    assert trial.number == 1
    assert len(states(service)) == 1


@pytest.mark.parametrize("method", ["Tell", "AddTrials"])
def test_a_retried_tell_or_add_repeats_its_request_id(service, study, method):
    (trial,) = study.ask()
    service.fail(method, *[unavailable()] * 5)
    trial.tell(y=1)
    study.enqueue({"x": 0.5})
    sent = service.requests[method]
    assert len(sent) == 6
    assert len({request.request_id for request in sent}) == 1


def test_an_ask_with_the_id_of_an_earlier_one_gets_the_same_trials(service, study):
    first = study.ask_once(2, request_id="mine")
    again = study.ask_once(2, request_id="mine")
    assert [trial.number for trial in again.trials] == [trial.number for trial in first.trials] == [1, 2]
    assert len(states(service)) == 2


@pytest.mark.parametrize(
    "tell",
    [
        lambda trial: trial.tell(y=float("nan")),
        lambda trial: trial.fail("boom"),
        lambda trial: trial.infeasible("no"),
        lambda trial: trial.stop({"y": 1}),
    ],
    ids=["tell", "fail", "infeasible", "stop"],
)
def test_a_result_told_again_after_an_unknown_fate_is_the_same_request(service, tell):
    with at.Client(service.target, retry_for=0) as client:
        (trial,) = new_study(client).ask()
        service.fail("Tell", *[unavailable()] * 5)
        with pytest.raises(at.Unavailable):
            tell(trial)
        # What the service says in the meantime changes nothing in a call that it may have carried out.
        service.directives[1] = STOP
        trial.renew()
        service.scripted["Tell"].clear()
        tell(trial)
    assert len({request.SerializeToString(deterministic=True) for request in service.requests["Tell"]}) == 1


def test_results_told_together_are_one_request_however_often_it_is_sent(service, study):
    trials = study.ask(3)
    service.fail("Tell", *[unavailable()] * 2)
    study.tell_all(zip(trials, [1, 2, 3], strict=True))
    sent = service.requests["Tell"]
    assert len({request.SerializeToString(deterministic=True) for request in sent}) == 1
    assert (len(sent), sent[0].independent, len(sent[0].request_id)) == (3, True, 32)
    assert [trial.value() for trial in trials] == [1, 2, 3]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (lambda trials: [], "results: has 0 results; 1 to 1,000 are allowed"),
        (lambda trials: trials, r"results\[0\]: is no pair of a trial and its metrics.* it is Trial"),
        (lambda trials: [(trials[0], 1), (0.5, trials[1])], r"results\[1\]: is no pair.* it is tuple"),
        (
            lambda trials: [(trials[0], 1), (trials[1], {"z": 1})],
            r"results\[1\].metrics\[y\]: is an objective and missing",
        ),
        (lambda trials: [(trials[0], 1), (trials[1], "b")], r"results\[1\].metrics\[y\]: 'b' is text, not a number"),
        (lambda trials: [(trials[0], 1), (trials[0], 2)], r"results\[1\]: trial 1 stands there twice"),
    ],
)
def test_results_of_another_shape_are_refused_with_their_place_and_nothing_is_told(service, study, results, words):
    trials = study.ask(2)
    with pytest.raises(at.InvalidArgument, match=words):
        study.tell_all(results(trials))
    assert not service.requests["Tell"]


def test_results_of_another_study_are_not_told_together(service, client, study):
    (mine,), (other,) = (
        study.ask(),
        client.create_study("other", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")]).ask(),
    )
    with pytest.raises(
        at.InvalidArgument, match=r"results\[1\]: projects/default/studies/other/trials/1 is of another"
    ):
        study.tell_all([(mine, 1), (other, 1)])
    assert not service.requests["Tell"]


def test_another_result_after_an_unknown_fate_is_another_request(service):
    with at.Client(service.target, retry_for=0) as client:
        (trial,) = new_study(client).ask()
        service.fail("Tell", *[unavailable()] * 5)
        with pytest.raises(at.Unavailable):
            trial.tell(y=1)
        service.scripted["Tell"].clear()
        trial.tell(y=2)
    requests = service.requests["Tell"]
    assert requests[0].request_id != requests[-1].request_id
    assert requests[-1].results[0].succeeded.metrics["y"].value == 2


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (lambda trial: trial.tell({"y": 1, "\ud800": 1}), "metrics[\\ud800]"),
        (lambda trial: trial.tell(y=1, metadata={"a": 1}), "metadata[a]"),
        (lambda trial: trial.fail("\ud800"), "message"),
        (lambda trial: trial.report(y=1, step=2**70), "step"),
        (lambda trial: trial.report(y=1, step=0.5), "step"),
        (lambda trial: trial.report({"\ud800": 1}, step=1), "metrics[\\ud800]"),
        (lambda trial: trial.report(y=1, step=1, checkpoint_uri="\ud800"), "checkpoint_uri"),
        (lambda trial: trial.release(checkpoint_uri="\ud800"), "checkpoint_uri"),
    ],
)
def test_what_the_protocol_cannot_carry_is_refused_with_its_field_and_sends_nothing(service, study, act, field):
    (trial,) = study.ask()
    with pytest.raises(at.InvalidArgument) as caught:
        act(trial)
    assert caught.value.field_violations[0][0] == field
    str(caught.value).encode()
    trial.tell(y=1)
    assert (len(service.requests["Tell"]), len(service.requests["Report"])) == (1, 0)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"count": 2**40}, "count"),
        ({"worker_id": "\ud800"}, "worker_id"),
        ({"lease_duration": 1e300}, "lease_duration"),
        ({"fixed": {"\ud800": 1}}, "fixed_parameters[\\ud800]"),
    ],
)
def test_an_ask_that_the_protocol_cannot_carry_is_refused_with_its_field(study, options, field):
    with pytest.raises(at.InvalidArgument) as caught:
        study.ask(**options)
    assert caught.value.field_violations[0][0] == field


def test_a_study_that_the_protocol_cannot_carry_is_refused_with_its_field(client):
    for options, field in [
        ({"seed": 2**70}, "seed"),
        ({"labels": {"team": "\ud800"}}, "labels[team]"),
        ({"max_trials": 2**70}, "budget.max_trials"),
        ({"parameters": [at.Int("n", 0, 2**70)]}, "n.high"),
        ({"objectives": [at.Minimize("\ud800")]}, "metric"),
    ]:
        with pytest.raises(at.InvalidArgument) as caught:
            new_study(client, **options)
        assert caught.value.field_violations[0][0] == field


def test_an_exception_whose_text_cannot_be_encoded_is_told_as_a_failure(service, study):
    def objective(_trial):
        raise ValueError("\ud800")

    study.optimize(objective, count=1)
    assert states(service) == [pb2.Trial.STATE_FAILED]
    assert study.get_trial(1).message == "ValueError: \\ud800"


def test_two_asks_have_two_request_ids(service, study):
    study.ask()
    study.ask()
    assert len({request.request_id for request in service.requests["Ask"]}) == 2


def test_retries_end_when_the_patience_ends(service, monkeypatch):
    tick(monkeypatch, 0.2)
    service.fail("GetStudy", *[unavailable()] * 1000)
    with at.Client(service.target, retry_for=0.5) as client, pytest.raises(at.Unavailable, match="restarting"):
        client.get_study("s")
    assert len(service.requests["GetStudy"]) > 4


def test_a_busy_service_is_asked_again_when_it_says(service, study):
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
    service.fail("Ask", refusal(code_pb2.RESOURCE_EXHAUSTED, "busy", delay))
    (trial,) = study.ask()
    assert trial.number == 1


def test_a_message_that_is_too_large_is_not_sent_again(service, study):
    service.fail("Ask", refusal(code_pb2.RESOURCE_EXHAUSTED, "too large"))
    with pytest.raises(at.ResourceExhausted):
        study.ask()
    assert len(service.requests["Ask"]) == 1


def test_each_call_has_a_deadline(service, study):
    with at.Client(service.target, timeout=0.2, retry_for=0) as client:
        # Created with patience: the one call that is hasty is the one that cannot be met.
        study = Study(study.record, connection=client._connection, keeper=client._keeper)
        stuck = threading.Event()
        original, service.study = service.study, lambda *args: stuck.wait(60) and original(*args)
        try:
            with pytest.raises(at.DeadlineExceeded):
                study.ask()
        finally:
            stuck.set()


def test_the_reason_for_no_trial_is_told(service, study):
    answer = study.ask_once(5)
    assert ([trial.number for trial in answer.trials], answer.closed) == ([1, 2, 3], True)
    assert answer.reason is at.Reason.BUDGET_SPENT


def test_a_trial_is_told_once(study):
    (trial,) = study.ask()
    trial.tell(1.0)
    with pytest.raises(at.FailedPrecondition, match="trial 1 was ended here before: it is succeeded"):
        trial.tell(1.0)


def test_a_tell_that_was_refused_locally_can_be_mended(service, study):
    (trial,) = study.ask()
    with pytest.raises(at.InvalidArgument, match=r"metrics\[y\]"):
        trial.tell(z=1)
    assert not service.requests["Tell"]
    trial.tell(y=1, z=2)
    assert trial.state is at.TrialState.SUCCEEDED


def test_a_trial_that_was_not_asked_for_cannot_be_told(study):
    enqueued = study.enqueue({"x": 0.5})
    with pytest.raises(at.FailedPrecondition, match="not asked for here"):
        enqueued.tell(1.0)


def test_a_queued_trial_is_cancelled_without_a_lease(study):
    enqueued = study.enqueue({"x": 0.5})
    enqueued.cancel()
    assert enqueued.state is at.TrialState.CANCELLED


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda trial: trial.fail("broke"), at.TrialState.FAILED),
        (lambda trial: trial.infeasible("broke"), at.TrialState.INFEASIBLE),
        (lambda trial: trial.stop({"y": 1}, message="broke"), at.TrialState.STOPPED),
    ],
)
def test_a_trial_can_end_without_success(study, end, state):
    (trial,) = study.ask()
    end(trial)
    assert (trial.state, trial.message, trial.ended) == (state, "broke", True)


def test_a_released_trial_goes_to_the_next_worker_with_its_checkpoint(study):
    (first,) = study.ask()
    first.release(checkpoint_uri="file:///a")
    (second,) = study.ask()
    assert (second.number, second.attempt, second.checkpoint_uri) == (1, 2, "file:///a")


def test_a_checkpoint_is_a_report_without_measurements_and_hears_whether_to_go_on(service, study):
    (trial,) = study.ask()
    service.directives[1] = STOP
    assert trial.checkpoint("file:///a") == at.Report(should_stop=True, lost=False, message="no longer promising")
    (request,) = service.requests["Report"]
    assert (request.checkpoint_uri, list(request.measurements)) == ("file:///a", [])
    service.directives[1] = ABANDON
    assert trial.checkpoint("file:///b").lost
    assert trial.checkpoint("file:///c").lost
    assert len(service.requests["Report"]) == 2


def test_a_report_says_whether_to_go_on(service, study):
    (trial,) = study.ask()
    assert trial.report(step=1, y=0.9) == at.Report(should_stop=False, lost=False, message="")
    service.directives[1] = STOP
    assert trial.report({"y": 0.8}, step=2) == at.Report(should_stop=True, lost=False, message="no longer promising")
    steps = [(entry.step, entry.metrics["y"].value) for entry in study.get_trial(1).measurements]
    assert steps == [(1, 0.9), (2, 0.8)]


def test_a_trial_that_was_asked_to_stop_is_told_as_stopped(service, study):
    service.directives[1] = STOP
    (trial,) = study.ask()
    trial.report(step=1, y=0.9)
    trial.tell(y=0.9)
    assert (trial.state, trial.message, trial.value()) == (at.TrialState.STOPPED, "no longer promising", 0.9)


def test_a_lost_lease_stops_the_trial_and_refuses_its_result(service, study):
    (trial,) = study.ask()
    service.directives[1] = ABANDON
    assert trial.report(step=1, y=1) == at.Report(should_stop=True, lost=True, message="leased to another worker")
    assert trial.report(step=2, y=1).lost
    assert len(service.requests["Report"]) == 1
    service.trials[study.name][1].lease.token = "another"
    with pytest.raises(at.FailedPrecondition, match="lease was lost"):
        trial.tell(y=1)


def test_trials_runs_until_the_study_is_closed(service, study):
    for trial in study.trials(worker_id="gpu-0"):
        trial.tell(y=trial.parameters["x"])
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED] * 3
    assert {request.worker_id for request in service.requests["Ask"]} == {"gpu-0"}


def test_trials_waits_while_there_is_none_for_now(service, study):
    service.waits.extend([0.01, 0.01])
    numbers = []
    for trial in study.trials():
        numbers.append(trial.number)
        trial.tell(y=1)
    assert numbers == [1, 2, 3]
    assert len(service.requests["Ask"]) == 6


def test_closing_the_client_ends_the_wait_for_a_trial(service, client, study):
    service.waits.append(3600)
    closer = threading.Thread(target=lambda: service.wait_for("Ask", 1) and client.close())
    closer.start()
    with pytest.raises(at.Cancelled, match="closed"):
        next(study.trials())
    closer.join()


def test_leaving_the_loop_gives_the_trial_back(service, study):
    for _ in study.trials():
        break
    assert states(service) == [pb2.Trial.STATE_QUEUED]


def test_a_turn_that_tells_nothing_is_an_error_at_the_next(service, study):
    with pytest.raises(at.FailedPrecondition, match="trial 1 was left without a result"):
        for _ in study.trials():
            pass
    assert states(service) == [pb2.Trial.STATE_QUEUED]


def test_a_turn_that_only_stops_tells_the_trial_as_stopped(service, study):
    service.directives[1] = STOP
    for trial in study.trials():
        if trial.report(step=0, y=1).should_stop:
            continue
        trial.tell(y=1)
    assert states(service) == [pb2.Trial.STATE_STOPPED, *[pb2.Trial.STATE_SUCCEEDED] * 2]


def test_a_turn_that_lost_its_trial_goes_on_with_the_next(service, study):
    service.directives[1] = ABANDON
    for trial in study.trials():
        if not trial.report(step=0, y=1).lost:
            trial.tell(y=1)
    assert states(service)[1:] == [pb2.Trial.STATE_SUCCEEDED] * 2
    assert not service.requests["ReleaseTrial"]


def test_a_turn_whose_stop_comes_too_late_goes_on_with_the_next(service, study):
    service.directives[1] = STOP
    service.fail("Tell", precondition("trial 1 is cancelled, not active", "TRIAL_ENDED"))
    for trial in study.trials():
        if not trial.report(step=0, y=1).should_stop:
            trial.tell(y=1)
    assert states(service)[1:] == [pb2.Trial.STATE_SUCCEEDED] * 2


def test_a_turn_whose_result_was_refused_since_its_lease_is_lost_goes_on_with_the_next(service, study):
    service.fail("Tell", precondition("trial 1: the lease was lost", "LEASE_LOST"))
    refused = []
    for trial in study.trials():
        try:
            trial.tell(y=1)
        except at.FailedPrecondition as refusal:
            refused.append((refusal.reason, trial.lost))
    assert refused == [("LEASE_LOST", True)]
    assert states(service)[1:] == [pb2.Trial.STATE_SUCCEEDED] * 2
    assert not service.requests["ReleaseTrial"]


def test_an_exception_in_a_trial_is_told_as_a_failure_and_raised(service, study):
    def work():
        for trial in study.trials():
            with trial:
                _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    (told,) = service.trials[study.name].values()
    assert (told.state, told.message) == (pb2.Trial.STATE_FAILED, "ZeroDivisionError: division by zero")


def test_with_continue_the_loop_survives_exceptions(service, study):
    for trial in study.trials(on_error="continue"):
        with trial:
            if trial.number == 2:
                raise RuntimeError("odd")
            trial.tell(y=1)
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED, pb2.Trial.STATE_FAILED, pb2.Trial.STATE_SUCCEEDED]


def test_an_exception_after_the_tell_leaves_the_result(service, study):
    (trial,) = study.ask()

    def work():
        with trial:
            trial.tell(y=1)
            raise RuntimeError("late")

    with pytest.raises(RuntimeError, match="late"):
        work()
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_gives_the_trial_back(service, study, interruption):
    def interrupted(trial):
        raise interruption

    with pytest.raises(interruption):
        study.optimize(interrupted)
    assert states(service) == [pb2.Trial.STATE_QUEUED]


def test_an_interruption_does_not_wait_for_a_service_that_is_away(service, study):
    service.fail("ReleaseTrial", *[unavailable()] * 1000)
    (trial,) = study.ask()
    with pytest.raises(KeyboardInterrupt), trial:
        raise KeyboardInterrupt
    assert len(service.requests["ReleaseTrial"]) <= 4


def test_optimize_evaluates_until_the_study_is_closed(service, study):
    seen = []
    study.optimize(lambda trial: trial.parameters["x"], callbacks=[lambda study, trial: seen.append(trial.value())])
    assert seen == pytest.approx([0.1, 0.2, 0.3])
    assert study.best_trial.number == 1


def test_optimize_evaluates_at_most_count_trials(service, study):
    study.optimize(lambda trial: {"y": 1}, count=2)
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED] * 2
    assert len(service.requests["Ask"]) == 2


def test_optimize_tells_exceptions_and_goes_on(service, study):
    def objective(trial):
        if trial.number == 1:
            raise ValueError("bad luck")
        return (1.0, 0.1)

    study.optimize(objective)
    assert states(service) == [pb2.Trial.STATE_FAILED, *[pb2.Trial.STATE_SUCCEEDED] * 2]
    assert study.get_trial(1).message == "ValueError: bad luck"


def test_optimize_raises_when_asked_to(service, study):
    def objective(trial):
        raise ValueError("bad luck")

    with pytest.raises(ValueError, match="bad luck"):
        study.optimize(objective, on_error="raise")
    assert states(service) == [pb2.Trial.STATE_FAILED]


def test_nan_that_an_objective_returns_is_a_failure_but_infinity_a_value(service, study):
    returned = iter([math.nan, {"y": math.nan, "size": 3}, math.inf])
    study.optimize(lambda trial: next(returned), on_error="raise")
    assert states(service) == [*[pb2.Trial.STATE_FAILED] * 2, pb2.Trial.STATE_SUCCEEDED]
    assert study.get_trial(1).message == "y is NaN, which is no result"
    assert study.get_trial(2).message == "y is NaN, which is no result; besides it was size=3"


def test_nan_that_a_script_tells_itself_is_kept(service, study):
    (trial,) = study.ask()
    trial.tell(y=math.nan)
    assert trial.state is at.TrialState.SUCCEEDED
    assert math.isnan(trial.value())


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (None, at.FailedPrecondition, "returned None for trial 1"),
        ([0.5], at.InvalidArgument, r"metrics\[y\]: \[0.5\] is not a number"),
        ((0.5, 0.1, 0.2), at.InvalidArgument, "is not a pair of mean and standard error"),
        ({"Y": 0.5}, at.InvalidArgument, r"metrics\[y\]: is an objective and missing; given: Y"),
        ("0.5", at.InvalidArgument, "is text, not a number"),
    ],
)
def test_an_objective_that_returns_no_result_ends_at_its_first_trial(service, client, result, error, words):
    study = new_study(client, max_trials=30)
    with pytest.raises(error, match=words) as caught:
        study.optimize(lambda trial: result)
    assert states(service) == [pb2.Trial.STATE_FAILED]
    assert caught.value.__notes__ == [
        "trial 1 is told as failed, and another would fail alike: it is what the objective returns"
    ]
    assert str(caught.value) in study.get_trial(1).message


def test_what_is_no_result_after_a_success_is_a_failed_trial(service, study):
    returned = iter([1.0, None, [2.0]])
    study.optimize(lambda trial: next(returned))
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED, *[pb2.Trial.STATE_FAILED] * 2]


def test_optimize_gives_up_after_three_failures_in_a_row_with_the_last_exception(service, client):
    study, seen = new_study(client, max_trials=30), []

    def broken(trial):
        seen.append(trial.number)
        raise TypeError(f"train() got an unexpected keyword argument in trial {trial.number}")

    with pytest.raises(TypeError, match="in trial 3") as caught:
        study.optimize(broken)
    assert seen == [1, 2, 3]
    assert states(service) == [pb2.Trial.STATE_FAILED] * 3
    assert caught.value.__notes__ == [
        (
            "trials 1, 2, 3 all failed, and none has succeeded; the objective is likely at fault"
            " (give_up_after=None goes on all the same)"
        )
    ]


def test_optimize_gives_up_when_it_is_told_to(service, client):
    study = new_study(client, max_trials=6)

    def broken(trial):
        raise ValueError("bad luck")

    with pytest.raises(ValueError, match="bad luck") as caught:
        study.optimize(broken, give_up_after=1)
    assert caught.value.__notes__[0].startswith("trial 1 failed, and none has succeeded; the objective")
    with pytest.raises(at.InvalidArgument, match="give_up_after: must be at least 1, or None"):
        study.optimize(broken, give_up_after=0)
    study.optimize(broken, give_up_after=None, count=4)
    study.optimize(lambda trial: None, give_up_after=None)
    assert states(service) == [pb2.Trial.STATE_FAILED] * 6


def test_three_losses_of_nan_in_a_row_are_an_error_too(service, client):
    study = new_study(client, max_trials=30)
    with pytest.raises(at.FailedPrecondition, match="trial 3 failed: y is NaN, which is no result") as caught:
        study.optimize(lambda trial: math.nan, on_error="raise")
    assert caught.value.reason == "OBJECTIVE_FAILS"
    assert "likely at fault" in caught.value.__notes__[0]
    assert states(service) == [pb2.Trial.STATE_FAILED] * 3


def test_failures_after_a_success_are_a_matter_of_the_parameters(service, client):
    study = new_study(client, max_trials=9)

    def objective(trial):
        if trial.number != 3:
            raise ValueError("bad luck")
        return 1.0

    study.optimize(objective)
    assert states(service).count(pb2.Trial.STATE_FAILED) == 8


def test_an_infeasible_trial_begins_the_row_of_failures_anew(service, client):
    study = new_study(client, max_trials=6)

    def objective(trial):
        if trial.number == 3:
            return trial.infeasible("no")
        raise ValueError("bad luck")

    with pytest.raises(ValueError, match="bad luck") as caught:
        study.optimize(objective)
    assert caught.value.__notes__[0].startswith("trials 4, 5, 6 all failed")


def test_a_service_out_of_reach_is_no_failure_in_the_row(service, client):
    study, tries = new_study(client, max_trials=1), []

    def objective(trial):
        tries.append(trial.number)
        if len(tries) < 5:
            raise at.Unavailable("restarting")
        return 1.0

    study.optimize(objective)
    assert states(service) == [pb2.Trial.STATE_SUCCEEDED]


def test_a_loop_that_is_handed_no_trial_says_why_and_what_helps(study, caplog):
    study.optimize(lambda trial: 1.0)
    assert not caplog.records
    study.optimize(lambda trial: 1.0)
    assert [record.message for record in caplog.records] == [
        "study 's' hands out no more trials: its budget is spent; study.update(max_trials=...) raises it"
    ]


@pytest.mark.parametrize(
    ("reason", "budget", "said"),
    [
        (at.Reason.FINISHED, {}, "it is finished; study.resume() opens it again"),
        (
            at.Reason.EXHAUSTED,
            {},
            "every configuration that it may hand out is taken; study.update(parameters=[...]) widens its space",
        ),
        (
            at.Reason.BUDGET_SPENT,
            {"max_failures": 2, "max_trials": 10},
            "its budget is spent; study.update(max_failures=...) raises it",
        ),
        (
            at.Reason.BUDGET_SPENT,
            {"max_failures": 3, "max_trials": 2, "max_duration": timedelta(hours=1)},
            "its budget is spent; study.update(max_trials=..., max_duration=...) raises it",
        ),
        (
            at.Reason.BUDGET_SPENT,
            {"max_duration": timedelta(hours=3)},
            "its budget is spent; study.update(max_duration=...) raises it",
        ),
    ],
)
def test_each_reason_for_no_more_trials_has_its_remedy(study, caplog, reason, budget, said):
    record = replace(study.record, budget=at.Budget(**budget), counts=at.TrialCounts(failed=2), create_time=BEGAN)
    closure.say(record, reason, now=BEGAN + timedelta(hours=2))
    assert [each.message for each in caplog.records] == [f"study 's' hands out no more trials: {said}"]


def test_a_loop_that_fixes_parameters_says_that_it_is_these_of_which_there_are_no_more(study, caplog):
    closure.say(study.record, at.Reason.EXHAUSTED, now=BEGAN, fixed=True)
    assert [each.message for each in caplog.records] == [
        "study 's' hands out no more trials with these fixed parameters: all of them are taken"
    ]


def test_a_report_without_the_metric_of_the_stopping_rule_is_warned_of_once(client, caplog):
    study = new_study(client, stopping_rule=at.MedianRule(metric="val_loss", goal="minimize"))
    for trial in study.ask(2):
        trial.report(step=1, val_los=0.5, lr=0.1)
        trial.report(step=2, val_los=0.4)
    assert [record.message for record in caplog.records] == [
        (
            "study 's': its stopping rule watches val_loss, and a report has but val_los, lr:"
            " a trial that does not report val_loss is never stopped early"
        )
    ]


@pytest.mark.parametrize("rule", [None, at.MedianRule()])
def test_a_report_of_what_is_watched_or_to_no_rule_is_warned_of_by_nobody(client, caplog, rule):
    (trial,) = new_study(client, stopping_rule=rule).ask()
    trial.report(step=1, y=0.5)
    trial.report(step=2, checkpoint_uri="file:///a")
    trial.report({"y" if rule else "z": 0.4}, step=3)
    assert not caplog.records


def test_an_objective_may_end_its_trial_itself(service, study):
    study.optimize(lambda trial: trial.infeasible("no"))
    assert states(service) == [pb2.Trial.STATE_INFEASIBLE] * 3


def test_optimize_drops_a_result_that_comes_too_late(service, study):
    service.fail("Tell", precondition("trial 1: the lease was lost", "LEASE_LOST"))
    study.optimize(lambda trial: 1.0, on_error="raise")
    assert states(service)[1:] == [pb2.Trial.STATE_SUCCEEDED] * 2


def test_a_service_out_of_reach_is_not_the_trials_fault(service, study):
    (trial,) = study.ask()
    with pytest.raises(at.DeadlineExceeded), trial:
        raise at.DeadlineExceeded("slow")
    assert states(service) == [pb2.Trial.STATE_QUEUED]


def test_lists_go_through_all_pages(service, client, study):
    study.ask(3)[1].tell(y=1)
    assert [trial.number for trial in study.list_trials()] == [1, 2, 3]
    assert [trial.number for trial in study.list_trials([at.TrialState.ACTIVE])] == [1, 3]
    client.create_study("t", parameters=[at.Bool("b")], objectives=[at.Maximize("z")])
    assert [study.id for study in client.list_studies()] == ["s", "t"]


def test_trials_of_ones_own_are_enqueued_and_imported(service, study):
    assert study.enqueue({"x": 0.5}, metadata={"why": "hunch"}).state is at.TrialState.QUEUED
    done = study.import_trials(at.FinishedTrial(parameters={"x": i / 2000}, metrics={"y": i}) for i in range(1500))
    assert [len(request.trials) for request in service.requests["AddTrials"]] == [1, 1000, 500]
    assert (done[-1].number, done[-1].value("y")) == (1501, 1499.0)
    (first,) = study.ask()
    assert (first.number, first.metadata) == (1, {"why": "hunch"})


def test_there_is_no_best_trial_before_the_first_success(study):
    assert study.best_trial is None
    assert study.optimal_trials() == []


def test_there_is_no_best_trial_of_several_objectives(client):
    study = new_study(client, objectives=[at.Minimize("y"), at.Minimize("z")])
    with pytest.raises(at.FailedPrecondition, match="optimal_trials"):
        _ = study.best_trial


def test_trials_make_a_table(study):
    study.optimize(lambda trial: (trial.parameters["x"], 0.5))
    table = study.to_dataframe()
    assert list(table["number"]) == [1, 2, 3]
    assert list(table["parameters.x"]) == pytest.approx(list(table["metrics.y"]))
    assert set(table["metrics.y.standard_error"]) == {0.5}


def test_a_table_has_what_trials_cost_whether_they_are_feasible_and_their_notes(service, client):
    study = new_study(client, outcome_constraints=[at.AtMost("gb", 3)])
    first, second, _ = study.ask(3)
    first.tell(y=1.0, gb=2.0, metadata={"commit": "abc"})
    second.tell(y=1.0, gb=4.0)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    stored = service.trials[study.name][1]
    stored.start_time.FromDatetime(began)
    stored.end_time.FromDatetime(began + timedelta(seconds=90))
    table = study.to_dataframe()
    assert list(table["feasible"]) == [True, False, None]
    assert table["duration"][0] == timedelta(seconds=90)
    assert table["duration"].isna().tolist() == [False, True, True]
    assert table["metadata.commit"][0] == "abc"
    assert table.columns[:5].tolist() == ["number", "state", "parameters.x", "metrics.y", "metrics.gb"]


def test_a_table_without_trials_has_its_columns(client):
    study = new_study(client, outcome_constraints=[at.AtMost("gb", 3)])
    table = study.to_dataframe()
    assert len(table) == 0
    assert {"number", "state", "parameters.x", "metrics.y", "metrics.gb", "feasible", "duration"} <= set(table.columns)
    study.ask()
    assert set(study.to_dataframe().columns) == set(table.columns)


BRANCHES = (
    at.Categorical("opt", ["sgd", "adam"]),
    at.Float("momentum", 0, 1, when=("opt", ["sgd"])),
    at.Bool("nesterov", when=("opt", ["sgd"])),
)


@pytest.mark.parametrize("gap", [math.nan, pandas.NA, pandas.NaT, numpy.float32("nan")])
def test_what_a_table_lacks_of_a_parameter_under_a_condition_is_not_sent(service, client, gap):
    study = new_study(client, parameters=BRANCHES)
    row = {"opt": "adam", "momentum": gap, "nesterov": gap}
    study.enqueue(row)
    study.enqueue_all([row])
    study.import_trials([at.FinishedTrial(parameters=row, metrics={"y": 1.0})])
    sent = [list(trial.parameters) for request in service.requests["AddTrials"] for trial in request.trials]
    assert sent == [["opt"]] * 3


def test_nan_of_a_parameter_that_every_trial_has_is_left_for_the_service_to_refuse(service, study):
    study.enqueue({"x": math.nan})
    assert math.isnan(service.requests["AddTrials"][0].trials[0].parameters["x"].double_value)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (
            lambda parameters, trial: 1.0,
            (
                r"objective: <lambda> takes \(parameters, trial\); study.optimize calls it with \(trial\):"
                r" write lambda trial: objective\(trial.parameters, trial\)$"
            ),
        ),
        (lambda: 1.0, r"<lambda> takes \(\); study.optimize calls it with \(trial\)$"),
        (partial(lambda data, depth, trial: 1.0, 1), r"it takes \(depth, trial\); .*"),
        (0.5, "objective: is float, not a function of a trial"),
    ],
)
def test_an_objective_that_takes_no_trial_is_refused_before_one_is_asked_for(service, study, objective, words):
    with pytest.raises(at.InvalidArgument, match=words):
        study.optimize(objective)
    assert "Ask" not in service.requests


def test_a_coroutine_function_is_for_the_other_client(service, study):
    async def objective(trial):
        return 1.0

    with pytest.raises(
        at.InvalidArgument, match=r"is a coroutine function, which the studies of asktell\.client\.aio await"
    ):
        study.optimize(objective)
    assert "Ask" not in service.requests


def test_a_pair_that_an_objective_returns_is_said_once_to_be_a_value_with_its_standard_error(study, caplog):
    study.optimize(lambda trial: (0.25, 0.5))
    assert [record.message for record in caplog.records] == [
        (
            "study 's': the objective returned a pair, taken as y 0.25 with the standard error 0.5;"
            ' two metrics are a dict, such as {"y": 0.25, "other": 0.5}, and {"y": (0.25, 0.5)} says that a standard error is meant'
        )
    ]
    assert study.get_trial(3).metrics == {"y": at.MetricValue(0.25, 0.5)}


@pytest.mark.parametrize(
    ("options", "result"),
    [({"noisy": True}, (0.25, 0.5)), ({}, {"y": (0.25, 0.5)}), ({}, (0.25, None)), ({}, at.MetricValue(0.25, 0.5))],
)
def test_a_standard_error_that_is_meant_is_said_nothing_of(client, caplog, options, result):
    new_study(client, **options).optimize(lambda trial: result)
    assert not caplog.records


def test_a_study_is_paused_resumed_and_finished(study):
    study.pause()
    assert study.state is at.StudyState.PAUSED
    study.resume()
    assert study.state is at.StudyState.ACTIVE
    study.finish()
    assert study.state is at.StudyState.FINISHED


def test_an_update_changes_only_what_is_given(client):
    study = new_study(client, max_failures=2, labels={"a": "b"})
    study.update(max_trials=None, max_duration=60)
    assert study.budget == at.Budget(max_failures=2, max_duration=timedelta(minutes=1))
    assert study.labels == {"a": "b"}
    study.update(labels={"c": "d"})
    assert (study.labels, study.budget.max_failures) == ({"c": "d"}, 2)
    study.update(max_failures=None, label_changes={"e": "f", "c": None, "not there": None})
    assert (study.labels, study.budget) == ({"e": "f"}, at.Budget(max_duration=timedelta(minutes=1)))


def test_an_update_sends_what_is_given_and_reads_nothing_first(service, study):
    study.update(max_parallel=2, label_changes={"a": "1", "b_2": None, "c-3": "3", "d`.": None})
    study.update(labels={}, max_trials=None, max_duration=60, stopping_rule=None)
    first, second = service.requests["UpdateStudy"]
    assert list(first.update_mask.paths) == [
        "budget.max_parallel",
        "labels.a",
        "labels.b_2",
        "labels.`c-3`",
        "labels.`d``.`",
    ]
    assert (dict(first.study.labels), first.study.budget.max_parallel) == ({"a": "1", "c-3": "3"}, 2)
    assert list(second.update_mask.paths) == [
        "budget.max_trials",
        "budget.max_duration",
        "labels",
        "spec.stopping_rule",
    ]
    assert not second.study.budget.HasField("max_trials")
    assert service.requests["GetStudy"] == []


@pytest.mark.parametrize(
    ("labels", "named"),
    [({7: None}, r"^label_changes\[0\]: 7 is"), ({"\ud800": None}, "^update_mask"), ({"k": 7}, r"^labels\[k\]")],
)
def test_a_label_that_cannot_be_sent_is_named(service, study, labels, named):
    with pytest.raises(at.InvalidArgument, match=named):
        study.update(label_changes=labels)
    assert service.requests["UpdateStudy"] == []


def test_a_deleted_study_is_gone(client, study):
    study.delete()
    with pytest.raises(at.NotFound) as caught:
        client.get_study("s")
    assert caught.value.reason == "STUDY_NOT_FOUND"


def test_a_watch_goes_on_where_it_broke(service, study):
    study.ask(3)
    with closing(study.watch()) as changes:
        seen = [next(changes) for _ in range(3)]
    assert [(change.sequence, change.trial.number) for change in seen] == [(1, 1), (2, 2), (3, 3)]
    assert [request.after_sequence for request in service.requests["WatchStudy"]] == [0, 2]


def test_a_watch_up_to_a_sequence_number_ends_there(service, study):
    study.ask(3)
    assert [change.sequence for change in study.watch(until=3)] == [1, 2, 3]
    assert list(study.watch(3, until=3)) == []


@pytest.mark.parametrize("code", [code_pb2.UNAVAILABLE, code_pb2.CANCELLED])
def test_a_watch_that_is_turned_away_tries_again(service, study, code):
    study.ask()
    service.fail("WatchStudy", *[refusal(code, "not now")] * 6)
    assert [change.sequence for change in study.watch(until=1)] == [1]


def test_a_watch_gives_up_when_the_client_does(service):
    with at.Client(service.target, retry_for=0) as client:
        study = client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("loss")])
        service.fail("WatchStudy", *[unavailable()] * 50)
        with pytest.raises(at.Unavailable):
            next(study.watch())


def test_a_watch_ends_with_what_is_no_cut(service, study):
    service.fail("WatchStudy", refusal(code_pb2.NOT_FOUND, "gone"))
    with pytest.raises(at.NotFound):
        next(study.watch())


def test_a_closed_client_ends_its_watches(service, study, client):
    study.ask()
    with closing(study.watch()) as changes:
        next(changes)
        client.close()
        with pytest.raises(at.Cancelled) as caught:
            next(changes)
    assert caught.value.reason == "CLIENT_CLOSED"


def test_importing_the_client_loads_nothing_heavy():
    heavy = ["torch", "sqlalchemy", "pandas", "numpy", "structlog", "asktell.server"]
    code = f"import asktell.client, asktell.client.aio, sys; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
