"""The worker's loop: what it asks, what it tells, and when it ends."""

from __future__ import annotations

import logging
import math
import signal
from types import SimpleNamespace

import pytest

from asktell.client import (
    AskTellError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from asktell.worker import loop
from asktell.worker.evaluation import Unusable
from asktell.worker.interruption import Interruption
from asktell.worker.loop import Options, Undelivered, Worker
from asktell.worker.outcome import Failed, Infeasible, Lost, Outcome, Released, Stopped, Succeeded
from tests.unit.test_worker_fake import FakeStudy


class Evaluator:
    """Gives the outcomes in their order; one that is an exception is raised, one that is callable is called with the trial."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.closed = False

    def prepare(self):
        assert not self.closed

    def evaluate(self, trial):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome(trial) if callable(outcome) else outcome

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(loop, "AWAY_SECONDS", 0.0)


def work(study: FakeStudy, *outcomes, interruption: Interruption | None = None, **options) -> loop.Summary:
    evaluator = Evaluator(*outcomes)
    try:
        return Worker(
            study,
            evaluator,
            options=Options(worker_id="w", **options),
            interruption=interruption or Interruption(),
        ).run()
    finally:
        assert evaluator.closed


def test_every_outcome_is_told_as_what_it_is() -> None:
    study = FakeStudy(budget=5)
    summary = work(
        study,
        Succeeded({"loss": (0.1, 0.01)}),
        Failed("boom"),
        Infeasible("too wide"),
        Stopped("enough", {"loss": 2.0}),
        Lost("another has it"),
    )
    assert study.said == [
        ("succeeded", {"loss": (0.1, 0.01)}),
        ("failed", ("boom", False)),
        ("infeasible", "too wide"),
        ("stopped", ({"loss": 2.0}, "enough")),
        (),
    ]
    assert str(summary) == (
        "the study hands out no more trials: budget spent; 1 succeeded, 1 failed, 1 infeasible, 1 stopped, 1 lost"
    )


def test_it_asks_with_its_id_and_lease_duration() -> None:
    study = FakeStudy()
    work(study, Succeeded({"loss": 1.0}), lease_duration=7.5)
    asked = study.asked[0]
    assert (asked["worker_id"], asked["lease_duration"]) == ("w", 7.5)


def test_an_ask_is_repeated_with_its_request_id_until_it_is_answered_and_the_next_one_has_another() -> None:
    study = FakeStudy(away=[Unavailable("down"), DeadlineExceeded("late"), Reason.PAUSED])
    work(study, Succeeded({"loss": 1.0}))
    first, second, third, *others = [asked["request_id"] for asked in study.asked]
    assert first == second == third
    assert len({first, *others}) == 1 + len(others)


def test_it_ends_after_as_many_trials_as_were_wanted() -> None:
    study = FakeStudy(budget=9)
    summary = work(study, Succeeded({"loss": 1.0}), Failed("x"), max_trials=2)
    assert len(study.trials) == 2
    assert summary.reason.startswith("2 trials done")


def test_a_failed_trial_ends_it_only_where_that_was_wished() -> None:
    study = FakeStudy(budget=2)
    assert not work(study, Failed("x"), Succeeded({"loss": 1.0})).stopped_by_failure
    study = FakeStudy(budget=2)
    assert work(study, Failed("x"), on_error="stop").stopped_by_failure
    assert len(study.trials) == 1


@pytest.mark.parametrize(
    ("retry", "offered"), [("never", [False, False]), ("killed", [False, True]), ("failed", [True, True])]
)
def test_failures_are_offered_to_other_workers_as_wished(retry: str, offered: list[bool]) -> None:
    study = FakeStudy(budget=2)
    work(study, Failed("x"), Failed("killed by SIGKILL", killed=True), retry=retry)
    assert [again for _, (_, again) in study.said] == offered


def test_it_waits_while_there_is_no_trial_for_now(caplog) -> None:
    study = FakeStudy(away=[Reason.PAUSED, Reason.PAUSED, Reason.MAX_PARALLEL])
    with caplog.at_level(logging.INFO):
        work(study, Succeeded({"loss": 1.0}))
    assert len(study.asked) == 5
    assert [record.message.partition(":")[0] for record in caplog.records if "for now" in record.message] == [
        "no trial for now (paused)",
        "no trial for now (max parallel)",
    ]


def test_a_worker_that_is_told_to_end_while_it_asks_a_service_that_is_away_leaves_in_peace() -> None:
    interruption = Interruption()

    class Away(FakeStudy):
        def ask_once(self, **how):
            interruption.interrupt()
            raise Unavailable("down")

    summary = work(Away(), interruption=interruption, farewell=0.0)
    assert (summary.reason, summary.outcomes.total()) == ("interrupted", 0)


def test_a_result_is_told_again_until_the_service_is_back(caplog) -> None:
    study = FakeStudy(refusals=[Unavailable("down"), Unavailable("down")])
    work(study, Succeeded({"loss": 1.0}))
    assert study.said == [("succeeded", {"loss": 1.0})]
    assert sum("the service is away" in record.message for record in caplog.records) == 1


def test_a_result_that_cannot_be_told_in_time_is_in_the_message() -> None:
    study = FakeStudy(refusals=[Unavailable("down")] * 2)
    with pytest.raises(
        Undelivered, match=r"trial 1 succeeded but could not be told: down; its metrics: loss=0\.25±0\.1"
    ):
        work(study, Succeeded({"loss": (0.25, 0.1)}), patience=-1.0)


def test_an_interruption_shortens_the_patience() -> None:
    study, interruption = FakeStudy(refusals=[Unavailable("down")] * 3), Interruption()

    def interrupted(_trial):
        interruption.interrupt()
        return Succeeded({"loss": 1.0})

    with pytest.raises(Undelivered):
        work(study, interrupted, interruption=interruption, farewell=-1.0)


def test_a_result_that_comes_too_late_is_logged_and_the_next_trial_is_asked_for(caplog) -> None:
    study = FakeStudy(budget=2, refusals=[FailedPrecondition("trial 1 is succeeded, not active")])
    summary = work(study, Succeeded({"loss": 1.0}), Succeeded({"loss": 2.0}))
    assert summary.outcomes == {"refused": 1, "succeeded": 1}
    assert "trial 1: the service did not take the result" in caplog.text


def test_metrics_that_the_service_refuses_are_told_as_a_failure() -> None:
    study = FakeStudy(refusals=[InvalidArgument("metrics[bad name]: is not a name")])
    assert work(study, Succeeded({"bad name": 1.0})).outcomes == {"failed": 1}
    what, (message, _) = study.said[0]
    assert what == "failed"
    assert message == "the service refused the metrics bad name=1: metrics[bad name]: is not a name"


def test_a_message_is_told_without_what_a_database_refuses_and_with_its_end() -> None:
    study = FakeStudy()
    work(study, Failed("a\0b\udcff" + "x" * 70_000 + "the reason"))
    message = study.said[0][1][0]
    assert len(message) == 65_536
    assert message.endswith("the reason")
    assert loop._clean("a\0b\udcff") == "a\\0b?"


def test_an_interruption_gives_the_trial_back_and_ends_the_loop() -> None:
    study, interruption = FakeStudy(budget=3), Interruption()

    def interrupted(_trial):
        interruption.interrupt(signal.SIGINT)
        return Released()

    summary = work(study, interrupted, interruption=interruption)
    assert study.said == [("released", None)]
    assert summary.reason == "interrupted"
    assert interruption.by_keyboard


def test_an_interrupted_worker_asks_for_nothing() -> None:
    study, interruption = FakeStudy(), Interruption()
    interruption.interrupt()
    work(study, interruption=interruption)
    assert study.asked == []


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), SystemExit(1), Unavailable("down"), Unusable("no module")])
def test_what_says_nothing_about_the_trial_gives_it_back(ending: BaseException) -> None:
    study = FakeStudy()
    with pytest.raises(type(ending)):
        work(study, ending)
    assert study.said == [("released", None)]


@pytest.mark.parametrize(
    "error", [OSError(7, "Argument list too long"), UnicodeError("\ud800\0"), ZeroDivisionError("x")]
)
def test_an_evaluation_that_breaks_is_told_as_a_failure_and_the_worker_goes_on(error: Exception) -> None:
    study = FakeStudy(budget=2)
    assert work(study, error, Succeeded({"loss": 1.0})).outcomes == {"failed": 1, "succeeded": 1}
    what, (message, _) = study.said[0]
    assert what == "failed"
    assert message == f"{type(error).__name__}: {error}".replace("\0", "\\0").replace("\ud800", "?")


@pytest.mark.parametrize("refusal", [InvalidArgument("message: too long"), ResourceExhausted("message is too large")])
@pytest.mark.parametrize(
    "outcome", [Stopped("enough", {"\ud800": 2.0}), Infeasible("too wide"), Succeeded({"\ud800": 1.0})]
)
def test_whatever_the_service_refuses_to_hear_is_told_as_a_failure(outcome: Outcome, refusal: AskTellError) -> None:
    study = FakeStudy(refusals=[refusal])
    assert work(study, outcome).outcomes == {"failed": 1}
    what, (message, _) = study.said[0]
    assert what == "failed"
    assert message.endswith(str(refusal))
    message.encode()


def test_a_busy_service_is_told_again() -> None:
    study = FakeStudy(refusals=[ResourceExhausted("busy", retry_delay=0.1)])
    assert work(study, Succeeded({"loss": 1.0})).outcomes == {"succeeded": 1}


def test_a_study_that_is_gone_ends_it() -> None:
    with pytest.raises(NotFound):
        work(FakeStudy(away=[NotFound("there is no study")]))


def test_the_log_has_a_line_for_each_trial(caplog, monkeypatch) -> None:
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 0.0))
    with caplog.at_level(logging.INFO):
        work(FakeStudy(budget=2), Succeeded({"loss": 0.1234567, "time": 3.0}), Failed("boom"))
    lines = [record.message for record in caplog.records]
    assert lines == ["trial 1 succeeded in 0.0 s: loss=0.123457, time=3", "trial 2 failed in 0.0 s: boom"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": math.nan}, "loss is NaN, which is no result"),
        (
            {"loss": (math.nan, 0.1), "size": 3.0},
            "loss is NaN, which is no result; besides it was size=3",
        ),
    ],
)
def test_an_objective_that_is_nan_is_a_failure_that_says_so(metrics: dict, message: str) -> None:
    study = FakeStudy(budget=9)
    summary = work(study, *[Succeeded(metrics, "file:///state")] * 9, max_failures_in_a_row=3)
    assert study.said == [("failed", (message, False))] * 3
    assert summary.stopped_by_failure
    assert study.trials[0].last_checkpoint == "file:///state"


@pytest.mark.parametrize("metrics", [{"loss": math.inf}, {"loss": 1.0, "size": math.nan}])
def test_infinity_and_nan_in_another_metric_are_told_as_they_are(metrics: dict) -> None:
    study = FakeStudy()
    work(study, Succeeded(metrics))
    assert study.said == [("succeeded", metrics)]
