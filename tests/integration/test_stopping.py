"""Stopping rules from the wire's end: what is said to reports, on both databases."""

from __future__ import annotations

import math
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from asktell.client import Client
from asktell.v1 import metric_pb2 as metric
from asktell.v1 import stopping_pb2 as stopping
from asktell.v1 import study_service_pb2 as studies
from asktell.v1 import trial_service_pb2 as trials
from tests.place import Place
from tests.wire import Wire, real, refusal, renew_request, report_request, small_study, study_of

MEDIAN = stopping.StoppingRule(median=stopping.StoppingRule.Median(min_trials=2))


def new_study(place: Place, **spec: Any) -> str:
    """The name of a new study."""
    name: str = place.wire.create(f"s{uuid.uuid4().hex}", small_study(**spec)).name
    return name


def report(wire: Wire, trial: trials.Trial, step: int, value: float) -> trials.ReportResponse:
    reply: trials.ReportResponse = wire.call("Report", report_request(trial, step, value))
    return reply


def tell_stopped(wire: Wire, trial: trials.Trial, why: str) -> trials.Trial:
    outcome = trials.TrialResult.Stopped(message=why)
    result = trials.TrialResult(number=trial.number, lease_token=trial.lease.token, stopped=outcome)
    reply: trials.TellResponse = wire.call("Tell", trials.TellRequest(parent=study_of(trial), results=[result]))
    return reply.trials[0]


