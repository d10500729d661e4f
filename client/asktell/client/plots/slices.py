"""The picture of what is expected along parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from asktell.client.plots.canvas import (
    BLUE,
    GREY,
    ORANGE,
    UPRIGHT,
    Picture,
    canvas,
    legend,
    letters,
    shortened,
    wrapped,
)
from asktell.client.plots.outcomes import has_finite
from asktell.client.plots.scales import dress, label, place
from asktell.client.spec import Float, Int, ParameterSpec, ParameterValue
from asktell.client.values import Prediction, TrialRecord, TrialState

COLUMNS = 4
LONGEST = 40
"""Letters in the legend."""
PANEL = (3.6, 3.1)
MANY = 150
AROUND = 1.0
"""Observed trials are drawn so many times the height of what is expected above and below it: one that diverged would flatten the rest."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What is expected of the metrics, by name, as one parameter takes `values` and the others stay; `here` is its value at the start.

    `with_it` are values of parameters that become active on the way, which the start has none of.
    """

    parameter: ParameterSpec
    values: Sequence[ParameterValue]
    predictions: Sequence[Mapping[str, Prediction]]
    here: ParameterValue
    with_it: Mapping[str, ParameterValue]


def slices(found: Sequence[Slice], trials: Sequence[TrialRecord], *, study: str, around: str) -> Picture:
    """What is expected along each parameter, the others held, and the trials: for each metric a panel for each parameter, four in a row."""
    metrics = list(next(iter(next(each.predictions for each in found if each.predictions))))
    columns = min(len(found), COLUMNS)
    rows = -(-len(found) // columns)
    told = [trial for trial in trials if trial.state is TrialState.SUCCEEDED]
    title = f"{study}: expected around {around}"
    with canvas(title, rows=rows * len(metrics), columns=columns, size=PANEL) as (figure, axes):
        limits: dict[str, tuple[float, float]] = {}
        for block, metric in enumerate(metrics):
            panels = list(axes[block * rows : (block + 1) * rows].flat)
            limits[metric] = _limits(found, told, metric)
            for panel, each in zip(panels, found, strict=False):
                _slice(panel, each, [trial for trial in told if has_finite(trial, metric)], metric)
                panel.set_ylim(*limits[metric])
            for column, panel in enumerate(panels):
                _label(panel, metric, first=column % columns == 0, used=column < len(found))
        _name_colours(
            axes[0][0], around, hidden=_hidden(found, told, limits), line=any(_is_band(each) for each in found)
        )
        legend(figure)
    return figure


def _is_band(each: Slice) -> bool:
    return isinstance(each.parameter, Float | Int)


def _label(panel: Axes, metric: str, *, first: bool, used: bool) -> None:
    panel.set_axis_on() if used else panel.set_axis_off()
    panel.tick_params(length=2)
    if first:
        panel.set_ylabel(wrapped(metric, letters(UPRIGHT * PANEL[1])))
    else:
        panel.tick_params(labelleft=False)


def _limits(found: Sequence[Slice], trials: Sequence[TrialRecord], metric: str) -> tuple[float, float]:
    """From where to where: what is expected within two standard deviations, and trials that are not far from it."""
    predictions = [each[metric] for one in found for each in one.predictions]
    low = min(each.mean - 2.0 * each.standard_deviation for each in predictions)
    high = max(each.mean + 2.0 * each.standard_deviation for each in predictions)
    near = AROUND * (high - low)
    seen = [trial.metrics[metric].value for trial in trials if has_finite(trial, metric)]
    inside = [value for value in seen if low - near <= value <= high + near]
    low, high = min([low, *inside]), max([high, *inside])
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _slice(axes: Axes, each: Slice, trials: Sequence[TrialRecord], metric: str) -> None:
    spec = each.parameter
    dress(axes, "x", spec)
    for x, y in _seen(spec, trials, metric):
        # A few lie on the line, many would hide it.
        above = 2.5 if len(x) < MANY else 1.5
        axes.plot(
            x, y, "o", color=GREY, markersize=4, markeredgecolor="white", markeredgewidth=0.4, alpha=0.6, zorder=above
        )
    means = [prediction[metric].mean for prediction in each.predictions]
    deviations = [prediction[metric].standard_deviation for prediction in each.predictions]
    if _is_band(each):
        _band(axes, each, means, deviations)
    else:
        _ladder(axes, each, means, deviations)
    extra = ", ".join(f"{name}={label(value)}" for name, value in each.with_it.items())
    note = f"\n{wrapped(f'with {extra}', letters(PANEL[0] - 0.4), lines=2)}" if extra else ""
    axes.set_xlabel(wrapped(spec.name, letters(PANEL[0] - 0.6), lines=2) + note)


def _seen(spec: ParameterSpec, trials: Sequence[TrialRecord], metric: str) -> Iterator[tuple[list[float], list[float]]]:
    places = [place(spec, trial.parameters.get(spec.name)) for trial in trials]
    aside = 0.0 if isinstance(spec, Float | Int) else -0.18  # What is expected of a choice would hide them.
    points = [
        (x + aside, trial.metrics[metric].value) for x, trial in zip(places, trials, strict=True) if x is not None
    ]
    if points:
        yield [x for x, _ in points], [y for _, y in points]


def _hidden(found: Sequence[Slice], trials: Sequence[TrialRecord], limits: Mapping[str, tuple[float, float]]) -> int:
    """How many trials lie beyond the edge of their panels, by one metric or more; each counts once, however many panels there are."""
    specs = [each.parameter for each in found]
    drawn = [
        trial for trial in trials if any(place(spec, trial.parameters.get(spec.name)) is not None for spec in specs)
    ]
    return sum(any(_is_beyond(trial, metric, *ends) for metric, ends in limits.items()) for trial in drawn)


def _is_beyond(trial: TrialRecord, metric: str, low: float, high: float) -> bool:
    return has_finite(trial, metric) and not low <= trial.metrics[metric].value <= high


def _band(axes: Axes, each: Slice, means: Sequence[float], deviations: Sequence[float]) -> None:
    numbers: list[Any] = list(each.values)
    for width, shade in ((2.0, 0.10), (1.0, 0.18)):
        lower = [mean - width * spread for mean, spread in zip(means, deviations, strict=True)]
        upper = [mean + width * spread for mean, spread in zip(means, deviations, strict=True)]
        axes.fill_between(numbers, lower, upper, color=BLUE, alpha=shade, linewidth=0)
    axes.plot(numbers, means, color=BLUE, linewidth=2)
    here: Any = each.here
    axes.axvline(here, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))


def _ladder(axes: Axes, each: Slice, means: Sequence[float], deviations: Sequence[float]) -> None:
    for option, mean, spread in zip(each.values, means, deviations, strict=True):
        colour = ORANGE if repr(option) == repr(each.here) else BLUE
        at: Any = place(each.parameter, option)
        axes.errorbar(at, mean, yerr=2.0 * spread, fmt="o", color=colour, capsize=3)


def _name_colours(axes: Axes, around: str, *, hidden: int, line: bool) -> None:
    """Entries of the legend, which belong to no panel."""
    beyond = f", {hidden:,} beyond the edge" if hidden else ""
    here: dict[str, Any] = (
        {"linestyle": (0, (4, 3)), "linewidth": 1.2} if line else {"linestyle": "none", "marker": "o"}
    )
    entries = {
        "expected, ± 1 and 2 sd": Line2D([], [], color=BLUE, linewidth=2),
        shortened(around, LONGEST): Line2D([], [], color=ORANGE, **here),
        f"trials that succeeded, whatever their other values{beyond}": Line2D(
            [], [], color=GREY, linestyle="none", marker="o", markersize=4
        ),
    }
    for words, entry in entries.items():
        entry.set_label(words)
        axes.add_line(entry)
