"""Shows what stopping rules save, and at what cost: `make bench-stopping`, or `python -m benchmarks.stopping --help`."""

from __future__ import annotations

import statistics
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

from benchmarks.jobs import OPTUNA, Job, Recorded
from benchmarks.seeds import parsed
from benchmarks.server import ROOT
from benchmarks.stopping_picture import draw
from benchmarks.tables import markdown
from benchmarks.trainings import FAMILIES, PUBLIC

RULES = ("asha", "asha9", "hyperband", "median", "percentile", "extrapolation", "patience", "threshold")
NO_RULE, JUDGED, LATER = "none", "asha", "asha9"
"""ASHA is judged with its first rung at 3 epochs; with one at 9 it is shown beside it."""
PEERS = ("optuna:1", "optuna:3")
"""Optuna with its first rung at one epoch, as it is unless told otherwise, and at three, where ASHA's is."""
SAVED, WORSE = 0.60, 0.01
"""The bars: with so much less of the epochs, the best accuracy is at most so much worse."""
RECORDED = ROOT / "benchmarks" / "results" / "stopping.jsonl"


@dataclass(frozen=True, slots=True)
class Case:
    """A family and a seed: runs of as many trials, by rule, and runs of as many epochs, a share of what no rule takes for its trials."""

    family: str
    seed: int
    trials: Mapping[str, Mapping[str, Any]]
    epochs: Mapping[str, Mapping[str, Any]]

    def saved(self, rule: str) -> float:
        """The share of the epochs of no rule that a rule saves in as many trials."""
        return 1 - float(self.trials[rule]["epochs"]) / float(self.trials[NO_RULE]["epochs"])

    def worse(self, run: Mapping[str, Any]) -> float:
        """How much worse a run's best accuracy is than that of no rule with all its epochs, as a share of that."""
        whole = accuracy(self.trials[NO_RULE])
        return (whole - accuracy(run)) / whole


