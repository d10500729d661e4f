"""All problems by name."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.cliffs import SUFFIX, with_cliff
from benchmarks.coco import COCO
from benchmarks.conditional import CONDITIONAL
from benchmarks.families import OUTSIDE
from benchmarks.learning import gbm, krr, mlp
from benchmarks.problem import Problem, Seeded
from benchmarks.synthetic import SYNTHETIC, two_bowls6

PUBLIC: Mapping[str, Seeded] = SYNTHETIC | {
    "krr_diabetes": krr("diabetes"),
    "mlp_digits": mlp("digits"),
    "gbm_breast_cancer": gbm("breast_cancer"),
}
CLIFFS: Mapping[str, Seeded] = {name + SUFFIX: with_cliff(seeded) for name, seeded in SYNTHETIC.items()}
TIMED: Mapping[str, Seeded] = {"two_bowls6": two_bowls6}
"""What asks are timed on, and nothing is scored."""
PROBLEMS: Mapping[str, Seeded] = {**PUBLIC, **CLIFFS, **OUTSIDE, **COCO, **CONDITIONAL, **TIMED}
TRAINED = ("krr_", "mlp_", "gbm_", "svm_", "ridge_")


def problem(name: str, seed: int) -> Problem:
    """A problem by its name; ValueError if there is none."""
    if name not in PROBLEMS:
        raise ValueError(f"there is no problem {name!r}; there are {', '.join(PROBLEMS)}")
    return PROBLEMS[name](seed)


def seedless(name: str) -> bool:
    """Whether the problem is the same for every seed, so that the best value that anybody found holds for all."""
    return name.startswith(TRAINED)
