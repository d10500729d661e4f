"""The course of `gp` from candidate to candidate, with choosers that do as a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import pytest

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Decision, Observation, SuggestRequest
from asktell.server.domain.space import Float, Parameters, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import gp, registry
from asktell.server.policies.scope import Key

REQUEST = SuggestRequest(
    space=SearchSpace((Float(name="x", low=0.0, high=1.0),)),
    objectives=(Objective("loss", Goal.MINIMIZE),),
    policy="gp",
    seed=1,
    count=3,
    next_number=13,
    observations=tuple(
        Observation(number, TrialState.SUCCEEDED, {"x": number / 13}, {"loss": MetricValue(number % 5)})
        for number in range(1, 13)
    ),
)
LIMIT = 1.0


class Chooser:
    """Chooses another number each time, after what a test wants to happen before it."""

    def __init__(self, before: Callable[[int], None]) -> None:
        self.before, self.closed = before, 0

    def choose(self, number: int, *, pending: Sequence[Parameters], seen: Collection[Key]) -> gp.Choice:
        assert not self.closed
        self.before(number)
        return gp.Choice({"x": number / 100}, {}, 0.5, None, method="acquisition")

    def hint(self) -> bytes:
        return b"hint"

    def close(self) -> None:
        self.closed += 1


def test_candidates_that_were_chosen_before_the_time_was_over_are_counted() -> None:
    def slow(number: int) -> None:
        time.sleep(LIMIT if number == 14 else 0.0)

    chooser = Chooser(slow)
    decision = gp.suggest_with(lambda _: chooser, replace(REQUEST, time_limit=LIMIT), name="gp")
    assert [each.origin.method for each in decision.candidates] == ["acquisition", "acquisition", "random"]
    assert (decision.timely, decision.hint, chooser.closed) == (1, b"hint", 1)


def test_a_chooser_is_closed_whatever_becomes_of_its_choices() -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    chooser = Chooser(stop)
    with pytest.raises(KeyboardInterrupt):
        gp.suggest_with(lambda _: chooser, REQUEST, name="gp")
    assert chooser.closed == 1


@pytest.mark.parametrize("policy", ["auto", "gp", "gp-botorch"])
def test_every_surrogate_says_how_many_candidates_came_in_time(policy: str) -> None:
    def timely(limit: float | None) -> Decision:
        return registry.suggest(replace(REQUEST, policy=policy, time_limit=limit))

    assert timely(None).timely == 3
    assert timely(0.0).timely == 0
