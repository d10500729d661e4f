"""What this replica knows of the curves that stopping rules look at: a cache that is brought up to date by each read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from asktell.server.application.ports import FIRST_POINT, Charted, CurvePlace, CurvePoint, Store, Transaction
from asktell.server.domain.curve import Curve
from asktell.server.domain.metric import Objective
from asktell.server.domain.study import Study, StudySpec

PAGE = 10_000
"""Points in one read."""


def chart(spec: StudySpec, sequences: Mapping[int, int]) -> Charted | None:
    """What the study's stopping rule looks at in trials, whose changes' sequence numbers are given by their numbers; None without a rule."""
    return None if spec.charted is None else Charted(spec.charted.metric, sequences)


@dataclass(slots=True)
class Chart:
    """The curves of one study's trials up to a place, by the trials' numbers, and how many points they have.

    A study whose rule looks at another metric from now on has points of that one, all with later places.
    """

    place: CurvePlace = FIRST_POINT
    curves: dict[int, Curve] = field(default_factory=dict)
    points: int = 0

    def goes_on_in(self, points: Sequence[CurvePoint]) -> bool:
        """Whether the point at the place is among these, which the database has from the place on: there, or replaced by a later one.

        If not, the database lost it, and with it perhaps others that came before; or the rule looks at another metric from now on.
        """
        _, number, step = self.place
        return self.place == FIRST_POINT or any((point.number, point.step) == (number, step) for point in points)

    def learn(self, points: Sequence[CurvePoint], metric: Objective) -> None:
        """Take in points from the place on, but for those of another metric: who asks has not heard of the new rule yet."""
        changed: dict[int, dict[int, float]] = {}
        for point in points:
            if point.metric == metric.metric and point.place > self.place:
                changed.setdefault(point.number, {})[point.step] = metric.loss(point.value)
            self.place = point.place
        for number, losses in changed.items():
            before = self.curves.get(number, Curve())
            self.curves[number] = before.merged(losses)
            self.points += len(self.curves[number].steps) - len(before.steps)


@dataclass(slots=True)
class _Known:
    metric: Objective
    incarnation: str
    chart: Chart = field(default_factory=Chart)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def look_at(self, metric: Objective, incarnation: str) -> None:
        """Begin again if it is another metric, or another incarnation of the database, which may have lost points."""
        if (metric, incarnation) != (self.metric, self.incarnation):
            self.metric, self.incarnation, self.chart = metric, incarnation, Chart()

    def take(self, points: Sequence[CurvePoint]) -> bool:
        """Take in a page of points; whether there may be more. Points that do not go with what is known make it begin again."""
        if not self.chart.goes_on_in(points):
            self.chart = Chart()
            return True
        self.chart.learn(points, self.metric)
        return len(points) == PAGE


class Curves:
    """Reads the curves of studies that have a stopping rule, fetching only what is new. Used from the event loop alone.

    The studies read last are remembered: at most `max_studies`, and of more than one at most `max_points` points in all (a million take
    about 80 MB).
    """

    def __init__(self, store: Store, *, max_studies: int = 256, max_points: int = 1_000_000) -> None:
        self._store = store
        self._max_studies, self._max_points = max_studies, max_points
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._next: dict[tuple[int, Objective, str], asyncio.Task[Mapping[int, Curve]]] = {}

    async def read(self, study: Study, metric: Objective, *, incarnation: str) -> Mapping[int, Curve]:
        """The curves by the trials' numbers, as of some time after the call. Those who wait for a study's next read share it.

        `incarnation` is that of the database in which the study was found.
        """
        key = (study.id, metric, incarnation)
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._read(study.id, metric, incarnation))
            task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def _read(self, study_id: int, metric: Objective, incarnation: str) -> Mapping[int, Curve]:
        known = self._known.setdefault(study_id, _Known(metric, incarnation))
        self._known.move_to_end(study_id)
        async with known.turn:
            # Who comes from now on may have written what this read does not see.
            del self._next[study_id, metric, incarnation]
            known.look_at(metric, incarnation)
            more = True
            while more:
                more = known.take(
                    await self._store.read(partial(_next_page, study_id=study_id, place=known.chart.place))
                )
            self._shrink()
            return dict(known.chart.curves)

    def _shrink(self) -> None:
        points = sum(known.chart.points for known in self._known.values())
        while len(self._known) > 1 and (len(self._known) > self._max_studies or points > self._max_points):
            _, dropped = self._known.popitem(last=False)
            points -= dropped.chart.points


def _next_page(tx: Transaction, *, study_id: int, place: CurvePlace) -> list[CurvePoint]:
    return tx.curve_points(study_id, place, limit=PAGE)


def _retrieved(task: asyncio.Task[Mapping[int, Curve]]) -> None:
    # Nobody may be left to hear of an error.
    if not task.cancelled():
        task.exception()
