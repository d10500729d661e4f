"""Pictures of studies by matplotlib, which the extra `plot` brings: importing this module without it raises MissingExtra.

The ending of a path says which kind of picture is written: see `FORMATS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asktell.cli.dials import Unreadable
from asktell.cli.tables import value
from asktell.client import Float, Int, LeaveOneOut, Prediction, StudyRecord, TrialRecord, TrialState
from asktell.client.errors import MissingExtra
from asktell.client.spec import Fidelity, Objective, ParameterSpec, ParameterValue

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"pictures need the plot extra: pip install 'asktell[plot]' ({error})", reason="MISSING_EXTRA"
    ) from error

FORMATS = (".pdf", ".png", ".svg")
INK, BLUE, ORANGE, GREY, RED = "#1f2933", "#1f6feb", "#d9730d", "#6b7785", "#c93c37"
PANEL = (4.6, 3.8)
"""Inches of one panel."""
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Slice:
    """What is expected of the objectives, by name, as one parameter takes `values` and the others stay; `here` is its value at the start."""

    parameter: ParameterSpec
    values: Sequence[ParameterValue]
    predictions: Sequence[Mapping[str, Prediction]]
    here: ParameterValue


def require_format(path: Path) -> None:
    """Raise Unreadable for a path whose ending is no format."""
    if path.suffix.lower() not in FORMATS:
        raise Unreadable(f"{path}: expected a name that ends in one of {', '.join(FORMATS)}")


@contextmanager
def panels(
    path: Path, title: str, *, rows: int = 1, columns: int = 1, size: tuple[float, float] = PANEL, share: bool = False
) -> Iterator[Any]:
    """Axes (`rows x columns`) to draw on, written to the path in the end. `size` is that of a panel in inches; `share`: one scale a row."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=150, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        yield figure.subplots(rows, columns, squeeze=False, sharey="row" if share else False)
        figure.savefig(path)


def importance(shares: Mapping[str, Mapping[str, float]], *, study: str, method: str, path: Path) -> None:
    """Bars of what each parameter matters, a panel for each objective."""
    height = 1.6 + 0.3 * max(map(len, shares.values()))
    title = f"{study}: importance of parameters"
    with panels(path, title, columns=len(shares), size=(max(5.2, 7.2 / len(shares)), height)) as axes:
        for panel, (metric, found) in zip(axes[0], shares.items(), strict=True):
            _bars(panel, metric, found)
            panel.set_xlabel(method)


def _bars(axes: Axes, metric: str, shares: Mapping[str, float]) -> None:
    names = list(shares)
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE, alpha=0.85, height=0.65)
    axes.bar_label(bars, labels=[f"{share:.1%}" for share in shares.values()], padding=4, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0.0, max(max(shares.values(), default=0.0) * 1.18, 0.05))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(metric)


def validation(found: Sequence[LeaveOneOut], *, study: str, path: Path) -> None:
    """Two panels for each objective: results beside what was expected without them, and how often they are as near as was said."""
    metrics = list(dict.fromkeys(left.metric for left in found))
    with panels(path, f"{study}: leave-one-out cross-validation", rows=len(metrics), columns=2) as axes:
        for (scatter, calibration), metric in zip(axes, metrics, strict=True):
            lefts = [left for left in found if left.metric == metric]
            _beside(scatter, metric, lefts)
            _coverage(calibration, lefts)


def _beside(axes: Axes, metric: str, lefts: Sequence[LeaveOneOut]) -> None:
    observed, means = [left.observed for left in lefts], [left.predicted.mean for left in lefts]
    errors = [left.predicted.standard_deviation for left in lefts]
    low, high = min(observed + means), max(observed + means)
    axes.plot([low, high], [low, high], color=GREY, linewidth=1.2, linestyle=(0, (5, 4)), zorder=1)
    axes.errorbar(
        observed, means, yerr=errors, fmt="o", markersize=4.5, color=BLUE, ecolor=BLUE, alpha=0.6, elinewidth=1
    )
    margin = 0.08 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - 3 * margin, high + 3 * margin)
    axes.set_xlabel(f"{metric}, observed")
    axes.set_ylabel("predicted from the others, ± 1 sd")
    axes.set_title(f"{metric}: {len(lefts)} trials")


