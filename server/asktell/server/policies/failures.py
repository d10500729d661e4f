"""What is made of trials that failed: labels of a model of what works, and which failures that model takes for chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Indices, Mask
from asktell.server.policies.labels import Noise
from asktell.server.policies.recipe import Recipe

SURE = -0.5
"""Below this label, of -1 for what worked and 1 for what failed, trials are thought to work: a curved edge is easily taken too far out."""
CAUTION = 20.0
"""To which power the probability that a trial works counts in a search that explores: it has hardly an improvement to lose by failing, and
would go wherever nobody has been yet."""
_EDGES = 0.5
"""The least lengthscales of a model of failures, where the diagonal of the unit cube is 1."""


@dataclass(frozen=True, slots=True)
class Signs:
    """-1 where trials worked and 1 where they failed, as labels (`n`).

    They are not standardised: the fewer fail, the surer a model would be that all else works.
    """

    values: Vector
    noise: Noise

    @classmethod
    def of(cls, worked: Mask) -> Signs:
        """The labels of trials that worked or did not."""
        return cls(np.where(worked, -1.0, 1.0), Noise(np.zeros(len(worked))))


def least_lengthscale(dimensions: int) -> float:
    """Of a model of failures: an edge looks like short lengthscales, with which a failure would say nothing of its neighbourhood."""
    return _EDGES * math.sqrt(dimensions)


def suspect(labels: Vector, predicted: Vector, recipe: Recipe) -> float:
    """The label, predicted from all others, above which a failure is one of a region that fails rather than of chance.

    `predicted` are such predictions (leave-one-out) of the labels (`n` each). Where nothing can be predicted it is above the mean, and the
    lower the more of the labels' variance is (R²).
    """
    guessed = (labels.sum() - labels) / (len(labels) - 1)
    explained = 1.0 - float(((labels - predicted) ** 2).sum() / ((labels - guessed) ** 2).sum())
    return float(labels.mean()) + recipe.chance - recipe.trust * max(explained, 0.0)


def telling(told: list[Mask], expected: Mask) -> Indices:
    """Which observations objectives' models learn from: those that tell any of them, and failures that others foretell."""
    return np.flatnonzero(np.logical_or.reduce([*told, expected]))
