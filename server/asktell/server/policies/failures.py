"""What is made of trials that failed: where trials fail, as far as that can be told, and which failures came by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asktell.server.policies import probit
from asktell.server.policies.acquisition import Feasibility
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.hints import Fits, digest_of
from asktell.server.policies.kernel import Indices, Layout, Mask, Matrix
from asktell.server.policies.probit import Classifier
from asktell.server.policies.recipe import Recipe
from asktell.server.policies.subset import subset

CAUTION = 20.0
"""To which power the probability that a trial works counts in a search that explores: it has hardly an improvement to lose by failing, and
would go wherever nobody has been yet."""
MAX_CLASSIFIED = 250
"""So many trials at most the model of where trials fail learns from: its sites take many factorisations."""
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Failures:
    """The model of where trials fail, the places of the trials that it is made of, and which failures it expects of what it learned from all
    others (`n`): those of a region.
    """

    classifier: Classifier
    kept: list[int]
    expected: Mask

    @classmethod
    def learned(
        cls,
        rows: Matrix,
        failed: Mask,
        layout: Layout,
        *,
        early: Sequence[int],
        recipe: Recipe,
        fits: Fits,
        deadline: Deadline,
    ) -> Failures:
        """What can be told, given which trials at feature rows (`n x D`) failed (`n`). Hyper-parameters are fitted to the `early` ones."""
        inputs, outcomes = rows[early], failed[early]

        def compute() -> Vector:
            return probit.fit(inputs, outcomes, layout, deadline=deadline)

        digest = digest_of(inputs, probit.signs_of(outcomes), layout)
        point = fits.recall(digest, compute, keep=lambda: not deadline.passed)
        # The rarer outcome tells more.
        common = failed if failed.mean() > _HALF else ~failed
        kept = subset(rows, common.astype(np.float64), limit=MAX_CLASSIFIED)
        classifier = Classifier.of(point, rows[kept], failed[kept], layout)
        chances = classifier.failing(rows)
        chances[kept] = classifier.left_out
        return cls(classifier, kept, failed & (chances > suspect(failed[kept], chances[kept], recipe)))

    @property
    def feasibility(self) -> Feasibility:
        """The log probability that a trial works."""
        return Feasibility(self.classifier.posterior, 0.0, self.classifier.chance)


def suspect(failed: Mask, predicted: Vector, recipe: Recipe) -> float:
    """The probability to fail, given all others, above which a failure is one of a region that fails rather than of chance.

    `predicted` are such probabilities (leave-one-out) of trials some of which failed (`n` each). Where nothing can be predicted it is
    above the share that fails, and the lower the more of the variance is (R²).
    """
    outcomes = failed.astype(np.float64)
    guessed = (outcomes.sum() - outcomes) / (len(outcomes) - 1)
    explained = 1.0 - float(((outcomes - predicted) ** 2).sum() / ((outcomes - guessed) ** 2).sum())
    return float(outcomes.mean()) + recipe.chance - recipe.trust * max(explained, 0.0)


def telling(told: list[Mask], expected: Mask) -> Indices:
    """Which observations objectives' models learn from: those that tell any of them, and failures that others foretell."""
    return np.flatnonzero(np.logical_or.reduce([*told, expected]))
