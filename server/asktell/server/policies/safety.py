"""A policy that always answers: whatever goes wrong in one, chance stands in for it and the origin says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import islice

from asktell.server.domain.errors import DomainError
from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.trial import Origin
from asktell.server.policies import random_search
from asktell.server.policies.repeats import REPEAT, repeats

Policy = Callable[[SuggestRequest], Decision]


def guarded(policy: Policy, *, name: str) -> Policy:
    """The policy, with `random` in its place when it raises or gives what the space does not allow, and with its time in the origins."""

    def suggest(request: SuggestRequest) -> Decision:
        begin = time.perf_counter()
        try:
            decision = checked(replenished(policy(request), request, name=name), request, name=name)
        except Exception as error:  # noqa: BLE001 - a policy's fault must not become the worker's
            decision = fallback(request, name=name, reason=f"{type(error).__name__}: {error}"[:300])
        return timed(decision, timedelta(seconds=time.perf_counter() - begin))

    return suggest


def fallback(request: SuggestRequest, *, name: str, reason: str) -> Decision:
    """Random candidates in place of the named policy's, at the lowest rung of a study with a fidelity."""
    if request.fidelity is not None and not request.aim:
        lowest = request.fidelity.rungs(request.space)[0]
        request = replace(request, fixed={**request.fixed, request.fidelity.parameter: lowest})
    decision = random_search.suggest(request)
    return Decision(tuple(_excused(candidate, name, reason) for candidate in decision.candidates))


def replenished(decision: Decision, request: SuggestRequest, *, name: str) -> Decision:
    """The decision, in a noisy study with repeats in place of what a finite space does not have any more."""
    missing = request.count - len(decision.candidates)
    if not request.noisy or not missing or decision.waits:
        return decision
    again = repeats(request, [candidate.parameters for candidate in decision.candidates])
    more = (Candidate(parameters, Origin(policy=name, method=REPEAT)) for parameters in islice(again, missing))
    return replace(decision, candidates=(*decision.candidates, *more))


def checked(decision: Decision, request: SuggestRequest, *, name: str) -> Decision:
    """The decision with its parameters as the space keeps them, and with random ones in place of what the space or the request forbids."""
    if len(decision.candidates) > request.count:
        raise ValueError(f"{len(decision.candidates)} candidates were chosen, {request.count} asked for")
    candidates: list[Candidate] = []
    for place, candidate in enumerate(decision.candidates):
        try:
            candidates.append(_checked(candidate, request))
        except (ValueError, DomainError) as error:
            others = [each.parameters for each in (*candidates, *decision.candidates[place + 1 :])]
            alone = replace(
                request,
                count=1,
                next_number=request.next_number + place,
                pending=(*request.pending, *others),
                pending_members=(),
            )
            candidates += fallback(alone, name=name, reason=f"{type(error).__name__}: {error}"[:300]).candidates
    return replace(decision, candidates=tuple(candidates))


def timed(decision: Decision, duration: timedelta) -> Decision:
    """The decision with its share of the time in each candidate's origin."""
    share = duration / max(len(decision.candidates), 1)
    candidates = (
        replace(candidate, origin=replace(candidate.origin, compute_duration=share))
        for candidate in decision.candidates
    )
    return replace(decision, candidates=tuple(candidates))


def _checked(candidate: Candidate, request: SuggestRequest) -> Candidate:
    parameters = request.space.check(candidate.parameters)
    for name, value in request.fixed.items():
        if parameters.get(name) != value:
            raise ValueError(f"parameter {name!r} is {parameters.get(name)!r}, not {value!r} as fixed")
    return replace(candidate, parameters=parameters)


def _excused(candidate: Candidate, name: str, reason: str) -> Candidate:
    return replace(candidate, origin=replace(candidate.origin, policy=name, fallback=reason))
