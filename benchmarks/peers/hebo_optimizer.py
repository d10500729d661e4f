"""HEBO, as its documentation starts it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from hebo.design_space.design_space import DesignSpace
from hebo.optimizers.hebo import HEBO

from benchmarks.problem import Choice, Configuration, Ordered, Outcome, Param, Problem, Whole


class Hebo:
    """HEBO with its default settings. It is not told what is pending: it has no way to hear of it."""

    def __init__(self, problem: Problem, seed: int) -> None:
        warnings.filterwarnings("ignore")
        np.random.seed(seed)
        space = DesignSpace().parse([_dimension(param) for param in problem.params])
        self._optimizer, self._problem = HEBO(space, scramble_seed=seed), problem

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """HEBO's recommendation, and its configuration."""
        row = self._optimizer.suggest(n_suggestions=1)
        return row, {param.name: _value(param, row[param.name].iloc[0]) for param in self._problem.params}

    def tell(self, token: Any, configuration: Configuration, outcome: Outcome) -> None:  # noqa: ARG002
        """Observe the value."""
        self._optimizer.observe(token, np.array([[outcome.value]]))


def _dimension(param: Param) -> dict[str, Any]:
    match param:
        case Choice():
            return {"name": param.name, "type": "cat", "categories": list(param.values)}
        case Ordered():
            return {"name": param.name, "type": "int", "lb": 0, "ub": len(param.values) - 1}
        case _:
            kind = "int" if isinstance(param, Whole) else "num"
            bounds = {"name": param.name, "lb": param.low, "ub": param.high}
            return bounds | (_logarithmic(kind) if param.log else {"type": kind})


def _logarithmic(kind: str) -> dict[str, Any]:
    return {"type": "pow_int" if kind == "int" else "pow", "base": 10}


def _value(param: Param, value: Any) -> Any:
    match param:
        case Choice():
            return value
        case Ordered():
            return param.values[int(value)]
        case Whole():
            return int(value)
        case _:
            return float(value)
