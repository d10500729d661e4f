"""Outcome constraints: bounds keep their meaning whatever the metric's scale, and the best feasible configuration is what is sought."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Float, Int, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.excess import Press, make_excesses
from asktell.server.policies.hints import Fits
from asktell.server.policies.labels import make_labels
from asktell.server.policies.learning import Lesson
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.safety import guarded

COST = Objective("cost", Goal.MINIMIZE)
SQUARE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
LATENCY = OutcomeConstraint("latency", Relation.AT_MOST, 50.0)
ACCURACY = OutcomeConstraint("accuracy", Relation.AT_LEAST, 0.9)
EXCESSES = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30)


def observation(number, state=TrialState.SUCCEEDED, **metrics):
    return Observation(
        number, state, {"x": 0.5, "y": 0.5}, {name: MetricValue(value) for name, value in metrics.items()}
    )


@given(EXCESSES)
def test_pressed_excesses_keep_their_order_and_their_side_of_the_bound(excesses):
    _, pressed = Press.fitted(np.array(excesses))
    assert np.isfinite(pressed).all()
    assert (pressed * np.sign(excesses) >= 0.0).all()
    assert (np.diff(pressed[np.argsort(excesses, kind="stable")]) >= 0.0).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30))
def test_the_way_back_from_a_pressed_excess_that_is_not_extreme_leads_to_it(excesses):
    press, pressed = Press.fitted(np.array(excesses))
    middle = int(np.argsort(np.abs(excesses))[len(excesses) // 2])
    assert press.excess(float(pressed[middle])) == pytest.approx(excesses[middle], rel=1e-6, abs=1e-300)


def test_metrics_a_million_beyond_the_bound_cost_no_resolution_at_it():
    _, pressed = Press.fitted(np.array([-2.0, -1.0, 1.0, 2.0, 3.0, 1e6, -1e300]))
    assert np.diff(pressed[:5]) == pytest.approx(np.array([1, 2, 1, 1]) / 2.0)
    assert np.abs(pressed).max() < 10.0


@pytest.mark.parametrize(("constraint", "sign"), [(LATENCY, 1.0), (ACCURACY, -1.0)], ids=["at most", "at least"])
def test_labels_below_the_threshold_are_feasible_and_come_back_in_the_metrics_unit(constraint, sign):
    values = constraint.bound + sign * np.array([-0.2, -0.1, 0.1, 0.3])
    told = [observation(number, **{constraint.metric: value}) for number, value in enumerate(values, 1)]
    excesses = make_excesses(told, constraint)
    assert (excesses.values <= excesses.threshold).tolist() == [True, True, False, False]
    back = [excesses.prediction(float(label), 0.1) for label in excesses.values]
    assert [prediction.mean for prediction in back] == pytest.approx(values)
    width = np.diff(values).mean() / np.diff(excesses.values).mean()
    assert back[1].standard_deviation == pytest.approx(0.1 * abs(width), rel=0.5)
    assert excesses.prediction(excesses.threshold, 0.1).mean == pytest.approx(constraint.bound)


def test_where_the_best_losses_are_infeasible_the_better_feasible_ones_keep_their_resolution():
    losses = [*np.linspace(0.0, 1.0, 10), *np.linspace(5.0, 6.0, 6)]
    told = [
        observation(number, cost=loss, latency=100.0 if loss <= 1.0 else 10.0) for number, loss in enumerate(losses, 1)
    ]
    plain, aware = make_labels(told, (COST,)), make_labels(told, (COST,), constraints=(LATENCY,))
    largest = max(losses)  # the unit of the units
    assert np.ptp(aware.values[10:13]) * aware.unit * largest == pytest.approx(0.4)
    assert np.ptp(plain.values[10:13]) * plain.unit * largest < 0.1


def run(evaluate, trials, *, seed, constraints, **changes):
    """Observations and candidates of a sequential study; `evaluate` gives a trial's metrics."""
    observations, candidates, hint = [], [], b""
    for number in range(1, trials + 1):
        request = asking(observations, seed=seed, outcome_constraints=constraints, hint=hint, **changes)
        decision = registry.suggest(request)
        (candidate,) = decision.candidates
        assert "Error" not in candidate.origin.fallback
        hint = decision.hint or hint
        told = {name: MetricValue(value) for name, value in evaluate(candidate.parameters).items()}
        observations.append(Observation(number, TrialState.SUCCEEDED, candidate.parameters, told))
        candidates.append(candidate)
    return observations, candidates


