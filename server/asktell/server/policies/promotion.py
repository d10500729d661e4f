"""Multi-fidelity as a course over other policies: asynchronous successive halving by promotion (after ASHA, Li et al. 2020).

New configurations are chosen by the policy as if they were run at the highest fidelity, and start at the lowest rung; what did well at a
rung goes on to the next one. With a surrogate this is MOBSTER (Klein et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.policy import Candidate, Decision, Observation, SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key, same
from asktell.server.domain.trial import Origin, TrialState
from asktell.server.policies.initial_design import fits
from asktell.server.policies.labels import measured
from asktell.server.policies.safety import Policy
from asktell.server.policies.scope import Key
from asktell.server.policies.standing import ranks

METHOD = "promotion"


def promoting(policy: Policy, *, name: str) -> Policy:
    """The policy, with promotions before new configurations where the study has a fidelity."""

    def suggest(request: SuggestRequest) -> Decision:
        return policy(request) if request.fidelity is None else _suggest(policy, request, request.fidelity, name)

    return suggest


def afresh(request: SuggestRequest) -> SuggestRequest | None:
    """The request that is left to the policy itself: its own where there is no fidelity; None if promotions are all that is wanted."""
    if request.fidelity is None:
        return request
    found = len(list(islice(Ladder(request, request.fidelity).promotions(), request.count)))
    return _afresh(request, request.fidelity, found) if found < request.count else None


def _suggest(policy: Policy, request: SuggestRequest, fidelity: Fidelity, name: str) -> Decision:
    ladder = Ladder(request, fidelity)
    chosen = [_candidate(each, name) for each in islice(ladder.promotions(), request.count)]
    if len(chosen) == request.count:
        return Decision(tuple(chosen))
    decision = policy(_afresh(request, fidelity, len(chosen)))
    chosen += [replace(each, parameters=ladder.started(each.parameters)) for each in decision.candidates]
    if not chosen and not request.pending:
        # Nothing is left and nothing will come: the best of each rung goes on, however few there are.
        chosen = [_candidate(each, name) for each in islice(ladder.promotions(ending=True), request.count)]
    return replace(decision, candidates=tuple(chosen))


def _candidate(promotion: Promotion, name: str) -> Candidate:
    origin = Origin(policy=name, method=METHOD, reason=promotion.reason)
    return Candidate(promotion.parameters, origin, parent=promotion.parent)


def _afresh(request: SuggestRequest, fidelity: Fidelity, promoted: int) -> SuggestRequest:
    """The request for new configurations alone, as if all were run at the highest fidelity: what was tried at several rungs counts once, and
    `lessons` have what was really measured.
    """
    top = fidelity.rungs(request.space)[-1]

    def raised(parameters: Parameters) -> dict[str, ParameterValue]:
        return fidelity.at(parameters, top)

    ordered = sorted(request.observations, key=lambda seen: (fidelity.level(seen.parameters), -seen.number))
    tried = {key(raised(seen.parameters)): seen for seen in ordered}
    waiting = {key(raised(parameters)): raised(parameters) for parameters in request.pending}
    observations = (replace(seen, parameters=raised(seen.parameters)) for seen in tried.values())
    return replace(
        request,
        count=request.count - promoted,
        next_number=request.next_number + promoted,
        observations=tuple(sorted(observations, key=lambda seen: seen.number)),
        pending=tuple(parameters for known, parameters in waiting.items() if known not in tried),
        lessons=request.observations,
        fixed={**request.fixed, fidelity.parameter: top},
    )


@dataclass(frozen=True, slots=True)
class Promotion:
    """A configuration that goes on from the trial `parent` to the next rung."""

    parameters: Parameters
    parent: int
    reason: str


class Ladder:
    """The rungs of a request's study, and which configurations came to each."""

    def __init__(self, request: SuggestRequest, fidelity: Fidelity) -> None:
        self._request, self._fidelity = request, fidelity
        self._rungs = fidelity.rungs(request.space)
        self._ended: list[list[Observation]] = [[] for _ in self._rungs]
        for seen in sorted(request.observations, key=lambda seen: seen.number):
            place = self._place(seen.parameters)
            if place is not None:
                self._ended[place].append(seen)
        self._heights = self._highest()

    def started(self, parameters: Parameters) -> dict[str, ParameterValue]:
        """A new configuration where it starts: at the lowest rung, or where the ask fixes the fidelity."""
        name = self._fidelity.parameter
        return self._fidelity.at(parameters, self._request.fixed.get(name, self._rungs[0]))

    def promotions(self, *, ending: bool = False) -> Iterator[Promotion]:
        """What may go on, from the highest rung to the lowest, the best of each first. Where the ask fixes the fidelity, nothing does.

        At the end of a study one of each rung at least, whoever went on before: what would start now came nowhere.
        """
        if self._fidelity.parameter in self._request.fixed:
            return
        for place in reversed(range(len(self._rungs) - 1)):
            yield from self._from(place, ending=ending or self._last)

    @property
    def _last(self) -> bool:
        """Whether the budget leaves no more trials than bring one configuration from the lowest rung to the highest."""
        started = len(self._request.observations) + len(self._request.pending)
        return self._request.max_trials is not None and self._request.max_trials - started < len(self._rungs)

    def _from(self, place: int, *, ending: bool) -> Iterator[Promotion]:
        """Of n configurations that ended at a rung `n // reduction_factor` go on in all, each when it is among the best so many.

        In the algorithm as published all that are ever among them go on. While the surrogate gets better nearly every new one is, and the
        epochs go to what is soon to be beaten.
        """
        ended = {self._configuration(seen.parameters) for seen in self._ended[place]}
        count, here = len(ended), self._rungs[place]
        quota = max(count // self._fidelity.reduction_factor, int(ending))
        above = {own for own in ended if self._heights[own] > here}
        best = [seen for seen in self._ranked(place)[:quota] if self._configuration(seen.parameters) not in above]
        waiting = (seen for seen in best if fits(seen.parameters, self._request.fixed))
        for seen in islice(waiting, quota if ending else max(quota - len(above), 0)):
            reason = f"among the best {quota} of {count} at {self._fidelity.parameter}={here:g}"
            yield Promotion(self._fidelity.at(seen.parameters, self._rungs[place + 1]), seen.number, reason)

    def _ranked(self, place: int) -> list[Observation]:
        """The configurations that succeeded at a rung, the best first, each with its best trial; of equals the earlier one comes first."""
        trials = [seen for seen in self._ended[place] if seen.state is TrialState.SUCCEEDED]
        useful = measured(trials, self._request.objectives)
        order = zip(ranks(trials, self._request), trials, useful, strict=True)
        ranked = sorted(((rank, seen.number, seen) for rank, seen, fine in order if fine), key=lambda each: each[:2])
        best: dict[Key, Observation] = {}
        for _, _, seen in ranked:
            best.setdefault(self._configuration(seen.parameters), seen)
        return list(best.values())

    def _highest(self) -> dict[Key, float | int]:
        """The highest fidelity that each configuration was tried at, whatever became of it, or is being tried at."""
        heights: dict[Key, float | int] = {}
        for parameters in (*(seen.parameters for seen in self._request.observations), *self._request.pending):
            own, level = self._configuration(parameters), self._fidelity.level(parameters)
            heights[own] = max(heights.get(own, level), level)
        return heights

    def _configuration(self, parameters: Parameters) -> Key:
        """What a configuration is but for its fidelity."""
        return key({name: value for name, value in parameters.items() if name != self._fidelity.parameter})

    def _place(self, parameters: Parameters) -> int | None:
        """The rung that a trial is at; None between rungs."""
        level = self._fidelity.level(parameters)
        return next((place for place, rung in enumerate(self._rungs) if same(rung, level)), None)
