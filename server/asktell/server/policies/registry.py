"""Which policies there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.policies import gp, random_search
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.initial_design import enumerable
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.safety import Policy, fallback, guarded

AUTO = "auto"
BOTORCH = "gp-botorch"
MAX_PARAMETERS = 100
MAX_OBSERVATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy as the engine runs it."""

    suggest: Policy
    description: str


def suggest_auto(request: SuggestRequest) -> Decision:
    """The policy that fits the study: `gp` as long as it can bear the size, else `random`."""
    burden = _burden(request)
    if burden:
        return fallback(request, name=random_search.NAME, reason=burden)
    return gp.suggest(request)


def suggest_botorch(request: SuggestRequest) -> Decision:
    """The course of `gp`, with BoTorch's models and optimisers."""

    def chooser(deadline: Deadline) -> gp.Chooser:
        # torch takes seconds and hundreds of megabytes, for which only studies that name this policy shall pay.
        from asktell.server.policies.gp_botorch import BotorchChooser  # noqa: PLC0415

        return BotorchChooser(request, deadline, STANDARD)

    return gp.suggest_with(chooser, request, name=BOTORCH)


class Outlook(Enum):
    """What a request takes: a surrogate, and so a process of its own; or milliseconds now, but a surrogate later in the study; or neither."""

    MODEL = "model"
    MODEL_LATER = "model later"
    NO_MODEL = "no model"


def outlook(request: SuggestRequest) -> Outlook:
    """What the request takes. Never raises: what is wrong with a request, its policy finds out."""
    try:
        if request.policy not in (AUTO, gp.NAME, BOTORCH) or (request.policy == AUTO and _burden(request)):
            return Outlook.NO_MODEL
        if gp.needs_model(request):
            return Outlook.MODEL
        return Outlook.NO_MODEL if enumerable(request) else Outlook.MODEL_LATER
    except Exception:  # noqa: BLE001 - see above
        return Outlook.NO_MODEL


def modules(request: SuggestRequest) -> Sequence[str]:
    """What a process imports for the request beyond what every one has; it may take longer than an ask has time."""
    return ["asktell.server.policies.gp_botorch"] if request.policy == BOTORCH else []


def suggest(request: SuggestRequest) -> Decision:
    """The decision of the request's policy; a random one, which says so, if there is no such policy."""
    entry = POLICIES.get(request.policy)
    if entry is None:
        return fallback(request, name=random_search.NAME, reason=f"there is no policy {request.policy!r}")
    return entry.suggest(request)


def _burden(request: SuggestRequest) -> str:
    """Why `gp` cannot bear the study; empty if it can."""
    if len(request.space) > MAX_PARAMETERS:
        return f"auto took random: {len(request.space)} parameters are more than the {MAX_PARAMETERS} that gp bears"
    if len(request.observations) > MAX_OBSERVATIONS:
        return (
            f"auto took random: {len(request.observations)} observations are more than the {MAX_OBSERVATIONS} gp bears"
        )
    return ""


POLICIES: Mapping[str, Entry] = {
    AUTO: Entry(guarded(suggest_auto, name=gp.NAME), "gp, or random where gp would take too long"),
    gp.NAME: Entry(
        guarded(gp.suggest, name=gp.NAME), "initial design, then expected improvement of a Gaussian process"
    ),
    BOTORCH: Entry(
        guarded(suggest_botorch, name=BOTORCH),
        "one model without a trend, fitted and searched by BoTorch on the server's torch device: slower on a CPU",
    ),
    random_search.NAME: Entry(guarded(random_search.suggest, name=random_search.NAME), "independent draws"),
}
