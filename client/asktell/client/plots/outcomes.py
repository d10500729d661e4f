"""What became of trials, as far as it can be drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from asktell.client import feasibility
from asktell.client.spec import Objective
from asktell.client.values import StudyRecord, TrialRecord, TrialState


def short_name(study: StudyRecord) -> str:
    """The last part of a study's name."""
    return study.name.rpartition("/")[2]


def is_feasible(trial: TrialRecord, study: StudyRecord) -> bool:
    """Whether a trial is known to meet the study's outcome constraints."""
    return feasibility.of(trial, study) is True


def is_measured(trial: TrialRecord, objective: Objective) -> bool:
    """Whether a trial succeeded with a finite value of the objective."""
    return trial.state is TrialState.SUCCEEDED and has_finite(trial, objective.metric)


def has_finite(trial: TrialRecord, metric: str) -> bool:
    """Whether the trial's final measurement has a finite value of the metric."""
    return metric in trial.metrics and math.isfinite(trial.metrics[metric].value)


def values(trials: Sequence[TrialRecord], metric: str) -> list[float]:
    """The metric of the trials' final measurements, which have it."""
    return [trial.metrics[metric].value for trial in trials]


def counted(count: int) -> str:
    """Such as `1 trial`, `40 trials`."""
    return f"{count:,} trial{'' if count == 1 else 's'}"


def in_states(trials: Sequence[TrialRecord], *states: TrialState) -> str:
    """How many trials stand in these states, such as `, 3 active, 1 cancelled`; empty for none."""
    found = Counter(trial.state for trial in trials)
    return "".join(f", {found[state]:,} {state.value}" for state in states if found[state])
