"""What is run together: problems, how many trials, how many workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.problems import CLIFFS, PUBLIC

CHECKED = (
    *("mixed_small", "mixed_large", "quadratic4", "quadratic16", "rastrigin5", "griewank6", "michalewicz5"),
    *("steps6", "noisy_quadratic6", "svm_wine", "mlp_breast_cancer", "gbm_diabetes", "ridge_digits"),
    *("bbob_f03_d5", "bbob_f08_d10", "bbob_f15_d5", "bbob_f21_d10"),
    *("bbob-mixint_f03_d5", "bbob-mixint_f08_d10", "bbob-mixint_f15_d5", "bbob-mixint_f21_d10"),
)
"""Of every family a few, to check on what nobody tuned for that peers compare as on the public set."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Problems that are run and scored together; the runs of each suite have a folder of its name."""

    name: str
    title: str
    problems: tuple[str, ...]
    trials: int
    workers: int = 1


DEFAULT = ("sequential", "parallel", "cliffs")
SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("sequential", "one worker", tuple(PUBLIC), trials=50),
        Suite("parallel", "eight asynchronous workers", tuple(PUBLIC), trials=80, workers=8),
        Suite("cliffs", "a tenth of the space a thousand times worse", tuple(CLIFFS), trials=50),
        Suite("outside", "one worker, outside the public set", CHECKED, trials=50),
    )
}
