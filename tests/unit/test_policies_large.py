"""Studies of thousands of trials, and thousands of asks: still a model, still the same answer, and no more memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import MAX_HINT, Observation, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace, key
from asktell.server.domain.trial import TrialState
from asktell.server.policies import learning, probit, registry
from asktell.server.policies.subset import MAX_LEARNED, subset

DIMENSIONS = 20
NAMES = [f"x{index}" for index in range(DIMENSIONS)]
SPACE = SearchSpace(tuple(Float(name=name, low=-1.0, high=2.0) for name in NAMES))
CENTRE = np.linspace(-0.2, 0.8, DIMENSIONS)


def cost(points):
    return ((points - CENTRE) ** 2).sum(axis=-1)


def request(count, *, failing=0):
    """A study of so many random trials, the first few of them failures, and one that is pending."""
    points = np.random.default_rng(count).uniform(-1.0, 2.0, (count + 1, DIMENSIONS))
    configurations = [dict(zip(NAMES, point.tolist(), strict=True)) for point in points]
    observations = tuple(
        Observation(number, TrialState.SUCCEEDED, configuration, {"cost": MetricValue(value)})
        if number > failing
        else Observation(number, TrialState.FAILED, configuration, {})
        for number, (configuration, value) in enumerate(
            zip(configurations[:count], cost(points[:count]).tolist(), strict=True), 1
        )
    )
    return SuggestRequest(
        space=SPACE,
        objectives=(Objective("cost", Goal.MINIMIZE),),
        policy="gp",
        seed=11,
        count=1,
        next_number=count + 2,
        observations=observations,
        pending=(configurations[-1],),
    )


def bits(decision):
    """What was decided, to the last bit, without the time that it took."""
    return [(key(c.parameters), replace(c.origin, compute_duration=None)) for c in decision.candidates]


@pytest.mark.parametrize(("count", "failing"), [(1_000, 0), (5_000, 0), (5_000, 500)])
def test_a_large_study_has_a_model_that_is_always_the_same_and_better_than_chance(count, failing, monkeypatch):
    fits, fit, classify = [], learning.fit, probit.fit
    monkeypatch.setattr(learning, "fit", lambda *args, **options: fits.append(1) or fit(*args, **options))
    monkeypatch.setattr(probit, "fit", lambda *args, **options: fits.append(1) or classify(*args, **options))
    asked = request(count, failing=failing)
    decision = registry.suggest(asked)
    (candidate,) = decision.candidates
    assert (candidate.origin.method, candidate.origin.fallback) == ("acquisition", "")
    assert SPACE.check(candidate.parameters) == candidate.parameters
    seen = [trial.metrics["cost"].value for trial in asked.observations if trial.metrics]
    assert cost(np.array([candidate.parameters[name] for name in NAMES])) < min(seen)
    assert len(fits) == (3 if failing else 2)
    assert bits(registry.suggest(asked)) == bits(decision)
    turned = replace(asked, observations=asked.observations[::-1])
    assert bits(registry.suggest(turned)) == bits(decision)
    made = len(fits)
    assert 0 < len(decision.hint) <= MAX_HINT
    assert bits(registry.suggest(replace(asked, hint=decision.hint))) == bits(decision)
    assert len(fits) == made, "the hint spared all fits"


@pytest.mark.parametrize("count", [MAX_LEARNED + 1, 5_000])
def test_the_subset_keeps_the_best_and_the_latest_and_fills_the_space(count):
    random = np.random.default_rng(count)
    rows, labels = random.random((count, 3)), random.normal(size=count)
    alone = int(labels.argsort()[count // 2])
    rows[alone] = 5.0
    kept = subset(rows, labels)
    assert kept == sorted(set(kept))
    assert len(kept) == MAX_LEARNED
    third = MAX_LEARNED // 3
    assert set(np.argsort(labels)[:third].tolist()) <= set(kept)
    assert set(range(count - third, count)) <= set(kept)
    assert alone in kept, "whatever is far from all others is kept"
    assert subset(rows, labels) == kept


def test_a_study_that_is_not_too_large_is_learned_whole():
    rows = np.zeros((MAX_LEARNED, 2))
    assert subset(rows, np.zeros(MAX_LEARNED)) == list(range(MAX_LEARNED))


def test_a_large_study_of_copies_and_equal_losses_is_no_trouble():
    kept = subset(np.zeros((2 * MAX_LEARNED, 2)), np.zeros(2 * MAX_LEARNED))
    assert len(set(kept)) == MAX_LEARNED


# A process of its own: what other tests left behind is not this one's growth, nor is what this one grows by theirs.
GROWTH = """
import gc, itertools, math
import psutil
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Categorical, Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry

SPACE = SearchSpace((*(Float(name=f"x{index}", low=0.0, high=1.0) for index in range(4)), Categorical(name="c", choices=("a", "b"))))
models = 0

def study(seed, trials):
    global models
    observations, hint = [], b""
    for number in range(1, trials + 1):
        decision = registry.suggest(SuggestRequest(
            space=SPACE, objectives=(Objective("cost", Goal.MINIMIZE),), policy="gp", seed=seed, count=1, next_number=number,
            observations=tuple(observations), hint=hint,
        ))
        (candidate,) = decision.candidates
        models += bool(candidate.origin.predictions)
        hint = decision.hint or hint
        loss = math.fsum((value - 0.4) ** 2 for name, value in candidate.parameters.items() if name != "c")
        observations.append(Observation(number, TrialState.SUCCEEDED, candidate.parameters, {"cost": MetricValue(loss)}))

def resident():
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6

study(0, 50)
before = resident()
for seed in range(1, 6):
    study(seed, 30)
print(models, resident() - before)
"""


def test_hundreds_of_asks_leave_no_memory_behind():
    done = subprocess.run([sys.executable, "-c", GROWTH], check=True, capture_output=True, text=True, timeout=150)
    models, megabytes = map(float, done.stdout.split())
    assert models > 155, "of 200 asks the initial designs take 6 times 6"
    assert megabytes < 15
