"""What observations tell of objectives, as arrays: gathered once, whatever is made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asktell.server.domain.metric import Goal, Objective, OutcomeConstraint
from asktell.server.domain.policy import Observation
from asktell.server.domain.ranking import feasible
from asktell.server.domain.trial import TrialState
from asktell.server.policies.columns import Vector
from asktell.server.policies.kernel import Indices, Mask, Matrix

USEFUL = frozenset({TrialState.SUCCEEDED, TrialState.STOPPED})
"""The states of trials whose metrics count."""


@dataclass(frozen=True, slots=True)
class Results:
    """Losses of observations and their standard errors (`n x m` each), NaN where none was told, and which observations are known to meet
    all outcome constraints (`n`).
    """

    objectives: tuple[Objective, ...]
    losses: Matrix
    errors: Matrix
    feasible: Mask

    @classmethod
    def of(
        cls,
        observations: Sequence[Observation],
        objectives: Sequence[Objective],
        *,
        constraints: Sequence[OutcomeConstraint] = (),
    ) -> Results:
        """What observations tell that succeeded or were stopped."""
        metrics = [seen.metrics if seen.state in USEFUL else {} for seen in observations]
        told = [[each.get(objective.metric) for each in metrics] for objective in objectives]
        losses = [_losses([math.nan if each is None else each.value for each in column]) for column in told]
        signed = [-own if goal.goal is Goal.MAXIMIZE else own for own, goal in zip(losses, objectives, strict=True)]
        errors = [
            np.array([None if each is None else each.standard_error for each in column], dtype=np.float64)
            for column in told
        ]
        fine = np.ones(len(observations), dtype=np.bool_)
        if constraints:
            fine[:] = [feasible(seen.metrics, constraints) for seen in observations]
        return cls(tuple(objectives), np.stack(signed, axis=1), np.stack(errors, axis=1), fine)

    @property
    def told(self) -> Mask:
        """Which observations tell which of the objectives (`n x m`)."""
        return np.isfinite(self.losses)

    @property
    def measured(self) -> Mask:
        """Which observations tell all of the objectives (`n`)."""
        return np.logical_and.reduce(self.told, axis=1)

    def at(self, places: Sequence[int] | Indices) -> Results:
        """What some of the observations tell."""
        return Results(self.objectives, self.losses[places], self.errors[places], self.feasible[places])

    def only(self, place: int) -> Results:
        """What observations tell of one of the objectives."""
        one = slice(place, place + 1)
        return Results(self.objectives[one], self.losses[:, one], self.errors[:, one], self.feasible)


def _losses(values: Sequence[float]) -> Vector:
    losses = np.array(values, dtype=np.float64)
    losses[~np.isfinite(losses)] = np.nan
    return losses