def asking(observations, **changes):
    usual = {
        "space": SQUARE,
        "objectives": (COST,),
        "policy": "gp",
        "seed": 3,
        "count": 1,
        "next_number": len(observations) + 1,
    }
    return SuggestRequest(**{**usual, "observations": tuple(observations), **changes})


def best_feasible(observations, constraints):
    return min(
        (seen.metrics["cost"].value for seen in observations if all(c.met(seen.metrics) for c in constraints)),
        default=math.inf,
    )


def corner(p):
    """Best in a corner, all of whose surroundings are too slow: what is feasible ends at a curve."""
    return {"cost": (p["x"] - 1.0) ** 2 + (p["y"] - 1.0) ** 2, "latency": 100.0 * math.hypot(p["x"], p["y"])}


def test_the_best_feasible_configuration_is_found_at_a_sharp_bound():
    best = 2.0 * (1.0 - 0.5 / math.sqrt(2.0)) ** 2
    for seed in range(3):
        observations, candidates = run(corner, 25, seed=seed, constraints=(LATENCY,))
        assert best <= best_feasible(observations, (LATENCY,)) < best + 0.002
        assert {"cost", "latency"} == set(candidates[-1].origin.predictions)
        errors = [
            abs(candidate.origin.predictions["latency"].mean - seen.metrics["latency"].value)
            for candidate, seen in zip(candidates[-12:], observations[-12:], strict=True)
        ]
        assert median(errors) < 5.0


def island(p):
    """Feasible in a hundredth of the square only, far from where the cost is best; the metric is as steep as can be."""
    away = math.hypot(p["x"] - 0.85, p["y"] - 0.2)
    return {"cost": p["x"] - p["y"], "latency": 50.0 + 1e6 * (away - 0.056) ** 3, "accuracy": 1.0 - away}


def test_a_small_feasible_region_is_found_and_searched_though_nothing_was_feasible_at_first():
    for seed in range(3):
        observations, _ = run(island, 30, seed=seed, constraints=(LATENCY, ACCURACY))
        assert best_feasible(observations, (LATENCY, ACCURACY)) < 0.60
        assert not any(LATENCY.met(seen.metrics) for seen in observations[:3])


def test_the_incumbent_is_the_best_feasible_expectation_and_there_is_none_before():
    slow = [
        Observation(
            number, TrialState.SUCCEEDED, {"x": x, "y": y}, {"cost": MetricValue(x), "latency": MetricValue(90.0 - x)}
        )
        for number, (x, y) in enumerate(np.random.default_rng(0).random((8, 2)).tolist(), 1)
    ]
    (candidate,) = registry.suggest(asking(slow, outcome_constraints=(LATENCY,))).candidates
    assert candidate.origin.incumbent is None
    quick = Observation(
        9, TrialState.SUCCEEDED, {"x": 0.9, "y": 0.5}, {"cost": MetricValue(0.9), "latency": MetricValue(20.0)}
    )
    (candidate,) = registry.suggest(asking([*slow, quick], outcome_constraints=(LATENCY,))).candidates
    assert candidate.origin.incumbent == pytest.approx(0.9, abs=0.05)


def test_trials_without_the_constrained_metric_teach_the_objective_and_spoil_nothing():
    turn = iter(range(1000))

    def evaluate(p):
        told = corner(p)
        missing = next(turn) % 3 == 1
        return {"cost": told["cost"]} if missing else told

    observations, candidates = run(evaluate, 30, seed=1, constraints=(LATENCY,))
    assert best_feasible(observations, (LATENCY,)) < 2.0 * (1.0 - 0.5 / math.sqrt(2.0)) ** 2 + 0.01
    assert not any(candidate.origin.fallback for candidate in candidates)


def test_a_constraint_whose_metric_nobody_tells_changes_no_choice():
    _, without = run(lambda p: {"cost": corner(p)["cost"]}, 12, seed=2, constraints=())
    _, silent = run(lambda p: {"cost": corner(p)["cost"]}, 12, seed=2, constraints=(LATENCY,))
    assert [c.parameters for c in silent] == [c.parameters for c in without]


