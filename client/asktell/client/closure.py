"""Why a study hands out no trials, and what changes that."""

from __future__ import annotations

import logging
from datetime import datetime

from asktell.client.values import Reason, StudyRecord

logger = logging.getLogger("asktell.client")


def say(study: StudyRecord, reason: Reason, *, now: datetime, fixed: bool = False) -> None:
    """Say why a loop that was handed no trial has ended already; `fixed`: it asked for trials with fixed parameters only."""
    name = study.name.rpartition("/")[2]
    if fixed and reason is Reason.EXHAUSTED:
        logger.warning("study %r hands out no more trials with these fixed parameters: all of them are taken", name)
    else:
        logger.warning("study %r hands out no more trials: %s", name, _why(study, reason, now))


def say_waiting(study: StudyRecord, reason: Reason) -> None:
    """Say why a loop waits for a trial, where that does not change by itself."""
    if reason is Reason.PAUSED:
        logger.warning(
            "study %r is paused: waiting for study.resume(), or `asktell study resume`", study.name.rpartition("/")[2]
        )


def _why(study: StudyRecord, reason: Reason, now: datetime) -> str:
    match reason:
        case Reason.FINISHED:
            return "it is finished; study.resume() opens it again"
        case Reason.EXHAUSTED:
            return "every configuration that it may hand out is taken; study.update(parameters=[...]) widens its space"
        case Reason.BUDGET_SPENT:
            limits = ", ".join(f"{name}=..." for name in _spent(study, now))
            return f"its budget is spent; study.update({limits}) raises it"
    return reason.value or "the service does not say why"


def _spent(study: StudyRecord, now: datetime) -> list[str]:
    """The limits that are reached, by this machine's clock; without any, as of a clock that is off, all that there are."""
    budget, counts = study.budget, study.counts
    tried = counts.queued + counts.active + counts.succeeded + counts.stopped + counts.infeasible + counts.failed
    began = study.create_time or now
    limits = {
        "max_trials": budget.max_trials is not None and tried >= budget.max_trials,
        "max_duration": budget.max_duration is not None and now - began >= budget.max_duration,
        "max_failures": budget.max_failures is not None and counts.failed >= budget.max_failures,
    }
    return [name for name, reached in limits.items() if reached] or [
        name for name in limits if getattr(budget, name) is not None
    ]
