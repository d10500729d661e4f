"""Workers whose objective is broken: what they spend of a study's budget, and when they take it for good."""

from __future__ import annotations

import threading
from collections import Counter

from asktell.client import FailedPrecondition, InvalidArgument, TrialCounts, TrialState, Unavailable
from asktell.worker.interruption import Interruption
from asktell.worker.outcome import Failed, Infeasible, Outcome, Succeeded
from asktell.worker.trust import FAR_SECONDS, YOUNG_SECONDS, Trust
from tests.processes import PATIENCE
from tests.unit.test_worker_fake import FakeStudy, FakeTrial
from tests.unit.test_worker_loop import work
from tests.unit.test_worker_pool import Calls, pool, together

BROKEN, DONE = Failed("NameError: typo"), Succeeded({"loss": 1.0})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def begin(trust: Trust, slots: str) -> None:
    for who in slots:
        assert trust.may_take(who) == "take"
        trust.began(who)


def test_a_worker_whose_trials_fail_in_a_row_ends_before_the_budget_is_spent() -> None:
    study = FakeStudy(budget=100)
    summary = work(study, *[BROKEN] * 100, max_failures_in_a_row=3)
    assert len(study.trials) == 3
    assert summary.stopped_by_failure
    assert summary.reason == "3 trials failed in a row, and none of the study has succeeded"
    assert summary.last_failure == "trial 3: NameError: typo"


def test_a_worker_with_one_success_goes_on_whatever_fails_then() -> None:
    study = FakeStudy(budget=20)
    summary = work(study, BROKEN, BROKEN, DONE, *[BROKEN] * 17, max_failures_in_a_row=3)
    assert summary.outcomes == {"failed": 19, "succeeded": 1}
    assert not summary.stopped_by_failure


def test_a_success_of_another_worker_counts_as_well() -> None:
    study = FakeStudy(budget=20, elsewhere=1)
    assert work(study, *[BROKEN] * 20, max_failures_in_a_row=3).outcomes == {"failed": 20}


def test_a_trial_that_is_infeasible_ends_the_row() -> None:
    study = FakeStudy(budget=5)
    outcomes = [BROKEN, BROKEN, Infeasible("too wide"), BROKEN, BROKEN]
    assert not work(study, *outcomes, max_failures_in_a_row=3).stopped_by_failure


def test_trials_that_were_killed_and_go_back_to_the_queue_do_not_count() -> None:
    study = FakeStudy(budget=6)
    killed = Failed("killed by SIGKILL", killed=True)
    assert not work(study, *[killed] * 6, max_failures_in_a_row=3).stopped_by_failure
    assert len(study.trials) == 6


def test_a_worker_without_a_limit_spends_the_budget() -> None:
    assert work(FakeStudy(budget=20), *[BROKEN] * 20, max_failures_in_a_row=0).outcomes == {"failed": 20}


def test_sixteen_slots_with_a_broken_objective_spend_no_more_trials_than_one() -> None:
    study, meet = FakeStudy(budget=100), threading.Barrier(16)

    def evaluate(trial: FakeTrial) -> Outcome:
        # The slots whose trials fail first may take another.
        if trial.number <= 16:
            meet.wait(PATIENCE)
        return BROKEN

    working, course = pool(study, *(Calls(evaluate) for _ in range(16)), max_failures_in_a_row=3)
    working.run()
    states = Counter(trial.state for trial in study.trials)
    assert states == {TrialState.FAILED: 3, TrialState.QUEUED: len(study.trials) - 3}
    assert course.summary.outcomes == {"failed": 3, "released": len(study.trials) - 3}
    assert course.summary.stopped_by_failure
    assert "NameError: typo" in course.summary.last_failure


def test_sixteen_slots_work_at_once_before_any_trial_has_succeeded() -> None:
    study, evaluate = FakeStudy(budget=32), together(16)
    working, course = pool(study, *(Calls(evaluate) for _ in range(16)), max_failures_in_a_row=3)
    working.run()
    assert course.summary.outcomes == {"succeeded": 32}


def test_sixteen_slots_go_on_together_though_all_that_ended_are_infeasible() -> None:
    study, evaluate = FakeStudy(budget=48), together(16, Infeasible("too wide"))
    working, course = pool(study, *(Calls(evaluate) for _ in range(16)), max_failures_in_a_row=3)
    working.run()
    assert course.summary.outcomes == {"infeasible": 48}


def test_in_a_study_that_was_known_to_have_a_success_every_failure_is_told() -> None:
    study, evaluate = FakeStudy(budget=16, counts=TrialCounts(succeeded=1)), together(16, BROKEN)
    working, course = pool(study, *(Calls(evaluate) for _ in range(16)), max_failures_in_a_row=3)
    working.run()
    assert course.summary.outcomes == {"failed": 16}


def test_a_trial_under_way_may_still_show_that_the_objective_works() -> None:
    study, failed = FakeStudy(budget=8), threading.Semaphore(0)

    def evaluate(trial: FakeTrial) -> Outcome:
        if trial.number == 1:
            assert failed.acquire(timeout=PATIENCE)
            assert failed.acquire(timeout=PATIENCE)
            return DONE
        if trial.number <= 3:
            failed.release()
        return BROKEN

    working, course = pool(study, *(Calls(evaluate) for _ in range(3)), max_failures_in_a_row=3)
    working.run()
    assert course.summary.outcomes == {"succeeded": 1, "failed": 7}
    assert not course.summary.stopped_by_failure


def test_of_trials_that_break_at_once_no_more_than_the_limit_are_told_whoever_tells_first() -> None:
    trust = Trust(2)
    begin(trust, "abc")
    assert [trust.may_fail(who) for who in "abc"] == [True, True, False]
    trust.ended("a", outcome="failed", message="1")
    assert not trust.may_fail("c")
    trust.ended("c", outcome="released")
    trust.ended("b", outcome="failed", message="2")
    assert trust.may_take("c") == "end"


