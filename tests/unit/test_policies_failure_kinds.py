"""Failures may be chance; what is infeasible, diverges or is not finite is not, and would come again: each kind has a model of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asktell.server.domain.metric import MetricValue
from asktell.server.domain.policy import Observation
from asktell.server.domain.trial import TrialState
from asktell.server.policies.deadline import NEVER
from asktell.server.policies.failures import Failures, may_be_chance
from asktell.server.policies.hints import Fits
from asktell.server.policies.kernel import Layout
from asktell.server.policies.recipe import STANDARD

LAYOUT = Layout(np.arange(3), np.ones(3, dtype=np.bool_), 3)
ROWS = np.random.default_rng(1).random((40, 3))
NOWHERE = np.zeros(40, dtype=np.bool_)
SCATTERED = np.arange(40) % 8 == 3
REGION = ROWS[:, 0] > 0.7


def learned(failed: np.ndarray, fickle: np.ndarray, *, early: range = range(40), fits: Fits | None = None) -> Failures:
    return Failures.learned(
        ROWS, failed, LAYOUT, fickle=fickle, early=early, recipe=STANDARD, fits=fits or Fits(), deadline=NEVER
    )


def working(failures: Failures, rows: np.ndarray = ROWS) -> np.ndarray:
    return np.exp(failures.feasibility(rows))


def test_only_what_failed_may_have_by_chance() -> None:
    ways = [
        (TrialState.FAILED, {}),
        (TrialState.INFEASIBLE, {}),
        (TrialState.SUCCEEDED, {"loss": MetricValue(1e9)}),
        (TrialState.SUCCEEDED, {"loss": MetricValue(math.inf)}),
        (TrialState.STOPPED, {"loss": MetricValue(math.nan)}),
    ]
    seen = [Observation(number, state, {}, metrics) for number, (state, metrics) in enumerate(ways, 1)]
    assert may_be_chance(seen).tolist() == [True, False, False, False, False]


def test_where_scattered_trials_failed_others_may_work_but_not_where_they_were_infeasible() -> None:
    maybe, sure = learned(SCATTERED, SCATTERED), learned(SCATTERED, NOWHERE)
    assert working(maybe)[SCATTERED].min() > 0.5
    assert working(sure)[SCATTERED].max() < 0.5
    assert working(sure)[~SCATTERED].min() > 0.8


def test_one_infeasible_trial_is_enough_and_of_failures_it_takes_three() -> None:
    counts = [1, 2, 3]
    sure = [learned(np.arange(40) < count, NOWHERE) for count in counts]
    maybe = [learned(np.arange(40) < count, np.arange(40) < count) for count in counts]
    assert [len(each.risks) for each in sure] == [1, 1, 1]
    assert [len(each.risks) for each in maybe] == [0, 0, 1]
    assert [int(each.expected.sum()) for each in maybe[:2]] == [1, 2], "a few are taken for bad places"
    assert maybe[0].feasibility is None
    assert working(sure[0])[0] < 0.5
    assert working(sure[0])[1:].min() > 0.5


def test_where_nothing_failed_there_is_nothing_to_learn() -> None:
    failures = learned(NOWHERE, NOWHERE)
    assert not failures.risks
    assert failures.feasibility is None
    assert not failures.expected.any()


def test_failures_by_chance_do_not_blur_the_edge_of_a_region_where_everything_is_infeasible() -> None:
    fickle = SCATTERED & ~REGION
    both, mixed = learned(REGION | fickle, fickle), learned(REGION | fickle, REGION | fickle)
    assert [risk.classifier.chance > 1e-2 for risk in both.risks] == [False, True]
    assert len(mixed.risks) == 1
    inside = np.random.default_rng(2).random((200, 3)) * [0.2, 1.0, 1.0] + [0.8, 0.0, 0.0]
    assert working(both, inside).mean() < 0.1
    assert working(both, inside).mean() < 0.7 * working(mixed, inside).mean()
    assert working(both)[fickle].min() > 0.5


def test_a_kind_is_judged_by_what_worked_and_its_own() -> None:
    """What was infeasible neither failed nor worked."""
    fickle = SCATTERED & ~REGION
    both, alone = learned(REGION | fickle, fickle), learned(REGION, NOWHERE)
    without = ~fickle
    only = Failures.learned(
        ROWS[without],
        REGION[without],
        LAYOUT,
        fickle=NOWHERE[without],
        early=range(int(without.sum())),
        recipe=STANDARD,
        fits=Fits(),
        deadline=NEVER,
    )
    assert both.risks[0].classifier.posterior.labels.tolist() == only.risks[0].classifier.posterior.labels.tolist()
    assert both.risks[0].kept.tolist() == np.flatnonzero(without).tolist()
    assert both.risks[1].kept.tolist() == np.flatnonzero(~REGION).tolist()
    assert both.expected[REGION].tolist() == alone.expected[REGION].tolist()


@pytest.mark.parametrize("fickle", [SCATTERED, NOWHERE], ids=["failed", "infeasible"])
def test_though_all_early_trials_ended_in_another_way_there_is_a_model(fickle: np.ndarray) -> None:
    """The hyper-parameters' own trials are all of the other kind, so that those of this kind are all there is."""
    failed = SCATTERED.copy()
    failed[:5] = True
    others = np.arange(40) < 5
    failures = learned(failed, np.where(others, ~fickle, fickle) & failed, early=range(5))
    assert len(failures.risks) == 2
    assert np.isfinite(failures.feasibility(ROWS)).all()


def test_the_gradient_is_that_of_both_kinds() -> None:
    failures = learned(REGION | SCATTERED, SCATTERED & ~REGION)
    works = failures.feasibility
    rows = np.random.default_rng(3).random((5, 3))
    _, gradient = works.with_gradient(rows)
    for axis in range(3):
        step = 1e-5 * np.eye(3)[axis]
        slopes = (works(rows + step) - works(rows - step)) / 2e-5
        assert gradient[:, axis] == pytest.approx(slopes, rel=1e-4, abs=1e-7)


def test_a_fit_is_kept_for_its_own_kind_only() -> None:
    fits = Fits()
    learned(SCATTERED, SCATTERED, fits=fits)
    again = Fits(fits.hint())
    sure, anew = learned(SCATTERED, NOWHERE, fits=again), learned(SCATTERED, NOWHERE)
    assert working(sure).tolist() == working(anew).tolist()
