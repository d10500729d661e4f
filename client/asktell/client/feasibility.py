"""Whether trials meet a study's outcome constraints, as the service sees it."""

from __future__ import annotations

import math

from asktell.client.spec import OutcomeConstraint
from asktell.client.values import StudyRecord, TrialRecord, TrialState


def of(trial: TrialRecord, study: StudyRecord) -> bool | None:
    """Whether a trial is feasible: its metrics meet all constraints; None if they do not say, as of a trial that failed or is not evaluated.

    A trial that was told as infeasible is not.
    """
    if trial.state is TrialState.INFEASIBLE:
        return False
    if trial.state not in (TrialState.SUCCEEDED, TrialState.STOPPED):
        return None
    found = [_met(constraint, trial) for constraint in study.outcome_constraints]
    return False if False in found else None if None in found else True


def _met(constraint: OutcomeConstraint, trial: TrialRecord) -> bool | None:
    told = trial.metrics.get(constraint.metric)
    if told is None or math.isnan(told.value):
        return None
    return constraint.met(told.value)
