"""Which trials are best."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain import ranking
from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.study import StudySpec
from asktell.server.domain.trial import Origin, Trial, TrialState

FAST = OutcomeConstraint("latency", Relation.AT_MOST, 50.0)
LOW = Objective("a", Goal.MINIMIZE)


def succeeded(number: int, *, x: float = 0.5, **metrics: float) -> Trial:
    return Trial(
        number=number,
        state=TrialState.SUCCEEDED,
        parameters={"x": x},
        origin=Origin(policy="user"),
        nonce="n",
        metrics={name: MetricValue(value) for name, value in metrics.items()},
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


def spec_of(objectives: Sequence[Objective], **options: Any) -> StudySpec:
    return StudySpec(space=SearchSpace((Float(name="x", low=0.0, high=1.0),)), objectives=tuple(objectives), **options)


def optimal(trials: Sequence[Trial], objectives: Sequence[Objective], **options: Any) -> list[Trial]:
    return ranking.optimal(trials, spec_of(objectives, **options))


def test_the_best_trial_is_the_earliest_of_the_best_and_never_nan() -> None:
    trials = [succeeded(1, a=float("nan")), succeeded(2, a=0.5), succeeded(4, a=0.9), succeeded(3, a=0.9)]
    best = optimal(trials, [Objective("a", Goal.MAXIMIZE)])
    assert [trial.number for trial in best] == [3]
    assert optimal([trials[0]], [Objective("a", Goal.MINIMIZE)]) == []


def test_the_front_has_what_nothing_dominates() -> None:
    both = [Objective("a", Goal.MAXIMIZE), Objective("b", Goal.MINIMIZE)]
    trials = [succeeded(1, a=1, b=1), succeeded(2, a=2, b=2), succeeded(3, a=1, b=2), succeeded(4, a=1, b=1)]
    assert [trial.number for trial in optimal(trials, both)] == [1, 2, 4]


def raised(number: int, epochs: int, **metrics: float) -> Trial:
    return replace(succeeded(number, **metrics), parameters={"x": 0.5, "epochs": epochs})


def test_with_a_fidelity_the_best_is_that_of_the_highest_one_that_a_feasible_trial_has_reached() -> None:
    fidelity = Fidelity(parameter="epochs")
    low = [raised(1, 1, a=0.1, latency=10), raised(2, 3, a=0.3, latency=10), raised(3, 3, a=0.2, latency=10)]
    high = raised(4, 9, a=0.25, latency=90)
    for trials, best in (
        (low[:1], 1),
        (low, 3),
        ([*low, high], 3),
        ([*low, replace(high, number=5, metrics=low[0].metrics)], 5),
    ):
        assert [each.number for each in optimal(trials, [LOW], outcome_constraints=(FAST,), fidelity=fidelity)] == [
            best
        ]
    assert [each.number for each in optimal([*low, high], [LOW], fidelity=fidelity)] == [4]
    assert optimal([high], [LOW], outcome_constraints=(FAST,), fidelity=fidelity) == []
    front = [raised(1, 1, a=0, b=0), raised(2, 9, a=1, b=2), raised(3, 9, a=2, b=1), raised(4, 9, a=2, b=2)]
    both = [LOW, Objective("b", Goal.MINIMIZE)]
    assert [each.number for each in optimal(front, both, fidelity=fidelity)] == [2, 3]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_the_sweep_over_two_objectives_finds_what_comparing_all_pairs_does(points: list[tuple[int, int]]) -> None:
    both = [Objective("a", Goal.MINIMIZE), Objective("b", Goal.MAXIMIZE)]
    trials = [succeeded(number, a=a, b=b) for number, (a, b) in enumerate(points, 1)]
    expected = [
        number
        for number, (a, b) in enumerate(points, 1)
        if not any(c <= a and d >= b and (c, d) != (a, b) for c, d in points)
    ]
    assert [trial.number for trial in optimal(trials, both)] == expected


def test_the_best_trial_is_feasible() -> None:
    trials = [succeeded(1, a=1, latency=50.1), succeeded(2, a=2, latency=50), succeeded(3, a=3, latency=10)]
    assert [trial.number for trial in optimal(trials, [LOW], outcome_constraints=(FAST,))] == [2]
    assert optimal(trials[:1], [LOW], outcome_constraints=(FAST,)) == []


@pytest.mark.parametrize("latency", [{}, {"latency": float("nan")}, {"latency": float("-inf")}])
def test_a_trial_whose_constrained_metric_is_not_known_is_never_the_best(latency: dict[str, float]) -> None:
    trials = [succeeded(1, a=1, **latency), succeeded(2, a=2, latency=1)]
    assert [trial.number for trial in optimal(trials, [LOW], outcome_constraints=(FAST,))] == [2]


def test_the_front_is_feasible() -> None:
    both = [LOW, Objective("b", Goal.MAXIMIZE)]
    trials = [succeeded(1, a=1, b=1, latency=99), succeeded(2, a=2, b=1, latency=9), succeeded(3, a=3, b=2, latency=9)]
    assert [trial.number for trial in optimal(trials, both, outcome_constraints=(FAST,))] == [2, 3]


def test_in_a_noisy_study_the_mean_of_a_configuration_counts() -> None:
    trials = [succeeded(1, x=0.1, a=1), succeeded(2, x=0.1, a=9), succeeded(3, x=0.2, a=4), succeeded(4, x=0.2, a=5)]
    assert [trial.number for trial in optimal(trials, [LOW], noisy=True)] == [3]
    assert [trial.number for trial in optimal(trials, [LOW])] == [1]


def test_in_a_noisy_study_the_mean_of_the_constrained_metric_counts() -> None:
    trials = [succeeded(1, x=0.1, a=1, latency=40), succeeded(2, x=0.1, a=1, latency=70), succeeded(3, a=3, latency=9)]
    options = {"noisy": True, "outcome_constraints": (FAST,)}
    assert [trial.number for trial in optimal(trials, [LOW], **options)] == [3]
    trials[1] = succeeded(2, x=0.1, a=1, latency=60)
    assert [trial.number for trial in optimal(trials, [LOW], **options)] == [1]


BOTH = [LOW, Objective("b", Goal.MAXIMIZE)]
START = datetime(2026, 1, 1, tzinfo=UTC)


def ended(trials: Sequence[Trial], order: Sequence[int]) -> list[Trial]:
    """The trials with ends in the order of these numbers."""
    return [replace(trial, end_time=START + timedelta(seconds=order.index(trial.number))) for trial in trials]


def test_a_ranking_comes_about_in_the_order_in_which_trials_end() -> None:
    trials = [succeeded(1, a=1, b=1), succeeded(2, a=2, b=2), succeeded(3, a=3, b=1), succeeded(4, a=float("inf"), b=3)]
    found = ranking.standings(ended(trials, [3, 2, 1, 4]), spec_of(BOTH))
    assert list(found) == [
        ranking.Standing(3, 3, (3, -1)),
        ranking.Standing(2, 2, (2, -2)),
        ranking.Standing(1, 1, (1, -1)),
    ]


def test_in_a_noisy_study_trials_of_equal_parameters_have_one_place() -> None:
    trials = [
        succeeded(1, x=0.1, a=1, b=1, latency=40),
        succeeded(2, x=0.2, a=2, b=1, latency=40),
        succeeded(3, x=0.1, a=5, b=1, latency=40),
        succeeded(4, x=0.2, a=5, b=1, latency=90),
    ]
    spec = spec_of(BOTH, noisy=True, outcome_constraints=(FAST,))
    found = ranking.standings(ended(trials, [1, 2, 3, 4]), spec)
    assert list(found) == [
        ranking.Standing(1, 1, (1, -1)),
        ranking.Standing(2, 2, (2, -1)),
        ranking.Standing(3, 1, (3, -1)),
        ranking.Standing(4, 2, None),
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_the_losses_of_the_front_are_those_of_its_trials(points: list[tuple[int, int, int]]) -> None:
    objectives = [*BOTH, Objective("c", Goal.MINIMIZE)]
    trials = [succeeded(number, a=a, b=b, c=c) for number, (a, b, c) in enumerate(points, 1)]
    front = {ranking.losses(trial, objectives) for trial in optimal(trials, objectives)}
    assert set(ranking.front_losses(trials, spec_of(objectives))) == front


def test_a_reference_is_what_was_given_else_a_tenth_of_the_fronts_extent_beyond_its_worst() -> None:
    given = [Objective("a", Goal.MINIMIZE), Objective("b", Goal.MAXIMIZE, reference=-2.0)]
    assert ranking.reference([(1.0, -1.0), (3.0, -2.0)], spec_of(given)) == (3.2, 2.0)
    assert ranking.reference([(4.0, -1.0)], spec_of(given)) == (4.4, 2.0)
    assert ranking.reference([(1.7e308, 0.0), (-1.7e308, 1.0)], spec_of(BOTH))[0] == sys.float_info.max
