# ruff: noqa: E402 - the number of threads is set before NumPy starts them.
"""Shows how the engine copes with trials that fail, by chance or in regions: `make bench-failures`, or `python -m benchmarks.failures`."""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np
from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from asktell.server.domain.policy import Decision, SuggestRequest
from asktell.server.policies import gp
from asktell.server.policies.recipe import STANDARD, Recipe
from asktell.server.policies.safety import Policy
from benchmarks.peers import Peer
from benchmarks.peers.in_process import InProcess
from benchmarks.peers.random_search import RandomSearch
from benchmarks.problem import Choice, Configuration, Outcome, Problem, Vector, drawn, units
from benchmarks.problems import problem
from benchmarks.seeds import parsed as parse_seeds
from benchmarks.server import ROOT

PROBLEMS = ("branin", "hartmann6", "levy8", "quadratic4", "griewank6", "michalewicz5", "mixed_small", "steps3")
RULES: Mapping[str, Recipe] = {
    "standard": STANDARD,
    "all imputed": replace(STANDARD, chance=-10.0),
    "none imputed": replace(STANDARD, chance=10.0, trust=0.0),
}
"""Which failures, from the third on, the objective's models learn from."""
EARLY = 20
"""Crashes are counted after so many trials."""
WORST = 2.0
"""Scaled regrets count no worse than this, lest one run decides."""
_SAMPLES = 4096


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong: each trial fails with probability `chance`, and all do in a region that has `crashing` of the space."""

    chance: float
    crashing: float

    def __str__(self) -> str:
        parts = [f"{self.chance:.0%} by chance"] * (self.chance > 0) + [f"{self.crashing:.0%} crash"] * (
            self.crashing > 0
        )
        return ", ".join(parts) or "none"


TROUBLES = (
    Trouble(0.05, 0.0),
    Trouble(0.15, 0.0),
    Trouble(0.30, 0.0),
    Trouble(0.0, 0.1),
    Trouble(0.0, 0.3),
    Trouble(0.15, 0.1),
    Trouble(0.15, 0.3),
)

app = cyclopts.App(name="python -m benchmarks.failures", help_format="plaintext", version_flags=[])


@dataclass(frozen=True, slots=True)
class Run:
    """A run's least values so far, of trials that worked, and which trials were in the region that crashes."""

    rule: str
    problem: str
    trouble: str
    seed: int
    y: tuple[float, ...]
    crashed: tuple[bool, ...]
    best: float | None


def region(given: Problem, seed: int, share: float) -> Callable[[Configuration], bool]:
    """A region with this share of the space: beyond a plane, within a ball, or, if there are names, of one name; it spares what is best of
    many random configurations, or the optimum if that is known.
    """
    generator = np.random.default_rng([seed, round(100 * share), 5])
    samples = [drawn(given.params, generator) for _ in range(_SAMPLES)]
    best = given.optimum or min(samples, key=given.function)
    while True:
        score = _score(given, generator)
        edge = float(np.quantile([score(each) for each in samples], share))
        if score(best) > edge:
            return lambda configuration: score(configuration) <= edge


def _score(given: Problem, generator: np.random.Generator) -> Callable[[Configuration], float]:
    """Where configurations lie along a random direction, or how far from a random point; names are far from other names."""
    numbers = [param for param in given.params if not isinstance(param, Choice)]
    names = [param for param in given.params if isinstance(param, Choice)]
    centre: Vector = generator.random(len(numbers))
    direction: Vector = generator.normal(size=len(numbers))
    bad = {param.name: str(generator.choice(param.values)) for param in names[:1]}
    ball = bool(generator.random() < 0.5)

    def score(configuration: Configuration) -> float:
        offset = units(numbers, configuration) - centre
        own = float(np.linalg.norm(offset)) if ball else float(offset @ direction)
        return own + 0.5 * float(sum(configuration[name] != value for name, value in bad.items()))

    return score


def troubled(given: Problem, seed: int, trouble: Trouble) -> tuple[Problem, Callable[[Configuration], bool]]:
    """The problem with failures, and where it crashes. Failures by chance come at the same trials whoever searches."""
    chance = random.Random(f"{seed} {trouble.chance}")
    crashes = region(given, seed, trouble.crashing) if trouble.crashing else lambda _: False

    def outcome(configuration: Configuration) -> Outcome:
        flaky = chance.random() < trouble.chance
        return Outcome((math.inf,)) if flaky or crashes(configuration) else given.outcome(configuration)

    return replace(given, several=outcome), crashes


def run(rule: str, name: str, trouble: Trouble, seed: int, trials: int) -> Run:
    """One run of a rule's engine."""
    given, crashes = troubled(problem(name, seed), seed, trouble)
    peer = InProcess(given, seed, _remembering(RULES[rule]))
    values, crashed = _course(given, peer, crashes, trials)
    return Run(rule, name, str(trouble), seed, values, crashed, given.best)


