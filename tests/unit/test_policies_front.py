"""Choices for two to four objectives: what is on the front, where candidates go, and how near BoTorch's way is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from asktell.server.domain.metric import Goal, MetricValue, Objective, OutcomeConstraint, Relation
from asktell.server.domain.policy import Observation, Source, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.policies.botorch_model import FrontImprovement, exact, make_model, place
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.front_based import FrontChooser
from asktell.server.policies.labels import Shape, dominance
from asktell.server.policies.recipe import STANDARD, Member

SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
LEFT, RIGHT = Objective("left", Goal.MINIMIZE), Objective("right", Goal.MAXIMIZE)
"""Best at x = 0 and at x = 1, both at y = 0.5: in between is the front."""


def results(x, y):
    return {"left": x**2 + (y - 0.5) ** 2, "right": 3.0 - (x - 1) ** 2 - (y - 0.5) ** 2, "room": x}


def observed(count, *, seed=0):
    points = np.random.default_rng(seed).random((count, 2)).tolist()
    return tuple(
        Observation(
            number,
            TrialState.SUCCEEDED,
            {"x": x, "y": y},
            {name: MetricValue(value) for name, value in results(x, y).items()},
        )
        for number, (x, y) in enumerate(points, 1)
    )


def asked(**changes):
    observations = changes.pop("observations", None) or observed(14)
    usual = {"objectives": (LEFT, RIGHT), "policy": "gp", "seed": 1, "count": 1, "next_number": len(observations) + 1}
    return SuggestRequest(**{"space": SPACE, "observations": observations, **usual, **changes})


def choices(**changes):
    candidates = registry.suggest(asked(**changes)).candidates
    assert not any(candidate.origin.fallback for candidate in candidates)
    return candidates


@pytest.mark.parametrize("policy", ["gp", "gp-botorch"])
def test_candidates_lie_between_the_two_optima(policy):
    (candidate,) = choices(policy=policy)
    assert abs(candidate.parameters["y"] - 0.5) < 0.15
    assert set(candidate.origin.predictions) == {"left", "right"}
    expected = results(**candidate.parameters)
    for name, prediction in candidate.origin.predictions.items():
        assert prediction.mean == pytest.approx(expected[name], abs=0.2)


@pytest.mark.parametrize("policy", ["gp", "gp-botorch"])
@pytest.mark.parametrize(("left", "right", "low", "high"), [(0.09, None, 0.0, 0.35), (None, 2.91, 0.65, 1.0)])
def test_a_reference_says_which_part_of_the_front_is_worth_anything(policy, left, right, low, high):
    objectives = (replace(LEFT, reference=left), replace(RIGHT, reference=right))
    for number in (21, 22):
        (candidate,) = choices(policy=policy, objectives=objectives, next_number=number)
        assert low <= candidate.parameters["x"] <= high


def test_candidates_of_one_ask_are_for_different_parts_of_the_front():
    xs = sorted(candidate.parameters["x"] for candidate in choices(count=4))
    assert np.diff(xs).min() > 0.02


@pytest.mark.parametrize("policy", ["gp", "gp-botorch"])
def test_the_front_is_that_of_feasible_trials(policy):
    constraints = (OutcomeConstraint("room", Relation.AT_LEAST, 0.6),)
    for number in (15, 16, 17):
        (candidate,) = choices(policy=policy, outcome_constraints=constraints, next_number=number)
        assert candidate.parameters["x"] > 0.55
        assert "room" in candidate.origin.predictions


def test_a_trial_that_lacks_an_objective_is_no_part_of_the_front_but_of_the_other_ones_model():
    *some, last = observed(14)
    broken = replace(last, metrics={**last.metrics, "right": MetricValue(float("nan"))})
    chooser = FrontChooser(asked(observations=(*some, broken)), Deadline(None), STANDARD)
    front = chooser.learned()
    assert front.eligible[:, 0].tolist() == [True] * 13 + [False]
    assert front.labels[0].measured.tolist() == [True] * 14
    assert front.labels[1].measured.tolist() == [True] * 13 + [False]


def test_all_objectives_learn_from_the_same_of_many_observations_the_front_among_them():
    many = observed(1_100)
    chooser = FrontChooser(asked(observations=many), Deadline(None), STANDARD)
    front = chooser.learned()
    first, second = (mixture.posteriors[0].inputs for mixture in front.objectives)
    assert len(first) == 1_000
    np.testing.assert_array_equal(first, second)
    ranks = dominance(many, (LEFT, RIGHT), np.ones(1_100, dtype=bool))
    kept = {tuple(row) for row in first.tolist()}
    assert {tuple(seen.parameters.values()) for seen, rank in zip(many, ranks, strict=True) if rank == 0} <= kept


def test_an_earlier_study_is_a_prior_of_each_objective():
    request = asked(observations=observed(6), sources=(Source("earlier", frozenset({"x", "y"}), observed(40, seed=8)),))
    front = FrontChooser(request, Deadline(None), STANDARD).learned()
    assert [len(mixture.posteriors) for mixture in front.objectives] == [3, 3]
    candidates = registry.suggest(replace(request, count=3)).candidates
    assert not any(candidate.origin.fallback for candidate in candidates)
    assert all(abs(candidate.parameters["y"] - 0.5) < 0.1 for candidate in candidates)


def test_dominance_ranks_the_front_first_and_what_was_not_measured_last():
    told = [(1.0, 1.0), (2.0, 2.0), (3.0, 1.5), (0.5, 3.0), (float("nan"), 3.0)]
    observations = [
        Observation(number, TrialState.SUCCEEDED, {}, {"left": MetricValue(a), "right": MetricValue(b)})
        for number, (a, b) in enumerate(told, 1)
    ]
    eligible = np.array([True, True, True, False, False])
    ranks = dominance(observations, (LEFT, RIGHT), eligible)
    assert ranks[[0, 1]].tolist() == [0.0, 0.0]
    assert 0 < ranks[2] < ranks[3] < ranks[4]


def test_botorchs_sampled_improvement_ranks_points_as_the_exact_one_does():
    recipe = replace(STANDARD, front_members=(Member(Shape.HALF),))
    front = FrontChooser(asked(), Deadline(None), recipe).learned()
    encoder, settled = Encoder.of(SPACE), np.random.default_rng(5).random((200, 2))
    places = torch.tensor(encoder.settled(front.objectives[0].posteriors[0].inputs))
    theirs = FrontImprovement(
        [botorch(mixture.posteriors[0], places, encoder) for mixture in front.objectives],
        torch.tensor(front.reference),
        encoder,
        deadline=Deadline(None),
        places=places,
        pending=None,
    )
    with np.errstate(all="ignore"), torch.no_grad(), exact():
        ours = front.acquisition()(encoder.features(settled))
        sampled = theirs.value(torch.tensor(settled).unsqueeze(1)).numpy()
    promising = ours > ours.max() - 6.0
    assert promising.sum() > 20
    assert spearmanr(ours[promising], sampled[promising]).statistic > 0.95


def botorch(posterior, places, encoder):
    """BoTorch's model of the same labels and hyper-parameters."""
    model = make_model(places, torch.tensor(posterior.labels[:, 0]), encoder)
    hyper = posterior.hyper
    place(model, np.concatenate([np.log(hyper.lengthscales), [np.log(hyper.noise), hyper.mean]]))
    return model.eval()
