"""Shows what a fidelity brings: `make bench-fidelity`, or `python -m benchmarks.fidelities --help`."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cyclopts
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table

from benchmarks.curves import GREY, INK, PALE
from benchmarks.jobs import OPTUNA, Job, Recorded
from benchmarks.seeds import parsed
from benchmarks.server import ROOT
from benchmarks.stopping import SAVED, WORSE
from benchmarks.trainings import BEST, EPOCHS, FAMILIES, PUBLIC, WORST

PEERS: Mapping[str, tuple[str, str]] = {
    "gp, fidelity": ("rungs:gp", "#1f6feb"),
    "random, fidelity": ("rungs:random", "#9aa5b1"),
    "gp, stopping rule (ASHA)": ("asktell:asha", "#8b5cc7"),
    "gp, whole trainings": ("asktell:none", "#b07d12"),
    "Optuna, Hyperband + TPE": ("optuna:3", "#2f9e6e"),
}
"""What each is called in `benchmarks.simulation`, and its colour."""
OURS, THEIRS, WHOLE = "gp, fidelity", "Optuna, Hyperband + TPE", "gp, whole trainings"
TRAININGS = 60
"""So many whole trainings are what the fidelity is judged by, with `1 - SAVED` of their epochs."""
MARKS = (4, 8, 16)
"""After as many epochs as so many whole trainings have, the best so far is told."""
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True)
class Run:
    """One optimisation: after how many epochs the training that was measured as best had which loss, without noise."""

    peer: str
    family: str
    seed: int
    trace: list[tuple[int, float]]

    def after(self, epochs: int) -> float:
        """The loss, without noise, of what was measured as best so far; that of an untrained network before."""
        return next((loss for spent, loss in reversed(self.trace) if spent <= epochs), WORST)


def run(peer: str, family: str, seed: int, *, epochs: int, python: Path, recorded: Recorded) -> Run:
    """Run one, or take what is recorded; those by which the fidelity is judged have as many epochs as that takes."""
    named = PEERS[peer][0]
    if family in PUBLIC:
        epochs = max(epochs, {OURS: shared(TRAININGS), WHOLE: TRAININGS * EPOCHS}.get(peer, 0))
    interpreter = python if named.startswith("optuna") else Path(sys.executable)
    job = Job(program="simulation", arguments=(named, family, seed, 0, epochs), python=interpreter)
    return Run(peer, family, seed, [(spent, loss) for spent, loss in job.run(recorded)["trace"]])


def shared(trainings: int) -> int:
    """The epochs of so many whole trainings, without those to be saved."""
    return round((1 - SAVED) * trainings * EPOCHS)


def tables(runs: Sequence[Run], *, epochs: int) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """A title, heads and rows: mean regrets by peer over the epochs, and in the end by family."""
    families = list(dict.fromkeys(each.family for each in runs))
    public = [each for each in runs if each.family in PUBLIC]
    marks = [mark * EPOCHS for mark in MARKS if mark * EPOCHS <= epochs]
    heads = ["peer", *(f"{mark} epochs" for mark in marks)]
    rows = []
    for peer in PEERS:
        some = [each for each in public if each.peer == peer]
        if some:
            rows.append([peer, *(_mean(_regret(each, mark) for each in some) for mark in marks)])
    yield "Mean regret over the families from the literature and seeds", heads, rows
    rows = [
        [
            peer,
            *(
                _mean(_regret(each, epochs) for each in runs if (each.peer, each.family) == (peer, family))
                for family in families
            ),
        ]
        for peer in PEERS
        if any(each.peer == peer for each in runs)
    ]
    yield f"Mean regret after {epochs} epochs", ["peer", *families], rows


def verdicts(runs: Sequence[Run], *, epochs: int) -> Iterator[tuple[str, bool]]:
    """Each bar, of the families from the literature, in words, and whether it is met."""
    found = {(each.peer, each.family, each.seed): each for each in runs if each.family in PUBLIC}
    ours = {each[1:]: one for each, one in found.items() if each[0] == OURS}
    worse = [_worse(one, found[WHOLE, *case]) for case, one in ours.items() if (WHOLE, *case) in found]
    if worse:
        mean = statistics.mean(worse)
        words = (
            f"{OURS}: with {SAVED:.0%} of the epochs saved its best accuracy is {mean:+.2%} worse than that of {TRAININGS} whole trainings"
            f" (at most {WORSE:.0%}; standard error {_standard_error(worse):.2%}, median {statistics.median(worse):+.2%},"
            f" at most {max(worse):+.1%})"
        )
        yield words, mean <= WORSE
    pairs = [
        (_regret(one, epochs), _regret(found[THEIRS, *case], epochs))
        for case, one in ours.items()
        if (THEIRS, *case) in found
    ]
    if pairs:
        ahead = sum(ours < theirs for ours, theirs in pairs)
        yield f"{OURS}: ahead of {THEIRS} in {ahead} of {len(pairs)} runs", 2 * ahead > len(pairs)


def _standard_error(values: Sequence[float]) -> float:
    """That of the values' mean; NaN of a single one."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _worse(ours: Run, whole: Run) -> float:
    """How much worse the best accuracy is with a share of the epochs than that of whole trainings with all, as a share of that."""
    accuracy = 1 - whole.after(TRAININGS * EPOCHS)
    return (accuracy - (1 - ours.after(shared(TRAININGS)))) / accuracy


