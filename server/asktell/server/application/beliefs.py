"""What the surrogate of a study believes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from asktell.server.application.ask import suggest_request
from asktell.server.application.history import History
from asktell.server.application.ports import Engine
from asktell.server.domain.beliefs import Predict, Predictions, Question
from asktell.server.domain.errors import InvalidArgument
from asktell.server.domain.space import Parameters, SearchSpace
from asktell.server.domain.study import StudyName

T = TypeVar("T")

MAX_POINTS = 1_000


@dataclass(frozen=True, slots=True)
class Oracle:
    """Asks a study's surrogate. An answer takes at most `longest` seconds."""

    history: History
    engine: Engine
    longest: float

    async def ask(self, name: StudyName, question: Question[T], *, patience: float) -> T:
        """The answer, for a caller who waits `patience` seconds; NotFound, FailedPrecondition, OutOfTime or Overloaded."""
        deadline = time.monotonic() + min(patience, self.longest)
        snapshot = await self.history.read(name)
        left = max(deadline - time.monotonic(), 0.0)
        return await self.engine.answer(suggest_request(snapshot, 1, fixed={}, time_limit=left), question)

    async def predict(
        self, name: StudyName, points: Sequence[Parameters], *, patience: float
    ) -> tuple[Predictions, ...]:
        """What is expected at 1 to 1,000 points; InvalidArgument for those that could not be trials."""
        if not 1 <= len(points) <= MAX_POINTS:
            raise InvalidArgument("points", f"has {len(points):,} points; 1 to {MAX_POINTS:,} are allowed")
        space = (await self.history.read(name)).study.spec.space
        # A thousand points of a thousand parameters take as long as other callers must not wait.
        checked = await asyncio.to_thread(_check_all, space, points)
        return await self.ask(name, Predict(checked), patience=patience)


def _check_all(space: SearchSpace, points: Sequence[Parameters]) -> tuple[Parameters, ...]:
    return tuple(_checked(space, point, index) for index, point in enumerate(points))


def _checked(space: SearchSpace, point: Parameters, index: int) -> Parameters:
    try:
        return space.check(point)
    except InvalidArgument as error:
        inside = error.field.removeprefix("parameters")
        raise InvalidArgument(f"points[{index}].values{inside}", error.description) from None
