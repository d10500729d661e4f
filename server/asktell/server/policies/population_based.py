"""Population based training, asynchronously (Jaderberg et al. 2017): a trial is one interval of one member's training.

The free member that is furthest behind goes on when somebody asks: nobody waits for the others' generation. There is no state but the
trials: a member is what its trials say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asktell.server.domain.metric import Objective
from asktell.server.domain.policy import Candidate, Decision, Observation, SuggestRequest
from asktell.server.domain.population import POLICY as NAME
from asktell.server.domain.population import Population
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.domain.trial import Origin, TrialState, finite
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.draws import Designs, generator
from asktell.server.policies.initial_design import METHOD as DESIGN
from asktell.server.policies.initial_design import first_point, fits
from asktell.server.policies.perturbation import Explorer
from asktell.server.policies.random_search import RandomDraw, Seen, too_late
from asktell.server.policies.repeats import infeasible_keys
from asktell.server.policies.scope import Key, Scope

CONTINUE = "continue"
EXPLOIT = "exploit"
RESTART = "restart"
_ATTEMPTS = 16
_LARGEST_DESIGN = 32
"""Points of one hypercube; of a larger population each so many members have one of their own."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A trial that ended: `age` is how many intervals its state had been trained for in the end, `loss` None if it failed or diverged."""

    trial: Observation
    age: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class Member:
    """One of a population: its intervals that ended, in the order of numbers."""

    index: int
    intervals: Sequence[Interval]

    @property
    def last(self) -> Interval:
        """The latest one; there must be one."""
        return self.intervals[-1]

    @property
    def place_in_line(self) -> tuple[int, int, int]:
        """Who goes on first: the one with the fewest intervals, of those the one that has waited longest."""
        return len(self.intervals), self.last.trial.number if self.intervals else 0, self.index


def suggest(request: SuggestRequest) -> Decision:
    """The members that go on, the furthest behind first; fewer than asked for, and `waits`, if no other is free."""
    deadline = Deadline.after(request.time_limit)
    trainer = Trainer(request, deadline)
    chosen: list[Candidate] = []
    for number, member in enumerate(trainer.free[: request.count], request.next_number):
        late = deadline.passed
        candidate = trainer.interval(number, member)
        if candidate is None:
            return Decision(tuple(chosen))
        origin = replace(candidate.origin, fallback=too_late(request)) if late else candidate.origin
        chosen.append(replace(candidate, origin=origin))
    return Decision(tuple(chosen), waits=len(chosen) < request.count and not trainer.impossible)


