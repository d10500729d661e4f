"""Optuna's tree-structured Parzen estimator with its Hyperband pruner, in memory."""

from __future__ import annotations

import warnings
from typing import Any

import optuna

from benchmarks.peers.optuna_samplers import suggested
from benchmarks.problem import Problem
from benchmarks.trainings import EPOCHS


class Optuna:
    """Set up as its documentation advises: the sampler for several workers, the pruner with the trainings' length. Option: the first rung."""

    def __init__(self, problem: Problem, seed: int, first: str) -> None:
        warnings.filterwarnings("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        pruner = optuna.pruners.HyperbandPruner(min_resource=int(first), max_resource=EPOCHS, reduction_factor=3)
        # Brackets are drawn by the study's name.
        self._study = optuna.create_study(study_name=f"s{seed}", sampler=sampler, pruner=pruner)
        self._problem = problem

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Optuna's trial, and its parameters."""
        trial = self._study.ask()
        return trial, {param.name: suggested(trial, param) for param in self._problem.params}

    def report(self, token: Any, epoch: int, loss: float) -> bool:
        """Whether the pruner stops the trial."""
        token.report(loss, epoch)
        return bool(token.should_prune())

    def tell(self, token: Any, loss: float, *, stopped: bool) -> None:
        """Tell the trial; of a pruned one Optuna takes the last report."""
        if stopped:
            self._study.tell(token, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(token, loss)