def test_trials_that_have_lasted_a_while_are_told_as_failed_whatever_failed_before() -> None:
    clock = Clock()
    trust = Trust(1, clock=clock)
    begin(trust, "abc")
    trust.ended("a", outcome="failed", message="1")
    assert not trust.may_fail("b")
    clock.now += YOUNG_SECONDS
    assert trust.may_fail("c")


def test_slots_do_not_stand_still_while_a_training_is_far_beyond_where_others_failed() -> None:
    clock = Clock()
    trust = Trust(2, clock=clock)
    begin(trust, "abc")
    clock.now = 30
    trust.ended("a", outcome="failed", message="1")
    trust.ended("b", outcome="failed", message="2")
    clock.now = 89
    assert trust.may_take("a") == "wait"
    clock.now = 90
    begin(trust, "ab")
    assert trust.may_fail("a"), "it is a matter of its parameters"
    trust.ended("a", outcome="failed", message="3")
    clock.now = 95
    trust.ended("c", outcome="failed", message="4")
    assert trust.may_take("a") == "wait"
    trust.ended("b", outcome="failed", message="5")
    assert trust.may_take("a") == "end"


def test_a_training_of_a_minute_at_least_is_far() -> None:
    clock = Clock()
    trust = Trust(1, clock=clock)
    begin(trust, "ab")
    trust.ended("a", outcome="failed", message="1")
    clock.now = FAR_SECONDS - 1
    assert trust.may_take("a") == "wait"
    clock.now = FAR_SECONDS
    assert trust.may_take("a") == "take"


def test_after_a_success_trials_may_fail_at_once() -> None:
    trust = Trust(1)
    begin(trust, "abc")
    trust.ended("a", outcome="failed", message="1")
    trust.ended("b", outcome="succeeded")
    assert trust.may_fail("c")


def test_old_trials_that_fail_are_not_followed_by_others_while_any_is_under_way() -> None:
    clock = Clock()
    trust = Trust(2, clock=clock)
    begin(trust, "abc")
    clock.now += YOUNG_SECONDS
    trust.ended("a", outcome="failed", message="1")
    trust.ended("b", outcome="failed", message="2")
    assert trust.may_take("a") == "wait"
    trust.ended("c", outcome="failed", message="3")
    assert trust.may_take("a") == "end"
    assert trust.last_failure == "3"


def test_a_slot_that_leaves_is_not_waited_for() -> None:
    trust = Trust(1)
    begin(trust, "ab")
    trust.ended("b", outcome="failed", message="1")
    assert trust.may_take("b") == "wait"
    trust.left("a")
    assert trust.may_take("b") == "end"


def test_a_worker_that_is_told_to_end_while_it_looks_at_a_study_that_is_away_leaves_in_peace() -> None:
    interruption = Interruption()

    class Away(FakeStudy):
        def refresh(self) -> None:
            interruption.interrupt()
            raise Unavailable("down")

    summary = work(Away(budget=9), *[BROKEN] * 9, interruption=interruption, farewell=-1.0, max_failures_in_a_row=3)
    assert (summary.reason, summary.outcomes) == ("interrupted", {"failed": 3})


def test_while_one_slot_asks_a_service_that_is_away_others_begin_and_end_trials_and_leave() -> None:
    asked, answered = threading.Event(), threading.Event()

    def is_proven() -> bool:
        asked.set()
        return answered.wait(PATIENCE)

    trust = Trust(1, is_proven=is_proven)
    begin(trust, "abd")
    trust.ended("d", outcome="failed", message="1")
    asking = threading.Thread(target=trust.may_take, args=("c",))
    asking.start()
    assert asked.wait(PATIENCE)
    trust.began("a")
    assert trust.may_take("d") == "wait"
    trust.ended("a", outcome="infeasible")
    trust.left("b")
    assert trust.may_take("d") == "take"
    assert asking.is_alive()
    answered.set()
    asking.join(PATIENCE)


def test_the_end_is_not_decided_by_a_look_from_before_the_last_failure() -> None:
    clock, looks = Clock(), []

    def is_proven() -> bool:
        looks.append(clock.now)
        if len(looks) == 1:
            trust.ended("a", outcome="failed", message="1")
        return len(looks) == 2

    trust = Trust(1, is_proven=is_proven, clock=clock)
    begin(trust, "ab")
    trust.ended("b", outcome="failed", message="0")
    assert trust.may_take("b") == "wait"
    assert trust.may_take("b") == "take"
    assert len(looks) == 2


def test_metrics_that_the_service_refuses_are_the_last_words_of_the_trial() -> None:
    study = FakeStudy(budget=9)

    def refused(_: FakeTrial) -> Outcome:
        study.refusals.append(InvalidArgument("loss is not finite"))
        return DONE

    summary = work(study, *[refused] * 9, max_failures_in_a_row=3)
    assert summary.stopped_by_failure
    assert summary.last_failure == "trial 3: the service refused the metrics loss=1: loss is not finite"


def test_what_a_training_said_that_told_its_failure_itself_are_the_last_words_of_the_trial() -> None:
    study = FakeStudy(budget=9)

    def training(trial: FakeTrial) -> Outcome:
        trial.fail("no data set")
        trial.message = "no data set"
        study.refusals.append(FailedPrecondition("it is failed, not active", reason="TRIAL_ENDED"))
        return Failed("exit status 1")

    summary = work(study, *[training] * 9, max_failures_in_a_row=3)
    assert (summary.outcomes, summary.stopped_by_failure) == ({"failed": 3}, True)
    assert summary.last_failure == "trial 3: its training told so itself: no data set"
