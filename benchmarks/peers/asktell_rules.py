"""asktell's default policy and its stopping rules inside this process, called as the server calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asktell.server.domain.curve import Curve, Ending
from asktell.server.domain.metric import Goal, MetricValue, Objective
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Parameters, SearchSpace
from asktell.server.domain.stopping import (
    Extrapolation,
    Hyperband,
    Median,
    Patience,
    Percentile,
    StoppingKind,
    StoppingRule,
    StopRequest,
    SuccessiveHalving,
    Threshold,
)
from asktell.server.domain.trial import TrialState
from asktell.server.policies import registry
from asktell.server.stopping.foresight import foresee
from asktell.server.stopping.judge import judge
from benchmarks.peers.in_process import parameter_spec
from benchmarks.problem import Problem
from benchmarks.trainings import EPOCHS, WORST

LOSS = Objective("loss", Goal.MINIMIZE)
NO_RULE = "none"
RULES: Mapping[str, StoppingKind] = {
    "asha": SuccessiveHalving(min_step=3),
    "asha9": SuccessiveHalving(min_step=9),
    "hyperband": Hyperband(min_step=3),
    "median": Median(),
    "percentile": Percentile(percentile=25.0),
    "extrapolation": Extrapolation(),
    "patience": Patience(steps=9, min_delta=0.01),
    "threshold": Threshold(at_most=WORST),
}


class Asktell:
    """The default policy with a rule of a name."""

    def __init__(self, problem: Problem, seed: int, rule: str) -> None:
        self._space = SearchSpace(tuple(parameter_spec(param) for param in problem.params))
        self._seed, self._rule = seed, _rule(rule)
        self._observations: dict[int, Observation] = {}
        self._pending: dict[int, Parameters] = {}
        self._curves: dict[int, Curve] = {}
        self._hint = b""

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The next trial's number, and its parameters."""
        number = len(self._observations) + len(self._pending) + 1
        expected = self._expected()
        request = SuggestRequest(
            space=self._space,
            objectives=(LOSS,),
            policy=registry.AUTO,
            seed=self._seed,
            count=1,
            next_number=number,
            observations=self._seen(expected),
            pending=tuple(self._pending[number] for number in sorted(self._pending) if number not in expected),
            hint=self._hint,
        )
        decision = registry.suggest(request)
        self._hint = decision.hint or self._hint
        parameters = decision.candidates[0].parameters
        self._pending[number] = parameters
        return number, dict(parameters)

    def _expected(self) -> Mapping[int, Ending]:
        """Where trials that were stopped, or are under way, will have ended, as the server foresees it."""
        stopped = [number for number, seen in self._observations.items() if seen.state is TrialState.STOPPED]
        return {} if self._rule is None else foresee(self._rule, self._curves, [*stopped, *self._pending])

    def _seen(self, expected: Mapping[int, Ending]) -> tuple[Observation, ...]:
        """The observations as the server has them."""
        seen = dict(self._observations)
        for number, ending in expected.items():
            parameters = seen[number].parameters if number in seen else self._pending[number]
            value = MetricValue(ending.loss, ending.standard_error)
            seen[number] = Observation(number, TrialState.STOPPED, parameters, {LOSS.metric: value})
        return tuple(seen[number] for number in sorted(seen))

    def report(self, token: int, epoch: int, loss: float) -> bool:
        """Whether the rule stops the trial."""
        self._curves[token] = self._curves.get(token, Curve()).merged({epoch: loss})
        if self._rule is None or not self._rule.judges(epoch):
            return False
        return (
            judge(StopRequest(rule=self._rule, metric=LOSS, curves=self._curves, number=token, first=epoch, step=epoch))
            is not None
        )

    def tell(self, token: int, loss: float, *, stopped: bool) -> None:
        """Observe the loss."""
        state = TrialState.STOPPED if stopped else TrialState.SUCCEEDED
        self._observations[token] = Observation(token, state, self._pending.pop(token), {"loss": MetricValue(loss)})


def _rule(name: str) -> StoppingRule | None:
    return None if name == NO_RULE else StoppingRule(kind=RULES[name], max_step=EPOCHS)