def test_a_report_hears_stop_with_the_reason_and_the_trial_keeps_its_last_measurement(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    handed = place.wire.ask(study, count=3).trials
    for trial, value in zip(handed[:2], (0.2, 0.4), strict=True):
        assert report(place.wire, trial, 1, value).directive == trials.DIRECTIVE_CONTINUE
    reply = report(place.wire, handed[2], 1, 0.5)
    assert reply.directive == trials.DIRECTIVE_STOP
    assert reply.message == "the median of 2 trials at step 1 is 0.3, this trial's best is 0.5"
    assert reply.lease.duration.ToTimedelta().total_seconds() > 0
    told = tell_stopped(place.wire, handed[2], reply.message)
    assert (told.state, told.metrics["loss"].value) == (trials.Trial.STATE_STOPPED, 0.5)


def test_a_repeated_report_hears_the_same(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    handed = place.wire.ask(study, count=3).trials
    for trial in handed[:2]:
        report(place.wire, trial, 1, 0.2)
    first, again = (report(place.wire, handed[2], 1, 0.5) for _ in range(2))
    assert first.directive == again.directive == trials.DIRECTIVE_STOP
    assert first.message == again.message


def test_a_study_without_a_rule_stops_nothing(place: Place) -> None:
    study = new_study(place)
    handed = place.wire.ask(study, count=9).trials
    replies = [report(place.wire, trial, 1, float(trial.number)) for trial in handed]
    assert {reply.directive for reply in replies} == {trials.DIRECTIVE_CONTINUE}


def test_values_of_a_step_that_are_replaced_count_as_they_are_now(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    first, second, third = place.wire.ask(study, count=3).trials
    for trial in (first, second):
        report(place.wire, trial, 1, 0.1)
    assert report(place.wire, third, 1, 0.5).directive == trials.DIRECTIVE_STOP
    for trial in (first, second):
        report(place.wire, trial, 1, 0.9)
    assert report(place.wire, third, 1, 0.5).directive == trials.DIRECTIVE_CONTINUE


def test_measurements_of_imported_trials_count(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    values = {"loss": metric.MetricValue(value=0.1)}
    done = trials.NewTrial(
        parameters={"x": real(0.5)},
        state=trials.Trial.STATE_SUCCEEDED,
        metrics=values,
        measurements=[metric.Measurement(step=step, metrics=values) for step in (1, 2)],
    )
    place.wire.call("AddTrials", trials.AddTrialsRequest(parent=study, trials=[done, done]))
    assert report(place.wire, place.wire.one(study), 2, 0.5).directive == trials.DIRECTIVE_STOP


def test_a_report_without_the_rules_metric_is_not_judged_and_hears_what_the_last_one_heard(place: Place) -> None:
    rule = stopping.StoppingRule(threshold=stopping.StoppingRule.Threshold(at_most=1.0))
    trial = place.wire.one(new_study(place, stopping_rule=rule))
    request = report_request(trial, 2, 5.0)
    del request.measurements[0].metrics["loss"]
    request.measurements[0].metrics["gradient"].value = 1.0
    assert place.wire.call("Report", request).directive == trials.DIRECTIVE_CONTINUE
    assert report(place.wire, trial, 3, math.nan).directive == trials.DIRECTIVE_STOP
    assert place.wire.call("Report", request).directive == trials.DIRECTIVE_STOP


def renew(place: Place, trial: trials.Trial) -> Any:
    """The verdict on the trial in the reply to a renewal."""
    (verdict,) = place.wire.call("RenewLeases", renew_request(trial)).leases
    return verdict


def test_a_renewal_hears_what_the_last_report_heard_as_long_as_the_lease_lasts(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    first, second, third = place.wire.ask(study, count=3).trials
    for trial in (first, second):
        report(place.wire, trial, 1, 0.5)
    why = report(place.wire, third, 1, 0.9).message
    assert why
    assert [(renew(place, third).directive, renew(place, third).message)] == [(trials.DIRECTIVE_STOP, why)]
    assert renew(place, first).directive == trials.DIRECTIVE_CONTINUE
    report(place.wire, third, 2, 0.1)
    assert renew(place, third).directive == trials.DIRECTIVE_CONTINUE
    report(place.wire, third, 1, 0.9)
    place.wire.call("ReleaseTrial", trials.ReleaseTrialRequest(name=third.name, lease_token=third.lease.token))
    assert renew(place, place.wire.one(study)).directive == trials.DIRECTIVE_CONTINUE


def change_rule(place: Place, study: str, rule: stopping.StoppingRule | None) -> studies.Study:
    changed = studies.Study(name=study, spec=studies.StudySpec(stopping_rule=rule))
    mask = FieldMask(paths=["spec.stopping_rule"])
    reply: studies.Study = place.wire.call("UpdateStudy", studies.UpdateStudyRequest(study=changed, update_mask=mask))
    return reply


def test_a_rule_that_comes_later_knows_what_was_reported_before(place: Place) -> None:
    study = new_study(place)
    first, second, third = place.wire.ask(study, count=3).trials
    for trial in (first, second):
        assert report(place.wire, trial, 1, 0.5).directive == trials.DIRECTIVE_CONTINUE
    before = place.wire.study(study)
    changed = change_rule(place, study, MEDIAN)
    assert changed.spec.stopping_rule.HasField("median")
    assert changed.sequence == before.sequence + 1
    assert report(place.wire, third, 1, 0.9).directive == trials.DIRECTIVE_STOP
    assert change_rule(place, study, MEDIAN).sequence == place.wire.study(study).sequence


def test_a_rule_that_is_dropped_stops_nothing_any_more(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    first, second, third = place.wire.ask(study, count=3).trials
    for trial in (first, second):
        report(place.wire, trial, 1, 0.5)
    assert report(place.wire, third, 1, 0.9).directive == trials.DIRECTIVE_STOP
    assert not change_rule(place, study, None).spec.HasField("stopping_rule")
    assert renew(place, third).directive == trials.DIRECTIVE_CONTINUE
    assert report(place.wire, third, 2, 0.9).directive == trials.DIRECTIVE_CONTINUE


def test_a_rule_that_looks_at_another_metric_has_the_curves_of_that_one(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    handed = place.wire.ask(study, count=4).trials
    requests = [report_request(trial, 1, 0.5) for trial in handed]
    for request, gradient in zip(requests, (1.0, 2.0, 9.0, 1.5), strict=True):
        request.measurements[0].metrics["gradient"].value = gradient
        assert place.wire.call("Report", request).directive == trials.DIRECTIVE_CONTINUE
    by_gradient = stopping.StoppingRule(
        median=stopping.StoppingRule.Median(min_trials=2), metric="gradient", goal=metric.Objective.GOAL_MINIMIZE
    )
    change_rule(place, study, by_gradient)
    assert "is 1.5, this trial's best is 9" in place.wire.call("Report", requests[2]).message
    by_gradient.goal = metric.Objective.GOAL_MAXIMIZE
    change_rule(place, study, by_gradient)
    assert place.wire.call("Report", requests[2]).directive == trials.DIRECTIVE_CONTINUE
    assert "is 2, this trial's best is 1" in place.wire.call("Report", requests[0]).message
    change_rule(place, study, MEDIAN)
    assert place.wire.call("Report", requests[2]).directive == trials.DIRECTIVE_CONTINUE


def test_a_change_to_a_rule_that_makes_no_sense_is_refused_and_changes_nothing(place: Place) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    bad = stopping.StoppingRule(percentile=stopping.StoppingRule.Percentile(percentile=200))
    refused = refusal(lambda: change_rule(place, study, bad))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "study.spec.stopping_rule.percentile.percentile" in refused.message
    assert place.wire.study(study).spec.stopping_rule.HasField("median")


KINDS = [
    MEDIAN,
    stopping.StoppingRule(percentile=stopping.StoppingRule.Percentile(percentile=25, averages=True)),
    stopping.StoppingRule(successive_halving=stopping.StoppingRule.SuccessiveHalving(min_step=3)),
    stopping.StoppingRule(hyperband=stopping.StoppingRule.Hyperband(reduction_factor=4), max_step=81),
    stopping.StoppingRule(threshold=stopping.StoppingRule.Threshold(at_most=0.0)),
    stopping.StoppingRule(patience=stopping.StoppingRule.Patience(steps=9, min_delta=0.0), warmup_steps=3),
    stopping.StoppingRule(extrapolation=stopping.StoppingRule.Extrapolation(probability=0.1), max_step=81),
    stopping.StoppingRule(
        folds=stopping.StoppingRule.Folds(folds=5), metric="auc", goal=metric.Objective.GOAL_MAXIMIZE
    ),
]


@pytest.mark.parametrize("rule", KINDS, ids=lambda rule: str(rule.WhichOneof("kind")))
def test_a_study_shows_its_rule_with_all_that_was_left_out_and_takes_that_as_the_same(
    place: Place, rule: stopping.StoppingRule
) -> None:
    name = new_study(place, stopping_rule=rule)
    shown = place.wire.study(name).spec.stopping_rule
    kind = rule.WhichOneof("kind")
    assert kind is not None
    for field, value in getattr(rule, kind).ListFields():
        assert getattr(getattr(shown, kind), field.name) == value
    same = small_study(stopping_rule=shown)
    assert place.wire.create(name.rpartition("/")[2], same).name == name
    other = refusal(lambda: place.wire.create(name.rpartition("/")[2], small_study()))
    assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "STUDY_EXISTS")
    assert f"exists with stopping_rule {kind}" in other.message


def test_an_archive_keeps_the_rule_and_the_curves(place: Place, tmp_path: Path) -> None:
    study = new_study(place, stopping_rule=MEDIAN)
    handed = place.wire.ask(study, count=2).trials
    for trial in handed:
        report(place.wire, trial, 1, 0.2)
        place.wire.tell(trial, 0.2)
    with Client(place.server.target, project="p") as client:
        client.get_study(study.rpartition("/")[2]).export(tmp_path / "study.jsonl")
        copy = client.import_study(tmp_path / "study.jsonl", f"s{uuid.uuid4().hex}").name
    assert place.wire.study(copy).spec.stopping_rule == place.wire.study(study).spec.stopping_rule
    assert report(place.wire, place.wire.one(copy), 1, 0.5).directive == trials.DIRECTIVE_STOP


REFUSED = {
    "no kind": (stopping.StoppingRule(), "study.spec.stopping_rule.kind"),
    "goal out of range": (
        stopping.StoppingRule(metric="auc", goal=9, median=MEDIAN.median),  # type: ignore[arg-type]
        "study.spec.stopping_rule.goal",
    ),
    "a metric without a goal": (
        stopping.StoppingRule(metric="auc", median=MEDIAN.median),
        "study.spec.stopping_rule.goal",
    ),
    "no percentile": (
        stopping.StoppingRule(percentile=stopping.StoppingRule.Percentile()),
        "study.spec.stopping_rule.percentile.percentile",
    ),
    "no last step": (
        stopping.StoppingRule(hyperband=stopping.StoppingRule.Hyperband()),
        "study.spec.stopping_rule.max_step",
    ),
    "no patience": (
        stopping.StoppingRule(patience=stopping.StoppingRule.Patience(steps=0)),
        "study.spec.stopping_rule.patience.steps",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_rule_that_makes_no_sense_is_refused_and_makes_no_study(place: Place, case: str) -> None:
    rule, field = REFUSED[case]
    found = refusal(lambda: place.wire.create("refused", small_study(stopping_rule=rule)))
    assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    missing = refusal(lambda: place.wire.study("projects/p/studies/refused"))
    assert missing.code is grpc.StatusCode.NOT_FOUND


def test_with_several_objectives_the_rule_names_its_metric(place: Place) -> None:
    both = small_study(stopping_rule=MEDIAN)
    both.spec.objectives.add(metric="size", goal=metric.Objective.GOAL_MINIMIZE)
    found = refusal(lambda: place.wire.create("several", both))
    assert found.field == "study.spec.stopping_rule.metric"
    both.spec.stopping_rule.metric = "size"
    named: studies.Study = place.wire.create("several", both)
    assert named.spec.stopping_rule.metric == "size"
