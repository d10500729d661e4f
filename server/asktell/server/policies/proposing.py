"""The course of policies without a model: one proposal a trial, and chance where a proposal repeats what was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from asktell.server.domain.policy import Candidate, Decision, SuggestRequest
from asktell.server.domain.space import Parameters, ParameterValue, key
from asktell.server.domain.trial import Origin
from asktell.server.policies.deadline import Deadline
from asktell.server.policies.initial_design import first_point, fits
from asktell.server.policies.random_search import RandomDraw, Seen, too_late
from asktell.server.policies.scope import Scope

DEFAULT = "default"
"""The method of the user's default point."""
_SCANNED = 8
"""So many look-ups compare with every trial; keys, which more look-ups would pay for, take ten times as long to make."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration for a trial, what in the policy chose it, and why that is not the usual choice, if it is not."""

    parameters: dict[str, ParameterValue]
    method: str
    fallback: str = ""


class Proposer(Protocol):
    """Proposes configurations for one request."""

    def propose(self, number: int, offers: Offers) -> Proposal | None:
        """A free configuration for a trial; None if none was found, or there was no time to find one."""
        ...


class Offers:
    """What may still be offered: all that the space allows but what was tried, is being tried, or was chosen for the same request."""

    def __init__(self, request: SuggestRequest) -> None:
        self._request = request
        self._chosen: list[Parameters] = []
        self._looked = 0
        self.seen = Seen(request)

    def free(self, parameters: Parameters) -> bool:
        """Whether a configuration may be offered."""
        return self._request.space.allows(parameters) and not self._taken(parameters)

    def _taken(self, parameters: Parameters) -> bool:
        self._looked += 1
        sought = key(parameters)
        if self._looked > _SCANNED:
            return sought in self.seen
        # Python holds 1, 1.0 and True for equal; their keys differ.
        return any(other == parameters and key(other) == sought for other in self._others())

    def take(self, parameters: Parameters) -> None:
        """Take in one more."""
        self._chosen.append(parameters)
        self.seen.add(key(parameters))

    def _others(self) -> Iterator[Parameters]:
        yield from (observation.parameters for observation in self._request.observations)
        yield from self._request.pending
        yield from self._chosen


def suggest_by(make: Callable[[SuggestRequest, Deadline], Proposer], request: SuggestRequest, *, name: str) -> Decision:
    """The decision of the policy of this name: the user's default point first, if there is one, then proposals in time."""
    return Decision(tuple(_candidates(make, request, name)))


def _candidates(
    make: Callable[[SuggestRequest, Deadline], Proposer], request: SuggestRequest, name: str
) -> Iterator[Candidate]:
    if Scope.of(request.space, request.fixed).empty:
        return
    deadline, offers = Deadline.after(request.time_limit), Offers(request)
    draw, proposer = RandomDraw(request, deadline), make(request, deadline)
    default = _default(request, offers)
    for number in range(request.next_number, request.next_number + request.count):
        late = number > request.next_number and deadline.passed
        proposal = None if late else default or proposer.propose(number, offers)
        default = None
        if proposal is None:
            late = deadline.passed
            drawn = draw.configuration(number, offers.seen, hasty=late)
            if drawn is None:
                return
            proposal = Proposal(drawn, "random", too_late(request) if late else "")
        offers.take(proposal.parameters)
        yield Candidate(proposal.parameters, Origin(policy=name, method=proposal.method, fallback=proposal.fallback))


def _default(request: SuggestRequest, offers: Offers) -> Proposal | None:
    """The user's default point, unless it was tried or contradicts what is fixed."""
    if not any(spec.has_default for spec in request.space):
        return None
    point = first_point(request)
    return Proposal(point, DEFAULT) if fits(point, request.fixed) and offers.free(point) else None
