"""What is run together: problems, how many trials, how many workers, who."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.coco import BIOBJECTIVE, BIOBJECTIVE_FUNCTIONS, CONSTRAINED, CONSTRAINED_FUNCTIONS, FEW, of_suite
from benchmarks.conditional import CONDITIONAL
from benchmarks.problems import CLIFFS, PUBLIC

CHECKED = (
    *("mixed_small", "mixed_large", "quadratic4", "quadratic16", "rastrigin5", "griewank6", "michalewicz5"),
    *("steps6", "noisy_quadratic6", "svm_wine", "mlp_breast_cancer", "gbm_diabetes", "ridge_digits"),
    *("bbob_f03_d5", "bbob_f08_d10", "bbob_f15_d5", "bbob_f21_d10"),
    *("bbob-mixint_f03_d5", "bbob-mixint_f08_d10", "bbob-mixint_f15_d5", "bbob-mixint_f21_d10"),
)
"""Of every family a few, to check on what nobody tuned for that peers compare as on the public set."""
MIXED = (
    *("bbob-mixint_f01_d5", "bbob-mixint_f03_d10", "bbob-mixint_f06_d5", "bbob-mixint_f08_d10"),
    *("bbob-mixint_f13_d5", "bbob-mixint_f15_d10", "bbob-mixint_f20_d5", "bbob-mixint_f24_d10"),
)
"""Of COCO's five groups (separable, moderate, ill-conditioned, multimodal, of weak structure) one or two, in both dimensions."""
PAIRS = (1, 6, 15, 20, 28, 36, 47, 54)
"""Of COCO's pairs eight, from sphere with sphere on; each of the ten `bbob` functions that they are made of is in one at least."""
BOUNDED = (2, 7, 15, 20, 27, 31, 38, 49)
"""Of eight of COCO's nine objectives one each, with one, three or nine constraints. With more, no random trial in a hundred is feasible."""

SINGLE = ("asktell", "random", "optuna_tpe", "optuna_gp", "ax", "hebo")
GENERAL = ("asktell", "random", "optuna_tpe", "optuna_gp", "optuna_nsga2")
"""Who takes every kind of problem: conditional parameters, constraints, several objectives."""


class Measure(Enum):
    """What is compared."""

    REGRET = "regret"
    HYPERVOLUME = "hypervolume"


@dataclass(frozen=True, slots=True)
class Suite:
    """Problems that are run and scored together; the runs of each suite have a folder of its name.

    `everything` are all problems of which `problems` are some. `bars` are what asktell's mean regret may be at most, as shares of the best
    peer's, after all trials and after half of them; None if nothing is asked. A hypervolume must be above the best peer's.
    """

    name: str
    title: str
    problems: tuple[str, ...]
    trials: int
    workers: int = 1
    peers: Sequence[str] = SINGLE
    everything: Sequence[str] = ()
    measure: Measure = Measure.REGRET
    bars: tuple[float | None, float | None] = (1.0, None)


def _coco(suite: str, functions: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{suite}_f{index:02}_d{FEW}" for index in functions)


DEFAULT = ("sequential", "parallel", "cliffs")
SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("sequential", "one worker", tuple(PUBLIC), trials=50, bars=(0.6, 0.75)),
        Suite("parallel", "eight asynchronous workers", tuple(PUBLIC), trials=80, workers=8, bars=(1.0, 1.0)),
        Suite("cliffs", "a tenth of the space a thousand times worse", tuple(CLIFFS), trials=50),
        Suite("outside", "one worker, outside the public set", CHECKED, trials=50, bars=(0.6, 0.75)),
        Suite(
            "mixint",
            "COCO's bbob-mixint",
            MIXED,
            trials=60,
            peers=GENERAL,
            everything=tuple(of_suite("bbob-mixint")),
        ),
        Suite(
            "biobj",
            "COCO's bbob-biobj",
            _coco(BIOBJECTIVE, PAIRS),
            trials=60,
            peers=GENERAL,
            everything=_coco(BIOBJECTIVE, BIOBJECTIVE_FUNCTIONS),
            measure=Measure.HYPERVOLUME,
        ),
        Suite(
            "constrained",
            "COCO's bbob-constrained",
            _coco(CONSTRAINED, BOUNDED),
            trials=60,
            peers=GENERAL,
            everything=_coco(CONSTRAINED, CONSTRAINED_FUNCTIONS),
        ),
        Suite("conditional", "conditional parameters", tuple(CONDITIONAL), trials=60, peers=GENERAL),
    )
}
