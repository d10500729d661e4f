"""A request on its way to an engine process: objects by the hundred take longer to pickle than plain tuples do to be made into them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from asktell.server.domain.metric import MetricValue
from asktell.server.domain.policy import Observation, SuggestRequest
from asktell.server.domain.space import Parameters
from asktell.server.domain.trial import TrialState

_Told = tuple[str, float, float | None]
_Row = tuple[int, TrialState, Parameters, tuple[_Told, ...], int, int]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A request without its observations and lessons, and these."""

    request: SuggestRequest
    observations: list[_Row]
    lessons: list[_Row]

    @classmethod
    def of(cls, request: SuggestRequest) -> Parcel:
        """The request, packed."""
        bare = replace(request, observations=(), lessons=())
        return cls(bare, _rows(request.observations), _rows(request.lessons))

    def unpack(self) -> SuggestRequest:
        """The request."""
        return replace(self.request, observations=_observations(self.observations), lessons=_observations(self.lessons))


def _rows(observations: Sequence[Observation]) -> list[_Row]:
    return [
        (seen.number, seen.state, seen.parameters, _told(seen.metrics), seen.parent, seen.member)
        for seen in observations
    ]


def _told(metrics: Mapping[str, MetricValue]) -> tuple[_Told, ...]:
    return tuple((name, each.value, each.standard_error) for name, each in metrics.items())


def _observations(rows: Sequence[_Row]) -> tuple[Observation, ...]:
    return tuple(
        Observation(
            number, state, parameters, {name: MetricValue(value, error) for name, value, error in told}, parent, member
        )
        for number, state, parameters, told, parent, member in rows
    )
