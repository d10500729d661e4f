"""The picture that `make bench-stopping RECORD=1` leaves: the best accuracy over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""The runs of a family, one for each seed, by what they are called in the picture."""

COLOURS = ("#1f6feb", "#7db3f5", "#9aa5b1", "#c2410c", "#b07d12", "#2f9e6e")
LEAST = 0.3
"""The picture begins at this accuracy."""


def draw(families: Mapping[str, Runs], path: Path) -> None:
    """Write a panel for each family: the mean over seeds of the best accuracy after so many epochs."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(11, 5.6), dpi=120, layout="constrained")
        panels = figure.subplots(2, 3, sharey=True).flat
        for axes, (family, runs) in zip(panels, families.items(), strict=False):
            _panel(axes, family, runs)
        for axes in list(figure.axes)[len(families) :]:
            axes.set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower right", frameon=False)
        figure.supxlabel("epochs spent, of four workers together")
        figure.supylabel("best accuracy, mean over seeds")
        figure.savefig(path)


def _panel(axes: Axes, family: str, runs: Runs) -> None:
    for colour, (name, of_seeds) in zip(COLOURS, runs.items(), strict=False):
        end = max(int(run["epochs"]) for run in of_seeds)
        epochs = np.arange(1, end + 1)
        axes.plot(epochs, np.mean([_best(run, epochs) for run in of_seeds], axis=0), color=colour, label=name)
    axes.set_title(family, loc="left")
    axes.set_ylim(LEAST, 0.92)
    axes.grid(visible=True, axis="y", color="#e4e8ec")
    axes.spines[["top", "right"]].set_visible(False)


def _best(run: Mapping[str, Any], epochs: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """The accuracy of what was best so far after each number of epochs."""
    at, losses = zip(*run["trace"], strict=True)
    places = np.searchsorted(np.array(at), epochs, side="right") - 1
    accuracies: npt.NDArray[np.float64] = 1 - np.array(losses)[np.maximum(places, 0)]
    return accuracies
