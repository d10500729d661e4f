"""A genetic algorithm in a steady state: every trial descends from the best of all trials that have ended, whoever is still at work."""

from __future__ import annotations

import numpy as np

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.domain.space import ParameterValue
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.draws import Designs, generator
from asktell.server.policies.encoding import Encoder
from asktell.server.policies.proposing import Offers, Proposal, suggest_by
from asktell.server.policies.random_search import RandomDraw
from asktell.server.policies.region import Region
from asktell.server.policies.scope import Scope
from asktell.server.policies.standing import population
from asktell.server.policies.variation import Family

NAME = "evolution"
DESIGN = "initial-design"
CHILD = "crossover"
_ATTEMPTS = 16
_FEWEST = 4
"""So few parents have too little to pass on."""


def suggest(request: SuggestRequest) -> Decision:
    """A design first, then children of the best."""
    return suggest_by(Evolution, request, name=NAME)


def sizes(request: SuggestRequest) -> tuple[int, int]:
    """How many trials the design has, and how many trials may have children: more the longer the study, and with several objectives, as a
    front takes more to describe.
    """
    number = request.next_number
    return (10, min(10 + number // 50, 60)) if len(request.objectives) == 1 else (20, min(20 + number // 20, 100))


class Evolution:
    """Proposes children for one request."""

    def __init__(self, request: SuggestRequest, deadline: Deadline = NEVER) -> None:
        self._request, self._deadline = request, deadline
        self._designed, size = sizes(request)
        self._population = population(request, size)
        self._whole = Encoder.of(request.space)
        self._encoder = Encoder.within(Scope.of(request.space, request.fixed))
        self._region = Region(self._encoder, deadline)
        self._draw = RandomDraw(request, deadline)
        self._design = Designs(request.seed, self._designed, len(request.space), NAME)
        settled = self._whole.encode([trial.parameters for trial in self._population.trials])
        self._family = Family(self._encoder, settled, self._whole.activity(settled))

    def propose(self, number: int, offers: Offers) -> Proposal | None:
        """The trial's point of the design, or a child that no earlier trial is the same as; None if none was found."""
        if number <= self._designed or len(self._population) < _FEWEST:
            return self._point(number, offers)
        random = generator(self._request.seed, purpose=NAME, number=number)
        for _ in range(_ATTEMPTS):
            parameters = self._child(random)
            if offers.free(parameters):
                return Proposal(parameters, CHILD)
            if self._deadline.passed:
                break
        return None

    def _point(self, number: int, offers: Offers) -> Proposal | None:
        random = generator(self._request.seed, purpose=f"{NAME} design", number=number)
        point = self._design.point(number - 1)
        for _ in range(_ATTEMPTS):
            parameters = self._draw.at(point)
            if parameters is not None and offers.free(parameters):
                return Proposal(parameters, DESIGN)
            if self._deadline.passed:
                break
            point = random.random(point.shape)
        return None

    def _child(self, random: np.random.Generator) -> dict[str, ParameterValue]:
        """A child, moved to where the constraints are met if it does not meet them."""
        child = self._family.child(random, self._parents(random))[None]
        if not self._region.unbounded:
            child, _ = self._region.repaired(child, random)
        return self._encoder.decode(self._encoder.settle(child)[0])

    def _parents(self, random: np.random.Generator) -> tuple[int, int]:
        """Two different parents, each the better of two drawn."""
        first = self._tournament(random)
        second = self._tournament(random)
        while second == first:
            second = int(random.integers(len(self._population)))
        return first, second

    def _tournament(self, random: np.random.Generator) -> int:
        first, second = (int(place) for place in random.integers(len(self._population), size=2))
        return second if self._population.ranks[second] < self._population.ranks[first] else first
