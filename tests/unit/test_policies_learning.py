"""Which observations hyper-parameters are fitted to, and what models are worth."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp, registry
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.hints import Fits
from asktell.server.policies.learning import Lesson, milestone
from asktell.server.policies.recipe import STANDARD

SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
COST = Objective("cost", Goal.MINIMIZE)


def request(observations, **changes):
    usual = {
        "space": SPACE,
        "objectives": (COST,),
        "policy": gp.NAME,
        "seed": 3,
        "count": 1,
        "next_number": len(observations) + 1,
    }
    return SuggestRequest(**{**usual, "observations": tuple(observations), **changes})


def failing_but(measured, count):
    """Observations at random points, of which only those with these numbers have a result."""
    points = np.random.default_rng(0).random((count, 2))
    return [
        Observation(number, TrialState.SUCCEEDED, {"x": x, "y": y}, {"cost": MetricValue((x - 0.3) ** 2 + y)})
        if number in measured
        else Observation(number, TrialState.FAILED, {"x": x, "y": y}, {})
        for number, (x, y) in enumerate(points.tolist(), 1)
    ]


def test_milestones_come_at_every_observation_at_first_and_then_with_growth():
    reached = [milestone(count) for count in range(400)]
    assert reached[:17] == list(range(17))
    assert all(before <= after for before, after in pairwise(reached))
    assert all(0.85 * count <= at <= count for count, at in enumerate(reached))
    assert len(set(reached[100:])) < 20


def widenings(asked):
    """By how much what each model believes is widened."""
    lesson = Lesson.of(asked, Encoder.of(SPACE), recipe=STANDARD, fits=Fits(b""), deadline=Deadline(None))
    return [model.widening for model in lesson.learn().models]


def rough_at_the_end(count=24):
    """Observations of which the later half is rough, as nothing before it was."""
    return [
        replace(seen, metrics={"cost": MetricValue(seen.metrics["cost"].value + 3.0 * (-1.0) ** seen.number)})
        if seen.number > count // 2
        else seen
        for seen in failing_but(range(1, count + 1), count)
    ]


def test_surprise_widens_what_is_believed():
    assert min(widenings(request(rough_at_the_end()))) > 1.1
    assert widenings(request(rough_at_the_end(14))) == [1.0, 1.0]


def test_surprise_that_failures_bounds_or_noise_may_explain_widens_nothing():
    rough = rough_at_the_end()
    failed = [replace(seen, state=TrialState.FAILED, metrics={}) if seen.number == 3 else seen for seen in rough]
    assert widenings(request(failed)) == [1.0, 1.0]
    bounded = OutcomeConstraint("cost", Relation.AT_MOST, 10.0)
    assert widenings(request(rough, outcome_constraints=(bounded,))) == [1.0, 1.0]
    assert widenings(request(rough, noisy=True)) == [1.0, 1.0]


@pytest.mark.parametrize("count", [40, 600, 1_500])
@pytest.mark.parametrize("where", ["first", "last", "anywhere"])
def test_a_few_results_among_many_failures_still_make_a_model(count, where):
    numbers = np.random.default_rng(1).permutation(np.arange(1, count + 1))[:5].tolist()
    measured = {"first": range(1, 6), "last": range(count - 4, count + 1), "anywhere": numbers}[where]
    (candidate,) = registry.suggest(request(failing_but(set(measured), count))).candidates
    assert candidate.origin.method in ("acquisition", "exploration")
    assert candidate.origin.acquisition is not None


def test_a_thousand_names_cost_no_more_than_the_time_there_is():
    names = Categorical(name="name", choices=tuple(f"n{index}" for index in range(1_000)))
    space = SearchSpace((names, *SPACE))
    points = np.random.default_rng(2).random((60, 2))
    observations = [
        Observation(
            number,
            TrialState.SUCCEEDED,
            {"name": f"n{number * 16}", "x": x, "y": y},
            {"cost": MetricValue(x + y + (number != 7))},
        )
        for number, (x, y) in enumerate(points.tolist(), 1)
    ]
    (candidate,) = registry.suggest(request(observations, space=space)).candidates
    assert candidate.origin.method in ("acquisition", "exploration")
    assert candidate.parameters["name"] == "n112"


def several(count):
    """A request with so many objectives."""
    objectives = tuple(Objective(f"m{place}", Goal.MINIMIZE) for place in range(count))
    points = np.random.default_rng(3).random((20, 2))
    observations = [
        Observation(
            number,
            TrialState.SUCCEEDED,
            {"x": x, "y": y},
            {f"m{place}": MetricValue((x - place / count) ** 2 + y) for place in range(count)},
        )
        for number, (x, y) in enumerate(points.tolist(), 1)
    ]
    return request(observations, objectives=objectives)


def test_a_scalarisation_leaves_no_hint():
    assert registry.suggest(several(5)).hint == b""


@pytest.mark.parametrize("count", [2, 4])
def test_a_model_of_each_objective_leaves_a_hint_that_changes_nothing(count):
    asked = several(count)
    first = registry.suggest(asked)
    again = registry.suggest(replace(asked, hint=first.hint))
    assert first.hint
    assert again.hint == first.hint
    assert parameters(again) == parameters(first)
    assert [c.origin.acquisition for c in again.candidates] == [c.origin.acquisition for c in first.candidates]


def parameters(decision):
    return [candidate.parameters for candidate in decision.candidates]


@pytest.mark.parametrize(
    ("count", "method"), [(2, "acquisition (EHVI)"), (4, "acquisition (EHVI)"), (5, "acquisition (ParEGO)")]
)
def test_up_to_four_objectives_have_a_hypervolume_and_more_are_scalarised(count, method):
    (candidate,) = registry.suggest(several(count)).candidates
    assert candidate.origin.method == method
    assert candidate.origin.fallback == ""
    assert len(candidate.origin.predictions) == (count if count <= 4 else 0)
