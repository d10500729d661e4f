"""Labels that the surrogate learns from."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation
from asktell.server.domain.trial import TrialState
from asktell.server.policies.labels import Shape, Warp, make_labels, measured, scalarise

COST = Objective("cost", Goal.MINIMIZE)
GAIN = Objective("gain", Goal.MAXIMIZE)


def observation(number, state=TrialState.SUCCEEDED, **metrics):
    return Observation(number, state, {"x": 0.5}, {name: MetricValue(value) for name, value in metrics.items()})


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_the_warp_keeps_the_order_and_the_range_whatever_the_losses(losses):
    _, warped = Warp.fitted(np.array(losses))
    assert np.isfinite(warped).all()
    assert warped.min() == pytest.approx(0)
    assert warped.max() <= 1 + 1e-12
    order = np.argsort(losses, kind="stable")
    assert (np.diff(warped[order]) >= -1e-12).all()


def test_a_divergence_costs_no_resolution_among_good_losses():
    _, warped = Warp.fitted(np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1e300]))
    assert warped[4] - warped[0] > 0.05


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("penalty", [1.7e308, sys.float_info.max])
def test_penalties_that_are_the_largest_numbers_cost_no_more_than_those_of_1e300(penalty, shape):
    good = np.linspace(0.01, 1.0, 11)
    moderate, expected = Warp.fitted(np.concatenate([good, np.full(9, 1e300)]), shape)
    extreme, warped = Warp.fitted(np.concatenate([good, np.full(9, penalty)]), shape)
    np.testing.assert_allclose(warped, expected, atol=1e-12)
    assert extreme.loss(float(warped[3])) == pytest.approx(moderate.loss(float(expected[3])), rel=1e-6, abs=1e-9)


def test_a_crowd_of_bad_accuracies_costs_no_resolution_among_good_ones():
    _, warped = Warp.fitted(-np.array([0.1, 0.12, 0.4, 0.55, 0.95, 0.96, 0.97, 0.975, 0.98]))
    assert np.ptp(warped[-5:]) > 0.2


@pytest.mark.parametrize("better", [[0.0, 5e-324, 1e-323], [-5e-324, 0.0], [1e-310, 1e-310], [1e-300, 1e-290]])
@pytest.mark.parametrize("worse", [[1.0, 2.0, 3.0], [1e-9, 0.1, 1.0], [1e300, 1.0, 1.7e308]])
def test_spreads_of_hardly_any_size_leave_units_that_can_be_compared(better, worse):
    seen = [observation(number, cost=cost) for number, cost in enumerate([*better * 2, *worse], 1)]
    units = [make_labels(seen, (COST,), shape=shape).unit for shape in Shape]
    assert all(math.isfinite(math.log(each)) for each in units)
    assert max(units) / min(units) < math.inf


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=30, unique=True))
def test_the_way_back_from_a_warped_loss_below_the_cap_leads_to_the_loss(losses):
    warp, warped = Warp.fitted(np.array(losses))
    assert warp.loss(float(warped.min())) == pytest.approx(min(losses), rel=1e-6, abs=1e-6 * np.ptp(losses))
    middle = int(np.argsort(losses)[len(losses) // 2])
    assert warp.loss(float(warped[middle])) == pytest.approx(losses[middle], rel=1e-6, abs=1e-6 * np.ptp(losses))


def test_values_come_back_in_the_metrics_own_unit_and_sign():
    labels = make_labels([observation(1, gain=10.0), observation(2, gain=30.0), observation(3, gain=20.0)], (GAIN,))
    assert [labels.value(float(label)) for label in labels.values] == pytest.approx([10.0, 30.0, 20.0])
    assert labels.values[1] == labels.values.min()
    prediction = labels.prediction(float(labels.values[1]), 1.0)
    assert prediction is not None
    assert prediction.mean == pytest.approx(30.0)
    spread = math.sqrt(50)  # of the better half, 30 and 20, about the median
    assert prediction.standard_deviation == pytest.approx(np.std([30, 20, 20 - spread * math.log1p(10 / spread)]))


def test_what_failed_is_worse_than_the_worst():
    observations = [
        observation(1, cost=1.0),
        observation(2, cost=2.0),
        observation(3, TrialState.FAILED),
        observation(4, TrialState.INFEASIBLE, cost=0.0),
        observation(5, cost=math.nan),
        observation(6, TrialState.STOPPED),
        observation(7, TrialState.STOPPED, cost=1.5),
    ]
    labels = make_labels(observations, (COST,))
    assert measured(observations, (COST,)).tolist() == [True, True, False, False, False, False, True]
    assert (labels.values[~labels.measured] > labels.values[1]).all()
    assert labels.values[0] < labels.values[6] < labels.values[1]


def test_a_scalarisation_prefers_what_dominates():
    units = np.array([[0.0, 0.4], [0.5, 0.5], [0.1, 0.4], [1.0, 0.0]])
    for weight in (0.0, 0.3, 1.0):
        values = scalarise(units, np.array([weight, 1 - weight]))
        assert values[0] <= values[2] <= values[1]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_largest_numbers_there_are_have_finite_predictions(count):
    told = [observation(number, cost=1.7e308) for number in range(count)]
    predicted = make_labels(told, [COST]).prediction(0.0, 1.0)
    assert predicted.mean == 1.7e308
    assert math.isfinite(predicted.standard_deviation)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("least", [5e-324, -5e-324])
def test_the_least_numbers_there_are_make_labels(count, least):
    """Half of them is 0, so that no loss would be below a median of halves."""
    labels = make_labels([observation(number, cost=least) for number in range(count)], [COST])
    assert np.isfinite(labels.values).all()


def test_half_of_which_is_next_to_nothing_makes_labels_that_lead_back():
    """In units of the better half the median of all is infinitely far away."""
    values = [-1.1e-162, 4e146, -1.1e-162, 4e146]
    for shape in (Shape.HALF, Shape.FENCE):
        labels = make_labels(
            [observation(number, cost=value) for number, value in enumerate(values)], [COST], shape=shape
        )
        predicted = labels.prediction(0.0, 1.0)
        assert labels.values.tolist() == [-1.0, 1.0, -1.0, 1.0]
        assert math.isfinite(predicted.mean)
        assert 0.0 < predicted.standard_deviation < math.inf
