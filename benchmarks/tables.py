"""The comparison as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from rich.table import Table

from benchmarks.peers import ASKTELL
from benchmarks.score import RANDOM, Board, Fall, cost, mean_regret
from benchmarks.suites import Suite

BAR = {"full": 0.6, "half": 0.75}
"""At most so much of the best peer's mean scaled regret is asked for."""
CLIFF_BAR = 1.1
"""Regret with a cliff is asked to be at most so much of that without."""


def ordered(board: Board, trials: int) -> list[str]:
    """The peers, the one with the least mean regret first."""
    return sorted(board.peers, key=lambda peer: mean_regret(board, peer, trials).mean)


def problems_table(board: Board, suite: Suite, trials: int) -> Table:
    """Each peer's scaled regret on each problem; the best of a row is bold."""
    peers = ordered(board, trials)
    table = Table(title=f"Scaled regret after {trials} trials, {suite.title} (0: the best known, 1: random search)")
    table.add_column("problem")
    for peer in peers:
        table.add_column(peer, justify="right")
    for problem in board.problems:
        regrets = [sum(board.scaled(peer, problem, trials)) / len(board.seeds) for peer in peers]
        table.add_row(problem, *(_bold(f"{regret:.3f}", best=regret == min(regrets)) for regret in regrets))
    return table


def peers_table(board: Board, suite: Suite, trials: int, *, recorded: Collection[str]) -> Table:
    """What each peer reached, and what it took."""
    table = Table(title=f"{len(board.problems)} problems, seeds {_span(board.seeds)}, {suite.title}")
    table.add_column("peer")
    half = trials // 2
    headers = [f"regret at {half}", f"regret at {trials}", "90 % interval", "mean rank"]
    for header in [*headers, "ask p50", "ask p95", "CPU / ask", "memory"]:
        table.add_column(header, justify="right")
    for peer in ordered(board, trials):
        table.add_row(*_peer_row(board, peer, trials, recorded=peer in recorded))
    return table


def _peer_row(board: Board, peer: str, trials: int, *, recorded: bool) -> Iterator[str]:
    regret, taken = mean_regret(board, peer, trials), cost(board, peer)
    yield f"{peer} *" if recorded else peer
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
    for at, bar in ((trials, BAR["full"]), (trials // 2, BAR["half"])):
        means = {peer: mean_regret(board, peer, at).mean for peer in board.peers if peer != RANDOM}
        ours = means.pop(ASKTELL)
        if means:
            best = min(means, key=lambda peer: means[peer])
            asked = f"{bar:g}" if suite.workers == 1 else "below 1"
            yield f"At {at} trials asktell's regret is {ours / means[best]:.2f} × that of the best peer, {best} (the bar: {asked})."
    worse = [
        problem
        for problem in board.problems
        if sum(board.scaled(ASKTELL, problem, trials)) > sum(board.scaled(RANDOM, problem, trials))
    ]
    yield f"Worse than random search on: {', '.join(worse) or 'no problem'}."


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
