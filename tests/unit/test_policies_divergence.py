"""A loss far beyond all others says where training diverges, and nothing of the objective elsewhere; without one, nothing changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Float, Parameters, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.divergence import beyond, diverged
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.hints import Fits
from asktell.server.policies.learning import Lesson
from asktell.server.policies.models import Learned
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.results import Results

LOSS = Objective("loss", Goal.MINIMIZE)
GAIN = Objective("loss", Goal.MAXIMIZE)
SPACE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
WITHOUT = replace(STANDARD, divergences=False)
ROWS = np.random.default_rng(5).random((24, 2))


def bowl(row: Sequence[float]) -> float:
    return (row[0] - 0.7) ** 2 + 3.0 * (row[1] - 0.4) ** 2


def heavy(row: Sequence[float]) -> float:
    """A valley in whose heavy tail losses reach two thousand."""
    return math.exp(5.0 * bowl(row)) - 1.0


def cliff(row: Sequence[float]) -> float:
    return bowl(row) + (1e4 if row[0] < 0.15 else 0.0)


def study(
    function: Callable[[Sequence[float]], float], rows: np.ndarray = ROWS, *, sign: float = 1.0
) -> SuggestRequest:
    observations = tuple(
        Observation(
            number,
            TrialState.SUCCEEDED,
            {"x": float(row[0]), "y": float(row[1])},
            {"loss": MetricValue(sign * function(row))},
        )
        for number, row in enumerate(rows, 1)
    )
    return SuggestRequest(
        space=SPACE,
        objectives=(LOSS if sign > 0.0 else GAIN,),
        policy="gp",
        seed=3,
        count=2,
        next_number=len(rows) + 1,
        observations=observations,
    )


def learned(request: SuggestRequest) -> Learned:
    encoder = Encoder.of(SPACE)
    return Lesson.of(request, encoder, recipe=STANDARD, fits=Fits(), deadline=Deadline.after(60.0)).learn()


def numbers(request: SuggestRequest) -> list[int]:
    found = diverged(Results.of(request.observations, request.objectives), STANDARD)
    return [seen.number for seen, gone in zip(request.observations, found, strict=True) if gone]


@pytest.mark.parametrize("function", [bowl, heavy, math.fsum, lambda _: 1.0])
def test_without_far_losses_every_candidate_is_the_same_to_the_bit(
    function: Callable[[Sequence[float]], float],
) -> None:
    request = study(function)
    choices = [gp.suggest(request, recipe=recipe) for recipe in (STANDARD, WITHOUT)]
    assert choices[0] == choices[1]
    assert choices[0].candidates[0].origin.method == "acquisition"


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_diverged_is_known_whichever_way_is_better(sign: float) -> None:
    below = [number for number, row in enumerate(ROWS, 1) if row[0] < 0.15]
    assert below
    assert numbers(study(cliff, sign=sign)) == below
    assert numbers(study(bowl, sign=sign)) == []


def test_of_several_objectives_none_diverge() -> None:
    request = study(cliff)
    assert not diverged(Results.of(request.observations, (LOSS, replace(LOSS, metric="size"))), STANDARD).any()


def test_far_losses_change_the_objectives_model_no_more_than_if_they_had_never_been_told() -> None:
    request = study(cliff)
    gone = numbers(request)
    told, never = learned(request), learned(study(bowl, np.delete(ROWS, np.array(gone) - 1, axis=0)))
    for one, other in zip(told.models, never.models, strict=True):
        assert one.labels.values.tolist() == other.labels.values.tolist()
        assert one.posterior.inputs.tolist() == other.posterior.inputs.tolist()
        assert one.labels.warp == other.labels.warp


def test_from_the_first_on_their_places_are_learned() -> None:
    edge = np.array([[0.05, 0.2], [0.1, 0.5], [0.08, 0.8]])
    none, one, more = (learned(study(cliff, np.vstack([ROWS[ROWS[:, 0] > 0.2], edge[:count]]))) for count in (0, 1, 3))
    assert none.feasibility is None
    assert one.feasibility is not None
    there, near, good = np.exp(one.feasibility(np.array([[0.05, 0.2], [0.07, 0.3], [0.7, 0.4]])))
    assert there < 0.5
    assert near < 0.6
    assert good > 0.9
    assert more.feasibility is not None
    bad, good = np.exp(more.feasibility(np.array([[0.07, 0.6], [0.7, 0.4]])))
    assert bad < 0.2
    assert good > 0.9


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e290])
def test_the_unit_of_losses_does_not_matter(scale: float) -> None:
    losses = np.array([3.0, 1.0, 2.0, 1.5, 1e4, 2.5, 9e5]) * scale
    assert beyond(losses).nonzero()[0].tolist() == [4, 6]


def test_a_heavy_tail_is_seldom_taken_for_a_cliff() -> None:
    generator = np.random.default_rng(0)
    found = [beyond(np.exp(generator.normal(0.0, 1.5, 50))).any() for _ in range(500)]
    assert np.mean(found) < 0.03


def test_a_search_that_has_converged_has_no_divergences() -> None:
    design, close = np.linspace(1.0, 20.0, 10), 1e-9 * np.arange(1.0, 200.0)
    assert not beyond(np.concatenate([design, close])).any()


def test_fewer_than_half_diverge() -> None:
    assert not beyond(np.array([1.0, 2.0, 1e6, 2e6])).any()
    assert not beyond(np.array([1.0])).any()
    assert beyond(np.array([1.0, 2.0, 1e6])).tolist() == [False, False, True]


def told(request: SuggestRequest, point: Parameters, loss: float) -> SuggestRequest:
    """The study after one more trial."""
    seen = Observation(request.next_number, TrialState.SUCCEEDED, point, {"loss": MetricValue(loss)})
    return replace(request, observations=(*request.observations, seen), next_number=request.next_number + 1)


def designed(function: Callable[[Sequence[float]], float]) -> SuggestRequest:
    """A study after its initial design."""
    request = replace(study(function, ROWS[:0]), count=1)
    for _ in range(4):
        point = gp.suggest(request).candidates[0].parameters
        request = told(request, point, function((point["x"], point["y"])))
    return request


def off_centre(row: Sequence[float]) -> float:
    return bowl(row) + (1e4 if max(abs(row[0] - 0.5), abs(row[1] - 0.5)) < 0.05 else 0.0)


def test_a_first_point_that_diverged_is_tried_again_halfway_to_the_best_once() -> None:
    request = designed(off_centre)
    best = min(request.observations, key=lambda seen: seen.metrics["loss"].value).parameters
    (retreat,) = gp.suggest(request).candidates
    assert (retreat.origin.method, retreat.origin.fallback) == ("initial-design", "")
    assert retreat.parameters == {name: pytest.approx((best[name] + 0.5) / 2.0) for name in "xy"}
    for loss in (0.1, 1e4):
        after = gp.suggest(told(request, retreat.parameters, loss)).candidates[0]
        assert after.origin.method == "acquisition"


@pytest.mark.parametrize("function", [bowl, cliff])
def test_a_first_point_that_did_not_diverge_is_not_tried_again(function: Callable[[Sequence[float]], float]) -> None:
    request = designed(function)
    assert gp.suggest(request).candidates[0].origin.method == "acquisition"


def test_what_is_fixed_stays_so_in_what_replaces_a_first_point() -> None:
    request = replace(designed(off_centre), fixed={"x": 0.25})
    (retreat,) = gp.suggest(request).candidates
    assert retreat.origin.method == "initial-design"
    assert retreat.parameters["x"] == 0.25
