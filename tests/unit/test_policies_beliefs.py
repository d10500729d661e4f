"""What the surrogate says it believes, held against what can be known otherwise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from asktell.server.domain.beliefs import CrossValidate, ImportanceMethod, Predict, RankParameters
from asktell.server.domain.constraints import InputConstraint
from asktell.server.domain.errors import FailedPrecondition, OutOfTime
from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Bool, Categorical, Condition, Float, Int, Ordinal, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.kernel import Hyperparameters
from asktell.server.policies.posterior import Posterior
from asktell.server.policies.questions import answer
from asktell.server.policies.region import Region
from asktell.server.policies.sensitivity import points_for, total_indices, total_indices_within

SOBOL, PED_ANOVA = (RankParameters(method) for method in ImportanceMethod)
COST = Objective("cost", Goal.MINIMIZE)
MIXED = SearchSpace(
    (
        Categorical(name="optimizer", choices=("sgd", "adam", "rmsprop")),
        Float(name="rate", low=1e-5, high=1e-1, log=True),
        Float(name="momentum", low=0.0, high=1.0, when=Condition("optimizer", ("sgd",))),
        Int(name="width", low=1, high=1024, log=True),
        Bool(name="nesterov", when=Condition("optimizer", ("sgd",))),
        Ordinal(name="batch", values=(16, 32, 64)),
        Float(name="single", low=2.0, high=2.0),
    )
)


def mixed_cost(parameters):
    rate = (math.log10(parameters["rate"]) + 3.0) ** 2
    choice = {"sgd": 0.0, "adam": 1.0, "rmsprop": 2.0}[parameters["optimizer"]]
    return rate + choice + 12.0 * (parameters.get("momentum", 0.5) - 0.5) ** 2


def asked(space, objective_values, *, count, objectives=(COST,), **options):
    """A request after `count` random trials; `objective_values` makes a trial's metrics of its parameters."""
    blank = SuggestRequest(space=space, objectives=objectives, policy="random", seed=5, count=count, next_number=1)
    drawn = [candidate.parameters for candidate in registry.suggest(blank).candidates]
    observations = tuple(
        Observation(number, TrialState.SUCCEEDED, parameters, values(objective_values, parameters, objectives))
        for number, parameters in enumerate(drawn, 1)
    )
    return replace(blank, policy="gp", count=1, next_number=count + 1, observations=observations, **options)


def values(function, parameters, objectives):
    found = function(parameters)
    numbers = found if isinstance(found, tuple) else (found,)
    return {each.metric: MetricValue(number) for each, number in zip(objectives, numbers, strict=True)}


def shares(request, question, metric="cost"):
    return {each.parameter: each.share for each in answer(request, question) if each.metric == metric}


def ishigami(parameters):
    return (
        math.sin(parameters["a"])
        + 7 * math.sin(parameters["b"]) ** 2
        + 0.1 * parameters["c"] ** 4 * math.sin(parameters["a"])
    )


ANGLES = SearchSpace(tuple(Float(name=name, low=-math.pi, high=math.pi) for name in "abcd"))


@pytest.mark.parametrize("texts", [(), ("a + b <= 1",), ("a + b <= 1", "a + b >= 0.999")])
def test_importance_is_over_what_constraints_allow(texts):
    """Of f = a - 2 b: a fifth and the rest if a and b are independent, and hardly any where one determines the other."""
    square = SearchSpace(
        tuple(Float(name=name, low=0.0, high=1.0) for name in "ab"),
        constraints=tuple(map(InputConstraint.parse, texts)),
    )
    encoder = Encoder.of(square)
    found = total_indices_within(
        Region(encoder), encoder, lambda rows: rows[:, 0] - 2.0 * rows[:, 1], cost=1, seed=np.random.default_rng(0)
    )
    # In the triangle Var(a | b) is (1 - b)^2 / 12 on average 1/24, and Var(a - 2 b) is (1 + 4 + 2) / 18.
    expected = {0: (0.2, 0.8), 1: (1 / 24 * 18 / 7, 4 / 24 * 18 / 7), 2: (0.0, 0.0)}[len(texts)]
    assert found == pytest.approx(expected, abs=0.05)


def test_predictions_are_those_of_the_policy_with_and_without_its_hint():
    request = asked(MIXED, mixed_cost, count=25, pending=({"optimizer": "adam"},))
    request = replace(request, pending=(request.observations[0].parameters,))
    decision = registry.suggest(request)
    (candidate,) = decision.candidates
    assert candidate.origin.method == "acquisition"
    question = Predict((candidate.parameters,))
    assert answer(request, question) == (candidate.origin.predictions,)
    assert answer(replace(request, hint=decision.hint), question) == (candidate.origin.predictions,)