def test_pending_trials_are_imagined_to_be_feasible_or_not():
    """Six asked for at once are apart, though all of them seek the same bound."""
    observations, _ = run(corner, 6, seed=0, constraints=(LATENCY,))
    candidates = registry.suggest(asking(observations, outcome_constraints=(LATENCY,), count=6)).candidates
    points = np.array([[c.parameters["x"], c.parameters["y"]] for c in candidates])
    gaps = np.linalg.norm(points[:, None] - points, axis=2)[np.triu_indices(6, 1)]
    assert gaps.min() > 0.005


class Hurried(Deadline):
    """A deadline that leaves no time for outcome constraints."""

    def earlier(self, share):
        assert 0.0 < share < 1.0
        return Deadline(0.0)


def lesson(observations, deadline, **changes):
    asked = asking(observations, **changes)
    return Lesson.of(asked, Encoder.of(asked.space), recipe=STANDARD, fits=Fits(b""), deadline=deadline)


def test_outcome_constraints_that_there_is_no_time_for_are_named_and_what_was_seen_of_them_counts():
    constraints = (
        OutcomeConstraint("latency", Relation.AT_MOST, 60.0),
        OutcomeConstraint("untold", Relation.AT_MOST, 1.0),
    )
    observations, _ = run(corner, 10, seed=3, constraints=constraints)
    whole, hurried = (
        lesson(observations, deadline, outcome_constraints=constraints).learn()
        for deadline in (Deadline(None), Hurried(None))
    )
    assert ([limit.metric for limit in whole.limits], whole.omitted) == (["latency"], ())
    assert (hurried.limits, hurried.omitted) == ((), ("latency",))
    assert (hurried.models[0].eligible == whole.models[0].eligible).all()
    assert not hurried.models[0].eligible.all()


def test_an_ask_that_has_no_time_for_outcome_constraints_says_so_and_is_modelled_all_the_same(monkeypatch):
    constraints = (OutcomeConstraint("latency", Relation.AT_MOST, 60.0),)
    observations, _ = run(corner, 10, seed=3, constraints=constraints)
    monkeypatch.setattr(Deadline, "earlier", lambda self, share: Deadline(0.0))
    decision = registry.suggest(asking(observations, outcome_constraints=constraints, time_limit=60.0))
    (candidate,) = decision.candidates
    assert candidate.origin.acquisition is not None
    assert "left no time to learn of 'latency'" in candidate.origin.fallback
    assert decision.hint


# Input constraints among numbers so large that they are rounded.

LARGE = SearchSpace(
    (Int(name="a", low=0, high=2**53), Int(name="b", low=0, high=2**53)),
    (InputConstraint.parse(f"a + b <= {2**53 - 1}"),),
)


def large(count):
    points = np.random.default_rng(0).integers(0, 2**52, (count, 2)).tolist()
    return [
        Observation(number, TrialState.SUCCEEDED, {"a": a, "b": b}, {"cost": MetricValue(-(a + b) / 2**53)})
        for number, (a, b) in enumerate(points, 1)
    ]


def test_a_point_that_is_forbidden_by_rounding_is_passed_over_for_the_next_one():
    decision = registry.suggest(asking(large(12), space=LARGE, count=20))
    assert len(decision.candidates) == 20
    assert all(candidate.origin.acquisition is not None for candidate in decision.candidates)
    assert all(LARGE.check(candidate.parameters) for candidate in decision.candidates)
    assert any("by rounding" in candidate.origin.fallback for candidate in decision.candidates)
    assert decision.hint


def test_one_forbidden_candidate_costs_the_others_and_the_hint_nothing():
    asked = asking(large(12), space=LARGE, count=3)
    chosen = registry.suggest(asked)
    forbidden = replace(chosen.candidates[1], parameters={"a": 2**53, "b": 2**53})
    spoilt = replace(chosen, candidates=(chosen.candidates[0], forbidden, chosen.candidates[2]), hint=b"kept")
    decision = guarded(lambda _: spoilt, name="gp")(asked)
    assert decision.hint == b"kept"
    first, second, third = decision.candidates
    assert [first.parameters, third.parameters] == [chosen.candidates[0].parameters, chosen.candidates[2].parameters]
    assert (second.origin.method, second.origin.policy) == ("random", "gp")
    assert "does not meet" in second.origin.fallback
    assert LARGE.check(second.parameters) == second.parameters
