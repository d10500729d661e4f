"""Leases are renewed in time, together, and until the service says otherwise."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from asktell import client as at
from asktell.client.claim import Claim
from asktell.client.errors import NotFound, Unavailable
from asktell.client.leases import LeaseBook, renewal_timeout
from asktell.client.values import Directive, Lease, Verdict
from asktell.v1 import trial_service_pb2 as pb2
from tests.unit.client_fake import precondition, serving, unavailable


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lease(seconds: float, token: str = "") -> Lease:
    return Lease(token=token, worker_id="w", expire_time=datetime.now(UTC), duration=timedelta(seconds=seconds))


def claim(number: int, clock: Clock, *, seconds: float = 60, study: str = "s", attempt: int = 1) -> Claim:
    return Claim(study=study, number=number, lease=lease(seconds, f"{study}-{number}-{attempt}"), clock=clock)


def go_on(number: int, seconds: float = 60) -> Verdict:
    return Verdict(number, Directive.CONTINUE, "", lease(seconds))


def test_a_lease_is_due_after_a_third_of_its_duration():
    clock, book = Clock(), LeaseBook()
    held = claim(1, clock)
    book.hold(held)
    assert (book.pause(clock.now), book.due(clock.now)) == (20.0, [])
    assert book.due(clock.now + 20) == [("s", [held])]


def test_nothing_is_due_where_nothing_is_held():
    book = LeaseBook()
    assert (book.pause(1.0), book.due(1.0)) == (None, [])


def test_a_renewal_and_a_report_start_the_third_anew():
    clock, book = Clock(), LeaseBook()
    held = claim(1, clock)
    book.hold(held)
    clock.now += 15
    held.hear(go_on(1))
    assert book.pause(clock.now) == 20.0
    clock.now += 20
    book.renewed([held], [go_on(1)])
    assert book.pause(clock.now) == 20.0


def test_an_outage_is_said_at_once_then_more_and_more_seldom_and_so_is_its_end(caplog):
    clock, book = Clock(), LeaseBook()
    held, other = claim(1, clock, seconds=7), claim(1, clock, seconds=7, study="t")
    for each in (held, other):
        book.hold(each)
    begin, said = clock.now, []
    while clock.now < begin + 3600:
        book.failed([held], Unavailable("nobody answers"), clock.now)
        said += [clock.now - begin] * len(caplog.records)
        caplog.clear()
        clock.now += 0.7
    assert len(said) == 11
    assert said[0] == 0.0
    pauses = [later - earlier for earlier, later in pairwise(said)]
    assert pauses == pytest.approx([10, 20, 40, 80, 160, 320, *[600] * 4], abs=0.8)
    book.failed([other], Unavailable("nobody answers"), clock.now)
    book.renewed([held], [go_on(1)])
    book.renewed([held], [go_on(1)])
    assert [record.message for record in caplog.records] == [
        "renewing 1 leases of t failed; trying again: nobody answers",
        "renewing leases of s works again, after 5143 failures",
    ]
    book.failed([held], Unavailable("nobody answers"), clock.now)
    assert caplog.records[-1].message.startswith("renewing 1 leases of s failed")


def test_leases_of_a_study_are_renewed_together_and_those_of_others_apart():
    clock, book = Clock(), LeaseBook()
    short, long, other = claim(1, clock, seconds=30), claim(2, clock), claim(1, clock, study="t")
    for each in (short, long, other):
        book.hold(each)
    assert book.due(clock.now + 10) == [("s", [short, long])]


def test_a_batch_has_at_most_a_thousand_leases():
    clock, book = Clock(), LeaseBook()
    for number in range(1500):
        book.hold(claim(number, clock))
    assert [len(batch) for _, batch in book.due(clock.now + 60)] == [1000, 500]


def test_two_leases_of_one_trial_are_renewed_in_separate_batches_and_only_the_lost_one_is_dropped():
    clock, book = Clock(), LeaseBook()
    lost, other, kept = claim(1, clock), claim(2, clock), claim(1, clock, attempt=2)
    for each in (lost, other, kept):
        book.hold(each)
    assert book.due(clock.now + 20) == [("s", [lost, other]), ("s", [kept])]
    clock.now += 20
    book.renewed([lost, other], [Verdict(1, Directive.ABANDON, "leased again", None), go_on(2)])
    book.renewed([kept], [go_on(1)])
    assert (lost.lost, kept.lost, kept.renewal_due) == (True, False, clock.now + 20)
    assert book.due(clock.now + 20) == [("s", [other, kept])]


def test_of_two_leases_of_one_trial_a_failed_renewal_delays_only_its_own():
    clock, book = Clock(), LeaseBook()
    first, second = claim(1, clock), claim(1, clock, attempt=2)
    book.hold(first)
    book.hold(second)
    clock.now += 20
    book.renewed([first], [go_on(1)])
    book.failed([second], Unavailable("down"), clock.now)
    assert book.pause(clock.now) == 5.0
    book.forget(second)
    assert book.pause(clock.now) == 20.0


def test_a_lease_held_twice_is_kept_until_it_is_dropped_twice():
    clock, book = Clock(), LeaseBook()
    held = claim(1, clock)
    book.hold(held)
    book.hold(held)
    book.drop(held)
    assert book.pause(clock.now) == 20.0
    book.drop(held)
    book.drop(held)
    assert book.pause(clock.now) is None


def test_a_failed_renewal_is_tried_again_long_before_the_lease_ends():
    clock, book = Clock(), LeaseBook()
    held = claim(1, clock)
    book.hold(held)
    clock.now += 20
    book.failed([held], Unavailable("down"), clock.now)
    assert book.pause(clock.now) == 5.0
    assert not held.should_stop


def test_of_a_study_that_is_gone_every_trial_is_lost():
    clock, book = Clock(), LeaseBook()
    held = claim(1, clock)
    book.hold(held)
    book.failed([held], NotFound("there is no study s"), clock.now)
    assert (held.lost, held.should_stop, held.message) == (True, True, "there is no study s")
    assert book.pause(clock.now) is None


def test_a_trial_that_should_stop_is_kept_and_a_lost_one_is_not():
    clock, book = Clock(), LeaseBook()
    stopping, lost = claim(1, clock), claim(2, clock)
    book.hold(stopping)
    book.hold(lost)
    verdicts = [Verdict(1, Directive.STOP, "enough", lease(60)), Verdict(2, Directive.ABANDON, "taken", None)]
    book.renewed([stopping, lost], verdicts)
    assert (stopping.should_stop, stopping.lost, lost.should_stop, lost.lost) == (True, False, True, True)
    assert book.due(clock.now + 60) == [("s", [stopping])]


def test_a_renewal_that_hangs_leaves_time_for_another():
    assert renewal_timeout([claim(1, Clock(), seconds=6), claim(2, Clock())]) == 2.0
    assert renewal_timeout([claim(1, Clock(), seconds=3600)]) == 10.0


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
    return client.create_study(
        "s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")], lease_duration=0.06
    )


def test_leases_are_renewed_in_the_background_in_one_call(service, study):
    first, second = study.ask(2)
    with first.keep_alive(), second.keep_alive():
        # Until the second was held, the first was perhaps renewed alone; a call of that time may still be on its way.
        sent = service.wait_for("RenewLeases", len(service.requests["RenewLeases"]) + 4)
    assert {renewal.number for renewal in sent[-1].renewals} == {1, 2}
    assert sent[-1].renewals[0].lease_token == "token-1-1"


def test_a_plain_ask_renews_nothing(study):
    study.ask()
    assert "asktell-leases" not in {thread.name for thread in threading.enumerate()}


def test_the_current_trial_of_a_loop_is_renewed_until_it_is_told(service, study):
    trials = study.trials()
    trial = next(trials)
    service.wait_for("RenewLeases", 2)
    trial.tell(y=1)
    assert study._keeper._book.pause(0.0) is None
    trials.close()


def test_renewals_survive_failures_of_the_service(service, study):
    service.fail("RenewLeases", *[unavailable()] * 9, precondition("odd", "ODD"))
    (trial,) = study.ask()
    with trial.keep_alive():
        service.wait_for("RenewLeases", 13)
    assert not trial.lost


def test_a_lost_lease_ends_the_wait_of_who_watches_the_trial(service, study):
    (trial,) = study.ask()
    service.directives[1] = (pb2.DIRECTIVE_ABANDON, "leased to another worker")
    with trial.keep_alive():
        assert trial.wait_for_stop(60)
    assert (trial.lost, trial.should_stop, trial.message) == (True, True, "leased to another worker")


def test_a_directive_to_stop_reaches_a_trial_that_does_not_report(service, study):
    (trial,) = study.ask()
    service.directives[1] = (pb2.DIRECTIVE_STOP, "no longer promising")
    with trial:
        assert trial.wait_for_stop(60)
    assert (trial.lost, trial.state) == (False, at.TrialState.STOPPED)


def test_closing_the_client_ends_the_thread(service, client, study):
    (trial,) = study.ask()
    with trial.keep_alive():
        service.wait_for("RenewLeases", 1)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "asktell-leases"]
        client.close()
        assert not thread.is_alive()
