"""Optuna's samplers, in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna

from benchmarks.problem import Choice, Configuration, Ordered, Param, Problem, Whole


class _Optuna:
    def __init__(self, problem: Problem, seed: int, sampler: Callable[[int], Any]) -> None:
        warnings.filterwarnings("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study, self._problem = optuna.create_study(sampler=sampler(seed)), problem

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Optuna's trial, and its parameters."""
        trial = self._study.ask()
        return trial, {param.name: _suggested(trial, param) for param in self._problem.params}

    def tell(self, token: Any, configuration: Configuration, value: float) -> None:  # noqa: ARG002
        """Tell the trial."""
        self._study.tell(token, value)


class Tpe(_Optuna):
    """Optuna's tree-structured Parzen estimator, set up for several workers as its documentation advises."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(
            problem, seed, lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        )


class GaussianProcess(_Optuna):
    """Optuna's Gaussian process."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed, lambda seed: optuna.samplers.GPSampler(seed=seed))


def _suggested(trial: Any, param: Param) -> Any:
    match param:
        case Choice():
            return trial.suggest_categorical(param.name, list(param.values))
        case Ordered():
            return param.values[trial.suggest_int(param.name, 0, len(param.values) - 1)]
        case Whole():
            return trial.suggest_int(param.name, param.low, param.high, log=param.log)
        case _:
            return trial.suggest_float(param.name, param.low, param.high, log=param.log)
