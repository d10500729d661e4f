"""The picture of the history: what each trial came to, beside random search and the defaults."""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from examples.digits.history import History
from examples.digits.random_search import RandomSearch

INK, BLUE, ORANGE, GREY = "#1f2933", "#1f6feb", "#d9730d", "#6b7785"
TICKS = (0.1, 0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99)


def draw(history: History, *, random_search: RandomSearch, defaults: float, path: Path) -> None:
    """Write the picture as PNG, 1440 x 810 pixels.

    Accuracy stands on a logarithmic scale of the error, 1 - accuracy: from 97 to 98 % is as much work as from 55 to 70 %.
    """
    with _style():
        figure = Figure(figsize=(9.6, 5.4), dpi=150, layout="constrained")
        axes = figure.subplots()
        _random_search(axes, random_search, trials=len(history.results))
        _defaults(axes, defaults)
        _trials(axes, history)
        _scales(axes, history, random_search=random_search, defaults=defaults)
        _legend(axes, figure)
        figure.savefig(path)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "text.color": INK,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def _random_search(axes: Axes, random_search: RandomSearch, *, trials: int) -> None:
    lowest, median, highest = np.array(list(random_search.course())[:trials]).T
    numbers = np.arange(1, len(median) + 1)
    seeds = len(random_search.runs)
    axes.fill_between(numbers, lowest, highest, step="post", color=ORANGE, alpha=0.14, linewidth=0)
    axes.step(
        numbers,
        median,
        where="post",
        color=ORANGE,
        linewidth=1.6,
        label=f"random search, best so far: median {median[-1]:.2%} and range of {seeds} seeds",
    )


def _defaults(axes: Axes, accuracy: float) -> None:
    axes.axhline(accuracy, color=GREY, linewidth=1.2, linestyle=(0, (5, 4)), label=f"defaults: {accuracy:.2%}")


def _trials(axes: Axes, history: History) -> None:
    numbers = np.arange(1, len(history.results) + 1)
    accuracies = np.array([math.nan if result.accuracy is None else result.accuracy for result in history.results])
    bests = np.array([math.nan if best is None else best for best in history.bests()])
    axes.scatter(numbers, accuracies, s=26, color=BLUE, alpha=0.55, linewidths=0, zorder=3, label="asktell, each trial")
    label = f"asktell, best so far: {bests[-1]:.2%}"
    axes.step(numbers, bests, where="post", color=BLUE, linewidth=2.2, zorder=4, label=label)


def _scales(axes: Axes, history: History, *, random_search: RandomSearch, defaults: float) -> None:
    values = [result.accuracy for result in history.results if result.accuracy is not None]
    values += [defaults, *(value for course in random_search.course() for value in course)]
    axes.set_yscale("function", functions=(_depth, _accuracy))
    axes.set_ylim(max(0.0, min(values) - 0.06), _accuracy(_depth(max(values)) + 0.07))
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick * 100:g} %" for tick in TICKS]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=GREY, alpha=0.18, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(0.4, len(history.results) + 0.6)
    axes.tick_params(length=0)
    axes.set_xlabel("trials finished")
    axes.set_ylabel("accuracy (logarithmic in the errors)")


def _depth(accuracy: Any) -> Any:
    return -np.log10(np.clip(1.0 - np.asarray(accuracy), 1e-4, None))


def _accuracy(depth: Any) -> Any:
    return 1.0 - 10.0 ** -np.asarray(depth)


def _legend(axes: Axes, figure: Figure) -> None:
    axes.set_title("Digits: 3-fold cross-validated accuracy", loc="left", fontsize=13, fontweight="bold", pad=12)
    handles, labels = axes.get_legend_handles_labels()
    order = [3, 2, 0, 1]
    figure.legend(
        [handles[place] for place in order],
        [labels[place] for place in order],
        loc="outside lower left",
        ncols=2,
        frameon=False,
    )
