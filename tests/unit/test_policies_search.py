"""The search for what is promising: fewer steps to the same places."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies.ascent import ascend
from asktell.server.policies.choosing import ModelChooser
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.kernel import Hyperparameters, Layout
from asktell.server.policies.model_based import AnalyticChooser
from asktell.server.policies.parcel import Parcel
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.stack import Stack

DIMENSIONS = 3


class Counted:
    """Hills whose tops are at the given places and heights, as steep as their widths in each coordinate say, and how often they were asked."""

    def __init__(self, tops, heights, widths):
        self.tops, self.heights, self.widths, self.calls = tops, heights, widths, 0

    def __call__(self, rows, _=None):
        self.calls += 1
        apart = (rows[:, None] - self.tops) / self.widths
        each = self.heights - 0.5 * (apart**2).sum(axis=2)
        nearest = each.argmax(axis=1)
        places = np.arange(len(rows))
        return each[places, nearest], -apart[places, nearest] / self.widths


def test_climbs_in_units_of_how_far_things_reach_take_fewer_calls_to_the_same_top():
    random, widths = np.random.default_rng(3), np.geomspace(0.05, 1.0, 6)
    starts, top = random.random((8, 6)), random.uniform(0.2, 0.8, (1, 6))
    plain, scaled = Counted(top, np.zeros(1), widths), Counted(top, np.zeros(1), widths)
    ends, scaled_ends = ascend(plain, starts, calls=200), ascend(scaled, starts, calls=200, scales=widths)
    assert (scaled(scaled_ends)[0] > -0.01).all()
    assert (plain(ends)[0] > -0.1).all()
    assert scaled.calls < 0.6 * plain.calls


def test_a_hopeless_climb_ends_early_and_the_best_goes_on_as_if_alone():
    tops, widths = np.array([[0.2] * 4, [0.8] * 4]), np.geomspace(0.1, 0.5, 4)
    starts = np.array([[0.1, 0.1, 0.2, 0.3], [0.9, 0.7, 0.9, 0.7]])
    hills = Counted(tops, np.array([0.0, 5.0]), widths)
    patient, choosy = ascend(hills, starts, calls=100), ascend(hills, starts, calls=100, hopeless=0.2)
    assert (choosy[1] == patient[1]).all()
    (low, high), _ = hills(choosy)
    (lower, higher), _ = hills(patient)
    assert high == higher > 4.9
    assert low < lower


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


def test_a_glance_tells_as_a_search_does_whether_anything_is_promising():
    told = []
    for count in (4, 8, 12, 16, 24, 32):
        for seed in range(3):
            asked = request(count=count, seed=seed)
            chooser = AnalyticChooser(asked, Deadline(None), STANDARD)
            with np.errstate(all="ignore"):  # As the policy has it.
                known = chooser._learn(asked.next_number)
                glance = chooser._is_stagnant(asked.next_number, known, known)
                assert glance == ModelChooser._is_stagnant(chooser, asked.next_number, known, known)
            told.append(glance)
    assert {*told} == {True, False}


@pytest.mark.parametrize("count", [1, 127, 128, 500])
def test_a_stack_says_of_many_rows_at_once_what_its_posteriors_say(count):
    random, layout = np.random.default_rng(count), Layout(np.arange(2), np.ones(2, dtype=np.bool_), 2)
    inputs, rows = random.random((50, 2)), random.random((count, 2))
    posteriors = [
        Posterior(
            layout,
            Hyperparameters(np.array([0.3, 0.6]), 1e-2, 0.1, trend),
            inputs=inputs,
            labels=random.normal(size=50),
        )
        for trend in (None, (0.1, 0.2))
    ]
    means, deviations = Stack(posteriors).moments(rows)
    for place, posterior in enumerate(posteriors):
        mean, deviation = posterior.moments(rows)
        np.testing.assert_allclose(means[place], mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(deviations[place], deviation, rtol=1e-7, atol=1e-9)


def test_a_request_comes_out_of_its_parcel_as_it_went_in():
    usual = request(count=5, seed=0)
    odd = Observation(6, TrialState.FAILED, {"x0": 0.5, "name": True}, {}, parent=2, member=3)
    told = Observation(7, TrialState.STOPPED, {}, {"cost": MetricValue(1.0, 0.1), "loss": MetricValue(float("inf"))})
    full = replace(usual, observations=(*usual.observations, odd, told), lessons=(told, odd), hint=b"x")
    for asked in (usual, full):
        sent = pickle.loads(pickle.dumps(Parcel.of(asked)))
        assert sent.unpack() == asked