def test_predictions_of_several_objectives_are_those_of_the_policy():
    both = (COST, Objective("speed", Goal.MAXIMIZE))
    request = asked(MIXED, lambda parameters: (mixed_cost(parameters), parameters["width"]), count=25, objectives=both)
    (candidate,) = registry.suggest(request).candidates
    assert candidate.origin.method.startswith("acquisition")
    assert set(candidate.origin.predictions) == {"cost", "speed"}
    assert answer(request, Predict((candidate.parameters,))) == (candidate.origin.predictions,)


@pytest.mark.parametrize("several", [False, True])
def test_predictions_are_those_of_the_policy_where_results_surprise(several):
    objectives = (COST, Objective("speed", Goal.MAXIMIZE)) if several else (COST,)
    request = asked(
        MIXED,
        lambda parameters: (mixed_cost(parameters), parameters["width"])[: 1 + several],
        count=30,
        objectives=objectives,
    )
    rough = tuple(
        replace(
            seen,
            metrics={**seen.metrics, "cost": MetricValue(seen.metrics["cost"].value + 9.0 * (-1.0) ** seen.number)},
        )
        if seen.number > 15
        else seen
        for seen in request.observations
    )
    request = replace(request, observations=rough)
    (candidate,) = registry.suggest(request).candidates
    assert answer(request, Predict((candidate.parameters,))) == (candidate.origin.predictions,)


@pytest.mark.parametrize("several", [False, True])
def test_predictions_have_constrained_metrics_too_and_leave_out_the_same_failures(several):
    objectives = (COST, Objective("speed", Goal.MAXIMIZE)) if several else (COST,)
    bound = (OutcomeConstraint("memory", Relation.AT_MOST, 100.0),)

    def cost(parameters):
        return (mixed_cost(parameters), parameters["width"]) if several else mixed_cost(parameters)

    request = asked(MIXED, cost, count=30, objectives=objectives, outcome_constraints=bound)
    told = [
        replace(seen, state=TrialState.FAILED, metrics={})
        if seen.number % 5 == 0
        else replace(seen, metrics={**seen.metrics, "memory": MetricValue(float(seen.parameters["width"]))})
        for seen in request.observations
    ]
    request = replace(request, observations=tuple(told))
    (candidate,) = registry.suggest(request).candidates
    assert "memory" in candidate.origin.predictions
    assert answer(request, Predict((candidate.parameters,))) == (candidate.origin.predictions,)
    left_out = answer(request, CrossValidate())
    assert {left.number for left in left_out} == {seen.number for seen in told if seen.metrics}
    assert all(left.observed == told[left.number - 1].metrics[left.metric].value for left in left_out)


def test_predictions_follow_the_truth_within_what_they_admit():
    request = asked(MIXED, mixed_cost, count=80)
    fresh = asked(MIXED, mixed_cost, count=200).observations[80:]
    found = answer(request, Predict(tuple(seen.parameters for seen in fresh)))
    errors = [abs(each["cost"].mean - seen.metrics["cost"].value) for each, seen in zip(found, fresh, strict=True)]
    spread = np.std([seen.metrics["cost"].value for seen in fresh])
    assert np.median(errors) < 0.15 * spread
    apart = [error / each["cost"].standard_deviation for error, each in zip(errors, found, strict=True)]
    assert np.mean(np.array(apart) < 3.0) > 0.85


def test_each_objective_has_a_model_of_its_own_in_its_own_unit():
    both = (COST, Objective("speed", Goal.MAXIMIZE))

    def two(parameters):
        return mixed_cost(parameters), -1000.0 * mixed_cost(parameters)

    request = asked(MIXED, two, count=40, objectives=both)
    points = tuple(seen.parameters for seen in request.observations[:5])
    for each in answer(request, Predict(points)):
        assert each["speed"].mean == pytest.approx(-1000.0 * each["cost"].mean, rel=1e-3, abs=1.0)
        assert each["speed"].standard_deviation == pytest.approx(1000.0 * each["cost"].standard_deviation, rel=1e-2)
    alone = answer(replace(request, objectives=(COST,)), Predict(points))
    assert [each["cost"] for each in answer(request, Predict(points))] == [each["cost"] for each in alone]


def test_the_order_of_observations_is_irrelevant():
    request = asked(MIXED, mixed_cost, count=30)
    turned = replace(request, observations=request.observations[::-1])
    for question in (SOBOL, PED_ANOVA, CrossValidate(), Predict((request.observations[3].parameters,))):
        assert answer(request, question) == answer(turned, question)


