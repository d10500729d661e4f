"""asktell's engine inside this process, with a policy of its own: for comparisons of policies, which need not wait for a service."""

from __future__ import annotations

import math
from typing import Any

from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import (
    Categorical,
    Condition,
    Float,
    Int,
    Ordinal,
    Parameters,
    ParameterSpec,
    SearchSpace,
)
from asktell.server.domain.trial import TrialState
from asktell.server.policies.safety import Policy
from benchmarks.problem import Choice, Configuration, Ordered, Outcome, Param, Problem, Whole

METRIC = "y"


class InProcess:
    """A policy, as the server calls it, with a study's budget if there is one."""

    def __init__(self, problem: Problem, seed: int, suggest: Policy, *, max_trials: int | None = None) -> None:
        self._space = SearchSpace(tuple(parameter_spec(param) for param in problem.params))
        self._seed, self._suggest, self._max_trials = seed, suggest, max_trials
        self._number = 0
        self._observations: list[Observation] = []
        self._pending: dict[int, Parameters] = {}

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The next trial's number, and its parameters."""
        self._number += 1
        decision = self._suggest(self._request())
        parameters = decision.candidates[0].parameters
        self._pending[self._number] = parameters
        return self._number, dict(parameters)

    def tell(self, token: int, configuration: Configuration, outcome: Outcome) -> None:  # noqa: ARG002
        """Observe the value; a value that is not finite is a failure."""
        finite = math.isfinite(outcome.value)
        state = TrialState.SUCCEEDED if finite else TrialState.FAILED
        metrics = {METRIC: MetricValue(outcome.value)} if finite else {}
        self._observations.append(Observation(token, state, self._pending.pop(token), metrics))

    def _request(self) -> SuggestRequest:
        return SuggestRequest(
            space=self._space,
            objectives=(Objective(METRIC, Goal.MINIMIZE),),
            policy="",
            seed=self._seed,
            count=1,
            next_number=self._number,
            observations=tuple(self._observations),
            pending=tuple(self._pending.values()),
            max_trials=self._max_trials,
        )


def parameter_spec(param: Param) -> ParameterSpec:
    """The parameter as the server has it."""
    when = Condition(param.when.parent, param.when.values) if param.when else None
    match param:
        case Choice():
            return Categorical(name=param.name, choices=param.values, when=when)
        case Ordered():
            return Ordinal(name=param.name, values=param.values, when=when)
        case Whole():
            return Int(name=param.name, low=param.low, high=param.high, log=param.log, when=when)
        case _:
            return Float(name=param.name, low=param.low, high=param.high, log=param.log, when=when)
