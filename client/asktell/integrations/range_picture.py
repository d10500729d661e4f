"""The picture of a learning-rate range test, by matplotlib, which the extra `plot` brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asktell.integrations.missing import missing_extra

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise missing_extra("matplotlib", "plot", error) from error

if TYPE_CHECKING:
    from asktell.integrations.learning_rate import LearningRateRange

GREY, GREEN, RED, INK = "#9aa5b1", "#0b6e4f", "#c0392b", "#1f2933"


def draw(found: LearningRateRange, path: Path) -> None:
    """Losses over learning rates, the range, and the suggestion."""
    rates = [point.learning_rate for point in found.curve]
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(found.low, found.high, color=GREEN, alpha=0.1, label=f"range: {found.low:.2g} to {found.high:.2g}")
        axes.plot(rates, [point.loss for point in found.curve], ".", color=GREY, label="loss of a batch")
        axes.plot(rates, found.smoothed, color=INK, linewidth=1.8, label="smoothed")
        axes.axvline(found.suggestion, color=RED, linestyle="--", label=f"suggestion: {found.suggestion:.2g}")
        low, high = min(found.smoothed), max(found.smoothed[: found.smoothed.index(min(found.smoothed)) + 1])
        # The losses at the end, where it diverges, would flatten the rest.
        axes.set_ylim(low - 0.1 * (high - low), high + 0.4 * (high - low))
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.set_title("Learning-rate range test")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(path, dpi=120)
