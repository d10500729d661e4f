"""A request on its way to an engine process."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies.parcel import Parcel

DIMENSIONS = 3


def request(*, count: int, seed: int) -> SuggestRequest:
    """A study of a bowl, which its later trials have found the bottom of."""
    random = np.random.default_rng(seed)
    centre = random.uniform(0.3, 0.7, DIMENSIONS)
    spread = np.where(np.arange(count) < 10, 1.0, 0.1)[:, None]
    points = np.clip(centre + spread * random.uniform(-0.5, 0.5, (count, DIMENSIONS)), 0.0, 1.0)
    return SuggestRequest(
        space=SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(DIMENSIONS))),
        objectives=(Objective("cost", Goal.MINIMIZE),),
        policy="gp",
        seed=seed,
        count=1,
        next_number=count + 1,
        observations=tuple(
            Observation(
                number,
                TrialState.SUCCEEDED,
                {f"x{index}": float(value) for index, value in enumerate(point)},
                {"cost": MetricValue(float(((point - centre) ** 2).sum()))},
            )
            for number, point in enumerate(points, 1)
        ),
    )


def test_a_request_comes_out_of_its_parcel_as_it_went_in():
    usual = request(count=5, seed=0)
    odd = Observation(6, TrialState.FAILED, {"x0": 0.5, "name": True}, {}, parent=2, member=3)
    told = Observation(7, TrialState.STOPPED, {}, {"cost": MetricValue(1.0, 0.1), "loss": MetricValue(float("inf"))})
    full = replace(usual, observations=(*usual.observations, odd, told), lessons=(told, odd), hint=b"x")
    for asked in (usual, full):
        sent = pickle.loads(pickle.dumps(Parcel.of(asked)))
        assert sent.unpack() == asked
