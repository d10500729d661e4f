"""What a trial's origin tells a user: what was expected in the metric's own unit, what chose it, and what went wrong if anything did."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from asktell import client as at
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Float, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import deadline, registry
from tests.processes import Processes

PLANE = [at.Float("x", 0.0, 1.0), at.Float("y", 0.0, 1.0)]
SQUARE = SearchSpace((Float(name="x", low=0.0, high=1.0), Float(name="y", low=0.0, high=1.0)))
MODELS = {"acquisition", "exploration"}
NAMES = (f"study-{number}" for number in count())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[at.Client]:
    directory: Path = tmp_path_factory.mktemp("origin")
    with Processes(directory) as processes, at.Client(processes.serve(str(directory / "asktell.db")).target) as client:
        yield client


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[at.Client]:
    """A client of a server that gives its policies no time."""
    directory: Path = tmp_path_factory.mktemp("hurried")
    environment = {"ASKTELL_ASK_TIME_LIMIT": "0.0001"}
    with Processes(directory) as processes:
        server = processes.serve(str(directory / "asktell.db"), environment=environment)
        with at.Client(server.target) as client:
            yield client


def run(client, function, *, trials, parameters=PLANE, objective=None):
    """The trials of a sequential study, as they read when all has ended."""
    study = client.create_study(
        next(NAMES), parameters=parameters, objectives=[objective or at.Minimize("y")], policy="gp", seed=5
    )
    for _ in range(trials):
        (trial,) = study.ask()
        trial.tell(function(trial.parameters))
    return study.list_trials()


def hill(p):
    """From 1 at the top down to 0."""
    return math.exp(-4 * ((p["x"] - 0.3) ** 2 + (p["y"] - 0.7) ** 2))


@pytest.mark.parametrize("level", [1_000.0, -1_000.0])
@pytest.mark.parametrize("goal", [at.Maximize, at.Minimize])
def test_expectations_are_in_the_metrics_own_unit_and_sign(client, goal, level):
    sign = 1 if goal is at.Maximize else -1
    trials = run(client, lambda p: level + sign * 40 * hill(p), trials=18, objective=goal("score"))
    seen = [trial.metrics["score"].value for trial in trials]
    modelled = [trial for trial in trials if trial.origin.method in MODELS]
    assert len(modelled) >= 12
    for trial in modelled:
        origin, before = trial.origin, seen[: trial.number - 1]
        low, high = min(before), max(before)
        assert origin.policy == "gp"
        assert list(origin.predictions) == ["score"]
        expected = origin.predictions["score"]
        assert low - 2 * (high - low) < expected.mean < high + 2 * (high - low)
        assert 0 < expected.standard_deviation < 2 * (high - low)
        assert math.isfinite(origin.acquisition)
        best = high if goal is at.Maximize else low
        assert origin.incumbent == pytest.approx(best, abs=0.25 * (high - low))
        assert origin.compute_duration.total_seconds() > 0
    last = modelled[-1]
    expected = last.origin.predictions["score"]
    assert expected.mean == pytest.approx(last.metrics["score"].value, abs=10), "the top was 40 above the foot"
    chosen = [trial.origin.predictions["score"].mean for trial in modelled if trial.origin.method == "acquisition"]
    assert sign * (sum(chosen) / len(chosen) - level) > 10, (
        "good values were expected where trials were chosen for that"
    )


def test_a_trial_that_no_model_chose_expects_nothing_and_says_what_chose_it(client):
    first = run(client, hill, trials=1)[0].origin
    assert (first.policy, first.method, first.fallback) == ("gp", "initial-design", "")
    assert (first.predictions, first.acquisition, first.incumbent) == ({}, None, None)


def test_a_stagnant_search_says_that_it_explored_or_passed_by_duplicates(client):
    """One parameter that all is known of after ten trials."""
    trials = run(client, lambda p: (p["x"] - 0.4) ** 2, trials=25, parameters=PLANE[:1])
    assert {"acquisition", "exploration"} <= {trial.origin.method for trial in trials}
    fallbacks = [trial.origin.fallback for trial in trials if trial.origin.fallback]
    assert fallbacks
    for text in fallbacks:
        assert re.fullmatch(r"[1-9]\d* better points were near-duplicates of earlier trials", text)


def test_a_space_of_two_numbers_says_that_every_point_was_tried(client):
    """A continuum as far as its declaration goes."""
    narrow = [at.Float("x", 1.0, math.nextafter(1.0, 2.0))]
    trials = run(client, lambda p: p["x"], trials=8, parameters=narrow)
    assert {trial.parameters["x"] for trial in trials} == {1.0, math.nextafter(1.0, 2.0)}
    assert trials[-1].origin.method == "random"
    assert trials[-1].origin.fallback == "every promising point was a near-duplicate of an earlier trial"


def test_a_server_without_time_says_so(hurried):
    trials = run(hurried, hill, trials=8)
    assert [trial.origin.method for trial in trials[:3]] == ["initial-design"] * 3
    for trial in trials[4:]:
        assert (trial.origin.policy, trial.origin.method) == ("gp", "random")
        assert "within" in trial.origin.fallback
        assert not trial.origin.predictions


class Clock:
    """Time that passes by a second with each look at it."""

    def __init__(self) -> None:
        self.seconds = 0

    def monotonic(self) -> float:
        self.seconds += 1
        return float(self.seconds)


def asked():
    random = registry.suggest(
        SuggestRequest(
            space=SQUARE,
            objectives=(Objective("cost", Goal.MINIMIZE),),
            policy="random",
            seed=1,
            count=12,
            next_number=1,
        )
    )
    observations = tuple(
        Observation(number, TrialState.SUCCEEDED, c.parameters, {"cost": MetricValue(-hill(c.parameters))})
        for number, c in enumerate(random.candidates, 1)
    )
    return SuggestRequest(
        space=SQUARE,
        objectives=(Objective("cost", Goal.MINIMIZE),),
        policy="gp",
        seed=1,
        count=1,
        next_number=13,
        observations=observations,
    )


def test_whenever_the_time_runs_out_there_is_a_candidate_that_says_so(monkeypatch):
    """From a limit that leaves no time for a model to one that is never reached, by a clock of its own."""
    monkeypatch.setattr(deadline, "time", Clock())
    texts = []
    for limit in (1, 2, 5, 20, 60, 100, 200, 10_000):
        decision = registry.suggest(replace(asked(), time_limit=float(limit)))
        (candidate,) = decision.candidates
        assert SQUARE.check(candidate.parameters)
        texts.append(candidate.origin.fallback.replace(f"{limit:g} s", "N s"))
        assert bool(candidate.origin.predictions) == (candidate.origin.method in MODELS)
    assert texts[0] == "the time limit of N s left no time for a model"
    assert "the time limit of N s ended the search early" in texts
    assert texts[-1] == ""
    assert not any("Error" in text for text in texts)


def test_what_time_cut_short_is_not_kept_for_later(monkeypatch):
    """A fit that was not finished would make a later candidate another one than without the hint."""
    whole = registry.suggest(asked())
    monkeypatch.setattr(deadline, "time", Clock())
    hints = [registry.suggest(replace(asked(), time_limit=float(limit))).hint for limit in (1, 2, 5, 10, 20, 40, 80)]
    monkeypatch.undo()
    assert b"" in hints
    for hint in set(hints):
        again = registry.suggest(replace(asked(), hint=hint))
        assert again.candidates[0].parameters == whole.candidates[0].parameters
        assert again.candidates[0].origin.predictions == whole.candidates[0].origin.predictions
