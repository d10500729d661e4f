"""`asktell study plot` and its neighbours: pictures of what trials came to."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from asktell.cli.dials import Unreadable
from asktell.cli.service import ANYWHERE, Service

FORMATS = (".pdf", ".png", ".svg")

Output = Annotated[
    Path, Parameter(name=["--output", "-o"], help="The picture: PNG, SVG or PDF by the ending of its name.")
]
Metric = Annotated[str | None, Parameter(show_default=False)]
Like = Annotated[str, Parameter(show_default=False)]


def require_format(path: Path) -> None:
    """Before anything is computed: MissingExtra without matplotlib, Unreadable for a path whose ending is no format."""
    importlib.import_module("asktell.client.plots")
    if path.suffix.lower() not in FORMATS:
        raise Unreadable(f"{path}: expected a name that ends in one of {', '.join(FORMATS)}")


def plot(name: str, /, *, output: Output, service: Service = ANYWHERE) -> None:
    """Draw what each trial came to, and the best so far; of several objectives the Pareto front, and its hypervolume. Takes the `plot` extra.

    Trials that were stopped early are hollow, at their last value; failed and infeasible ones are ticks at the lower edge.

    For example: `asktell study plot digits --output history.png`

    Parameters
    ----------
    name
        The study.
    """
    require_format(output)
    with service.study(name) as study:
        study.plot().savefig(output)
    _say(name, output)


def plot_curves(name: str, /, *, output: Output, metric: Metric = None, service: Service = ANYWHERE) -> None:
    """Draw what the trials reported, step by step: those that were stopped early lighter, the best in orange. Takes the `plot` extra.

    For example: `asktell study plot-curves digits --output curves.png`

    Parameters
    ----------
    name
        The study.
    metric
        The metric; by default the first objective that was reported, else what the stopping rule watches.
    """
    require_format(output)
    with service.study(name) as study:
        study.plot_curves(metric=metric).savefig(output)
    _say(name, output)


def plot_parallel(name: str, /, *, output: Output, metric: Metric = None, service: Service = ANYWHERE) -> None:
    """Draw a line for each trial through its parameters to its results: the darker, the better. Takes the `plot` extra.

    For example: `asktell study plot-parallel digits --output parallel.png`

    Parameters
    ----------
    name
        The study.
    metric
        The objective that darkens the lines; by default the first.
    """
    require_format(output)
    with service.study(name) as study:
        study.plot_parallel(metric=metric).savefig(output)
    _say(name, output)


def plot_contour(
    name: str,
    across: Annotated[str | None, Parameter(show_default=False)] = None,
    up: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *,
    output: Output,
    like: Like = "best",
    metric: Metric = None,
    service: Service = ANYWHERE,
) -> None:
    """Draw what the surrogate expects of two parameters together, and how sure it is; the others stay. Takes the `plot` extra.

    For example:

    `asktell study plot-contour digits --output contour.png`

    `asktell study plot-contour digits learning_rate momentum --like 7 --output contour.png`

    Parameters
    ----------
    name
        The study.
    across
        The parameter of the horizontal axis; with the other one left out, the two that matter most.
    up
        The parameter of the vertical axis.
    like
        A trial's number, or `best`, the default: whose values the other parameters have.
    metric
        The metric; by default the first objective.
    """
    require_format(output)
    if like != "best" and not like.isdecimal():
        raise Unreadable(f"--like {like}: expected a trial's number, or best")
    with service.study(name) as study:
        around = None if like == "best" else int(like)
        study.plot_contour(across, up, around=around, metric=metric).savefig(output)
    _say(name, output)


def _say(name: str, output: Path) -> None:
    print(f"{name}: the picture is {output}", file=sys.stderr)
