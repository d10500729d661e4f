"""Questions about what `gp` believes: what they take, and where the answers come from."""

from __future__ import annotations

from typing import TypeVar

from asktell.server.domain.beliefs import CrossValidate, ImportanceMethod, Question, RankParameters
from asktell.server.domain.errors import FailedPrecondition
from asktell.server.domain.policy import SuggestRequest
from asktell.server.policies.gp import MIN_LEARNED
from asktell.server.policies.labels import measured

T = TypeVar("T")

MIN_LEFT_OUT = MIN_LEARNED + 1
"""Leaving one out must leave enough for a model."""
MIN_RANKED = 10
"""From so many results on the best of them say anything about parameters."""


def answer(request: SuggestRequest, question: Question[T]) -> T:
    """The answer, where `request` is what the policy would be asked now: the fits are the same, and so are the hints that spare them.

    Raises FailedPrecondition for too few observations, OutOfTime after the request's time limit.
    """
    # SciPy takes time and memory, which a server that only hands requests on can do without.
    from asktell.server.policies.beliefs import Beliefs  # noqa: PLC0415

    require_enough(request, question)
    return Beliefs(request).answer(question)


def require_enough(request: SuggestRequest, question: Question) -> None:
    """Raise FailedPrecondition unless there are as many finite results of each objective as the question takes."""
    needed = _needed(question)
    for objective in request.objectives:
        found = int(measured(request.observations, [objective]).sum())
        if found < needed:
            message = f"too few trials have a finite {objective.metric!r}: {found}, this takes {needed}"
            raise FailedPrecondition(message, reason="TOO_FEW_OBSERVATIONS")


def _needed(question: Question) -> int:
    match question:
        case CrossValidate():
            return MIN_LEFT_OUT
        case RankParameters(ImportanceMethod.PED_ANOVA):
            return MIN_RANKED
    return MIN_LEARNED
