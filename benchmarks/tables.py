"""The comparison as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from rich.table import Table

from benchmarks.peers import ASKTELL
from benchmarks.score import RANDOM, Board, Fall, cost, mean_hypervolume, mean_regret
from benchmarks.suites import Measure, Suite

CLIFF_BAR = 1.1
"""Regret with a cliff is asked to be at most so much of that without."""


def ordered(board: Board, trials: int) -> list[str]:
    """The peers, the one with the least mean regret first."""
    return sorted(board.peers, key=lambda peer: mean_regret(board, peer, trials).mean)


def problems_table(board: Board, suite: Suite, trials: int) -> Table:
    """What each peer reached on each problem; the best of a row is bold."""
    peers, of_hypervolume = ordered(board, trials), suite.measure is Measure.HYPERVOLUME
    what = (
        f"Hypervolume after {trials} trials, {suite.title} (1: the best front known, 0: nothing within its ends)"
        if of_hypervolume
        else f"Scaled regret after {trials} trials, {suite.title} (0: the best known, 1: random search)"
    )
    table = Table(title=what)
    table.add_column("problem")
    for peer in peers:
        table.add_column(peer, justify="right")
    reached = _hypervolume if of_hypervolume else _regret
    for problem in board.problems:
        figures = [reached(board, peer, problem, trials) for peer in peers]
        best = max(figures) if of_hypervolume else min(figures)
        table.add_row(problem, *(_bold(f"{figure:.3f}", best=figure == best) for figure in figures))
    return table


def _regret(board: Board, peer: str, problem: str, trials: int) -> float:
    return sum(board.scaled(peer, problem, trials)) / len(board.seeds)


def _hypervolume(board: Board, peer: str, problem: str, trials: int) -> float:
    return board.hypervolume(peer, problem, trials)


def peers_table(board: Board, suite: Suite, trials: int, *, recorded: Collection[str]) -> Table:
    """What each peer reached, and what it took."""
    table = Table(title=f"{len(board.problems)} problems, seeds {_span(board.seeds)}, {suite.title}")
    table.add_column("peer")
    half, measured = trials // 2, list[str]()
    if suite.measure is Measure.HYPERVOLUME:
        measured = [f"hypervolume at {half}", f"at {trials}"]
    headers = [*measured, f"regret at {half}", f"regret at {trials}", "90 % interval", "mean rank"]
    for header in [*headers, "ask p50", "ask p95", "CPU / ask", "memory"]:
        table.add_column(header, justify="right")
    for peer in ordered(board, trials):
        table.add_row(*_peer_row(board, suite, peer, trials, recorded=peer in recorded))
    return table


def _peer_row(board: Board, suite: Suite, peer: str, trials: int, *, recorded: bool) -> Iterator[str]:
    regret, taken = mean_regret(board, peer, trials), cost(board, peer)
    yield f"{peer} *" if recorded else peer
    if suite.measure is Measure.HYPERVOLUME:
        yield f"{mean_hypervolume(board, peer, trials // 2):.3f}"
        yield f"{mean_hypervolume(board, peer, trials):.3f}"
    yield f"{mean_regret(board, peer, trials // 2).mean:.3f}"
    yield f"{regret.mean:.3f}"
    yield f"{regret.low:.3f} – {regret.high:.3f}"
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
    for header in ("clean", "cliff", "difference ± standard error"):
        table.add_column(header, justify="right")
    for peer, problems in falls.items():
        for problem, fall in problems.items():
            difference = f"{fall.cliff - fall.clean:+.3f} ± {fall.error:.3f}"
            table.add_row(problem, peer, f"{fall.clean:.3f}", f"{fall.cliff:.3f}", difference)
    return table


def verdicts(board: Board, suite: Suite, trials: int) -> Iterator[str]:
    """How asktell stands to the bars, a sentence each."""
    if ASKTELL not in board.peers:
        return
    for at, bar in zip((trials, trials // 2), suite.bars, strict=True):
        if bar is not None:
            yield from _against_best(board, suite, at, bar)
    worse = [
        problem
        for problem in board.problems
        if sum(board.scaled(ASKTELL, problem, trials)) > sum(board.scaled(RANDOM, problem, trials))
    ]
    yield f"Worse than random search on: {', '.join(worse) or 'no problem'}."


def _against_best(board: Board, suite: Suite, trials: int, bar: float) -> Iterator[str]:
    asked = f"{bar:g}" if bar < 1 else "below 1"
    others = [peer for peer in board.peers if peer not in (RANDOM, ASKTELL)]
    if not others:
        return
    best = min(others, key=lambda peer: mean_regret(board, peer, trials).mean)
    ratio = mean_regret(board, ASKTELL, trials).mean / mean_regret(board, best, trials).mean
    yield f"At {trials} trials asktell's regret is {ratio:.2f} × that of the best peer, {best} (the bar: {asked})."
    if suite.measure is Measure.HYPERVOLUME:
        ours, best = (
            mean_hypervolume(board, ASKTELL, trials),
            max(others, key=lambda peer: mean_hypervolume(board, peer, trials)),
        )
        theirs = mean_hypervolume(board, best, trials)
        yield f"Its hypervolume is {ours:.3f}, the best peer's, {best}'s, {theirs:.3f} (the bar: more)."


def cliff_verdicts(falls: Mapping[str, Mapping[str, Fall]]) -> Iterator[str]:
    """What a cliff costs each peer over all problems."""
    for peer, problems in falls.items():
        clean = sum(fall.clean for fall in problems.values())
        cliff = sum(fall.cliff for fall in problems.values())
        if clean > 0:
            yield f"With a cliff {peer}'s mean regret is {cliff / clean:.2f} × that without (the bar: {CLIFF_BAR:g})."


def _bold(text: str, *, best: bool) -> str:
    return f"[bold]{text}[/bold]" if best else text


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:,.0f} ms"


def _span(seeds: tuple[int, ...]) -> str:
    low, high = min(seeds), max(seeds)
    return f"{low}–{high}" if len(seeds) == high - low + 1 > 1 else ", ".join(map(str, seeds))
