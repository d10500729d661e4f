"""The convergence curves: one panel a problem, median and quartiles over seeds."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.peers import ASKTELL
from benchmarks.score import Board
from benchmarks.suites import Measure, Suite

COLOURS = {
    ASKTELL: "#1f6feb",
    "random": "#9aa5b1",
    "optuna_tpe": "#2f9e6e",
    "optuna_gp": "#b07d12",
    "optuna_nsga2": "#c04a8a",
    "ax": "#c2410c",
    "hebo": "#8b5cc7",
}
INK, GREY, PALE = "#1f2933", "#6b7785", "#e4e8ec"
LEAST = 1e-3
"""Scaled regrets below are drawn here: nobody tells them apart."""
MOST = 12.0
"""Scaled regrets above, of the first trials, are not drawn."""
FEW_DECADES = 60.0
"""Ranges up to this ratio have ticks at 1, 2 and 5 of each decade."""
COLUMNS = 3


def draw(board: Board, suite: Suite, *, trials: int, path: Path) -> None:
    """Write the picture as PNG."""
    rows = math.ceil(len(board.problems) / COLUMNS)
    columns = min(COLUMNS, len(board.problems))
    with _style():
        figure = Figure(figsize=(max(3.4 * columns, 6.8), 2.5 * rows + 0.9), dpi=150, layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for axes, problem in zip(panels.flat, board.problems, strict=False):
            _panel(axes, board, problem, suite, trials=trials)
        for axes in panels.flat[len(board.problems) :]:
            axes.set_visible(False)
        for axes in panels.flat[: len(board.problems)][-columns:]:
            axes.tick_params(labelbottom=True)
        _words(figure, panels[0][0], suite, seeds=len(board.seeds))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _panel(axes: Axes, board: Board, problem: str, suite: Suite, *, trials: int) -> None:
    curve = _hypervolume if suite.measure is Measure.HYPERVOLUME else _regret
    for peer in sorted(board.peers, key=lambda peer: (peer == ASKTELL, peer != "random")):
        curves = np.array([curve(board, peer, problem, seed, trials) for seed in board.seeds])
        low, median, high = np.quantile(curves, [0.25, 0.5, 0.75], axis=0)
        ours = peer == ASKTELL
        numbers, colour = np.arange(1, trials + 1), COLOURS.get(peer, INK)
        axes.fill_between(numbers, low, high, step="post", color=colour, alpha=0.2 if ours else 0.07, linewidth=0)
        axes.step(numbers, median, where="post", color=colour, linewidth=2.2 if ours else 1.2, label=peer)
    axes.set_title(problem, loc="left", fontsize=10, color=INK)
    axes.set_xlim(1, trials)
    if suite.measure is Measure.REGRET:
        _logarithmic(axes)
    else:
        axes.set_ylim(0, 1)
    axes.grid(visible=True, axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    medians = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()])
    low, high = max(LEAST * 0.8, medians.min() * 0.6), min(MOST, medians.max() * 1.3)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > FEW_DECADES * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda regret, _: f"{regret:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _regret(board: Board, peer: str, problem: str, seed: int, trials: int) -> npt.NDArray[np.float64]:
    best = np.minimum.accumulate(board.runs[peer, problem, seed].y[:trials])
    return np.maximum((best - board.floor(problem, seed)) / board.scale(problem, trials), LEAST)


def _hypervolume(board: Board, peer: str, problem: str, seed: int, trials: int) -> npt.NDArray[np.float64]:
    least: npt.NDArray[np.float64] = np.minimum.accumulate(board.runs[peer, problem, seed].y[:trials])
    return np.maximum(1 - least, 0.0)


def _words(figure: Figure, first: Axes, suite: Suite, *, seeds: int) -> None:
    handles, labels = first.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: (labels[index] != ASKTELL, labels[index] == "random"))
    figure.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
    )
    figure.supxlabel(f"trials ({suite.title})", fontsize=10)
    measured = "hypervolume" if suite.measure is Measure.HYPERVOLUME else "scaled regret"
    figure.supylabel(f"{measured}: median and quartiles of {seeds} seeds", fontsize=10)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "text.color": INK,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
