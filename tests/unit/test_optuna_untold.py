"""Results that the sampler for Optuna could not tell: none is lost for an error that meets another one."""

from __future__ import annotations

import optuna
import pytest
from google.rpc import code_pb2
from optuna.distributions import FloatDistribution

from asktell.client import Client, PermissionDenied
from asktell.integrations.optuna import AskTellSampler
from asktell.v1 import trial_service_pb2 as pb2
from tests.unit.client_fake import refusal, serving, unavailable

X = {"x": FloatDistribution(0, 1)}


@pytest.fixture
def service():
    with serving() as service:
        yield service


@pytest.fixture
def study(service):
    """A study of which one trial is told and two are under way."""
    with Client(service.target, retry_for=0.01) as client:
        study = optuna.create_study(sampler=AskTellSampler(client=client))
        study.tell(study.ask(X), 1.0)
        yield study


def states(service):
    ((_, trials),) = service.trials.items()
    return [trial.state for trial in trials.values()]


def kept(service, study):
    """Two results that were kept since the service was away."""
    first, second = study.ask(X), study.ask(X)
    service.fail("Tell", *[unavailable()] * 100)
    study.tell(first, 2.0)
    study.tell(second, 3.0)
    service.scripted["Tell"].clear()
    assert states(service)[-2:] == [pb2.Trial.STATE_ACTIVE] * 2


def test_a_service_that_is_too_busy_for_one_result_gets_it_later_and_the_others_now(service, study):
    kept(service, study)
    service.fail("Tell", *[refusal(code_pb2.RESOURCE_EXHAUSTED, "too busy")] * 4)
    third = study.ask(X)
    service.scripted["Tell"].clear()
    study.tell(third, 4.0)
    assert set(states(service)) == {pb2.Trial.STATE_SUCCEEDED}


def test_a_result_that_is_refused_for_good_takes_no_other_along(service, study):
    kept(service, study)
    service.fail("Tell", refusal(code_pb2.PERMISSION_DENIED, "not yours"))
    with pytest.raises(PermissionDenied, match="not yours"):
        study.ask(X)
    study.tell(study.ask(X), 4.0)
    assert states(service).count(pb2.Trial.STATE_ACTIVE) == 1