def accuracy(run: Mapping[str, Any]) -> float:
    """Of the training that was measured as best, without noise."""
    return 1 - float(run["best"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run for each family and seed."""

    trials: int
    rules: Sequence[str]
    optuna: Path | None
    recorded: Recorded


def run_case(family: str, seed: int, plan: Plan) -> Case:
    """Run all of a family and a seed, one after another."""

    def run(peer: str, epochs: int = 0, *, python: Path = Path(sys.executable)) -> Mapping[str, Any]:
        """A peer's run; it ends after so many trials, or epochs if those are not 0."""
        job = Job(program="simulation", arguments=(peer, family, seed, plan.trials, epochs), python=python)
        return job.run(plan.recorded)

    by_trials = {rule: run(f"asktell:{rule}") for rule in dict.fromkeys((NO_RULE, *plan.rules))}
    epochs = round((1 - SAVED) * by_trials[NO_RULE]["epochs"])
    by_epochs = {rule: run(f"asktell:{rule}", epochs) for rule in (NO_RULE, JUDGED, LATER) if rule in by_trials}
    if plan.optuna is not None:
        by_epochs |= {peer: run(peer, epochs, python=plan.optuna) for peer in PEERS}
    return Case(family, seed, by_trials, by_epochs)


def by_rule(cases: Sequence[Case], rules: Sequence[str]) -> Table:
    """A row a rule, of as many trials as without: what it saves, and how much worse its best accuracy is, in families from the literature."""
    cases = [case for case in cases if case.family in PUBLIC]
    columns = ("rule", "epochs saved", "best accuracy worse by", "at most by", "trials stopped")
    table = Table(
        *columns, title="As many trials as without a rule: means over the families from the literature and seeds"
    )
    for rule in rules:
        runs = [(case, case.trials[rule]) for case in cases]
        worse = [case.worse(run) for case, run in runs]
        stopped = statistics.mean(run["stopped"] / run["trials"] for _, run in runs)
        saved = statistics.mean(case.saved(rule) for case in cases)
        table.add_row(rule, f"{saved:.0%}", f"{statistics.mean(worse):+.1%}", f"{max(worse):+.1%}", f"{stopped:.0%}")
    return table


def by_family(cases: Sequence[Case]) -> Table:
    """A row a family: the mean best accuracy with all epochs and no rule, and with a share of them."""
    names = list(cases[0].epochs)
    columns = ("family", "no rule, all epochs", *(f"{name}, {1 - SAVED:.0%} of them" for name in names))
    table = Table(*columns, title="Best accuracy: means over seeds")
    for family in dict.fromkeys(case.family for case in cases):
        some = [case for case in cases if case.family == family]
        runs = [[case.trials[NO_RULE] for case in some], *([case.epochs[name] for case in some] for name in names)]
        table.add_row(family, *(f"{statistics.mean(map(accuracy, of_one)):.4f}" for of_one in runs))
    return table


def verdicts(cases: Sequence[Case]) -> Iterator[tuple[str, bool]]:
    """Each bar, of the families from the literature, in words, and whether it is met."""
    cases = [case for case in cases if case.family in PUBLIC]
    worse = statistics.mean(case.worse(case.epochs[JUDGED]) for case in cases)
    yield (
        f"asha with {1 - SAVED:.0%} of the epochs is {worse:+.2%} worse than no rule with all (at most {WORSE:.0%})",
        worse <= WORSE,
    )
    for peer in (name for name in PEERS if name in cases[0].epochs):
        ahead = [accuracy(case.epochs[JUDGED]) - accuracy(case.epochs[peer]) for case in cases]
        wins, mean = sum(difference > 0 for difference in ahead), statistics.mean(ahead)
        words = (
            f"it is ahead of Hyperband + TPE ({peer}) at as many epochs by {mean:+.4f}, in {wins} of {len(cases)} runs"
        )
        yield words, mean > 0 and wins * 2 > len(cases)


app = cyclopts.App(help=__doc__)


@app.default
def main(
    *,
    families: str = ",".join(FAMILIES),
    seeds: str = "0-4",
    trials: Annotated[int, Parameter(validator=validators.Number(gte=10))] = 60,
    rules: str = ",".join(RULES),
    jobs: int = 1,
    peer_python: Path = OPTUNA,
    record: bool = False,
) -> int:
    """Run every rule and no rule on simulated trainings of 81 epochs; ASHA and Optuna's Hyperband + TPE also with 40 % of the epochs.

    Parameters
    ----------
    families
        Families of curves, with commas between them.
    seeds
        As 0-4 or 1,3.
    trials
        Trials of each run.
    rules
        Rules beside none, with commas between them; asha is judged.
    jobs
        Processes at one time.
    peer_python
        The interpreter that has Optuna; without it Optuna is left out.
    record
        Keep what came of each run in benchmarks/results, take what is there for done, and write tables and a picture.
    """
    console = Console()
    chosen = tuple(rules.split(","))
    optuna = peer_python if peer_python.exists() else None
    plan = Plan(trials=trials, rules=chosen, optuna=optuna, recorded=Recorded(RECORDED if record else None))
    wanted = [(family, seed) for family in families.split(",") for seed in parsed(seeds)]

    def one(case: tuple[str, int]) -> Case:
        done = run_case(*case, plan)
        runs = (*done.trials.items(), *((f"{name} again", run) for name, run in done.epochs.items()))
        found = ", ".join(f"{name} {accuracy(run):.4f} in {run['epochs']}" for name, run in runs)
        console.print(f"{done.family}, seed {done.seed}: {found}", soft_wrap=True, highlight=False)
        return done

    with ThreadPoolExecutor(jobs) as pool:
        cases = list(pool.map(one, wanted))
    tables = [by_rule(cases, chosen), by_family(cases)]
    judged = JUDGED in chosen and any(case.family in PUBLIC for case in cases)
    bars = list(verdicts(cases)) if judged else []
    found = [f"{'Met' if met else 'NOT MET'}: {words}." for words, met in bars]
    for shown in (*tables, *found):
        console.print(shown, highlight=False, soft_wrap=isinstance(shown, str))
    if record:
        title = f"`make bench-stopping`: {trials} trials, four workers, seeds {seeds}."
        paragraphs = [title, *map(markdown, tables), "\n".join(f"- {line}" for line in found)]
        RECORDED.with_suffix(".md").write_text("\n\n".join(paragraphs) + "\n")
        draw(pictured(cases), RECORDED.with_suffix(".png"))
    return 0 if all(met for _, met in bars) else 1


def pictured(cases: Sequence[Case]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """The runs of each family for the picture: those with a share of the epochs, and without a rule with all."""
    families = dict.fromkeys(case.family for case in cases)
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {family: {} for family in families}
    for case in cases:
        runs = {**{name: run for name, run in case.epochs.items() if name != NO_RULE}, NO_RULE: case.trials[NO_RULE]}
        for name, run in runs.items():
            found[case.family].setdefault("no rule" if name == NO_RULE else name, []).append(run)
    return found


if __name__ == "__main__":
    app()
