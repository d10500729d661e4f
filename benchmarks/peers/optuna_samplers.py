"""Optuna's samplers, in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna

from benchmarks.problem import Choice, Configuration, Ordered, Outcome, Param, Problem, Whole

CONSTRAINTS = "constraints"
"""The attribute of a trial that has the values of its constraints, for the samplers to read."""
GENERATION = 20
"""NSGA-II's population. Of its own choice, 50, sixty trials would be one generation, drawn at random, and the start of a second."""


class _Optuna:
    def __init__(self, problem: Problem, sampler: Any) -> None:
        warnings.filterwarnings("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions = [optuna.study.StudyDirection.MINIMIZE] * problem.objectives
        self._study, self._problem = optuna.create_study(sampler=sampler, directions=directions), problem

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Optuna's trial, and its parameters: what does not exist is not suggested."""
        trial, configuration = self._study.ask(), dict[str, Any]()
        for param in self._problem.params:
            if param.when is None or param.when.holds(configuration):
                configuration[param.name] = suggested(trial, param)
        return trial, configuration

    def tell(self, token: Any, configuration: Configuration, outcome: Outcome) -> None:  # noqa: ARG002
        """Tell the trial."""
        if outcome.constraints:
            token.set_user_attr(CONSTRAINTS, list(outcome.constraints))
        self._study.tell(token, list(outcome.objectives))


def _constraints(problem: Problem) -> Callable[[Any], list[float]] | None:
    """What tells samplers the constraints of a trial, where there are any."""
    return (lambda trial: list(trial.user_attrs[CONSTRAINTS])) if problem.constraints else None


class Tpe(_Optuna):
    """Optuna's tree-structured Parzen estimator, set up as its documentation advises: for several workers, for conditional spaces."""

    def __init__(self, problem: Problem, seed: int) -> None:
        sampler = optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=True,
            group=problem.conditional,
            constraints_func=_constraints(problem),
        )
        super().__init__(problem, sampler)


class GaussianProcess(_Optuna):
    """Optuna's Gaussian process."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, optuna.samplers.GPSampler(seed=seed, constraints_func=_constraints(problem)))


class Nsga2(_Optuna):
    """Optuna's NSGA-II."""

    def __init__(self, problem: Problem, seed: int) -> None:
        sampler = optuna.samplers.NSGAIISampler(
            seed=seed, population_size=GENERATION, constraints_func=_constraints(problem)
        )
        super().__init__(problem, sampler)


def suggested(trial: Any, param: Param) -> Any:
    """The value that a trial gets for a parameter."""
    match param:
        case Choice():
            return trial.suggest_categorical(param.name, list(param.values))
        case Ordered():
            return param.values[trial.suggest_int(param.name, 0, len(param.values) - 1)]
        case Whole():
            return trial.suggest_int(param.name, param.low, param.high, log=param.log)
        case _:
            return trial.suggest_float(param.name, param.low, param.high, log=param.log)