def _coverage(axes: Axes, lefts: Sequence[LeaveOneOut]) -> None:
    """The share of results within so many standard deviations, beside what it is where errors are normal."""
    radii = [place / 50 for place in range(151)]
    axes.plot(radii, [normal_share(radius) for radius in radii], color=GREY, linestyle=(0, (5, 4)), label="as promised")
    axes.step(radii, [share_within(lefts, radius) for radius in radii], where="post", color=BLUE, label="observed")
    for radius in (1.0, 2.0):
        share = share_within(lefts, radius)
        axes.plot(radius, share, "o", color=ORANGE, markersize=6, zorder=3)
        text = f"{share:.0%} within {radius:g} sd\n(promised {normal_share(radius):.0%})"
        axes.annotate(text, (radius, share), xytext=(8, -26), textcoords="offset points", color=ORANGE, fontsize=9)
    axes.set_ylim(0.0, 1.04)
    axes.set_xlim(0.0, 3.0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("distance in predicted standard deviations")
    axes.set_ylabel("share of trials within")
    axes.set_title("calibration")
    axes.legend(loc="lower right")


def share_within(lefts: Sequence[LeaveOneOut], radius: float) -> float:
    """The share of results within so many predicted standard deviations of the predicted mean."""
    near = sum(abs(left.observed - left.predicted.mean) <= radius * left.predicted.standard_deviation for left in lefts)
    return near / len(lefts)


def normal_share(radius: float) -> float:
    """The share that lies within so many standard deviations of a normal distribution."""
    return math.erf(radius / math.sqrt(2.0))


def slices(found: Sequence[Slice], *, study: str, around: str, path: Path) -> None:
    """What is expected along each parameter, the others held: a row for each objective, a panel for each parameter."""
    metrics = list(found[0].predictions[0])
    title = f"{study}: expected around {around}"
    with panels(path, title, rows=len(metrics), columns=len(found), size=(3.6, 3.1), share=True) as axes:
        for row, metric in zip(axes, metrics, strict=True):
            for panel, each in zip(row, found, strict=True):
                _slice(panel, each, metric)
            row[0].set_ylabel(metric)


def _slice(axes: Axes, each: Slice, metric: str) -> None:
    means = [prediction[metric].mean for prediction in each.predictions]
    deviations = [prediction[metric].standard_deviation for prediction in each.predictions]
    if isinstance(each.parameter, Float | Int):
        _band(axes, each, means, deviations)
    else:
        _ladder(axes, each, means, deviations)
    axes.set_xlabel(each.parameter.name)
    axes.tick_params(length=2)


def _band(axes: Axes, each: Slice, means: Sequence[float], deviations: Sequence[float]) -> None:
    numbers: list[Any] = list(each.values)
    for width, shade in ((2.0, 0.10), (1.0, 0.18)):
        lower = [mean - width * spread for mean, spread in zip(means, deviations, strict=True)]
        upper = [mean + width * spread for mean, spread in zip(means, deviations, strict=True)]
        axes.fill_between(numbers, lower, upper, color=BLUE, alpha=shade, linewidth=0)
    axes.plot(numbers, means, color=BLUE, linewidth=2)
    here: Any = each.here
    axes.axvline(here, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
    if isinstance(each.parameter, Float | Int) and each.parameter.log:
        axes.set_xscale("log")
    elif isinstance(each.parameter, Int):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _ladder(axes: Axes, each: Slice, means: Sequence[float], deviations: Sequence[float]) -> None:
    places = range(len(means))
    chosen = [repr(option) == repr(each.here) for option in each.values]
    for place, mean, spread, here in zip(places, means, deviations, chosen, strict=True):
        axes.errorbar(place, mean, yerr=2.0 * spread, fmt="o", color=ORANGE if here else BLUE, capsize=3)
    axes.set_xticks(places, [value(option) for option in each.values], rotation=30 if len(means) > 3 else 0)
    axes.set_xlim(-0.6, len(means) - 0.4)


def history(trials: Sequence[TrialRecord], study: StudyRecord, *, path: Path) -> None:
    """What each trial came to and the best so far, a panel for each objective; of several objectives each by itself."""
    objectives = study.objectives
    title = f"{study.name.rpartition('/')[2]}: {len(trials)} trials"
    with panels(path, title, rows=len(objectives), size=(8.4, 4.2 if len(objectives) == 1 else 3.0)) as axes:
        for (panel,), objective in zip(axes, objectives, strict=True):
            _course(panel, trials, study, objective)


def _course(axes: Axes, trials: Sequence[TrialRecord], study: StudyRecord, objective: Objective) -> None:
    measured = [trial for trial in trials if is_measured(trial, objective)]
    good = [trial for trial in measured if is_feasible(trial, study)]
    bad = [trial for trial in measured if not is_feasible(trial, study)]
    broken = [trial.number for trial in trials if trial.state in (TrialState.FAILED, TrialState.INFEASIBLE)]
    for some, colour, label in ((good, BLUE, "trials"), (bad, GREY, "not feasible")):
        if some:
            places = [trial.number for trial in some]
            axes.scatter(places, _values(some, objective), s=24, color=colour, alpha=0.55, linewidths=0, label=label)
    if good:
        bests = best_so_far(good, objective, study.fidelity)
        places = [*(trial.number for trial in good), max(trial.number for trial in trials)]
        axes.step(places, [*bests, bests[-1]], where="post", color=BLUE, linewidth=2, label=f"best: {bests[-1]:.6g}")
    if broken:
        axes.plot(broken, [0.02] * len(broken), "x", color=RED, transform=axes.get_xaxis_transform(), label="failed")
    axes.set_xlim(0.0, max(trial.number for trial in trials) + 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.8)
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{objective.metric} ({objective.goal})")
    if good or bad or broken:
        axes.legend(loc="best")


def best_so_far(trials: Sequence[TrialRecord], objective: Objective, fidelity: Fidelity | None = None) -> list[float]:
    """The best value among a trial and all before it, for each of some measured trials; with a fidelity, of the highest one until then."""
    better = min if objective.goal == "minimize" else max
    bests: list[float] = []
    reached = -math.inf
    for trial, number in zip(trials, _values(trials, objective), strict=True):
        level = 0.0 if fidelity is None else float(str(trial.parameters[fidelity.parameter]))
        rivals = bests[-1:] if level <= reached else []
        bests.append(better([*rivals, number]) if level >= reached else bests[-1])
        reached = max(reached, level)
    return bests


def is_feasible(trial: TrialRecord, study: StudyRecord) -> bool:
    """Whether a trial is known to meet the study's outcome constraints."""
    bounds = study.outcome_constraints
    return all(bound.metric in trial.metrics and bound.met(trial.metrics[bound.metric].value) for bound in bounds)


def is_measured(trial: TrialRecord, objective: Objective) -> bool:
    """Whether a trial succeeded with a finite value of the objective."""
    succeeded = trial.state is TrialState.SUCCEEDED and objective.metric in trial.metrics
    return succeeded and math.isfinite(trial.metrics[objective.metric].value)


def _values(trials: Sequence[TrialRecord], objective: Objective) -> list[float]:
    return [trial.metrics[objective.metric].value for trial in trials]
