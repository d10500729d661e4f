"""Compares searches over scikit-learn's estimators at equal numbers of fits: `make bench-sklearn`."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import optuna
from cyclopts import Parameter, validators
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna_integration import OptunaSearchCV
from rich.console import Console
from rich.table import Table
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import KFold, RandomizedSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from asktell.integrations.sklearn import AskTellSearchCV
from benchmarks.seeds import parsed
from benchmarks.server import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "sklearn.md"
FOLDS = 3
Range = tuple[float, float] | tuple[float, float, str] | list[Any]
"""From and to, with "log" for equal ratios, or choices."""


@dataclass(frozen=True, slots=True)
class Task:
    """A data set that ships with scikit-learn, a pipeline, and what of it is searched."""

    data: Callable[[], tuple[Any, Any]]
    pipeline: Pipeline
    space: Mapping[str, Range]
    folds: Any


def _digits() -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    return x[:500], y[:500]


def _piped(model: Any) -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("model", model)])


_KERNELS = ["rbf", "poly", "sigmoid"]
_STRATIFIED = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
TASKS: Mapping[str, Task] = {
    "breast cancer": Task(
        partial(load_breast_cancer, return_X_y=True),
        _piped(SVC(max_iter=10_000)),
        {"model__kernel": _KERNELS, "model__C": (1e-3, 1e4, "log"), "model__gamma": (1e-7, 1e1, "log")},
        _STRATIFIED,
    ),
    "diabetes": Task(
        partial(load_diabetes, return_X_y=True),
        _piped(SVR(max_iter=10_000)),
        {
            "model__kernel": _KERNELS,
            "model__C": (1e-2, 1e4, "log"),
            "model__gamma": (1e-6, 1e1, "log"),
            "model__epsilon": (1e-2, 1e2, "log"),
        },
        KFold(FOLDS, shuffle=True, random_state=0),
    ),
    "digits": Task(
        _digits,
        _piped(SVC(max_iter=10_000)),
        {
            "model__kernel": _KERNELS,
            "model__C": (1e-3, 1e4, "log"),
            "model__gamma": (1e-7, 1e1, "log"),
            "model__coef0": (0.0, 10.0),
        },
        _STRATIFIED,
    ),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The best mean score that a search found, and the seconds that it took."""

    score: float
    seconds: float


def random(task: Task, seed: int, trials: int) -> RandomizedSearchCV:
    """scikit-learn's random search."""
    space = {name: _of_scipy(given) for name, given in task.space.items()}
    return RandomizedSearchCV(
        task.pipeline, space, n_iter=trials, cv=task.folds, random_state=seed, refit=False, n_jobs=1
    )


def asktell(task: Task, seed: int, trials: int) -> AskTellSearchCV:
    """asktell's, with a server of its own."""
    space = {name: _of_scipy(given) for name, given in task.space.items()}
    return AskTellSearchCV(
        task.pipeline, space, n_trials=trials, cv=task.folds, random_state=seed, refit=False, n_jobs=1
    )


def optuna_tpe(task: Task, seed: int, trials: int) -> OptunaSearchCV:
    """Optuna's, with the sampler that it has by itself."""
    space = {name: _of_optuna(given) for name, given in task.space.items()}
    return OptunaSearchCV(
        task.pipeline, space, n_trials=trials, cv=task.folds, random_state=seed, refit=False, n_jobs=1
    )


SEARCHES = {"random": random, "optuna_tpe": optuna_tpe, "asktell": asktell}


def _of_scipy(given: Range) -> Any:
    match given:
        case (low, high, "log"):
            return loguniform(low, high)
        case (float(low), float(high)):
            return uniform(low, high - low)
    return given


def _of_optuna(given: Range) -> BaseDistribution:
    match given:
        case (low, high, "log"):
            return FloatDistribution(low, high, log=True)
        case (float(low), float(high)):
            return FloatDistribution(low, high)
    return CategoricalDistribution(list(given))


def searched(task: Task, search: str, *, seed: int, trials: int) -> Outcome:
    """Run one search."""
    x, y = task.data()
    start = time.perf_counter()
    done = SEARCHES[search](task, seed, trials).fit(x, y)
    return Outcome(float(done.best_score_), time.perf_counter() - start)


Outcomes = Mapping[tuple[str, str, int], Outcome]


def tables(outcomes: Outcomes, *, trials: int) -> list[tuple[str, list[str], list[list[str]]]]:
    """Titles, headings and rows: the best scores, and how far they are from the best known as a share of random search's distance."""
    tasks = list(dict.fromkeys(task for task, _, _ in outcomes))
    searches = list(dict.fromkeys(search for _, search, _ in outcomes))
    scores, gaps = [], []
    for task in tasks:
        best = max(outcome.score for key, outcome in outcomes.items() if key[0] == task)
        means = {search: _mean(outcomes, task, search) for search in searches}
        scores.append([task, f"{best:.4f}", *(f"{mean:.4f}" for mean in means.values())])
        gaps.append([(best - mean) / (best - means["random"]) for mean in means.values()])
    total = [statistics.mean(column) for column in zip(*gaps, strict=True)]
    scores.append(["distance, 1 is random search", "0", *(f"{share:.2f}" for share in total)])
    seconds = [statistics.mean(o.seconds for key, o in outcomes.items() if key[1] == search) for search in searches]
    title = f"Best mean score after {trials} candidates: means over seeds"
    return [
        (title, ["data", "best known", *searches], scores),
        ("Seconds of a search", list(searches), [[f"{mean:.1f}" for mean in seconds]]),
    ]


def _mean(outcomes: Outcomes, task: str, search: str) -> float:
    return statistics.mean(outcome.score for key, outcome in outcomes.items() if key[:2] == (task, search))


def written(found: Sequence[tuple[str, list[str], list[list[str]]]], seeds: str) -> str:
    """The tables as Markdown."""
    lines = [
        "# Searches over scikit-learn's estimators",
        "",
        f"`make bench-sklearn`, seeds {seeds}, {FOLDS} folds.",
        "",
    ]
    for title, heading, rows in found:
        lines += [f"{title}.", ""]
        lines += [f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows)]
        lines += [""]
    return "\n".join(lines)


app = cyclopts.App(help=__doc__)


@app.default
def main(
    *,
    seeds: str = "0-9",
    trials: Annotated[int, Parameter(validator=validators.Number(gte=5))] = 30,
    record: bool = False,
    results: Path = RESULTS,
) -> int:
    """Search three data sets by random search, Optuna's TPE and asktell, with equal folds.

    Parameters
    ----------
    seeds
        As 0-9 or 1,3.
    trials
        Candidates of each search.
    record
        Write the tables to `results`.
    results
        The file.
    """
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console, outcomes = Console(), dict[tuple[str, str, int], Outcome]()
    for name, task in TASKS.items():
        for seed in parsed(seeds):
            for search in SEARCHES:
                outcomes[name, search, seed] = searched(task, search, seed=seed, trials=trials)
            found = ", ".join(f"{search} {outcomes[name, search, seed].score:.4f}" for search in SEARCHES)
            console.print(f"{name}, seed {seed}: {found}", highlight=False)
    shown = tables(outcomes, trials=trials)
    for title, heading, rows in shown:
        table = Table(*heading, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if record:
        results.write_text(written(shown, seeds))
    return 0


if __name__ == "__main__":
    app()
