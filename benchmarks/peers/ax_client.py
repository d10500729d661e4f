"""Ax, as its documentation starts it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

from benchmarks.problem import Choice, Configuration, Ordered, Outcome, Param, Problem, Whole


class Ax:
    """Ax's client with its default strategy."""

    def __init__(self, problem: Problem, seed: int) -> None:
        warnings.filterwarnings("ignore")
        logging.disable(logging.CRITICAL)
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(name="e", parameters=[_config(param) for param in problem.params])
        self._objectives = [f"y{number}" for number in range(problem.objectives)]
        self._client.configure_optimization(objective=", ".join(f"-{name}" for name in self._objectives))
        # Else an ask fails while the initial design is all asked and not yet told, as it is with eight workers.
        self._client.configure_generation_strategy(allow_exceeding_initialization_budget=True)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The next trial's index, and its parameters."""
        ((index, configuration),) = self._client.get_next_trials(max_trials=1).items()
        return index, dict(configuration)

    def tell(self, token: int, configuration: Configuration, outcome: Outcome) -> None:  # noqa: ARG002
        """Complete the trial."""
        self._client.complete_trial(
            trial_index=token, raw_data=dict(zip(self._objectives, outcome.objectives, strict=True))
        )


def _config(param: Param) -> Any:
    match param:
        case Choice():
            return ChoiceParameterConfig(
                name=param.name, values=list(param.values), parameter_type="str", is_ordered=False
            )
        case Ordered():
            return ChoiceParameterConfig(
                name=param.name, values=list(param.values), parameter_type="float", is_ordered=True
            )
        case _:
            kind = "int" if isinstance(param, Whole) else "float"
            scaling = "log" if param.log else None
            bounds = (param.low, param.high)
            return RangeParameterConfig(name=param.name, bounds=bounds, parameter_type=kind, scaling=scaling)
