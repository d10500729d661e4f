"""Noise: standard errors count as they were told, repeats come where they are worth something, and equal rows do no harm."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.acquisition import ExpectedImprovement
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.excess import make_excesses
from asktell.server.policies.kernel import Hyperparameters
from asktell.server.policies.labels import Noise, make_labels
from asktell.server.policies.likelihood import fit, unpack
from asktell.server.policies.posterior import Posterior

COST = Objective("cost", Goal.MINIMIZE)
LATENCY = OutcomeConstraint("latency", Relation.AT_MOST, 50.0)
LINE = SearchSpace((Float(name="x", low=0.0, high=1.0),))


def told(*costs, errors, metric="cost"):
    return [
        Observation(number, TrialState.SUCCEEDED, {"x": number / 100}, {metric: MetricValue(cost, error)})
        for number, (cost, error) in enumerate(zip(costs, errors, strict=True), 1)
    ]


def asking(space, observations, **changes):
    usual = {"objectives": (COST,), "policy": "gp", "seed": 3, "count": 1, "next_number": len(observations) + 1}
    return SuggestRequest(**{"space": space, **usual, "observations": tuple(observations), **changes})


def test_a_standard_error_is_the_labels_in_units_of_the_labels():
    labels = make_labels(told(1.0, 2.0, 3.0, 4.0, errors=[0.1, None, 0.0, 0.1]), (COST,))
    unit = (2.0 - 1.0) / (labels.values[1] - labels.values[0])
    assert labels.noise.variances[:3] == pytest.approx([(0.1 / unit) ** 2, 0.0, 0.0])
    assert labels.noise.variances[3] < labels.noise.variances[0], "beyond the fence the warp presses errors as well"
    assert not labels.noise.complete
    assert make_labels(told(1.0, 2.0, errors=[0.0, 0.0]), (COST,)).noise.complete


def test_the_standard_error_of_a_constrained_metric_is_that_of_its_label():
    excesses = make_excesses(told(48.0, 49.0, 51.0, errors=[None, 0.5, 1.0], metric="latency"), LATENCY)
    unit = (49.0 - 48.0) / (excesses.values[1] - excesses.values[0])
    assert excesses.noise.variances == pytest.approx([0.0, (0.5 / unit) ** 2, (1.0 / unit) ** 2])


def learned(xs, labels, noise):
    """The posterior of labels at numbers, with the hyper-parameters that fit them."""
    encoder = Encoder.of(LINE)
    rows = encoder.features(np.asarray(xs)[:, None])
    point = fit(rows, labels, encoder.layout, deadline=Deadline(None), noise=noise)
    hyper = unpack(point, encoder.layout)
    return Posterior(encoder.layout, hyper, inputs=rows, labels=labels, variances=noise.variances)


def test_what_was_measured_exactly_counts_more_than_what_was_not():
    xs = np.linspace(0.0, 1.0, 12)
    labels = np.sin(5.0 * xs)
    labels[5] += 3.0
    known = Noise(np.where(np.arange(12) == 5, 9.0, 1e-6), complete=True)
    assert abs(learned(xs, labels, known).means[5, 0] - math.sin(5.0 * xs[5])) < 0.1
    assert learned(xs, labels, Noise(np.zeros(12))).means[:, 0] != pytest.approx(np.sin(5.0 * xs), abs=0.3)


def test_where_all_errors_are_known_hardly_any_noise_is_learned():
    random = np.random.default_rng(0)
    xs = random.random(60)
    labels = np.sin(5.0 * xs) + 0.3 * random.normal(size=60)
    assert learned(xs, labels, Noise(np.full(60, 0.09), complete=True)).hyper.noise < 0.01
    assert learned(xs, labels, Noise(np.zeros(60))).hyper.noise == pytest.approx(0.09, rel=0.5)


def test_improvement_under_noise_is_what_the_mean_is_expected_to_improve_by_once_it_was_measured():
    random = np.random.default_rng(1)
    xs = random.random(9)
    labels = np.sin(5.0 * xs) + 0.3 * random.normal(size=9)
    hyper = Hyperparameters(np.array([0.3]), noise=0.1, mean=0.0)
    posterior = Posterior(Encoder.of(LINE).layout, hyper, inputs=xs[:, None], labels=labels)
    places = np.array([[0.05], [0.4], [float(xs[0])]])
    incumbent = float(posterior.means.max())
    ours = ExpectedImprovement(posterior, np.array([incumbent]), posterior.hyper.noise)(places)
    nodes, weights = np.polynomial.hermite_e.hermegauss(199)
    for place, value in zip(places, ours, strict=True):
        (mean,), (deviation,) = posterior.moments(place[None])
        results = mean + math.hypot(deviation, math.sqrt(posterior.hyper.noise)) * nodes
        after, _ = posterior.given(place[None], results[None]).moments(place[None])
        expected = float((np.maximum(incumbent - after[0], 0.0) * weights).sum() / weights.sum())
        assert math.exp(value) == pytest.approx(expected, rel=0.02)


def test_the_gradient_of_improvement_under_noise_is_its_slope():
    random = np.random.default_rng(2)
    xs = random.random(9)
    posterior = learned(xs, np.sin(5.0 * xs), Noise(np.full(9, 0.1)))
    ours = ExpectedImprovement(posterior, np.array([-0.5]), 0.2)
    rows = random.random((20, 1))
    values, gradients = ours.with_gradient(rows)
    assert values == pytest.approx(ours(rows))
    assert gradients[:, 0] == pytest.approx((ours(rows + 1e-6) - ours(rows - 1e-6)) / 2e-6, rel=1e-4, abs=1e-6)


def test_five_hundred_replicates_of_three_configurations_are_learned_from_as_they_are():
    random = np.random.default_rng(3)
    places, truths = np.array([0.2, 0.5, 0.9]), np.array([1.0, 0.0, 2.0])
    which = np.arange(500) % 3
    labels = truths[which] + 0.5 * random.normal(size=500)
    posterior = learned(places[which], labels, Noise(np.zeros(500)))
    assert posterior.hyper.noise == pytest.approx(0.25, rel=0.2)
    mean, deviation = posterior.moments(places[:, None])
    assert mean[:, 0] == pytest.approx(truths, abs=0.15)
    assert (deviation < 0.08).all()
    observations = [
        Observation(number, TrialState.SUCCEEDED, {"x": float(places[place])}, {"cost": MetricValue(float(label))})
        for number, (place, label) in enumerate(zip(which, labels, strict=True), 1)
    ]
    (candidate,) = registry.suggest(asking(LINE, observations, noisy=True)).candidates
    assert not candidate.origin.fallback
    assert candidate.origin.incumbent == pytest.approx(0.0, abs=0.2)


def noisy_run(space, function, trials, *, seed, noisy=True, deviation=0.5):
    """Candidates and observations of a sequential study whose results are noisy."""
    random = np.random.default_rng(seed)
    observations, candidates = [], []
    for number in range(1, trials + 1):
        (candidate,) = registry.suggest(asking(space, observations, seed=seed, noisy=noisy)).candidates
        result = function(candidate.parameters) + deviation * random.normal()
        observations.append(
            Observation(number, TrialState.SUCCEEDED, candidate.parameters, {"cost": MetricValue(result)})
        )
        candidates.append(candidate)
    return candidates, observations


def repeated(observations):
    return len(observations) - len({key(seen.parameters) for seen in observations})


def test_a_noisy_study_repeats_some_configurations_and_another_none():
    def function(p):
        return 4.0 * (p["x"] - 0.3) ** 2

    candidates, observations = noisy_run(LINE, function, 40, seed=0)
    assert 1 <= repeated(observations) <= 10
    assert sum(candidate.origin.method == "repeat" for candidate in candidates) == repeated(observations)
    assert repeated(noisy_run(LINE, function, 40, seed=0, noisy=False)[1]) == 0


def crowded(policy, **changes):
    """A request of a noisy study with a dozen results near the minimum, and the candidates of four trials."""
    random = np.random.default_rng(5)
    xs = np.concatenate([[0.0, 0.25, 0.5, 0.75, 1.0], 0.3 + 0.02 * random.random(9)])
    observations = [
        Observation(
            number,
            TrialState.SUCCEEDED,
            {"x": float(x)},
            {"cost": MetricValue(4.0 * (x - 0.3) ** 2 + 0.3 * random.normal())},
        )
        for number, x in enumerate(xs, 1)
    ]
    request = asking(LINE, observations, policy=policy, **changes)
    return xs, registry.suggest(replace(request, count=4)).candidates


@pytest.mark.parametrize("policy", ["gp", "gp-botorch"])
def test_what_noise_hides_the_difference_from_is_measured_again_exactly_or_passed_over(policy):
    xs, candidates = crowded(policy, noisy=True)
    for candidate in candidates:
        x = candidate.parameters["x"]
        gap = np.abs(xs - x).min()
        assert (gap == 0.0) == (candidate.origin.method == "repeat")
        assert gap == 0.0 or gap > 2e-3
        xs = np.append(xs, x)


def test_of_a_few_noisy_choices_the_promising_ones_are_measured_most_often():
    arms = SearchSpace((Categorical(name="arm", choices=("a", "b", "c", "d", "e", "f")),))
    costs = {"a": 3.0, "b": 1.0, "c": 2.5, "d": 0.7, "e": 3.0, "f": 2.0}
    times: Counter[str] = Counter()
    for seed in range(3):
        _, observations = noisy_run(arms, lambda p: costs[p["arm"]], 30, seed=seed)
        assert {seen.parameters["arm"] for seen in observations} == set(costs)
        times.update(seen.parameters["arm"] for seen in observations)
    assert {arm for arm, _ in times.most_common(2)} == {"b", "d"}
    assert times["b"] + times["d"] > 45
