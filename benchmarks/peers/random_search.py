"""Random search: what every other peer is measured by."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.problem import Configuration, Outcome, Problem, drawn


class RandomSearch:
    """Independent draws."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._generator = problem, np.random.default_rng(seed)

    def ask(self) -> tuple[None, dict[str, Any]]:
        """A draw."""
        return None, drawn(self._problem.params, self._generator)

    def tell(self, token: None, configuration: Configuration, outcome: Outcome) -> None:
        """Nothing is learned."""
