"""What a client does when the service is busy, restarts or is silent for a while: when it comes again, and what it keeps meanwhile."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2

from asktell import client as at
from asktell.client.errors import Unavailable
from asktell.client.leases import LeaseBook
from asktell.v1 import trial_service_pb2 as pb2
from tests.unit.client_fake import refusal, serving
from tests.unit.test_client_leases import Clock, claim


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
    return client.create_study("s", parameters=[at.Float("x", 0, 1)], objectives=[at.Minimize("y")])


def busy(seconds: int):
    """What a service says that has too much to do."""
    when = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds))
    return refusal(code_pb2.RESOURCE_EXHAUSTED, "256 asks wait", when)


def test_a_client_comes_again_when_the_service_says_so(service, study, monkeypatch):
    pauses = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=pauses.append))
    service.fail("Ask", busy(7), busy(11))
    (trial,) = study.ask()
    assert pauses == [7.0, 11.0]
    first, *again = service.requests["Ask"]
    assert (trial.number, again) == (1, [first, first])


@pytest.mark.parametrize("code", [code_pb2.CANCELLED, code_pb2.UNAVAILABLE])
def test_a_call_that_a_server_which_ends_let_go_is_made_again_at_once_also_by_who_has_no_patience(service, study, code):
    (trial,) = study.ask()
    service.fail("ReleaseTrial", refusal(code, "this server ends"))
    trial.give_back()
    assert len(service.requests["ReleaseTrial"]) == 2
    assert service.trials[study.name][1].state == pb2.Trial.STATE_QUEUED


@pytest.mark.parametrize("seconds", [1, 3, 7, 60, 3600])
def test_a_lease_is_renewed_often_before_it_ends_while_the_service_is_away(seconds):
    clock, book = Clock(), LeaseBook()
    held = claim(1, clock, seconds=seconds)
    book.hold(held)
    ends, tries = clock.now + seconds, 0
    while (pause := book.pause(clock.now)) is not None and clock.now + pause < ends:
        clock.now += pause
        book.failed([held], Unavailable("down"), clock.now)
        tries += 1
    assert tries >= 6
    assert not held.lost


def test_a_result_of_a_trial_that_was_to_stop_and_is_lost_is_told_as_it_was_measured(service, study):
    """It was evaluated to its end: whether it comes too late is the study's to say."""
    (trial,) = study.ask()
    service.directives[1] = (pb2.DIRECTIVE_STOP, "no longer promising")
    assert trial.report(step=1, y=2.0).should_stop
    service.directives[1] = (pb2.DIRECTIVE_ABANDON, "leased to another worker")
    assert trial.renew().lost
    trial.tell(y=1.0)
    ((result,),) = (request.results for request in service.requests["Tell"])
    assert (result.WhichOneof("outcome"), result.succeeded.metrics["y"].value) == ("succeeded", 1.0)


def test_a_result_of_a_trial_that_was_to_stop_is_told_as_stopped(service, study):
    (trial,) = study.ask()
    service.directives[1] = (pb2.DIRECTIVE_STOP, "no longer promising")
    assert trial.report(step=1, y=2.0).should_stop
    trial.tell(y=1.0)
    ((result,),) = (request.results for request in service.requests["Tell"])
    assert (result.WhichOneof("outcome"), result.stopped.message) == ("stopped", "no longer promising")
