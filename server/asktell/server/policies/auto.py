"""Which policy fits a study, and why: what `auto` is. `docs/methods.md` has the measurements behind the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.space import Categorical
from asktell.server.policies import evolution, gp, random_search
from asktell.server.policies.initial_design import enumerable
from asktell.server.policies.warm_start import alone

NAME = "auto"
MAX_PARAMETERS = 100
MAX_FEATURES = 5_000
"""Numbers, and names one by one: a model's time and memory go with these."""
MAX_OBSERVATIONS = 10_000
MAX_TRIALS = 5_000
"""Of a budget: with more trials than this, what gp computes is worth less than more trials."""
MAX_PENDING = 200
"""So many pending trials are what a surrogate takes into account (`choosing.py`)."""
MANY_OBJECTIVES = 5
MANY_TRIALS = 1_000
"""With many objectives, evolution is chosen for budgets from this on."""


_POLICIES: Mapping[str, Callable[[SuggestRequest], Decision]] = {
    gp.NAME: gp.suggest,
    evolution.NAME: alone(evolution.suggest, name=evolution.NAME),
    random_search.NAME: alone(random_search.suggest, name=random_search.NAME),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy's name, and why it was chosen, for a person to read."""

    policy: str
    reason: str


def choice(request: SuggestRequest) -> Choice:
    """The policy that fits a request's study."""
    if enumerable(request):
        return Choice(gp.NAME, f"the budget of {request.max_trials:,} trials is enough for every configuration")
    burden = _burden(request)
    if burden:
        # To evolution, what did well at the lowest rung would be as good as what did at the highest.
        return Choice(evolution.NAME if request.fidelity is None else random_search.NAME, burden)
    return Choice(gp.NAME, "gp needs the fewest trials, and this study is not too large for it")


def suggest_by_choice(request: SuggestRequest) -> Decision:
    """What the policy that fits decides; the reason is in each origin."""
    chosen = choice(request)
    decision = _POLICIES[chosen.policy](request)
    candidates = (
        replace(
            candidate,
            origin=replace(candidate.origin, reason="; ".join(filter(None, [chosen.reason, candidate.origin.reason]))),
        )
        for candidate in decision.candidates
    )
    return replace(decision, candidates=tuple(candidates))


def _burden(request: SuggestRequest) -> str:
    """Why `gp` does not fit the study; empty if it does."""
    parameters, observations, pending = len(request.space), len(request.observations), len(request.pending)
    budget = request.max_trials or 0
    features = sum(len(each.choices) if isinstance(each, Categorical) else 1 for each in request.space)
    for size, limit, of_what in (
        (parameters, MAX_PARAMETERS, "parameters"),
        (features, MAX_FEATURES, "numbers and choices"),
        (observations, MAX_OBSERVATIONS, "observations"),
    ):
        if size > limit:
            return f"gp would be too slow: {size:,} {of_what}, more than {limit:,}"
    if budget > MAX_TRIALS:
        return f"with a budget of {budget:,} trials, more than {MAX_TRIALS:,}, a model is not worth its time"
    if pending > MAX_PENDING:
        return f"gp looks at {MAX_PENDING} pending trials at most, and there are {pending}"
    if len(request.objectives) >= MANY_OBJECTIVES and budget >= MANY_TRIALS:
        return f"for {len(request.objectives)} objectives and a budget of {budget:,} trials evolution is better than gp"
    return ""