def test_total_sobol_indices_of_ishigamis_function_are_the_known_ones():
    known = {"a": 0.558, "b": 0.442, "c": 0.244, "d": 0.0}  # Ishigami and Homma 1990
    encoder = Encoder.of(ANGLES)

    def exact(rows):
        return np.array([ishigami(encoder.decode(row)) for row in rows])

    found = total_indices(encoder, exact, cost=1, seed=np.random.default_rng(0))
    assert found == pytest.approx(list(known.values()), abs=0.03)
    learned = shares(asked(ANGLES, ishigami, count=250), SOBOL)
    assert learned == pytest.approx(known, abs=0.1)
    assert list(learned)[-1] == "d"


def test_sobol_indices_see_names_conditions_and_what_does_not_matter():
    found = shares(asked(MIXED, mixed_cost, count=60), SOBOL)
    # Var(rate) = 16/45 * 4, Var(choice) = 2/3, and the momentum's mean square under sgd, a third of the time.
    assert list(found)[:3] == ["rate", "optimizer", "momentum"]
    assert all(found[name] < 0.02 for name in ("width", "nesterov", "batch"))
    assert found["single"] == 0.0
    assert all(0.0 <= share <= 1.0 for share in found.values())


def test_a_constant_objective_makes_nothing_important():
    request = asked(MIXED, lambda _: 1.5, count=30)
    for question in (SOBOL, PED_ANOVA):
        assert set(shares(request, question).values()) == {0.0}


def test_ped_anova_ranks_every_kind_of_parameter_from_observations_alone():
    found = shares(asked(MIXED, mixed_cost, count=300), PED_ANOVA)
    assert sum(found.values()) == pytest.approx(1.0)
    assert set(list(found)[:3]) == {"rate", "optimizer", "momentum"}
    assert next(iter(found)) == "rate"
    assert all(found[name] < 0.05 for name in ("width", "nesterov", "batch"))
    assert found["single"] == pytest.approx(0.0, abs=1e-12)


def test_ped_anova_gives_a_child_no_share_of_what_its_parent_does():
    space = SearchSpace((Bool(name="on"), Float(name="child", low=0.0, high=1.0, when=Condition("on", (True,)))))
    found = shares(asked(space, lambda parameters: 0.0 if parameters["on"] else 1.0, count=200), PED_ANOVA)
    assert found["on"] > 0.9


def test_ped_anova_learns_from_failures():
    request = asked(MIXED, lambda parameters: parameters["rate"] * 0.0 + 1e-9 * parameters["width"], count=100)
    broken = tuple(
        replace(seen, state=TrialState.FAILED, metrics={}) if seen.parameters["batch"] == 16 else seen
        for seen in request.observations
    )
    before, after = shares(request, PED_ANOVA), shares(replace(request, observations=broken), PED_ANOVA)
    assert after["batch"] > before["batch"]


def test_importances_come_by_objective_the_most_important_first():
    both = (COST, Objective("width_cost", Goal.MAXIMIZE))
    request = asked(MIXED, lambda parameters: (mixed_cost(parameters), parameters["width"]), count=60, objectives=both)
    for question in (SOBOL, PED_ANOVA):
        found = answer(request, question)
        assert [each.metric for each in found] == ["cost"] * len(MIXED) + ["width_cost"] * len(MIXED)
        for metric in ("cost", "width_cost"):
            ranked = list(shares(request, question, metric).values())
            assert ranked == sorted(ranked, reverse=True)
        assert next(iter(shares(request, question, "width_cost"))) == "width"


def test_left_out_labels_are_what_a_posterior_without_them_predicts():
    random = np.random.default_rng(1)
    encoder = Encoder.of(ANGLES)
    rows, labels = encoder.features(random.random((12, 4))), random.normal(size=12)
    hyper = Hyperparameters(np.array([0.4, 0.7, 1.0, 2.0]), 0.05, 0.3)
    means, deviations = Posterior(encoder.layout, hyper, inputs=rows, labels=labels).left_out()
    for place in range(12):
        others = np.arange(12) != place
        posterior = Posterior(encoder.layout, hyper, inputs=rows[others], labels=labels[others])
        mean, deviation = posterior.moments(rows[[place]])
        assert means[place] == pytest.approx(mean[0, 0], rel=1e-9)
        assert deviations[place] == pytest.approx(math.hypot(deviation[0], math.sqrt(0.05)), rel=1e-9)