def _remembering(recipe: Recipe) -> Policy:
    """The policy of a recipe, which gets the hint of the ask before."""
    hint = b""

    def suggest(request: SuggestRequest) -> Decision:
        nonlocal hint
        decision = gp.suggest(replace(request, hint=hint), recipe=recipe)
        hint = decision.hint or hint
        return decision

    return suggest


def usual(name: str, seed: int, trials: int) -> float:
    """What random search finds where nothing fails: the median of three."""
    given = problem(name, seed)
    peers = [RandomSearch(given, 1_000 * number + seed) for number in range(3)]
    return statistics.median(_course(given, peer, lambda _: False, trials)[0][-1] for peer in peers)


def _course(
    given: Problem, peer: Peer, crashes: Callable[[Configuration], bool], trials: int
) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    """The least values so far, and which configurations crash."""
    values, crashed = [], []
    for _ in range(trials):
        token, configuration = peer.ask()
        outcome = given.outcome(configuration)
        peer.tell(token, configuration, outcome)
        values.append(outcome.value)
        crashed.append(crashes(configuration))
    finite = np.where(np.isfinite(values), values, np.finfo(np.float64).max)
    return tuple(map(float, np.minimum.accumulate(finite))), tuple(crashed)


@app.default
def main(
    *,
    problems: str = ",".join(PROBLEMS),
    rules: str = ",".join(RULES),
    seeds: str = "300-303",
    trials: Annotated[int, Parameter(validator=validators.Number(gt=EARLY))] = 60,
    output: Annotated[Path, Parameter(show_default=False)] = ROOT / "benchmarks" / "out" / "failures.jsonl",
) -> int:
    """Run the engine in this process on problems where trials fail: by chance, in a region, or both.

    A figure is the mean scaled regret, 0 for the best known and 1 for what random search finds where nothing fails, with the mean paired
    difference to the standard rule and its standard error; and the share of trials after the twentieth that were in the region that crashes.

    Parameters
    ----------
    problems
        Which.
    rules
        Which failures the objective's models learn from.
    seeds
        Such as 300-303.
    trials
        Asks in each run.
    output
        A file of the runs; what it has is not run again.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    output.parent.mkdir(parents=True, exist_ok=True)
    known = _read(output)
    for seed in parse_seeds(seeds):
        for name in problems.split(","):
            for trouble in TROUBLES:
                for rule in rules.split(","):
                    if (rule, name, str(trouble), seed) not in known:
                        each = run(rule, name, trouble, seed, trials)
                        with output.open("a") as file:
                            file.write(json.dumps(asdict(each)) + "\n")
    cells = [one for one in _read(output).values() if one.seed in parse_seeds(seeds) and one.problem in problems]
    console.print(table(cells, rules.split(","), trials))
    return 0


def _read(path: Path) -> dict[tuple[str, str, str, int], Run]:
    found = [Run(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    return {(each.rule, each.problem, each.trouble, each.seed): each for each in found}


def table(runs: Sequence[Run], rules: Sequence[str], trials: int) -> Table:
    """The rules side by side."""
    levels = _levels(runs, trials)
    shown = Table(title=f"Scaled regret after {trials} trials; share of trials {EARLY + 1} to {trials} that crash")
    for header in ("failures", "pairs", *rules):
        shown.add_column(header, justify="left" if header == "failures" else "right")
    for trouble in map(str, TROUBLES):
        cells = sorted({(each.problem, each.seed) for each in runs if each.trouble == trouble})
        own = {rule: [levels[rule, name, trouble, seed] for name, seed in cells] for rule in rules}
        shares = {
            rule: [each.crashed[EARLY:] for each in runs if (each.rule, each.trouble) == (rule, trouble)]
            for rule in rules
        }
        shown.add_row(trouble, str(len(cells)), *(_figure(own[rule], own[rules[0]], shares[rule]) for rule in rules))
    return shown


def _levels(runs: Sequence[Run], trials: int) -> dict[tuple[str, str, str, int], float]:
    """The scaled regrets by rule, problem, trouble and seed."""
    least: dict[tuple[str, int], float] = {}
    for each in runs:
        cell = each.problem, each.seed
        least[cell] = each.best if each.best is not None else min(each.y[-1], least.get(cell, math.inf))
    chance = {cell: usual(*cell, trials) for cell in least}
    return {
        (each.rule, each.problem, each.trouble, each.seed): min(
            (each.y[-1] - low) / max(chance[cell] - low, 1e-12), WORST
        )
        for each in runs
        for cell, low in [((each.problem, each.seed), least[each.problem, each.seed])]
    }


def _figure(levels: Sequence[float], first: Sequence[float], crashed: Sequence[Sequence[bool]]) -> str:
    gaps = np.array(levels) - np.array(first)
    difference = f" ({gaps.mean():+.3f} ± {gaps.std(ddof=1) / math.sqrt(len(gaps)):.3f})" if gaps.any() else ""
    share = float(np.mean([one for each in crashed for one in each]))
    return f"{np.mean(levels):.3f}{difference}" + (f"; {share:.1%}" if share else "")


if __name__ == "__main__":
    sys.exit(app())
