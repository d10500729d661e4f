"""The picture of a study's course: what each trial came to, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from asktell.client.plots.canvas import (
    BLUE,
    GREY,
    ORANGE,
    PALE,
    RED,
    UPRIGHT,
    Picture,
    canvas,
    legend,
    letters,
    wrapped,
)
from asktell.client.plots.outcomes import counted, in_states, is_feasible, is_measured, short_name, values
from asktell.client.plots.outcomes import has_finite as has
from asktell.client.plots.scales import spans_decades
from asktell.client.spec import Fidelity, Objective
from asktell.client.values import StudyRecord, TrialRecord, TrialState

MANY = 300
"""So many trials have smaller dots."""


def course(trials: Sequence[TrialRecord], study: StudyRecord) -> Picture:
    """What each trial came to and the best so far, a panel for each objective; of several objectives each by itself.

    Trials that were stopped early are hollow, at their last value; those without any value are ticks at the lower edge.
    """
    objectives = study.objectives
    left = in_states(trials, TrialState.ACTIVE, TrialState.QUEUED, TrialState.CANCELLED)
    title = f"{short_name(study)}: {counted(len(trials))}{left}"
    height = 4.2 if len(objectives) == 1 else 3.0
    with canvas(title, rows=len(objectives), size=(8.4, height)) as (figure, axes):
        for (panel,), objective in zip(axes, objectives, strict=True):
            _course(panel, trials, study, objective)
            panel.set_ylabel(wrapped(f"{objective.metric} ({objective.goal})", letters(UPRIGHT * height)))
        legend(figure)
    return figure


def _course(axes: Axes, trials: Sequence[TrialRecord], study: StudyRecord, objective: Objective) -> None:
    measured = [trial for trial in trials if is_measured(trial, objective)]
    good = [trial for trial in measured if is_feasible(trial, study)]
    bad = [trial for trial in measured if not is_feasible(trial, study)]
    stopped = [trial for trial in trials if trial.state is TrialState.STOPPED and has(trial, objective.metric)]
    size = 24 if len(trials) < MANY else 10
    _dots(axes, stopped, objective, label="stopped early", facecolors="none", edgecolors=PALE, s=size)
    _dots(axes, bad, objective, label="not feasible", color=GREY, alpha=0.55, linewidths=0, s=size)
    _dots(axes, good, objective, label="succeeded", color=BLUE, alpha=0.55, linewidths=0, s=size)
    if good:
        bests = best_so_far(good, objective, study.fidelity)
        places = [*(trial.number for trial in good), max(trial.number for trial in trials)]
        axes.step(places, [*bests, bests[-1]], where="post", color=BLUE, linewidth=2, label=_best(bests[-1], study))
    _ticks(axes, trials, objective)
    if not (measured or stopped):
        axes.set_yticks([])
    elif spans_decades(values([*measured, *stopped], objective.metric)):
        axes.set_yscale("log")
    axes.set_xlim(0.0, max(trial.number for trial in trials) + 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.8)
    axes.set_xlabel("trial")


def _dots(axes: Axes, trials: Sequence[TrialRecord], objective: Objective, *, label: str, **look: object) -> None:
    if trials:
        places = [trial.number for trial in trials]
        words = f"{label} ({len(trials):,})"
        axes.scatter(places, values(trials, objective.metric), label=words, **look)  # type: ignore[arg-type]


def _ticks(axes: Axes, trials: Sequence[TrialRecord], objective: Objective) -> None:
    """What came to no value, at the lower edge."""
    ended = (TrialState.SUCCEEDED, TrialState.STOPPED)
    found = {
        "failed": (RED, [trial for trial in trials if trial.state is TrialState.FAILED]),
        "infeasible": (ORANGE, [trial for trial in trials if trial.state is TrialState.INFEASIBLE]),
        "without a finite value": (
            GREY,
            [trial for trial in trials if trial.state in ended and not has(trial, objective.metric)],
        ),
    }
    for label, (colour, some) in found.items():
        if some:
            axes.plot(
                [trial.number for trial in some],
                [0.0] * len(some),
                linestyle="none",
                marker="|",
                markersize=12,
                markeredgewidth=1.8,
                color=colour,
                transform=axes.get_xaxis_transform(),
                label=f"{label} ({len(some):,})",
                zorder=3,
            )


def _best(value: float, study: StudyRecord) -> str:
    """Of one objective with its value; of several a line each, which the axes tell."""
    return f"best: {value:.6g}" if len(study.objectives) == 1 else "best so far"


def best_so_far(trials: Sequence[TrialRecord], objective: Objective, fidelity: Fidelity | None = None) -> list[float]:
    """The best value among a trial and all before it, for each of some measured trials; with a fidelity, of the highest one until then."""
    better = min if objective.goal == "minimize" else max
    bests: list[float] = []
    reached = -math.inf
    for trial, number in zip(trials, values(trials, objective.metric), strict=True):
        level = 0.0 if fidelity is None else float(str(trial.parameters[fidelity.parameter]))
        rivals = bests[-1:] if level <= reached else []
        bests.append(better([*rivals, number]) if level >= reached else bests[-1])
        reached = max(reached, level)
    return bests
