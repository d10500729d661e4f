"""Whether a trial shall stop now."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from asktell.server.domain.stopping import (
    Extrapolation,
    Folds,
    Hyperband,
    Median,
    Patience,
    Percentile,
    StoppingKind,
    StopRequest,
    SuccessiveHalving,
    Threshold,
)
from asktell.server.stopping.extrapolation import extrapolation
from asktell.server.stopping.folds import folds
from asktell.server.stopping.limits import patience, threshold
from asktell.server.stopping.peers import median, percentile
from asktell.server.stopping.rungs import hyperband, successive_halving

_RULES: Mapping[type[StoppingKind], Callable[[Any, StopRequest], str | None]] = {
    Median: median,
    Percentile: percentile,
    SuccessiveHalving: successive_halving,
    Hyperband: hyperband,
    Threshold: threshold,
    Patience: patience,
    Extrapolation: extrapolation,
    Folds: folds,
}


def judge(request: StopRequest) -> str | None:
    """Why the trial shall stop, for a person to read; None if it shall go on.

    Never stops a trial that leads at its step, and so neither the one whose best value is the best of all.
    """
    if not request.rule.judges(request.step) or leads(request):
        return None
    return _RULES[type(request.rule.kind)](request.rule.kind, request)


def leads(request: StopRequest) -> bool:
    """Whether no trial that came to the step had a better value by then, and the trial's last value is finite.

    With folds for steps the mean counts, else the best value: a single fold says little.
    """
    own, step = request.own, request.step
    if not own.losses or not math.isfinite(own.losses[-1]):
        return False
    if isinstance(request.rule.kind, Folds):
        mean = own.mean(step)
        return all(mean <= other.mean(step) for other in request.there())
    best = own.best(step)
    return all(best <= other.best(step) for other in request.there())
