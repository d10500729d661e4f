"""Rules that compare a trial with the others at its step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asktell.server.domain.stopping import Median, Percentile, StopRequest


def median(kind: Median, request: StopRequest) -> str | None:
    """Why the trial is worse than the median of the others at its step; None if it is not, or if they are too few."""
    values = _values(request, averages=kind.averages)
    return _worse(request, values, 0.5, "the median") if len(values) >= kind.min_trials else None


def percentile(kind: Percentile, request: StopRequest) -> str | None:
    """Why the trial is not among the best of the others at its step; None if it is, or if they are too few."""
    values = _values(request, averages=kind.averages)
    named = f"the best {kind.percentile:g} % bound"
    return _worse(request, values, kind.percentile / 100, named) if len(values) >= kind.min_trials else None


def quantile(ascending: Sequence[float], level: float) -> float:
    """The quantile of sorted values at a level in (0, 1), interpolated linearly between neighbours; of an even number 0.5 is the median."""
    place = level * (len(ascending) - 1)
    low = math.floor(place)
    below, above, share = ascending[low], ascending[min(low + 1, len(ascending) - 1)], place - low
    return below if share == 0 or below == above else below + share * (above - below)


def _values(request: StopRequest, *, averages: bool) -> list[float]:
    step = request.step
    return sorted(curve.mean(step) if averages else curve.best(step) for curve in request.there())


def _worse(request: StopRequest, values: Sequence[float], level: float, named: str) -> str | None:
    bound, best = quantile(values, level), request.own.best(request.step)
    if best <= bound:
        return None
    return (
        f"{named} of {len(values)} trials at step {request.step} is {request.shown(bound)},"
        f" this trial's best is {request.shown(best)}"
    )
