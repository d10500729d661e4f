"""Shows what stopping rules save, and at what cost: `make bench-stopping`, or `python -m benchmarks.stopping --help`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from benchmarks.seeds import parsed
from benchmarks.server import ROOT
from benchmarks.trainings import FAMILIES

RULES = ("asha", "hyperband", "median", "percentile", "extrapolation", "patience", "threshold")
NO_RULE = "none"
JUDGED = "asha"
SAVED, WORSE = 0.60, 0.01
"""The bars: at least so much of the epochs saved, and the best loss at most so much worse."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OPTUNA = ROOT / ".peers" / "optuna-ax" / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One simulated optimisation; it ends after so many trials, or epochs if those are not 0."""

    python: Path
    peer: str
    family: str
    seed: int
    trials: int
    epochs: int = 0

    def run(self) -> Mapping[str, Any]:
        """What came of it, from a process of the peer's environment."""
        arguments = [self.peer, self.family, str(self.seed), str(self.trials), str(self.epochs)]
        command = [str(self.python), "-m", "benchmarks.simulation", *arguments]
        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.peer} on {self.family}, seed {self.seed}: {done.stderr.strip()[-2000:]}")
        found: Mapping[str, Any] = json.loads(done.stdout)
        return found


@dataclass(frozen=True, slots=True)
class Case:
    """A family and a seed, with what every rule, no rule, and Optuna made of it; Optuna has the epochs that `asha` took."""

    family: str
    seed: int
    runs: Mapping[str, Mapping[str, Any]]

    def saved(self, rule: str) -> float:
        """The share of the epochs that no rule takes."""
        return 1 - float(self.runs[rule]["epochs"]) / float(self.runs[NO_RULE]["epochs"])

    def worse(self, name: str) -> float:
        """How much worse the best loss is than without a rule, as a share of that."""
        return float(self.runs[name]["best"]) / float(self.runs[NO_RULE]["best"]) - 1


def run_case(family: str, seed: int, *, trials: int, rules: Sequence[str], optuna: Path | None) -> Case:
    """Run all of a family and a seed, one after another."""
    here = Path(sys.executable)
    runs = {
        rule: Job(python=here, peer=f"asktell:{rule}", family=family, seed=seed, trials=trials).run()
        for rule in (NO_RULE, *rules)
    }
    if optuna is not None and JUDGED in runs:
        epochs = int(runs[JUDGED]["epochs"])
        job = Job(python=optuna, peer="optuna", family=family, seed=seed, trials=trials, epochs=epochs)
        runs["optuna"] = job.run()
    return Case(family, seed, runs)


def by_rule(cases: Sequence[Case], rules: Sequence[str]) -> Table:
    """A row a rule: what it saves, and how much worse its best loss is."""
    table = Table(
        "rule",
        "epochs saved",
        "best loss worse by",
        "in the worst case",
        "trials stopped",
        title="All families and seeds",
    )
    for rule in rules:
        worse = [case.worse(rule) for case in cases]
        stopped = statistics.mean(case.runs[rule]["stopped"] / case.runs[rule]["trials"] for case in cases)
        saved = statistics.mean(case.saved(rule) for case in cases)
        table.add_row(rule, f"{saved:.0%}", f"{statistics.mean(worse):+.1%}", f"{max(worse):+.1%}", f"{stopped:.0%}")
    return table


def by_family(cases: Sequence[Case], *, optuna: bool) -> Table:
    """A row a family: means over its seeds, of ASHA and of Optuna at the same epochs."""
    table = Table(
        "family", "epochs saved by asha", "best loss, no rule", "asha", "Optuna, as many epochs", title="By family"
    )
    for name in dict.fromkeys(case.family for case in cases):
        some = [case for case in cases if case.family == name]
        names = (NO_RULE, JUDGED, *(["optuna"] if optuna else []))
        best = [f"{statistics.mean(case.runs[each]['best'] for case in some):.4f}" for each in names]
        table.add_row(name, f"{statistics.mean(case.saved(JUDGED) for case in some):.0%}", *best)
    return table


def verdicts(cases: Sequence[Case], *, optuna: bool) -> Iterator[tuple[str, bool]]:
    """Each bar in words, and whether it is met."""
    saved = statistics.mean(case.saved(JUDGED) for case in cases)
    worse = statistics.mean(case.worse(JUDGED) for case in cases)
    yield f"asha saves {saved:.1%} of the epochs (at least {SAVED:.0%})", saved >= SAVED
    yield f"its best loss is {worse:+.2%} worse than without a rule (at most {WORSE:.0%})", worse <= WORSE
    if optuna:
        others = [case.runs["optuna"]["best"] / case.runs[JUDGED]["best"] - 1 for case in cases]
        wins = sum(other > 0 for other in others)
        mean = statistics.mean(others)
        words = f"Optuna's Hyperband + TPE is {mean:+.1%} worse at the same epochs; asha wins {wins} of {len(cases)}"
        yield words, mean > 0 and wins * 2 > len(cases)


app = cyclopts.App(help=__doc__)


@app.default
def main(
    *,
    families: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = tuple(FAMILIES),
    seeds: str = "0-4",
    trials: Annotated[int, Parameter(validator=validators.Number(gte=10))] = 60,
    rules: tuple[str, ...] = RULES,
    jobs: int = 1,
    peer_python: Path = OPTUNA,
) -> int:
    """Run every rule and no rule on simulated trainings of 81 epochs, and Optuna's Hyperband + TPE with as many epochs as ASHA took.

    Parameters
    ----------
    families
        Families of curves.
    seeds
        As 0-4 or 1,3.
    trials
        Trials of each run.
    rules
        Rules beside none; asha is judged.
    jobs
        Processes at one time.
    peer_python
        The interpreter that has Optuna; without it Optuna is left out.
    """
    console = Console()
    optuna = peer_python if peer_python.exists() else None
    wanted = [(family, seed) for family in families for seed in parsed(seeds)]

    def one(case: tuple[str, int]) -> Case:
        done = run_case(*case, trials=trials, rules=rules, optuna=optuna)
        console.print(
            f"{done.family}, seed {done.seed}: "
            + ", ".join(f"{n} {r['best']:.4f} in {r['epochs']}" for n, r in done.runs.items()),
            soft_wrap=True,
            highlight=False,
        )
        return done

    with ThreadPoolExecutor(jobs) as pool:
        cases = list(pool.map(one, wanted))
    console.print(by_rule(cases, rules))
    if JUDGED not in rules:
        return 0
    console.print(by_family(cases, optuna=optuna is not None))
    bars = list(verdicts(cases, optuna=optuna is not None))
    for words, met in bars:
        console.print(f"{'met    ' if met else 'NOT MET'} {words}", highlight=False)
    return 0 if all(met for _, met in bars) else 1


if __name__ == "__main__":
    app()
