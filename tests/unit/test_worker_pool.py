"""Several loops of one worker over a study in memory: what they share, and what ends one or all of them."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from asktell.client import Reason, TrialState, Unavailable
from asktell.worker.course import Course, Notices
from asktell.worker.evaluation import Unusable
from asktell.worker.interruption import Interruption
from asktell.worker.loop import Options, Worker
from asktell.worker.outcome import Failed, Lost, Outcome, Released, Succeeded
from asktell.worker.pool import Pool
from tests.processes import PATIENCE
from tests.unit.test_worker_fake import FakeStudy, FakeTrial

DONE = Succeeded({"loss": 1.0})


class Calls:
    """An evaluator that calls a function for each trial."""

    def __init__(self, evaluate: Callable[[FakeTrial], Outcome], *, prepare: Callable[[], None] = lambda: None) -> None:
        self.evaluate, self.prepare = evaluate, prepare
        self.closed = False

    def close(self) -> None:
        self.closed = True


def pool(study: FakeStudy, *evaluators: Calls, interruption: Interruption | None = None, **how) -> tuple[Pool, Course]:
    options = Options(worker_id="w", **how)
    course, notices, trust, wish = options.course(), Notices(), options.trust(study), interruption or Interruption()
    workers = [
        Worker(
            study,
            evaluator,
            options=options.of_slot(place),
            interruption=wish,
            course=course,
            notices=notices,
            trust=trust,
        )
        for place, evaluator in enumerate(evaluators, 1)
    ]
    return Pool(workers, interruption=wish), course


def together(count: int, outcome: Outcome = DONE) -> Callable[[FakeTrial], Outcome]:
    """An evaluation that only ends, in the outcome, when `count` of them are under way."""
    barrier = threading.Barrier(count)

    def evaluate(trial: FakeTrial) -> Outcome:
        barrier.wait(PATIENCE)
        return outcome

    return evaluate


def tell_when_counted(course: Course, counted: threading.Event) -> None:
    """Set an event once the course has taken in what became of a trial."""
    count = course.count

    def counts(outcome: str) -> None:
        count(outcome)
        counted.set()

    course.count = counts


def test_slots_work_side_by_side_under_ids_of_their_own() -> None:
    study = FakeStudy(budget=9)
    meet = together(3)
    working, course = pool(study, Calls(meet), Calls(meet), Calls(meet))
    working.run()
    assert course.summary.outcomes == {"succeeded": 9}
    assert {how["worker_id"] for how in study.asked} == {"w-1", "w-2", "w-3"}


def test_max_trials_are_those_of_all_slots() -> None:
    study = FakeStudy(budget=99)
    working, course = pool(study, *(Calls(lambda trial: DONE) for _ in range(4)), max_trials=6)
    working.run()
    assert len(study.trials) == course.summary.outcomes.total() == 6
    assert str(course.summary) == "6 trials done, as many as were wanted here; 6 succeeded"


def test_after_a_failure_no_slot_takes_another_trial_where_that_was_wished() -> None:
    study, failed, under_way = FakeStudy(budget=99), threading.Event(), threading.Event()

    def slow(trial: FakeTrial) -> Outcome:
        under_way.set()
        assert failed.wait(PATIENCE)
        return DONE

    def fails(trial: FakeTrial) -> Outcome:
        assert under_way.wait(PATIENCE)
        return Failed("boom")

    working, course = pool(study, Calls(fails), Calls(slow), on_error="stop")
    tell_when_counted(course, failed)
    working.run()
    assert course.summary.stopped_by_failure
    assert str(course.summary) == "a trial failed; 1 failed, 1 succeeded"


def test_a_slot_that_finds_no_more_to_do_leaves_the_others_at_work() -> None:
    study, idle_closed = FakeStudy(budget=1), threading.Event()
    idle = Calls(lambda trial: DONE)
    idle.close = idle_closed.set

    def works_on(trial: FakeTrial) -> Outcome:
        assert idle_closed.wait(PATIENCE)
        return DONE

    idle.evaluate = works_on
    busy = Calls(works_on)
    busy.close = idle_closed.set
    working, course = pool(study, idle, busy)
    working.run()
    assert course.summary.outcomes == {"succeeded": 1}


def gives_back(interruption: Interruption, under_way: threading.Event) -> Callable[[FakeTrial], Outcome]:
    def evaluate(trial: FakeTrial) -> Outcome:
        under_way.set()
        assert interruption.wait(PATIENCE)
        return Released()

    return evaluate


def test_an_interruption_wakes_all_slots_whether_they_work_or_wait() -> None:
    study, wish, under_way = FakeStudy(budget=1, away=[]), Interruption(), threading.Event()
    asked = study.ask_once

    def ask_once(**how):
        answer = asked(**how)
        return answer if answer.trials else type(answer)([], False, Reason.MAX_PARALLEL, None)

    study.ask_once = ask_once
    slots = [Calls(gives_back(wish, under_way)) for _ in range(4)]
    working, course = pool(study, *slots, interruption=wish)
    thread = threading.Thread(target=working.run)
    thread.start()
    assert under_way.wait(PATIENCE)
    wish.interrupt()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert study.said == [("released", None)]
    assert course.summary.reason == "interrupted"
    assert all(slot.closed for slot in slots)


@pytest.mark.parametrize("error", [Unusable("no such function"), Unavailable("nobody answers")])
def test_a_slot_that_cannot_go_on_ends_the_worker_and_the_others_give_their_trials_back(error: Exception) -> None:
    study, wish, under_way = FakeStudy(budget=9), Interruption(), threading.Event()

    def breaks(trial: FakeTrial) -> Outcome:
        assert under_way.wait(PATIENCE)
        raise error

    working, _ = pool(study, Calls(breaks), Calls(gives_back(wish, under_way)), interruption=wish)
    with pytest.raises(type(error), match=str(error)):
        working.run()
    assert len(study.trials) == 2
    assert ("released", None) in study.said


def test_errors_of_the_other_slots_are_said_unless_they_are_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def raises(text: str) -> Callable[[], None]:
        def prepare() -> None:
            ready.wait(PATIENCE)
            raise Unusable(text)

        return prepare

    ready = threading.Barrier(4)
    texts = ["the same", "the same", "another", "another"]
    working, _ = pool(FakeStudy(), *(Calls(lambda trial: DONE, prepare=raises(text)) for text in texts))
    with pytest.raises(Unusable) as raised:
        working.run()
    said = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert {str(raised.value), *said} == {"the same", "another"}


def test_a_trial_that_another_slot_told_late_is_not_taken_for_told_by_its_own_training() -> None:
    """The lease of the first slot ran out in an outage, the second one was given the trial, and then the first one told."""
    told = threading.Event()

    class HandedOutTwice(FakeStudy):
        def ask_once(self, **how):
            answer = super().ask_once(**how)
            for trial in answer.trials:
                trial.number, trial.attempt = 1, trial.number
            return answer

        def get_trial(self, number):
            # The service keeps the later attempt, which was under way.
            return SimpleNamespace(attempt=2, worker_id=self.asked[1]["worker_id"], state=TrialState.SUCCEEDED)

    def evaluate(trial: FakeTrial) -> Outcome:
        handed_out.wait(PATIENCE)
        if trial.attempt == 1:
            return DONE
        assert told.wait(PATIENCE)
        trial.lost = True
        return Lost("trial 1 is succeeded, not active")

    handed_out = threading.Barrier(2)
    study = HandedOutTwice(budget=2)
    working, course = pool(study, Calls(evaluate), Calls(evaluate))
    tell_when_counted(course, told)
    working.run()
    assert course.summary.outcomes == {"succeeded": 1, "lost": 1}


def test_many_slots_that_wait_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    study, meet, asking = FakeStudy(budget=4, away=[Reason.PAUSED] * 40), together(4), threading.Barrier(4)
    asked = study.ask_once

    def ask_once(**how):
        # None gets a trial, after which it waits no more, while another has not yet heard that it is to wait.
        asking.wait(PATIENCE)
        return asked(**how)

    study.ask_once = ask_once
    with caplog.at_level(logging.INFO):
        working, _ = pool(study, *(Calls(meet) for _ in range(4)))
        working.run()
    assert sum("no trial for now" in record.message for record in caplog.records) == 1


def test_news_are_said_again_once_they_were_over_for_all() -> None:
    notices = Notices()
    assert notices.is_news("waiting", 1, "paused")
    assert not notices.is_news("waiting", 2, "paused")
    notices.over("waiting", 1)
    assert not notices.is_news("waiting", 1, "paused")
    notices.over("waiting", 1)
    notices.over("waiting", 2)
    assert notices.is_news("waiting", 1, "paused")
    assert notices.is_news("waiting", 1, "max parallel")


def test_a_second_ctrl_c_ends_the_process_though_something_else_had_begun_its_end(monkeypatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("asktell.worker.interruption.os._exit", left.append)
    wish = Interruption()
    with wish.on_signals():
        wish.interrupt(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert left == []
        signal.raise_signal(signal.SIGINT)
    assert left == [130]
    assert not wish.by_keyboard


def test_a_terminal_that_is_closed_interrupts_unless_that_is_ignored() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, interrupts in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            wish = Interruption()
            with wish.on_signals():
                signal.raise_signal(signal.SIGHUP)
            assert wish.wished is interrupts
            assert not wish.by_keyboard
            assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
