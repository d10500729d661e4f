"""What is made of trials that failed: where trials fail, as far as that can be told, and which failures came by chance.

A trial that FAILED may have by chance. All else that goes wrong is the configuration's doing, and would come again: that it is infeasible, and
a loss that diverges or is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asktell.server.domain.policy import Observation
from asktell.server.domain.trial import TrialState
from asktell.server.policies import probit
from asktell.server.policies.acquisition import Acquisition, Feasibility, Product
from asktell.server.policies.columns import Vector
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.hints import Fits, digest_of
from asktell.server.policies.kernel import Indices, Layout, Mask, Matrix
from asktell.server.policies.probit import Classifier
from asktell.server.policies.recipe import Recipe
from asktell.server.policies.subset import MAX_FITTED, spaced, subset

CAUTION = 20.0
"""To which power the probability that a trial works counts in a search that explores: it has hardly an improvement to lose by failing, and
would go wherever nobody has been yet."""
MAX_CLASSIFIED = 250
"""So many trials at most the model of where trials fail learns from: its sites take many factorisations."""
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Risk:
    """A model of where trials fail, by chance as well or not, and the places of the trials that it is made of."""

    classifier: Classifier
    kept: Indices

    @property
    def feasibility(self) -> Feasibility:
        """The log probability that a trial does not fail so."""
        return Feasibility(self.classifier.posterior, 0.0, self.classifier.chance)


@dataclass(frozen=True, slots=True)
class Failures:
    """The models of where trials fail, one of failures that may be chance and one of others, as far as there were enough, and which failures
    (`n`) are those of a region: which these expect of all other trials. Of a few that may be chance all are taken to be.
    """

    risks: tuple[Risk, ...]
    expected: Mask

    @classmethod
    def learned(
        cls,
        rows: Matrix,
        failed: Mask,
        layout: Layout,
        *,
        fickle: Mask,
        early: Sequence[int],
        recipe: Recipe,
        fits: Fits,
        deadline: Deadline,
    ) -> Failures:
        """What can be told, given which trials at feature rows (`n x D`) failed (`n`), and which of these are `fickle` (`n`):
        may have by chance. Hyper-parameters are fitted to the `early` ones.
        """
        risks, expected = [], np.zeros(len(rows), dtype=np.bool_)
        for own, chance, few in ((failed & ~fickle, False, 0), (failed & fickle, True, recipe.few_failures)):
            if own.sum() <= few or not recipe.classifies:
                expected |= own
                continue
            # What failed otherwise tells neither that nor how this might have gone.
            where = np.flatnonzero(own | ~failed)
            among = where[np.isin(where, early)]
            if not len(among):
                among = where[spaced(len(where), MAX_FITTED)]
            point = _fitted(rows[among], own[among], layout, chance=chance, fits=fits, deadline=deadline)
            # The rarer outcome tells more.
            common = own[where] if own[where].mean() > _HALF else ~own[where]
            kept = where[subset(rows[where], common.astype(np.float64), limit=MAX_CLASSIFIED)]
            classifier = Classifier.of(point, rows[kept], own[kept], layout)
            chances = classifier.failing(rows)
            chances[kept] = classifier.left_out
            expected |= own & (chances > suspect(own[kept], chances[kept], recipe))
            risks.append(Risk(classifier, kept))
        return cls(tuple(risks), expected)

    @property
    def feasibility(self) -> Acquisition | None:
        """The log probability that a trial works; None if no model tells."""
        works: Acquisition | None = None
        for risk in self.risks:
            works = risk.feasibility if works is None else Product(works, risk.feasibility)
        return works


def may_be_chance(observations: Sequence[Observation]) -> Mask:
    """Which observations (`n`) could have worked, for all that is known, had they been tried again."""
    return np.array([seen.state is TrialState.FAILED for seen in observations], dtype=np.bool_)


def _fitted(inputs: Matrix, failed: Mask, layout: Layout, *, chance: bool, fits: Fits, deadline: Deadline) -> Vector:
    def compute() -> Vector:
        return probit.fit(inputs, failed, layout, chance=chance, deadline=deadline)

    digest = digest_of(inputs, probit.signs_of(failed), layout, chance=chance)
    return fits.recall(digest, compute, keep=lambda: not deadline.passed)


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
