"""Multi-fidelity as a course over other policies: asynchronous successive halving by promotion (after ASHA, Li et al. 2020).

New configurations are chosen by the policy as if they were run at the highest fidelity, and start at the lowest rung; what did well at a
rung goes on to the next one. With a surrogate this is MOBSTER (Klein et al. 2020), but that it also has a say in who goes on, once some came
farther: in turns those of which it expects most at the highest rung, and the best at their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from asktell.server.domain.fidelity import Fidelity
from asktell.server.domain.policy import Candidate, Decision, Observation, SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key, same
from asktell.server.domain.trial import Origin, TrialState, finite
from asktell.server.policies.foresight import Foresight
from asktell.server.policies.initial_design import fits
from asktell.server.policies.safety import Policy
from asktell.server.policies.scope import Key
from asktell.server.policies.standing import ranks

METHOD = "promotion"
ENOUGH = 3
"""So many results above a rung are what a surrogate must have seen to say what those at the rung will come to."""


def promoting(policy: Policy, *, name: str, modelled: Callable[[SuggestRequest], bool]) -> Policy:
    """The policy, with promotions before new configurations where the study has a fidelity.

    `modelled` tells whether a surrogate chooses in the study of a request for new configurations: then it says who goes on, too.
    """

    def suggest(request: SuggestRequest) -> Decision:
        if request.fidelity is None:
            return policy(request)
        fresh = whole(request)
        foresight = Foresight(fresh) if modelled(fresh) else None
        return _suggest(policy, Ladder(request, request.fidelity, foresight), fresh, name)

    return suggest


@dataclass(frozen=True, slots=True)
class Prospect:
    """What comes of a request: whether it takes a surrogate, where there is one, to say who goes on; and what is left to the policy itself,
    None if promotions are all that is wanted.
    """

    foreseen: bool
    left: SuggestRequest | None


def prospect(request: SuggestRequest, fresh: SuggestRequest) -> Prospect:
    """What comes of a request, of which `fresh` is the whole."""
    if request.fidelity is None:
        return Prospect(foreseen=False, left=fresh)
    ladder = Ladder(request, request.fidelity)
    return Prospect(ladder.foreseen, _less(fresh, ladder.count(request.count)))


def _less(fresh: SuggestRequest, promoted: int) -> SuggestRequest | None:
    """What is left of a request for new configurations after promotions."""
    if promoted == fresh.count:
        return None
    return replace(fresh, count=fresh.count - promoted, next_number=fresh.next_number + promoted)


def _suggest(policy: Policy, ladder: Ladder, fresh: SuggestRequest, name: str) -> Decision:
    request, foresight = ladder.request, ladder.foresight
    chosen = [_candidate(each, name) for each in islice(ladder.promotions(), request.count)]
    promoted, late = len(chosen), foresight is not None and foresight.late
    left = _less(fresh, promoted)
    if left is None:
        return Decision(tuple(chosen), hint=foresight.hint() if foresight else b"", timely=0 if late else None)
    decision = policy(foresight.followed(left) if foresight else left)
    chosen += [replace(each, parameters=ladder.started(each.parameters)) for each in decision.candidates]
    if not chosen and not request.pending:
        # Nothing is left and nothing will come: the best of each rung goes on, however few there are.
        chosen = [_candidate(each, name) for each in islice(ladder.promotions(ending=True), request.count)]
    timely = decision.timely if decision.timely is None else promoted + decision.timely
    return replace(decision, candidates=tuple(chosen), timely=0 if late else timely)


def _candidate(promotion: Promotion, name: str) -> Candidate:
    origin = Origin(policy=name, method=METHOD, reason=promotion.reason)
    return Candidate(promotion.parameters, origin, parent=promotion.parent)


def whole(request: SuggestRequest) -> SuggestRequest:
    """What the policy would be asked if nothing could go on.

    With a fidelity, it is as if all were run at the highest: what was tried at several rungs counts once, and `lessons` have what was
    really measured.
    """
    if request.fidelity is None:
        return request
    fidelity = request.fidelity
    top = fidelity.rungs(request.space)[-1]

    def raised(parameters: Parameters) -> dict[str, ParameterValue]:
        return fidelity.at(parameters, top)

    ordered = sorted(request.observations, key=lambda seen: (fidelity.level(seen.parameters), -seen.number))
    tried = {key(raised(seen.parameters)): seen for seen in ordered}
    waiting = {key(raised(parameters)): raised(parameters) for parameters in request.pending}
    observations = (replace(seen, parameters=raised(seen.parameters)) for seen in tried.values())
    return replace(
        request,
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


@dataclass(frozen=True, slots=True)
class _Rung:
    """A rung below the highest: which trials ended there, each with its configuration; which configurations went on, and which of these
    failed higher up; how many may go on in all; how many results there are of higher fidelities.
    """

    level: float | int
    following: float | int
    ended: Sequence[tuple[Key, Observation]]
    above: frozenset[Key]
    lost: frozenset[Key]
    count: int
    quota: int
    beyond: int

    @property
    def foreseeable(self) -> bool:
        """Whether there are results enough above to foresee what those here will come to."""
        return self.beyond >= ENOUGH

    @property
    def room(self) -> int:
        """How many more may go on."""
        return max(self.quota - len(self.above), 0)


class Ladder:
    """The rungs of a request's study, and which configurations came to each.

    Who goes on is a matter of ranks, and of foresight if there is any.
    """

    def __init__(self, request: SuggestRequest, fidelity: Fidelity, foresight: Foresight | None = None) -> None:
        self.request, self.fidelity, self.foresight = request, fidelity, foresight
        self._levels = fidelity.rungs(request.space)
        self._metrics = [objective.metric for objective in request.objectives]
        ordered = sorted(request.observations, key=lambda seen: seen.number)
        ended = [(self._configuration(seen.parameters), seen) for seen in ordered]
        running = [(self._configuration(parameters), parameters) for parameters in request.pending]
        tried = self._highest((*((own, seen.parameters) for own, seen in ended), *running))
        came = self._highest((*((own, seen.parameters) for own, seen in ended if self._able(seen)), *running))
        self._rungs = [self._rung(place, ended, tried, came) for place in reversed(range(len(self._levels) - 1))]

    def started(self, parameters: Parameters) -> dict[str, ParameterValue]:
        """A new configuration where it starts: at the lowest rung, or where the ask fixes the fidelity."""
        name = self.fidelity.parameter
        return self.fidelity.at(parameters, self.request.fixed.get(name, self._levels[0]))

    def promotions(self, *, ending: bool = False) -> Iterator[Promotion]:
        """What may go on, from the highest rung to the lowest, the best of each first. Where the ask fixes the fidelity, nothing does.

        At the end of a study one of each rung at least, whoever went on before: what would start now came nowhere.
        """
        if self.fidelity.parameter in self.request.fixed:
            return
        for rung in self._rungs:
            yield from self._remaining(rung) if ending or self._last else self._from(rung)

    def count(self, most: int) -> int:
        """How many promotions there are, up to `most`; without ranking thousands of trials where all that have ended may go on."""
        if self._last or self.request.fixed:
            return len(list(islice(self.promotions(), most)))
        return min(sum(self._rising(rung) for rung in self._rungs), most)

    @property
    def foreseen(self) -> bool:
        """Whether somebody may go on from a rung above which there are results enough to foresee others'."""
        if self.fidelity.parameter in self.request.fixed:
            return False
        return any(rung.foreseeable and (rung.room or self._last) for rung in self._rungs)

    @property
    def _last(self) -> bool:
        """Whether the budget leaves no more trials than bring one configuration from the lowest rung to the highest."""
        started = len(self.request.observations) + len(self.request.pending)
        return self.request.max_trials is not None and self.request.max_trials - started < len(self._levels)

    def _rising(self, rung: _Rung) -> int:
        """How many go on from a rung: as many as there is room for, if as many as may go on in all have succeeded."""
        if not rung.room:
            return 0
        able = {own for own, seen in rung.ended if self._able(seen)}
        return rung.room if len(able) >= rung.quota else len(list(self._from(rung)))

    def _from(self, rung: _Rung) -> Iterator[Promotion]:
        """Of n configurations that ended at a rung `n // reduction_factor` go on in all, each when it is among the best so many.

        In the algorithm as published all that are ever among them go on. While the surrogate gets better nearly every new one is, and the
        epochs go to what is soon to be beaten.
        """
        if rung.room:
            best = self._ranked(rung)[: rung.quota]
            yield from islice(self._promoted(best, rung, rung.quota), rung.room)

    def _remaining(self, rung: _Rung) -> Iterator[Promotion]:
        """What a rung still owes at the end of a study: the best so many, one at least; where one failed higher up, the next in its place."""
        quota = max(rung.quota, 1)
        able = [(own, seen) for own, seen in self._ranked(rung) if own not in rung.lost]
        yield from self._promoted(able[:quota], rung, quota)

    def _promoted(self, best: Sequence[tuple[Key, Observation]], rung: _Rung, quota: int) -> Iterator[Promotion]:
        """Those of the best that did not go on yet."""
        reason = f"among the best {quota} of {rung.count} at {self._at(rung.level)}"
        if self.foresight is not None and rung.foreseeable:
            top = self._at(self._levels[-1])
            reason = f"among the {quota} of {rung.count} at {self._at(rung.level)} that are best or of which most is expected at {top}"
        for own, seen in best:
            if own not in rung.above and fits(seen.parameters, self.request.fixed):
                yield Promotion(self.fidelity.at(seen.parameters, rung.following), seen.number, reason)

    def _ranked(self, rung: _Rung) -> list[tuple[Key, Observation]]:
        """The configurations that succeeded at a rung, the best first, each with its best trial; of equals the earlier one comes first.

        Where what they come to is foreseen, that of which most is expected comes first, then the best, and so on in turns: early results
        tell how fast a training is as much as how good it becomes, and the surrogate may be wrong.
        """
        able = [(own, seen) for own, seen in rung.ended if self._able(seen)]
        trials = [seen for _, seen in able]
        best = self._ordered(able, trials)
        if self.foresight is None or not rung.foreseeable:
            return list(best.items())
        expected = self._ordered(able, self.foresight.of(trials))
        turns = chain.from_iterable(zip(expected, best, strict=True))
        return [(own, best[own]) for own in dict.fromkeys(turns)]

    def _ordered(
        self, able: Sequence[tuple[Key, Observation]], results: Sequence[Observation]
    ) -> dict[Key, Observation]:
        """Configurations by these results of their trials, the best first, each with its best trial."""
        standing = ranks(results, self.request).tolist()
        best: dict[Key, Observation] = {}
        for _, (own, seen) in sorted(zip(standing, able, strict=True), key=lambda each: each[0]):
            best.setdefault(own, seen)
        return best

    def _at(self, level: float) -> str:
        return f"{self.fidelity.parameter}={level:g}"

    def _rung(
        self,
        place: int,
        ended: Sequence[tuple[Key, Observation]],
        tried: Mapping[Key, float | int],
        came: Mapping[Key, float | int],
    ) -> _Rung:
        """A rung, given at which fidelity at most each configuration was tried, and at which it succeeded or is being tried."""
        level = self._levels[place]
        here = [(own, seen) for own, seen in ended if same(level, self.fidelity.level(seen.parameters))]
        configurations = {own for own, _ in here}
        above = frozenset(own for own in configurations if tried[own] > level)
        lost = frozenset(own for own in above if came.get(own, level) < tried[own])
        quota = len(configurations) // self.fidelity.reduction_factor
        beyond = sum(self.fidelity.level(seen.parameters) > level and self._able(seen) for _, seen in ended)
        return _Rung(level, self._levels[place + 1], here, above, lost, len(configurations), quota, beyond)

    def _highest(self, tried: Iterable[tuple[Key, Parameters]]) -> dict[Key, float | int]:
        """The highest fidelity of each configuration."""
        heights: dict[Key, float | int] = {}
        for own, parameters in tried:
            level = self.fidelity.level(parameters)
            heights[own] = max(heights.get(own, level), level)
        return heights

    def _able(self, seen: Observation) -> bool:
        """Whether a trial's result lets it go on."""
        return seen.state is TrialState.SUCCEEDED and finite(seen.metrics, self._metrics)

    def _configuration(self, parameters: Parameters) -> Key:
        """What a configuration is but for its fidelity."""
        return key({name: value for name, value in parameters.items() if name != self.fidelity.parameter})
