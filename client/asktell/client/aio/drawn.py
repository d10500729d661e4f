"""Pictures of a study, drawn for asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from asktell.client import pictures
from asktell.client.aio.connection import Connection
from asktell.client.calls import Call
from asktell.client.pictures import Around, Plan, Stream
from asktell.client.views import StudyView

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DrawnStudy(StudyView):
    """A study that can be drawn. Each picture is a matplotlib Figure, which a notebook shows and `savefig("name.png")` writes;
    it is drawn on a thread. MissingExtra without `asktell[plot]`; FailedPrecondition while there is too little to draw.
    """

    _connection: Connection

    async def plot(self) -> Figure:
        """What each trial came to, and the best so far; of several objectives the Pareto front. Trials that were stopped early are hollow,
        at their last value; failed and infeasible ones are ticks at the lower edge.
        """
        return await self._draw(pictures.course(self._record))

    async def plot_front(self) -> Figure:
        """Of each pair of objectives the trials and the Pareto front, and how its hypervolume grew. FailedPrecondition with one objective."""
        return await self._draw(pictures.front(self._record))

    async def plot_curves(self, *, metric: str | None = None) -> Figure:
        """What the trials reported by step, those that were stopped early lighter, the best in orange. Reads all measurements of the study.

        `metric` is by default the first objective that was reported, else what the stopping rule watches.
        """
        return await self._draw(pictures.curves(self._record, metric=metric))

    async def plot_parallel(self, *, metric: str | None = None) -> Figure:
        """A line for each trial with a result, through its parameters to what it came to; the darker, the better in `metric`, an objective,
        by default the first. The best, or the front, is orange.
        """
        return await self._draw(pictures.parallel(self._record, metric=metric))

    async def plot_slices(self, around: Around = None, *, along: Sequence[str] = (), title: str = "") -> Figure:
        """What the surrogate expects along each parameter, the others held, and the trials as points.

        `around` is where the others stay: a configuration with every active parameter, a trial's number, or None for the best trial. `along`
        names some parameters, by default all that are active there. Along one that others depend on, what becomes active has its default,
        else the middle of its range, which the picture says. `title` is what the picture calls `around`.
        """
        return await self._draw(pictures.slices(self._record, around=around, along=along, title=title))

    async def plot_contour(
        self, across: str | None = None, up: str | None = None, *, around: Around = None, metric: str | None = None
    ) -> Figure:
        """What the surrogate expects of two parameters together, with the trials on it, and the standard deviation; the others stay as
        `around` has them, which is as for `plot_slices`.

        By default the two parameters that matter most. `metric` is by default the first objective. What no trial may have stays blank.
        """
        return await self._draw(pictures.contour(self._record, across=across, up=up, around=around, metric=metric))

    async def plot_importance(self, *, method: Literal["sobol", "ped-anova"] = "sobol") -> Figure:
        """How much each parameter matters for each objective, as `importance` says."""
        return await self._draw(pictures.importance(self._record, method=method))

    async def plot_validation(self) -> Figure:
        """Each result beside what the surrogate expects without it, and how often they are as near as was said: `cross_validate`."""
        return await self._draw(pictures.validation(self._record))

    async def plot_lineage(self, number: int | None = None) -> Figure:
        """Through which parameters a training came, the best or that of this trial, among all others: the schedule that population based
        training found, or a fidelity's rungs.
        """
        return await self._draw(pictures.schedule(self._record, number=number))

    async def _draw(self, plan: Plan[Figure]) -> Figure:
        return await pictures.carry_out_async(plan, self._answer)

    async def _answer(self, call: Call[Any] | Stream) -> object:
        if isinstance(call, Stream):
            async with aclosing(self._connection.stream(call.call)) as replies:
                return [reply async for reply in replies]
        return await self._connection.run(call)
