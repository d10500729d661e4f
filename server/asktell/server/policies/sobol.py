"""A scrambled Sobol sequence: trial after trial, the points so far are spread evenly over the space."""

from __future__ import annotations

from typing import Any

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.policies.deadline import NEVER, Deadline
from asktell.server.policies.draws import generator
from asktell.server.policies.kernel import Matrix
from asktell.server.policies.proposing import Offers, Proposal, suggest_by
from asktell.server.policies.random_search import RandomDraw

NAME = "sobol"
_ATTEMPTS = 16
_POINTS = 2**30
"""How many points a sequence has."""


def suggest(request: SuggestRequest) -> Decision:
    """Each trial's own point of the sequence."""
    return suggest_by(SobolDraw, request, name=NAME)


class SobolDraw:
    """Proposes points of Owen-scrambled Sobol sequences (Owen 1998), of one dimension for each parameter, active or not.

    A trial's point has its number, whoever asks and whatever was told. Where that point is taken, the trial gets the point of the same number
    of another scrambling, so that the points in place of those taken are spread evenly as well.
    """

    def __init__(self, request: SuggestRequest, deadline: Deadline = NEVER) -> None:
        self._seed, self._dimensions, self._deadline = request.seed, len(request.space), deadline
        self._draw = RandomDraw(request, deadline)
        self._sequences: dict[int, Any] = {}

    def propose(self, number: int, offers: Offers) -> Proposal | None:
        """The trial's point; None if it is taken in many scramblings, or in as many as there is time for."""
        for scrambling in range(_ATTEMPTS):
            parameters = self._draw.at(self._point(number, scrambling))
            if parameters is not None and offers.free(parameters):
                return Proposal(parameters, NAME)
            if self._deadline.passed:
                break
        return None

    def _point(self, number: int, scrambling: int) -> Matrix:
        sequence = self._sequence(scrambling)
        # One request's trials come in the order of their numbers.
        ahead = (number - 1) % _POINTS - sequence.num_generated
        if ahead:
            sequence.fast_forward(ahead)
        point: Matrix = sequence.random(1)
        return point

    def _sequence(self, scrambling: int) -> Any:
        # scipy.stats takes a second and 30 MB, for which only studies that name this policy shall pay.
        from scipy.stats.qmc import Sobol  # noqa: PLC0415

        if scrambling not in self._sequences:
            random = generator(self._seed, purpose=NAME, number=scrambling)
            self._sequences[scrambling] = Sobol(self._dimensions, scramble=True, rng=random)
        return self._sequences[scrambling]