class Trainer:
    """Decides how the members of one request's population go on."""

    def __init__(self, request: SuggestRequest, deadline: Deadline = NEVER) -> None:
        self._request, self._deadline = request, deadline
        self._population = request.population or Population()
        scope = Scope.of(request.space, request.fixed)
        self.impossible = scope.empty
        intervals = _intervals(request.observations, request.objectives[0])
        members = [Member(index, intervals.get(index, [])) for index in range(1, self._population.size + 1)]
        busy = set(request.pending_members)
        free = [member for member in members if member.index not in busy]
        self.free = [] if scope.empty else sorted(free, key=lambda member: member.place_in_line)
        self._ranked = _ranked(members)
        self._draw = RandomDraw(request, deadline)
        self._seen = Seen(request)
        self._barred = infeasible_keys(request)
        self._explorer = Explorer(scope, self._population, deadline)

    def interval(self, number: int, member: Member) -> Candidate | None:
        """The member's next interval, which will be the trial of this number; None if no configuration is left that could work."""
        if not member.intervals:
            return self._candidate(member, self._start(number, member), DESIGN)
        source, last = self._source(number, member.last), member.last.trial
        if source is not None:
            return self._candidate(member, self._near(number, source.trial), EXPLOIT, parent=source.trial.number)
        if member.last.loss is None:
            return self._candidate(member, self._fresh(number), RESTART)
        return self._candidate(member, self._kept(number, last), CONTINUE, parent=last.number)

    def _source(self, number: int, last: Interval) -> Interval | None:
        """Whose state a member takes over: that of one of the best of its age if it is among the worst, or has no result; None if it keeps
        its own (truncation selection).

        Results are compared at one age: whoever goes on later in a generation would else always be among the worst.
        """
        if last.loss is None:
            reached = [age for age in self._ranked if age <= last.age]
            ranked = self._ranked[max(reached)] if reached else []
            best = ranked[: max(self._population.exploiting(len(ranked)), 1)]
        else:
            ranked = self._ranked[last.age]
            count = self._population.exploiting(len(ranked))
            worst = {each.trial.number for each in ranked[len(ranked) - count :]}
            # Of equals, none is worth another's state.
            best = [each for each in ranked[:count] if last.trial.number in worst and each.loss != last.loss]
        return best[int(self._random(number, "source").integers(len(best)))] if best else None

    def _kept(self, number: int, trial: Observation) -> Parameters | None:
        """A trial's parameters, with those that the ask fixes in place of its own."""
        if fits(trial.parameters, self._request.fixed):
            return trial.parameters
        placed = self._explorer.placed(trial.parameters, self._random(number, "fixed"))
        return placed if placed is not None and key(placed) not in self._barred else self._near(number, trial)

    def _near(self, number: int, trial: Observation) -> dict[str, ParameterValue] | None:
        """Parameters near a trial's that are not known to be infeasible; any such, if there are none nearby."""
        random = self._random(number, "explore")
        for _ in range(_ATTEMPTS):
            found = self._explorer.explored(trial.parameters, random)
            if found is not None and key(found) not in self._barred:
                return found
            if self._deadline.passed:
                break
        return self._drawn(number, self._barred)

    def _start(self, number: int, member: Member) -> dict[str, ParameterValue] | None:
        """The member's point of a Latin hypercube; the user's defaults for the first."""
        point = self._planned(member)
        return self._fresh(number) if point is None or key(point) in self._seen else point

    def _fresh(self, number: int) -> dict[str, ParameterValue] | None:
        """Parameters that nobody has tried; once a finite space has no others, any that are not known to be infeasible."""
        found = self._drawn(number, self._seen)
        return self._drawn(number, self._barred) if found is None else found

    def _drawn(self, number: int, without: Container[Key]) -> dict[str, ParameterValue] | None:
        return self._draw.configuration(number, without, hasty=self._deadline.passed)

    def _planned(self, member: Member) -> dict[str, ParameterValue] | None:
        request, space = self._request, self._request.space
        if member.index == 1 and any(spec.has_default for spec in space):
            first = first_point(request)
            if fits(first, request.fixed) and space.allows(first):
                return first
        design = Designs(request.seed, min(self._population.size, _LARGEST_DESIGN), len(space), NAME)
        return self._draw.at(design.point(member.index - 1))

    def _candidate(
        self, member: Member, parameters: Parameters | None, method: str, *, parent: int = 0
    ) -> Candidate | None:
        if parameters is None:
            return None
        self._seen.add(key(parameters))
        return Candidate(parameters, Origin(policy=NAME, method=method), parent, member.index)

    def _random(self, number: int, purpose: str) -> np.random.Generator:
        return generator(self._request.seed, purpose=f"{NAME} {purpose}", number=number)


def _intervals(observations: Sequence[Observation], objective: Objective) -> Mapping[int, list[Interval]]:
    """The intervals of each member. A trial that was added by a person is nobody's."""
    intervals: dict[int, list[Interval]] = defaultdict(list)
    ages: dict[int, int] = {}
    for seen in sorted(observations, key=lambda seen: seen.number):
        ages[seen.number] = ages.get(seen.parent, 0) + 1
        intervals[seen.member].append(Interval(seen, ages[seen.number], _loss(seen, objective)))
    return intervals


def _ranked(members: Sequence[Member]) -> dict[int, list[Interval]]:
    """The intervals with a result by age, of each member the latest of that age, the best first."""
    found: dict[int, list[tuple[float, int, Interval]]] = defaultdict(list)
    for member in members:
        latest = {each.age: each for each in member.intervals if each.loss is not None}
        for age, each in latest.items():
            found[age].append((each.loss or 0.0, member.index, each))
    return {age: [each for _, _, each in sorted(of_age, key=lambda row: row[:2])] for age, of_age in found.items()}


def _loss(seen: Observation, objective: Objective) -> float | None:
    if seen.state not in (TrialState.SUCCEEDED, TrialState.STOPPED) or not finite(seen.metrics, [objective.metric]):
        return None
    return objective.loss(seen.metrics[objective.metric].value)
