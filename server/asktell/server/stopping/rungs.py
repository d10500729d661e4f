"""Rules that let a share of the trials that came to a rung go on to the next: successive halving, and Hyperband's brackets of it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from asktell.server.domain.curve import Curve
from asktell.server.domain.stopping import Hyperband, StopRequest, SuccessiveHalving

MOST = 2
"""No more than one in so many trials of a rung goes on to the next, but for leaders: while a surrogate learns, nearly every new trial is
among the best third of all before it.
"""
_GOLDEN = (math.sqrt(5) - 1) / 2


def successive_halving(kind: SuccessiveHalving, request: StopRequest) -> str | None:
    """Why the trial is not among the best of those that came to its last rung; None if it is."""
    others = (curve for _, curve in request.others())
    return _halved(request, others, first=kind.min_step, factor=kind.reduction_factor)


def hyperband(kind: Hyperband, request: StopRequest) -> str | None:
    """Why the trial is not among the best of its bracket that came to its last rung; None if it is."""
    top = request.rule.max_step or kind.min_step
    count = brackets(kind, top)
    own = bracket(request.number, count=count, factor=kind.reduction_factor)
    weights = shares(count, kind.reduction_factor)
    fellows = (curve for number, curve in request.others() if _place(number, weights) == own)
    first = kind.min_step * kind.reduction_factor**own
    why = _halved(request, fellows, first=first, factor=kind.reduction_factor)
    return why and f"{why} in bracket {own + 1} of {count}"


def brackets(kind: Hyperband, max_step: int) -> int:
    """How many brackets there are: one for each rung below the step at which a trial is complete, from which on it could begin."""
    count, rung = 0, kind.min_step
    while rung < max_step:
        count, rung = count + 1, rung * kind.reduction_factor
    return max(count, 1)


def bracket(number: int, *, count: int, factor: int) -> int:
    """The bracket of a trial: 0 begins at the first rung, the next one rung later.

    Shares of the trials are those of Hyperband, ((s + 1) / (s' + 1)) * factor^s' with s' rungs left; multiples of the golden ratio spread
    successive numbers evenly over them.
    """
    return _place(number, shares(count, factor))


def shares(count: int, factor: int) -> list[float]:
    """How many trials each bracket has, in proportion."""
    return [count / left * factor ** (left - 1) for left in range(count, 0, -1)]


def _place(number: int, weights: Sequence[float]) -> int:
    place = number * _GOLDEN % 1.0 * sum(weights)
    for index, weight in enumerate(weights):
        if place < weight:
            return index
        place -= weight
    return len(weights) - 1


def _halved(request: StopRequest, others: Iterable[Curve], *, first: int, factor: int) -> str | None:
    """Of those that came to a rung the best `1 / factor` go on, until `1 / MOST` of them came to the next."""
    rung = _last_rung(request.step, first, factor)
    place = -1 if rung is None else bisect_left(request.own.steps, rung)
    # It came to the rung before what is reported now, and was judged then.
    if rung is None or request.own.steps[place] < request.first:
        return None
    there = [curve for curve in others if curve.arrival(rung) is not None]
    own, following = request.own.lowest[place], min(rung * factor, request.rule.max_step or math.inf)
    return _behind(request, own, there, rung=rung, factor=factor) or _full(there, rung=rung, following=following)


def _behind(request: StopRequest, own: float, there: Sequence[Curve], *, rung: int, factor: int) -> str | None:
    """Why a trial with the loss `own` at a rung is not among the best of those that came there."""
    better = sum(curve.lowest[bisect_left(curve.steps, rung)] < own for curve in there)
    places = max((len(there) + 1) // factor, 1)
    if better < places:
        return None
    kept, ahead = "the best goes" if places == 1 else f"the best {places} go", "is" if better == 1 else "are"
    return (
        f"of {len(there) + 1} trials at rung {rung} {kept} on, and {better} {ahead} better than this trial,"
        f" whose best there is {request.shown(own)}"
    )


def _full(there: Sequence[Curve], *, rung: int, following: float) -> str | None:
    """Why nobody but a leader goes on from a rung: enough did, as the next rung shows.

    Whether a trial went on is read off the next rung, since a report may bring several steps beyond the rung at which it is judged.
    """
    gone = sum(curve.steps[-1] >= following for curve in there)
    if gone < max((len(there) + 1) // MOST, 1):
        return None
    return (
        f"of {len(there) + 1} trials at rung {rung}, {gone} came to step {following:g}, and no more than half go on but for"
        " one that leads"
    )


def _last_rung(step: int, first: int, factor: int) -> int | None:
    """The highest rung at or below a step."""
    if step < first:
        return None
    rung = first
    while rung * factor <= step:
        rung *= factor
    return rung