def test_cross_validation_is_calibrated_where_the_noise_is_normal():
    random = np.random.default_rng(2)
    request = asked(ANGLES, lambda p: math.sin(p["a"]) + p["b"] + random.normal(scale=0.3), count=120)
    found = answer(request, CrossValidate())
    assert [left.number for left in found] == list(range(1, 121))
    assert [left.observed for left in found] == [seen.metrics["cost"].value for seen in request.observations]
    apart = np.array([(left.observed - left.predicted.mean) / left.predicted.standard_deviation for left in found])
    assert 0.5 < np.mean(np.abs(apart) < 1.0) < 0.85
    assert np.mean(np.abs(apart) < 2.0) > 0.85


def test_cross_validation_leaves_out_what_was_not_measured():
    request = asked(MIXED, mixed_cost, count=12)
    first, second, *others = request.observations
    failed = replace(first, state=TrialState.FAILED, metrics={})
    diverged = replace(second, metrics={"cost": MetricValue(math.nan)})
    found = answer(replace(request, observations=(failed, diverged, *others)), CrossValidate())
    assert [left.number for left in found] == list(range(3, 13))


def test_cross_validation_of_many_trials_is_of_those_that_the_model_has():
    request = asked(ANGLES, ishigami, count=1_050)
    found = answer(request, CrossValidate())
    assert len(found) == 1_000
    observed = {seen.number: seen.metrics["cost"].value for seen in request.observations}
    assert all(observed[left.number] == left.observed for left in found)


def test_astronomical_results_leave_all_answers_finite():
    cliff = asked(MIXED, lambda p: 1e300 if p["optimizer"] == "rmsprop" else mixed_cost(p), count=40)
    for request in (cliff, asked(MIXED, lambda p: 1e300 * mixed_cost(p), count=40)):
        assert_finite(request)


def assert_finite(request):
    assert all(math.isfinite(share) for question in (SOBOL, PED_ANOVA) for share in shares(request, question).values())
    for left in answer(request, CrossValidate()):
        assert math.isfinite(left.predicted.mean)
        assert math.isfinite(left.predicted.standard_deviation)


@pytest.mark.parametrize(
    ("question", "needed"), [(Predict(({},)), 2), (SOBOL, 2), (CrossValidate(), 3), (PED_ANOVA, 10)]
)
def test_too_few_results_are_refused_with_how_many_it_takes(question, needed):
    both = (COST, Objective("speed", Goal.MAXIMIZE))
    request = asked(ANGLES, lambda parameters: (1.0, parameters["a"]), count=needed, objectives=both)
    points = (
        Predict(tuple(seen.parameters for seen in request.observations)) if isinstance(question, Predict) else question
    )
    assert answer(request, points)
    *others, last = request.observations
    unmeasured = replace(last, metrics={"cost": MetricValue(1.0)})
    with pytest.raises(FailedPrecondition) as refused:
        answer(replace(request, observations=(*others, unmeasured)), points)
    assert str(refused.value) == f"too few trials have a finite 'speed': {needed - 1}, this takes {needed}"
    assert refused.value.reason == "TOO_FEW_OBSERVATIONS"


def test_what_takes_too_long_is_refused_and_not_answered_in_half():
    request = asked(ANGLES, ishigami, count=60, time_limit=0.0)
    for question in (SOBOL, CrossValidate(), Predict((request.observations[0].parameters,))):
        with pytest.raises(OutOfTime):
            answer(request, question)


def test_wide_spaces_and_long_histories_get_fewer_points():
    assert points_for(5, cost=50) == 4_096
    assert points_for(100, cost=500) == 512
    assert points_for(1_000, cost=1_000) == 128


def test_indices_of_a_wide_space_take_little_memory():
    wide = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(300)))
    largest = []

    def function(rows):
        largest.append(len(rows))
        return rows[:, 0] + 0.5 * rows[:, 1]

    found = total_indices(Encoder.of(wide), function, cost=1_000, seed=np.random.default_rng(0))
    assert max(largest) == points_for(300, cost=1_000)
    assert found[:2] == pytest.approx([0.8, 0.2], abs=0.05)
    assert not found[2:].any()


def test_the_only_parameter_has_all_the_importance():
    request = asked(
        SearchSpace((Float(name="x", low=0.0, high=1.0),)), lambda parameters: parameters["x"] ** 2, count=15
    )
    assert shares(request, SOBOL) == {"x": pytest.approx(1.0, abs=0.01)}
    assert shares(request, PED_ANOVA) == {"x": pytest.approx(1.0)}
