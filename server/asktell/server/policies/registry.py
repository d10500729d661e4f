"""Which policies there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.population import POLICY as PBT
from asktell.server.domain.ranking import MAX_FRONT
from asktell.server.policies import auto, cma_es, evolution, gp, grid, population_based, random_search, sobol
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.initial_design import enumerable
from asktell.server.policies.promotion import promoting, prospect, whole
from asktell.server.policies.recipe import STANDARD
from asktell.server.policies.safety import Policy, fallback, guarded
from asktell.server.policies.warm_start import alone

AUTO = auto.NAME
BOTORCH = "gp-botorch"


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy as the engine runs it."""

    suggest: Policy
    description: str


def suggest_botorch(request: SuggestRequest) -> Decision:
    """The course of `gp`, with BoTorch's models and optimisers."""

    def chooser(deadline: Deadline) -> gp.Chooser:
        # torch takes seconds and hundreds of megabytes, for which only studies that name this policy shall pay.
        from asktell.server.policies.gp_botorch import BotorchChooser, BotorchFrontChooser  # noqa: PLC0415

        several = 1 < len(request.objectives) <= MAX_FRONT
        return (BotorchFrontChooser if several else BotorchChooser)(request, deadline, STANDARD)

    return gp.suggest_with(chooser, request, name=BOTORCH)


class Outlook(Enum):
    """What a request takes: a surrogate, and so a process of its own; or milliseconds now, but a surrogate later in the study; or neither."""

    MODEL = "model"
    MODEL_LATER = "model later"
    NO_MODEL = "no model"


def outlook(request: SuggestRequest) -> Outlook:
    """What the request takes. Never raises: what is wrong with a request, its policy finds out."""
    try:
        fresh = whole(request)
        if not modelled(fresh):
            return Outlook.NO_MODEL
        ahead = prospect(request, fresh)
        if ahead.foreseen or (ahead.left is not None and gp.needs_model(ahead.left)):
            return Outlook.MODEL
        return Outlook.NO_MODEL if ahead.left is not None and enumerable(ahead.left) else Outlook.MODEL_LATER
    except Exception:  # noqa: BLE001 - see above
        return Outlook.NO_MODEL


def modelled(request: SuggestRequest) -> bool:
    """Whether a surrogate chooses in the study of a request for new configurations."""
    return (auto.choice(request).policy if request.policy == AUTO else request.policy) in (gp.NAME, BOTORCH)


def modules(request: SuggestRequest) -> Sequence[str]:
    """What a process imports for the request beyond what every one has; it may take longer than an ask has time."""
    return ["asktell.server.policies.gp_botorch"] if request.policy == BOTORCH else []


def suggest(request: SuggestRequest) -> Decision:
    """The decision of the request's policy; a random one, which says so, if there is no such policy."""
    entry = POLICIES.get(request.policy)
    if entry is None:
        return fallback(request, name=random_search.NAME, reason=f"there is no policy {request.policy!r}")
    return entry.suggest(request)


def raised(policy: Policy, *, name: str) -> Policy:
    """The policy, guarded, and with promotions in a study with a fidelity: those stay whatever goes wrong in the choice of others."""
    return guarded(promoting(guarded(policy, name=name), name=name, modelled=modelled), name=name)


POLICIES: Mapping[str, Entry] = {
    AUTO: Entry(raised(auto.suggest_by_choice, name=gp.NAME), "gp, or evolution for studies that gp cannot bear"),
    gp.NAME: Entry(raised(gp.suggest, name=gp.NAME), "initial design, then expected improvement of a Gaussian process"),
    BOTORCH: Entry(
        raised(suggest_botorch, name=BOTORCH),
        "one model without a trend, fitted and searched by BoTorch on the server's torch device: slower on a CPU",
    ),
    evolution.NAME: Entry(
        guarded(alone(evolution.suggest, name=evolution.NAME), name=evolution.NAME),
        "a genetic algorithm, for thousands of trials",
    ),
    cma_es.NAME: Entry(
        guarded(alone(cma_es.suggest, name=cma_es.NAME), name=cma_es.NAME),
        "CMA-ES, for numbers and hundreds of trials or more",
    ),
    grid.NAME: Entry(
        guarded(alone(grid.suggest, name=grid.NAME), name=grid.NAME), "every cell once, coarse grids before fine ones"
    ),
    PBT: Entry(
        guarded(alone(population_based.suggest, name=PBT), name=PBT),
        "population based training: the worst trainings go on from the checkpoints of the best, with other parameters",
    ),
    sobol.NAME: Entry(
        raised(alone(sobol.suggest, name=sobol.NAME), name=sobol.NAME), "an even spread, whatever was told"
    ),
    random_search.NAME: Entry(
        raised(alone(random_search.suggest, name=random_search.NAME), name=random_search.NAME), "independent draws"
    ),
}
