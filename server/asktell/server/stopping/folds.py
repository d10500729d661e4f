"""A race over the folds of a cross-validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from asktell.server.domain.curve import Curve
from asktell.server.domain.stopping import Folds, StopRequest


def folds(kind: Folds, request: StopRequest) -> str | None:
    """Why the trial is worse than the incumbent on the folds of both; None if it is not, or if there is no incumbent or too few folds."""
    own, incumbent = request.own, _incumbent(request.others(), kind.folds)
    if incumbent is None or len(own.steps) >= kind.folds:
        return None
    number, other = incumbent
    theirs = dict(zip(other.steps, other.losses, strict=True))
    pairs = [(loss, theirs[fold]) for fold, loss in zip(own.steps, own.losses, strict=True) if fold in theirs]
    if len(pairs) < kind.min_folds:
        return None
    probability = chance([mine - his for mine, his in pairs], folds=kind.folds)
    if probability > kind.significance:
        return None
    mine, his = (math.fsum(side) / len(pairs) for side in zip(*pairs, strict=True))
    return (
        f"the mean of {len(pairs)} folds is {request.shown(mine)}, and {request.shown(his)} for the incumbent, trial {number}:"
        f" as likely as {probability:.2g} if the two were equally good"
    )


def chance(differences: Sequence[float], *, folds: int) -> float:
    """How likely such a mean of differences, or a larger one, is if there is none: a paired t-test, one-sided.

    Trained on sets that overlap, folds are not independent: the variance of the mean is corrected by Nadeau and Bengio (2003), with
    1 / (folds - 1) for the size of a test set in terms of its training set. Without differences in spread a mean above 0 is certain.
    """
    count = len(differences)
    mean = math.fsum(differences) / count
    if mean <= 0 or not math.isfinite(mean):
        return 0.0 if mean > 0 else 1.0
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / (count - 1)
    scale = math.sqrt(variance * (1 / count + 1 / (folds - 1)))
    # As in `extrapolation.py`: SciPy takes a tenth of the server's memory.
    from scipy.special import stdtr  # noqa: PLC0415

    return float(stdtr(count - 1, -mean / scale)) if scale > 0 else 0.0


def _incumbent(others: Iterable[tuple[int, Curve]], folds: int) -> tuple[int, Curve] | None:
    """The trial with the best mean over all folds, the first of equals, and its number."""
    complete = ((curve.mean(curve.steps[-1]), number, curve) for number, curve in others if len(curve.steps) >= folds)
    best = min((each for each in complete if math.isfinite(each[0])), default=None, key=lambda each: each[:2])
    return None if best is None else best[1:]
