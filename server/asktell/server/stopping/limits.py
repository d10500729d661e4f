"""Rules that look at a trial alone."""

from __future__ import annotations

import math

from asktell.server.domain.stopping import Patience, StopRequest, Threshold


def threshold(kind: Threshold, request: StopRequest) -> str | None:
    """Why the trial's last value is beyond a bound; None if it is not."""
    loss = request.own.losses[-1]
    if not math.isfinite(loss):
        return f"{request.metric.metric} at step {request.step} is not finite"
    value = request.metric.loss(loss)
    if kind.at_most is not None and value > kind.at_most:
        return f"{request.metric.metric} at step {request.step} is {value:.6g}, above {kind.at_most:g}"
    if kind.at_least is not None and value < kind.at_least:
        return f"{request.metric.metric} at step {request.step} is {value:.6g}, below {kind.at_least:g}"
    return None


def patience(kind: Patience, request: StopRequest) -> str | None:
    """Why the trial's best value is as good as old; None if it has improved of late, or is not old enough to tell."""
    since = request.step - kind.steps
    own = request.own
    if not own.reached(since):
        return None
    before, now = own.best(since), own.best(request.step)
    if now < before - kind.min_delta:
        return None
    return (
        f"the best value, {request.shown(now)} at step {request.step}, has not improved by more than {kind.min_delta:g}"
        f" in {kind.steps} steps: it was {request.shown(before)} at step {since}"
    )
