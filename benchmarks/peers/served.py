"""asktell itself, through its SDK and gRPC: ASKTELL_TARGET names a running server."""

from __future__ import annotations

import os
import uuid
from typing import Any

from asktell.client import AtMost, Categorical, Client, Float, Int, Minimize, Ordinal, ParameterSpec, Trial
from benchmarks.problem import Choice, Configuration, Ordered, Outcome, Param, Problem, Whole

METRIC = "y"
PATIENCE = 600.0
"""Seconds that a call may take: an ask that comes late is late, not lost."""


class Served:
    """A study of its own on the server, with the default policy or the one that ASKTELL_BENCH_POLICY names."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._objectives = [METRIC] if problem.objectives == 1 else [f"y{n}" for n in range(problem.objectives)]
        self._constraints = [f"c{number}" for number in range(problem.constraints)]
        self.study = Client(timeout=PATIENCE).create_study(
            f"bench-{uuid.uuid4().hex[:12]}",
            parameters=[spec(param) for param in problem.params],
            objectives=[Minimize(name) for name in self._objectives],
            outcome_constraints=[AtMost(name, 0.0) for name in self._constraints],
            policy=os.environ.get("ASKTELL_BENCH_POLICY", "auto"),
            seed=seed,
            lease_duration=3600,
        )

    def ask(self) -> tuple[Trial, dict[str, Any]]:
        """The next trial, and its parameters."""
        (trial,) = self.study.ask()
        return trial, dict(trial.parameters)

    def tell(self, token: Trial, configuration: Configuration, outcome: Outcome) -> None:  # noqa: ARG002
        """Tell the trial."""
        objectives = zip(self._objectives, outcome.objectives, strict=True)
        token.tell(dict(objectives) | dict(zip(self._constraints, outcome.constraints, strict=True)))


def spec(param: Param) -> ParameterSpec:
    """The parameter as the SDK writes it."""
    when = (param.when.parent, param.when.values) if param.when else None
    match param:
        case Choice():
            return Categorical(param.name, list(param.values), when=when)
        case Ordered():
            return Ordinal(param.name, list(param.values), when=when)
        case Whole():
            return Int(param.name, param.low, param.high, log=param.log, when=when)
        case _:
            return Float(param.name, param.low, param.high, log=param.log, when=when)
