"""A rule that foresees where a trial ends, from where earlier trials stood at its step and ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asktell.server.domain.stopping import Extrapolation, StopRequest


@dataclass(frozen=True, slots=True)
class Forecast:
    """A Student distribution: what is expected, its scale, and its degrees of freedom."""

    mean: float
    scale: float
    freedom: int

    def probability_below(self, value: float) -> float:
        """Of a smaller outcome."""
        if self.scale == 0:
            return float(self.mean < value)
        # SciPy takes a tenth of the server's memory, which servers of studies without this rule can do without.
        from scipy.special import stdtr  # noqa: PLC0415

        return float(stdtr(self.freedom, (value - self.mean) / self.scale))


def extrapolation(kind: Extrapolation, request: StopRequest) -> str | None:
    """Why the trial is expected to miss the best final value; None if it may beat it, or if too few trials came to the end."""
    end = request.rule.max_step or request.step
    ends = [(curve.best(request.step), last) for curve in request.there() if _told(last := curve.arrival(end))]
    pairs = [(now, last) for now, last in ends if last is not None and math.isfinite(now)]
    own = request.own.best(request.step)
    if len(pairs) < kind.min_trials:
        return None
    best = min(last for _, last in pairs)
    if own <= best:
        return None
    if not math.isfinite(own):
        return f"nothing finite was reported up to step {request.step}, where {len(pairs)} trials had finite values"
    expected = forecast(pairs, own)
    probability = expected.probability_below(best)
    if probability > kind.probability:
        return None
    return (
        f"as {len(pairs)} trials went from step {request.step} to {end}, {request.shown(expected.mean)}"
        f" ± {expected.scale:.2g} is expected of this trial's {request.shown(own)}: it beats the best, {request.shown(best)},"
        f" with a probability of {probability:.2g}"
    )


def forecast(pairs: Sequence[tuple[float, float]], now: float) -> Forecast:
    """What the final loss will be, from earlier trials' losses at the step and final losses (at least three pairs).

    The predictive distribution of a linear regression with a flat prior (Gelman et al. 2013, section 14.3). A slope below 0, worse now
    and better later, is taken for chance: then the mean alone is used.
    """
    count = len(pairs)
    middle, final, slope = regression(pairs)
    if slope == 0:
        variance = math.fsum((last - final) ** 2 for _, last in pairs) / (count - 1)
        return Forecast(final, math.sqrt(variance * (1 + 1 / count)), count - 1)
    residuals = math.fsum((last - final - slope * (now - middle)) ** 2 for now, last in pairs) / (count - 2)
    spread = math.fsum((now - middle) ** 2 for now, _ in pairs)
    leverage = 1 + 1 / count + (now - middle) ** 2 / spread
    return Forecast(final + slope * (now - middle), math.sqrt(residuals * leverage), count - 2)


def regression(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The mean losses at a step and at the end, and the slope of the latter over the former: at least 0."""
    count = len(pairs)
    middle, final = math.fsum(now for now, _ in pairs) / count, math.fsum(last for _, last in pairs) / count
    spread = math.fsum((now - middle) ** 2 for now, _ in pairs)
    slope = math.fsum((now - middle) * (last - final) for now, last in pairs) / spread if spread > 0 else 0.0
    return middle, final, max(slope, 0.0)


def _told(last: float | None) -> bool:
    return last is not None and math.isfinite(last)
