"""The comparison as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.peers import ASKTELL
from benchmarks.score import RANDOM, Board, Fall, Mean, cost, mean_hypervolume, mean_regret
from benchmarks.suites import Measure, Suite

CLIFF_BAR = 1.1
"""Regret with a cliff is asked to be at most so much of that without."""


def ordered(board: Board, suite: Suite, trials: int) -> list[str]:
    """The peers, the one that reached most first."""
    sign = -1 if suite.measure is Measure.HYPERVOLUME else 1
    return sorted(board.peers, key=lambda peer: sign * reached(board, suite, peer, trials).mean)


def reached(board: Board, suite: Suite, peer: str, trials: int) -> Mean:
    """The mean over problems of what the suite measures."""
    return (mean_hypervolume if suite.measure is Measure.HYPERVOLUME else mean_regret)(board, peer, trials)


def problems_table(board: Board, suite: Suite, trials: int) -> Table:
    """What each peer reached on each problem; the best of a row is bold."""
    peers, of_hypervolume = ordered(board, suite, trials), suite.measure is Measure.HYPERVOLUME
    what = (
        f"Hypervolume after {trials} trials, {suite.title} (1: the best front known, 0: nothing within its ends)"
        if of_hypervolume
        else f"Scaled regret after {trials} trials, {suite.title} (0: the best known, 1: random search)"
    )
    table = Table(title=what)
    table.add_column("problem")
    for peer in peers:
        table.add_column(peer, justify="right")
    of_seeds = board.hypervolumes if of_hypervolume else board.scaled
    for problem in board.problems:
        figures = [sum(of_seeds(peer, problem, trials)) / len(board.seeds) for peer in peers]
        best = max(figures) if of_hypervolume else min(figures)
        table.add_row(problem, *(_bold(f"{figure:.3f}", best=figure == best) for figure in figures))
    return table


def peers_table(board: Board, suite: Suite, trials: int, *, recorded: Collection[str]) -> Table:
    """What each peer reached, and what it took."""
    table = Table(title=f"{len(board.problems)} problems, seeds {_span(board.seeds)}, {suite.title}")
    table.add_column("peer")
    half = trials // 2
    headers = [f"{suite.measure.value} at {half}", f"{suite.measure.value} at {trials}", "90 % interval", "mean rank"]
    for header in [*headers, "ask p50", "ask p95", "CPU / ask", "memory"]:
        table.add_column(header, justify="right")
    for peer in ordered(board, suite, trials):
        table.add_row(*_peer_row(board, suite, peer, trials, recorded=peer in recorded))
    return table


def _peer_row(board: Board, suite: Suite, peer: str, trials: int, *, recorded: bool) -> Iterator[str]:
    half, full = (reached(board, suite, peer, at) for at in (trials // 2, trials))
    taken = cost(board, peer)
    yield f"{peer} *" if recorded else peer
    yield f"{half.mean:.3f}"
    yield f"{full.mean:.3f}"
    yield f"{full.low:.3f} – {full.high:.3f}"
    yield f"{board.mean_rank(peer, trials):.2f}"
    yield _milliseconds(taken.median)
    yield _milliseconds(taken.slow)
    yield "–" if taken.cpu is None else _milliseconds(taken.cpu)
    yield f"{taken.memory} MiB"


def falls_table(falls: Mapping[str, Mapping[str, Fall]]) -> Table:
    """Regret without and with a cliff, side by side, of each peer that ran both."""
    table = Table(title="Scaled regret without and with a cliff")
    for header in ("problem", "peer"):
        table.add_column(header)
    for header in ("clean", "cliff", "difference ± standard error", "median clean", "median cliff"):
        table.add_column(header, justify="right")
    for peer, problems in falls.items():
        for problem, fall in problems.items():
            difference = f"{fall.cliff - fall.clean:+.3f} ± {fall.error:.3f}"
            medians = f"{fall.clean_median:.3f}", f"{fall.cliff_median:.3f}"
            table.add_row(problem, peer, f"{fall.clean:.3f}", f"{fall.cliff:.3f}", difference, *medians)
    return table


def verdicts(board: Board, suite: Suite, trials: int) -> Iterator[str]:
    """How asktell stands to the bars, a sentence each."""
    if ASKTELL not in board.peers:
        return
    for at, bar in zip((trials, trials // 2), suite.bars, strict=True):
        if bar is not None and {*board.peers} - {RANDOM, ASKTELL}:
            yield _against_best(board, suite, at, bar)
    worse = [
        problem
        for problem in board.problems
        if sum(board.scaled(ASKTELL, problem, trials)) > sum(board.scaled(RANDOM, problem, trials))
    ]
    yield f"Worse than random search on: {', '.join(worse) or 'no problem'}."


def _against_best(board: Board, suite: Suite, trials: int, bar: float) -> str:
    best = next(peer for peer in ordered(board, suite, trials) if peer not in (RANDOM, ASKTELL))
    ours, theirs = (reached(board, suite, peer, trials).mean for peer in (ASKTELL, best))
    what = f"At {trials} trials asktell's {suite.measure.value} is"
    if suite.measure is Measure.HYPERVOLUME:
        return f"{what} {ours:.3f}, that of the best peer, {best}, {theirs:.3f} (the bar: more)."
    asked = f"{bar:g}" if bar < 1 else "below 1"
    return f"{what} {ours / theirs:.2f} × that of the best peer, {best} (the bar: {asked})."


def cliff_verdicts(falls: Mapping[str, Mapping[str, Fall]]) -> Iterator[str]:
    """What a cliff costs each peer over all problems: in the mean of all runs, and in the mean over problems of the medians of seeds."""
    for peer, problems in falls.items():
        clean = sum(fall.clean for fall in problems.values())
        cliff = sum(fall.cliff for fall in problems.values())
        typical = sum(fall.clean_median for fall in problems.values())
        fallen = sum(fall.cliff_median for fall in problems.values())
        by_medians = f", and {fallen / typical:.2f} × by the medians of seeds" if typical > 0 else ""
        if clean > 0:
            yield (
                f"With a cliff {peer}'s mean regret is {cliff / clean:.2f} × that without{by_medians} (the bar: {CLIFF_BAR:g})."
            )


def _bold(text: str, *, best: bool) -> str:
    return f"[bold]{text}[/bold]" if best else text


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:,.0f} ms"


def _span(seeds: tuple[int, ...]) -> str:
    low, high = min(seeds), max(seeds)
    return f"{low}–{high}" if len(seeds) == high - low + 1 > 1 else ", ".join(map(str, seeds))


def markdown(table: Table) -> str:
    """The table as Markdown, under its title."""
    console = Console(file=StringIO(), width=240)
    title, table.title, table.box = table.title, None, box.MARKDOWN
    with console.capture() as capture:
        console.print(table)
    rows = [line.strip() for line in capture.get().splitlines() if line.strip()]
    return "\n".join([f"**{title}**", "", *rows])
