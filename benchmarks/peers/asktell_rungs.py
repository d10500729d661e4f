"""asktell with a fidelity inside this process: a policy and its promotions, called as the server calls them."""

from __future__ import annotations

from typing import Any

from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Int, Parameters, SearchSpace
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from benchmarks.peers.in_process import parameter_spec
from benchmarks.problem import Problem
from benchmarks.trainings import EPOCHS

LOSS = Objective("loss", Goal.MINIMIZE)
FIDELITY = Fidelity(parameter="epochs")
FIRST = 3
"""The first rung, as that of the stopping rules."""


class Asktell:
    """A policy, whose trials have a number of epochs beside the problem's parameters, and end there."""

    def __init__(self, problem: Problem, seed: int, policy: str) -> None:
        epochs = Int(name=FIDELITY.parameter, low=FIRST, high=EPOCHS, log=True)
        self._space = SearchSpace((*(parameter_spec(param) for param in problem.params), epochs))
        self._seed, self._policy = seed, policy
        self._observations: list[Observation] = []
        self._pending: dict[int, Parameters] = {}
        self._hint = b""

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The next trial's number, and its parameters."""
        number = len(self._observations) + len(self._pending) + 1
        request = SuggestRequest(
            space=self._space,
            objectives=(LOSS,),
            policy=self._policy,
            seed=self._seed,
            count=1,
            next_number=number,
            observations=tuple(sorted(self._observations, key=lambda seen: seen.number)),
            pending=tuple(self._pending[each] for each in sorted(self._pending)),
            hint=self._hint,
            fidelity=FIDELITY,
        )
        decision = registry.suggest(request)
        self._hint = decision.hint or self._hint
        parameters = decision.candidates[0].parameters
        self._pending[number] = parameters
        return number, {name: value for name, value in parameters.items() if name != FIDELITY.parameter}

    def report(self, token: int, epoch: int, loss: float) -> bool:  # noqa: ARG002 - the rung alone counts.
        """Whether the trial has come to its rung."""
        return epoch >= FIDELITY.level(self._pending[token])

    def tell(self, token: int, loss: float, *, stopped: bool) -> None:  # noqa: ARG002 - at its rung every trial has succeeded.
        """Observe the loss after the trial's last epoch."""
        metrics = {LOSS.metric: MetricValue(loss)}
        self._observations.append(Observation(token, TrialState.SUCCEEDED, self._pending.pop(token), metrics))
