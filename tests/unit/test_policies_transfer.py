"""Learning from earlier studies: what an expert of one says, how far it is believed, and what comes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, Source, SuggestRequest
from asktell.server.domain.space import Categorical, Condition, Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp, registry, transfer
from asktell.server.policies.acquisition import ExpectedImprovement
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.hints import Fits
from asktell.server.policies.model_based import AnalyticChooser
from asktell.server.policies.models import weigh
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.transfer import Accounts, Transferred, experts

CUBE = SearchSpace(tuple(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(4)))
OBJECTIVES = (Objective("y", Goal.MINIMIZE),)
NAMES = frozenset(spec.name for spec in CUBE)
Function = Callable[[Mapping[str, float]], float]


def bowl(centre: float) -> Function:
    return lambda x: sum((1 + index) * (x[f"x{index}"] - centre) ** 2 for index in range(4))


def observe(function: Function, points: list[dict[str, float]]) -> tuple[Observation, ...]:
    return tuple(
        Observation(number, TrialState.SUCCEEDED, point, {"y": MetricValue(function(point))})
        for number, point in enumerate(points, 1)
    )


def points(count: int, seed: int) -> list[dict[str, float]]:
    return [{f"x{i}": float(v) for i, v in enumerate(row)} for row in np.random.default_rng(seed).random((count, 4))]


def source(function: Function, *, name: str = "earlier", count: int = 30, best: float | None = None) -> Source:
    """Some random points, and, as a search leaves them, some near the best."""
    found = points(count, seed=1)
    if best is not None:
        found += [{f"x{i}": best + (0.02 if i == j else 0.0) for i in range(4)} for j in range(4)]
    return Source(name, NAMES, observe(function, found))


def request(observations=(), **changes) -> SuggestRequest:
    usual = {"space": CUBE, "objectives": OBJECTIVES, "policy": "gp", "seed": 3, "count": 1}
    return SuggestRequest(**{**usual, "observations": observations, "next_number": len(observations) + 1, **changes})


def learned(observations, sources) -> Transferred:
    chooser = AnalyticChooser(request(observations, sources=sources), Deadline.after(None), STANDARD)
    posterior = chooser.learned().models[-1].posterior
    assert isinstance(posterior, Transferred)
    return posterior


def minimise(function: Function, trials: int, **changes) -> list[float]:
    """The best value after each trial."""
    observations: tuple[Observation, ...] = ()
    for number in range(1, trials + 1):
        (candidate,) = gp.suggest(request(observations, **changes)).candidates
        told = {"y": MetricValue(function(candidate.parameters))}
        observations += (Observation(number, TrialState.SUCCEEDED, candidate.parameters, told),)
    return list(np.minimum.accumulate([seen.metrics["y"].value for seen in observations]))


def test_a_source_counts_as_far_as_it_explains_the_results() -> None:
    told = observe(bowl(0.3), points(12, seed=2))
    alike = source(lambda x: 100.0 + 7.0 * bowl(0.35)(x), name="alike")
    unlike = source(lambda x: -bowl(0.3)(x), name="unlike")
    weights = learned(told, (alike, unlike)).prior.weights
    assert weights[0] > 0.5
    assert weights[1] == 0.0


def test_a_source_of_what_has_nothing_to_do_with_it_leaves_the_usual_models() -> None:
    told = observe(bowl(0.3), points(12, seed=2))
    asked = request(told, sources=(source(lambda x: -bowl(0.3)(x)),))
    assert len(AnalyticChooser(asked, Deadline.after(None), STANDARD).learned().models) == len(STANDARD.members)
    (misled,), (alone,) = gp.suggest(asked).candidates, gp.suggest(request(told)).candidates
    assert misled.parameters == alone.parameters


def test_a_source_that_explains_little_takes_no_weight_from_other_models() -> None:
    told = observe(bowl(0.3), points(12, seed=2))
    chooser = AnalyticChooser(request(told, sources=(source(bowl(0.35)),)), Deadline.after(None), STANDARD)
    first, *others, last = chooser.learned().models
    same = replace(
        last, posterior=Transferred(replace(last.posterior.prior, weights=np.zeros(1), scale=1.0), first.posterior)
    )
    usual = np.exp(weigh([first, *others], temper=STANDARD.temper))
    shared = np.exp(weigh([first, *others, replace(same, labels=first.labels)], temper=STANDARD.temper))
    assert (shared[0] + shared[-1]) / shared[1] == pytest.approx(usual[0] / usual[1])


def test_the_gradient_of_the_acquisition_is_that_of_its_values() -> None:
    told = observe(bowl(0.3), points(9, seed=2))
    improvement = ExpectedImprovement(learned(told, (source(bowl(0.4)),)), np.array([-0.5]))
    for row in np.random.default_rng(7).random((8, 4)):
        error = check_grad(
            lambda x: float(improvement(x[None])[0]), lambda x: improvement.with_gradient(x[None])[1][0], row
        )
        assert error < 1e-4


def test_values_and_gradients_come_with_the_same_values() -> None:
    told = observe(bowl(0.3), points(9, seed=2))
    improvement = ExpectedImprovement(learned(told, (source(bowl(0.4)),)), np.array([-0.5]))
    rows = np.random.default_rng(7).random((8, 4))
    assert improvement.with_gradient(rows)[0] == pytest.approx(improvement(rows), abs=1e-10)


def test_imagined_results_are_believed() -> None:
    told = observe(bowl(0.3), points(9, seed=2))
    posterior = learned(told, (source(bowl(0.4)),))
    rows = np.random.default_rng(7).random((2, 4))
    labels = np.array([[1.5, -1.0], [0.5, 0.0]])
    after, deviation = posterior.given(rows, labels).moments(rows)
    before, wider = posterior.moments(rows)
    assert (np.abs(after - labels) < np.abs(before - labels)).all()
    assert (deviation < wider).all()


def test_where_a_source_knows_nothing_a_study_may_be_anything() -> None:
    corner = Source("corner", NAMES, observe(bowl(0.1), [{n: v / 4 for n, v in p.items()} for p in points(30, seed=1)]))
    nearby = [{name: value / 3 for name, value in point.items()} for point in points(12, seed=2)]
    prior = learned(observe(bowl(0.12), nearby), (corner,)).prior
    _, amplitude = prior.moments(np.array([[0.1] * 4, [1.0] * 4]))
    assert amplitude[1] > 1.1 * amplitude[0]


def test_a_source_is_learned_at_the_shared_parameters_alone() -> None:
    space = SearchSpace((*CUBE.parameters, Categorical(name="kind", choices=("a", "b"))))
    encoder = Encoder.of(space)
    (expert,) = experts((source(bowl(0.4)),), OBJECTIVES, encoder, fits=Fits(), deadline=Deadline.after(None))
    rows = encoder.features(encoder.encode([{**p, "kind": kind} for p in points(3, seed=4) for kind in ("a", "b")]))
    means, _ = Accounts.of([expert], rows).means[:, 0].reshape(3, 2).T
    assert means == pytest.approx(Accounts.of([expert], rows).means[1::2, 0])


def test_the_first_trial_is_the_best_of_the_source_and_the_second_the_centre() -> None:
    earlier = source(bowl(0.8), best=0.8)
    first = gp.suggest(request(sources=(earlier,))).candidates[0]
    assert first.origin.method == "warm-start"
    assert first.parameters == min(earlier.observations, key=lambda seen: seen.metrics["y"].value).parameters
    second = gp.suggest(request(observe(bowl(0.8), [first.parameters]), sources=(earlier,))).candidates[0]
    assert second.parameters == dict.fromkeys(NAMES, 0.5)


def test_no_more_points_of_a_source_are_tried_once_another_one_is_better() -> None:
    earlier = source(bowl(0.8), best=0.8)
    (first,) = gp.suggest(request(sources=(earlier,))).candidates
    tried = [first.parameters, dict.fromkeys(sorted(NAMES), 0.5)]
    for function, method in ((bowl(0.8), "warm-start"), (bowl(0.5), "initial-design")):
        (third,) = gp.suggest(request(observe(function, tried), sources=(earlier,))).candidates
        assert third.origin.method == method


def test_of_a_source_that_knows_what_is_feasible_only_that_is_tried() -> None:
    fast = OutcomeConstraint("latency", Relation.AT_MOST, 50.0)
    told = [(0.1, 0.0, 90.0), (0.3, 1.0, 70.0), (0.5, 2.0, 30.0), (0.9, 3.0, 10.0)]
    seen = tuple(
        Observation(
            number,
            TrialState.SUCCEEDED,
            {f"x{i}": place for i in range(4)},
            {"y": MetricValue(loss), "latency": MetricValue(latency)},
        )
        for number, (place, loss, latency) in enumerate(told, 1)
    )
    known = request(sources=(Source("earlier", NAMES, seen),), outcome_constraints=(fast,))
    assert gp.suggest(known).candidates[0].parameters == seen[2].parameters
    slower = replace(known, sources=(Source("earlier", NAMES, seen[:2]),))
    assert gp.suggest(slower).candidates[0].parameters == seen[0].parameters
    unaware = replace(known, outcome_constraints=(replace(fast, metric="memory"),))
    assert gp.suggest(unaware).candidates[0].parameters == seen[0].parameters


def test_points_of_sources_are_completed_and_lie_in_the_space() -> None:
    space = SearchSpace(
        (
            Float(name="x0", low=0.0, high=1.0, step=0.25),
            Categorical(name="kind", choices=("a", "b"), default="b", has_default=True),
            Float(name="depth", low=1.0, high=3.0, when=Condition("kind", ("b",))),
        )
    )
    seen = Observation(1, TrialState.SUCCEEDED, {"x0": 0.31}, {"y": MetricValue(0.0)})
    asked = request(space=space, sources=(Source("earlier", frozenset({"x0"}), (seen,)),))
    (candidate,) = gp.suggest(asked).candidates
    assert candidate.parameters == {"x0": 0.25, "kind": "b", "depth": 2.0}


def test_the_order_of_a_sources_observations_and_the_hint_change_no_bit() -> None:
    told = observe(bowl(0.3), points(8, seed=2))
    earlier = source(bowl(0.35))
    decision = gp.suggest(request(told, sources=(earlier,)))
    shuffled = list(earlier.observations)
    random.Random(0).shuffle(shuffled)
    for other in (
        request(told, sources=(earlier,), hint=decision.hint),
        request(tuple(reversed(told)), sources=(Source(earlier.name, NAMES, tuple(shuffled)),)),
    ):
        assert [each.parameters for each in gp.suggest(other).candidates] == [
            each.parameters for each in decision.candidates
        ]


def test_a_fit_to_a_source_is_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    told = observe(bowl(0.3), points(8, seed=2))
    asked = request(told, sources=(source(bowl(0.35)),))
    hint = gp.suggest(asked).hint
    monkeypatch.delattr(transfer, "fit")
    (expert,) = experts(asked.sources, OBJECTIVES, Encoder.of(CUBE), fits=Fits(hint), deadline=Deadline.after(None))
    assert expert.name == "earlier"


def test_gone_and_empty_sources_are_done_without_and_named() -> None:
    sources = (Source("lost", gone=True), Source("empty", NAMES), source(bowl(0.35), name="there"))
    for told in ((), observe(bowl(0.3), points(8, seed=2))):
        (candidate,) = gp.suggest(request(told, sources=sources)).candidates
        assert candidate.origin.reason == "starts from empty, there; goes on without lost, which is gone"
        assert candidate.origin.fallback == ""


@pytest.mark.parametrize("policy", sorted(registry.POLICIES.keys() - {"auto", "gp", "gp-botorch", "pbt"}))
def test_a_policy_that_looks_at_no_other_study_says_so(policy: str) -> None:
    asked = request(observe(bowl(0.3), points(8, seed=2)), sources=(source(bowl(0.35)),))
    (candidate,) = registry.suggest(replace(asked, policy=policy)).candidates
    assert candidate.origin.reason == f"does not start from earlier: {policy} looks at no other study"
    (candidate,) = registry.suggest(replace(asked, policy="auto", max_trials=10**6)).candidates
    assert candidate.origin.reason.endswith("; does not start from earlier: evolution looks at no other study")


def test_an_alike_source_finds_the_best_much_earlier() -> None:
    target, earlier = bowl(0.77), source(lambda x: 3.0 * bowl(0.72)(x) - 5.0, best=0.72)
    for seed in range(3):
        alone, transferred = minimise(target, 12, seed=seed), minimise(target, 12, seed=seed, sources=(earlier,))
        assert transferred[0] < alone[4] / 4
        assert sum(transferred) < sum(alone) / 4


def test_an_unlike_source_costs_little() -> None:
    target, earlier = bowl(0.77), source(lambda x: -bowl(0.77)(x), best=0.0)
    alone = [minimise(target, 20, seed=seed)[-1] for seed in range(3)]
    misled = [minimise(target, 20, seed=seed, sources=(earlier,))[-1] for seed in range(3)]
    assert np.median(misled) < 2.0 * np.median(alone) + 1e-3