def _regret(each: Run, epochs: int) -> float:
    """How much the loss is above the best possible one."""
    return max(each.after(epochs) - BEST, 0.0)


def _mean(regrets: Iterable[float]) -> str:
    return f"{statistics.mean(regrets):.4f}"


def draw(runs: Sequence[Run], *, epochs: int, path: Path) -> None:
    """Write the best so far over the epochs as PNG: a panel a family, median and quartiles over seeds."""
    families = list(dict.fromkeys(each.family for each in runs))
    columns = min(3, len(families))
    rows = math.ceil(len(families) / columns)
    figure = Figure(figsize=(4.0 * columns, 2.8 * rows + 0.8), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, family in zip(panels, families, strict=False):
        _panel(axes, [each for each in runs if each.family == family], epochs)
        axes.set_title(family, loc="left", fontsize=10, color=INK)
    for axes in panels[: len(families)][-columns:]:
        axes.tick_params(labelbottom=True)
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.supxlabel("epochs, of all trainings together", fontsize=10)
    figure.supylabel(f"regret: median and quartiles of {len({each.seed for each in runs})} seeds", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _panel(axes: Axes, runs: Sequence[Run], epochs: int) -> None:
    places = np.linspace(EPOCHS // 3, epochs, 120).astype(int)
    for peer, (_, colour) in PEERS.items():
        curves = np.array([[_regret(each, place) for place in places] for each in runs if each.peer == peer])
        if len(curves):
            low, median, high = np.maximum(np.quantile(curves, [0.25, 0.5, 0.75], axis=0), 1e-3)
            ours = peer == OURS
            axes.fill_between(places, low, high, color=colour, alpha=0.16 if ours else 0.07, linewidth=0)
            axes.plot(places, median, color=colour, linewidth=2.2 if ours else 1.3, label=peer)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda regret, _: f"{regret:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, axis="y", color=PALE, linewidth=0.8)
    axes.tick_params(colors=GREY, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def write(runs: Sequence[Run], *, epochs: int, folder: Path) -> None:
    """The report and its picture."""
    draw(runs, epochs=epochs, path=folder / "fidelity.png")
    words = (
        f"Four simulated workers, {epochs} epochs in all, trainings of at most {EPOCHS}, {len({each.seed for each in runs})} seeds:"
        " `make bench-fidelity RECORD=1` ([how](../README.md#what-a-fidelity-brings)). Regret is how much the loss, without noise, of the"
        " training that was measured as best is above the best possible one."
    )
    lines = [
        "# What a fidelity brings",
        "",
        words,
        "",
        "![Best so far over epochs](fidelity.png)",
        "",
    ]
    for title, heads, rows in tables(runs, epochs=epochs):
        lines += [f"{title}:", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    (folder / "fidelity.md").write_text("\n".join([*lines, *(f"- {line}" for line in judged(runs, epochs=epochs)), ""]))


def judged(runs: Sequence[Run], *, epochs: int) -> list[str]:
    """A line for each bar."""
    return [f"{'Met' if met else 'NOT MET'}: {words}." for words, met in verdicts(runs, epochs=epochs)]


app = cyclopts.App(help=__doc__)


@app.default
def main(
    *,
    families: str = ",".join(FAMILIES),
    seeds: str = "0-4",
    epochs: int = MARKS[-1] * EPOCHS,
    jobs: int = 1,
    record: bool = False,
    peer_python: Path = OPTUNA,
) -> int:
    """Run all peers on simulated trainings of 81 epochs, each with as many epochs in all, and compare with whole trainings at all epochs.

    Parameters
    ----------
    families
        Families of curves, with commas between them.
    seeds
        As 0-4 or 1,3.
    epochs
        Epochs of each run, of all its trainings together.
    jobs
        Processes at one time.
    record
        Keep the runs in benchmarks/results, with a report and a picture; those that are there are not run again.
    peer_python
        The interpreter that has Optuna; this one if there is none.
    """
    console, recorded = Console(), Recorded(RESULTS / "fidelity.jsonl" if record else None)
    python = peer_python if peer_python.exists() else Path(sys.executable)
    wanted = [(peer, family, seed) for seed in parsed(seeds) for family in families.split(",") for peer in PEERS]

    def one(case: tuple[str, str, int]) -> Run:
        done = run(*case, epochs=epochs, python=python, recorded=recorded)
        console.print(f"{done.family}, seed {done.seed}, {done.peer}: {_regret(done, epochs):.4f}", highlight=False)
        return done

    with ThreadPoolExecutor(jobs) as pool:
        runs = list(pool.map(one, wanted))
    for title, heads, rows in tables(runs, epochs=epochs):
        table = Table(*heads, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in judged(runs, epochs=epochs):
        console.print(line, highlight=False, soft_wrap=True)
    if record:
        write(runs, epochs=epochs, folder=RESULTS)
    return 0 if all(met for _, met in verdicts(runs, epochs=epochs)) else 1


if __name__ == "__main__":
    app()
