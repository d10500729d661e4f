"""Thousands of pending trials cost no more than some, and none of them is repeated."""

from __future__ import annotations

import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Float, Int, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp, random_search
from asktell.server.policies.choosing import MAX_BELIEVED
from asktell.server.policies.posterior import Posterior

SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0), Int(name="i", low=0, high=10_000)))


def request_with(pending, *, count=1):
    points = drawn(pending + 12)
    observations = tuple(
        Observation(number, TrialState.SUCCEEDED, p, {"cost": MetricValue(p["x"] + p["i"])})
        for number, p in enumerate(points[:12], 1)
    )
    return SuggestRequest(
        space=SPACE,
        objectives=(Objective("cost", Goal.MINIMIZE),),
        policy="gp",
        seed=2,
        count=count,
        next_number=len(points) + 1,
        observations=observations,
        pending=points[12:],
    )


def drawn(count):
    request = SuggestRequest(
        space=SPACE, objectives=(Objective("cost", Goal.MINIMIZE),), policy="", seed=2, count=count, next_number=1
    )
    return tuple(c.parameters for c in random_search.suggest(request).candidates)


@pytest.fixture
def believed(monkeypatch):
    """Which rows each request's first model was made to imagine the ends of."""
    rows, sample = [], Posterior.sample

    def record(self, imagined, normals):
        if self.hyper.trend is None:
            rows.append(imagined.tolist())
        return sample(self, imagined, normals)

    monkeypatch.setattr(Posterior, "sample", record)
    return rows


def test_a_posterior_believes_no_more_than_so_many_pending_trials(believed):
    request = request_with(1_500, count=3)
    candidates = gp.suggest(request).candidates
    assert {c.origin.method for c in candidates} <= {"acquisition", "exploration"}
    assert [len(rows) for rows in believed] == [MAX_BELIEVED] * 3
    assert len({key(p) for p in request.pending} | {key(c.parameters) for c in candidates}) == 1_503


def test_this_requests_own_candidates_are_always_believed(believed):
    first, second = gp.suggest(request_with(MAX_BELIEVED, count=2)).candidates
    assert len(believed[0]) == len(believed[1]) == MAX_BELIEVED
    assert [first.parameters["x"], first.parameters["i"] / 10_000] in believed[1]
    assert first.parameters != second.parameters


def test_the_order_of_thousands_of_pending_trials_does_not_matter():
    request = request_with(1_500, count=2)
    turned = SuggestRequest(
        **{name: getattr(request, name) for name in request.__slots__ if name != "pending"},
        pending=request.pending[::-1],
    )
    assert [c.parameters for c in gp.suggest(request).candidates] == [
        c.parameters for c in gp.suggest(turned).candidates
    ]
