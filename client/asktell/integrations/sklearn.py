"""A search over hyper-parameters for scikit-learn that has asktell choose, where GridSearchCV or RandomizedSearchCV stands.

scikit-learn fits, scores and refits; asktell gets a study for the search, a trial of which is one candidate with all its folds.
"""

from __future__ import annotations

import math
import numbers
import os
import re
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from joblib import effective_n_jobs
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state

from asktell.client import Client, FailedPrecondition, Maximize, Study, Trial, TrialState
from asktell.client.views import pause_before_next_ask
from asktell.integrations.choices import wire_name
from asktell.integrations.sklearn_space import Parameters, Space

MAX_METRICS: Final = 100
"""Metrics that a trial keeps: with more folds and scores than these, only the means are told."""

LONGEST_LEASE: Final = 24 * 3600.0
"""Seconds that a candidate may take where nobody else could take it."""

_ALL_FAILED = "fits failed.\nIt is very likely that your model is misconfigured."
_FOLD = re.compile(r"split\d+_test_.+")
_OVER = (TrialState.SUCCEEDED, TrialState.FAILED)
Evaluate: TypeAlias = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]


class AskTellSearchCV(BaseSearchCV):  # type: ignore[misc]  # scikit-learn ships no types
    """Search over an estimator's parameters by cross-validation, each candidate chosen after what the earlier ones scored.

    `parameters` are what RandomizedSearchCV takes (a dict of names and lists or distributions of scipy.stats, or a list of such dicts, of
    which each candidate follows one), or asktell's own: `[Float("C", 1e-3, 1e3, log=True)]`. At most `n_trials` candidates are evaluated.

    `target` is a service, such as "localhost:50051", or a `Path`, a database file for a server inside this process; by default one without
    a lasting file. A search that names a `study` of a target goes on with what is there, whoever evaluated it, and several processes
    that fit the same search share its trials. `batch_size` candidates are chosen at a time, by default enough to keep `n_jobs` busy.
    Several scores of which `refit` names none are all objectives; else it is the one that `refit` names.

    An integer `random_state` makes the search repeatable. The other options and the attributes after a fit are those of GridSearchCV;
    `study_name_` says where the trials are, if they are still anywhere.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSearchCV._parameter_constraints,  # noqa: SLF001 - how scikit-learn's own searches extend it.
        "parameters": [dict, list, tuple],
        "n_trials": [numbers.Integral],
        "target": [str, os.PathLike, None],
        "study": [str, None],
        "project": [str],
        "policy": [str],
        "batch_size": [numbers.Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(  # noqa: PLR0913 - one keyword for each option.
        self,
        estimator: Any,
        parameters: Parameters,
        *,
        n_trials: int = 30,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: bool | str | Callable[..., int] = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        target: str | os.PathLike[str] | None = None,
        study: str | None = None,
        project: str = "default",
        policy: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        self.parameters = parameters
        self.n_trials = n_trials
        self.target = target
        self.study = study
        self.project = project
        self.policy = policy
        self.batch_size = batch_size
        self.random_state = random_state
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )

    def _run_search(self, evaluate_candidates: Callable[..., Mapping[str, Any]], *, callback_ctx: Any = None) -> None:
        """What scikit-learn calls in `fit`, within its own parallel context."""
        space = Space.of(self.parameters)
        _require_positive(n_trials=self.n_trials, batch_size=self.batch_size)
        self._table = _Table(error_score=self.error_score)
        try:
            with self._opened(space) as study, _observed(self, callback_ctx, evaluate_candidates) as evaluate:
                shared, refit = self.study is not None, self.refit if isinstance(self.refit, str) else None
                search = _Search(study, space, self._scores(), self._table, evaluate, refit=refit, shared=shared)
                search.run(self._batch_size())
            self._table.complete(super()._format_results)
        finally:
            del self._table

    def _format_results(
        self, candidate_params: Sequence[Mapping[str, Any]], n_splits: int, out: Sequence[Any], more_results: Any = None
    ) -> Any:
        """scikit-learn's table, with rows for the candidates that it has no fits of: those that failed altogether, and others' trials."""
        fitted = _Fitted(list(candidate_params), n_splits, list(out), more_results)
        return self._table.shown(fitted, super()._format_results)

    def __getstate__(self) -> dict[str, Any]:
        """Without the table: scikit-learn sends the search along with each fit."""
        return {name: value for name, value in super().__getstate__().items() if name != "_table"}

    def _scores(self) -> list[str]:
        """The scores to maximise, by scikit-learn's names."""
        several = list(self.scoring) if isinstance(self.scoring, list | tuple | set | dict) else ["score"]
        return [self.refit] if isinstance(self.refit, str) and self.refit in several else several

    def _batch_size(self) -> int:
        return self.batch_size or math.ceil(effective_n_jobs(self.n_jobs) / _folds(self.cv))

    @contextmanager
    def _opened(self, space: Space) -> Iterator[Study]:
        """The study of the search. One that nobody can come back to is deleted after it."""
        if self.target is None:
            if self.study is not None:
                raise ValueError(f"a study of a name, {self.study!r}, needs a target that keeps it")
            study = self._create(_private_client(), space, lease=LONGEST_LEASE)
            try:
                yield study
            finally:
                study.delete()
            return
        with _client(self.target, self.project) as client:
            study = self._create(client, space, lease=None)
            self.study_name_ = study.name
            yield study

    def _create(self, client: Client, space: Space, *, lease: float | None) -> Study:
        return client.create_study(
            self.study or f"sklearn-{uuid.uuid4().hex}",
            parameters=list(space.parameters),
            objectives=[Maximize(wire_name(score)) for score in self._scores()],
            policy=self.policy,
            seed=self._seed(),
            max_trials=self.n_trials,
            lease_duration=lease,
        )

    def _seed(self) -> int | None:
        """The study's seed; None, the service's, for a named study without one, so that processes agree."""
        if self.study is not None and self.random_state is None:
            return None
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table that scikit-learn has no fits for: its place among all, its candidate, and its scores by fold; none if it failed."""

    place: int
    candidate: Mapping[str, Any]
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    fit_time: float = 0.0

    def fits(self, examples: Sequence[Mapping[str, Any]], *, error_score: Any) -> list[dict[str, Any]]:
        """What scikit-learn would have for each fold, in the form that it has for another candidate."""
        return [self._fit(fold, example, error_score) for fold, example in enumerate(examples)]

    def _fit(self, fold: int, example: Mapping[str, Any], error_score: Any) -> dict[str, Any]:
        scores = {name: values[fold] for name, values in self.scores.items()}
        filled = {"test_scores": _alike(example["test_scores"], scores, error_score)}
        if "train_scores" in example:
            filled["train_scores"] = _alike(example["train_scores"], {}, np.nan if scores else error_score)
        return {**example, **filled, "fit_time": self.fit_time, "score_time": 0.0}


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What scikit-learn knows of its candidates: all that it makes its table from."""

    candidates: list[Mapping[str, Any]]
    folds: int
    fits: list[Mapping[str, Any]]
    more: Any


@dataclass(slots=True)
class _Table:
    """scikit-learn's table, with rows for the candidates that it has no fits of: those that failed altogether, and others' trials."""

    error_score: Any
    rows: list[_Row] = field(default_factory=list)
    latest: tuple[_Fitted, dict[str, Any]] | None = None

    def shown(self, fitted: _Fitted, format_results: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        """The table as it stands."""
        found = self._made(fitted, format_results)
        self.latest = fitted, found
        return found

    def complete(self, format_results: Callable[..., dict[str, Any]]) -> None:
        """Put the rows that were added last into the table that scikit-learn goes on with."""
        if self.latest is not None:
            fitted, found = self.latest
            made = self._made(fitted, format_results)
            found.clear()
            found.update(made)

    def _made(self, fitted: _Fitted, format_results: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        candidates, fits = list(fitted.candidates), list(fitted.fits)
        for row in self.rows:
            candidates.insert(row.place, row.candidate)
            first = row.place * fitted.folds
            fits[first:first] = row.fits(fitted.fits[: fitted.folds], error_score=self.error_score)
        return format_results(candidates, fitted.folds, fits, fitted.more)


@dataclass(slots=True)
class _Search:
    """One fit's part in a study: what it evaluates, and what it tells. `done` are the numbers of the trials in the table, in its order."""

    study: Study
    space: Space
    scores: Sequence[str]
    table: _Table
    evaluate: Evaluate
    refit: str | None
    shared: bool
    done: list[int] = field(default_factory=list)
    failure: ValueError | None = None

    def run(self, batch_size: int) -> None:
        """Evaluate until the study hands out no more trials; then take in those of others. ValueError if nothing could be fitted."""
        while True:
            answer = self.study.ask_once(batch_size)
            if answer.trials:
                self._evaluate(answer.trials)
            elif answer.closed:
                break
            else:
                time.sleep(pause_before_next_ask(answer.retry_after))
        if self.shared:
            self._take_in_others()
        if self.table.latest is None:
            raise self.failure or ValueError(f"no trial of {self.study.name} succeeded")

    def _evaluate(self, trials: Sequence[Trial]) -> None:
        candidates = [self.space.received(trial.parameters) for trial in trials]
        with ExitStack() as leases:
            for trial in trials:
                leases.enter_context(trial)
            start = time.monotonic()
            try:
                results = self.evaluate(candidates)
            except ValueError as error:
                if self.table.error_score == "raise" or _ALL_FAILED not in str(error):
                    raise
                self._fail_all(trials, candidates, error, (time.monotonic() - start) / len(trials))
            else:
                for trial in trials:
                    self._tell(trial, results)

    def _fail_all(
        self, trials: Sequence[Trial], candidates: Sequence[Mapping[str, Any]], error: ValueError, seconds: float
    ) -> None:
        """scikit-learn raises if no fit of a call works, and forgets the candidates. A later batch may do better."""
        self.failure = error
        for trial, candidate in zip(trials, candidates, strict=True):
            self._add(trial, candidate, {}, seconds)
            _fail(trial, str(error).strip())

    def _add(
        self, trial: Trial, candidate: Mapping[str, Any], scores: Mapping[str, Sequence[float]], seconds: float = 0.0
    ) -> None:
        self.table.rows.append(_Row(len(self.done), candidate, scores, seconds))
        self.done.append(trial.number)

    def _tell(self, trial: Trial, results: Mapping[str, Any]) -> None:
        place = len(self.done)
        self.done.append(trial.number)
        means = {wire_name(score): float(self._means(results, score)[place]) for score in self.scores}
        if not all(map(math.isfinite, means.values())):
            _fail(trial, f"scores are not finite: {means}")
            return
        folds = {wire_name(name): float(values[place]) for name, values in results.items() if _FOLD.fullmatch(name)}
        trial.conclude({**folds, **means} if len(folds) + len(means) <= MAX_METRICS else means)

    def _means(self, results: Mapping[str, Any], score: str) -> Sequence[float]:
        """The column of a score. What a scoring function returns may have names, of which `refit` says one."""
        for name in (score, self.refit):
            if f"mean_test_{name}" in results:
                return results[f"mean_test_{name}"]  # type: ignore[no-any-return]
        found = ", ".join(_score_names(results))
        raise ValueError(
            f"the scoring function returns {found}: say by refit which of them to search for, or list them"
        )

    def _take_in_others(self) -> None:
        """Rows for the trials that other processes evaluated, or this search in an earlier process."""
        others = [each for each in self.study.list_trials(_OVER) if each.number not in self.done]
        if self.table.latest is None and any(each.state is TrialState.SUCCEEDED for each in others):
            others.remove(again := _first_best(self.study, others))
            self.evaluate([self.space.received(again.parameters)])
            self.done.insert(0, again.number)
        if self.table.latest is not None:
            fitted, results = self.table.latest
            for trial in others:
                scores = _fold_scores(trial, _score_names(results), fitted.folds, self.scores)
                self._add(trial, self.space.received(trial.parameters), scores)


def _folds(cv: Any) -> int:
    """How many folds there are, as far as the option says without data; else as if there were many."""
    if cv is None or isinstance(cv, numbers.Integral):
        return 5 if cv is None else int(cv)
    if not hasattr(cv, "get_n_splits"):
        return len(cv) if hasattr(cv, "__len__") else sys.maxsize
    try:
        return int(cv.get_n_splits())
    except (TypeError, ValueError):
        return sys.maxsize


def _first_best(study: Study, among: Sequence[Trial]) -> Trial:
    """The best of these, of which one succeeded at least. Another process may have told a better one since they were listed: then any."""
    best = {trial.number for trial in study.optimal_trials()}
    succeeded = [trial for trial in among if trial.state is TrialState.SUCCEEDED]
    return next((trial for trial in succeeded if trial.number in best), succeeded[0])


def _fold_scores(trial: Trial, names: Sequence[str], folds: int, objectives: Sequence[str]) -> dict[str, list[float]]:
    """The scores that were told of a trial; each fold has the mean where there were too many folds to tell. Empty if it failed."""
    told = {name: metric.value for name, metric in trial.metrics.items()}
    if trial.state is not TrialState.SUCCEEDED:
        return {}
    means = dict(zip(names, (told.get(wire_name(each), math.nan) for each in objectives), strict=False))
    return {
        name: [told.get(wire_name(f"split{fold}_test_{name}"), means.get(name, math.nan)) for fold in range(folds)]
        for name in names
    }


def _score_names(results: Mapping[str, Any]) -> list[str]:
    return [name.removeprefix("mean_test_") for name in results if name.startswith("mean_test_")]


def _alike(example: Any, scores: Mapping[str, float], otherwise: Any) -> Any:
    """Scores in the form of an example: a number, or one for each name."""
    if isinstance(example, dict):
        return {name: scores.get(name, otherwise) for name in example}
    return next(iter(scores.values()), otherwise)


def _fail(trial: Trial, message: str) -> None:
    """Tell a failure, unless the trial is somebody else's by now."""
    try:
        trial.fail(message)
    except FailedPrecondition:
        if not trial.lost:
            raise


@contextmanager
def _observed(search: AskTellSearchCV, context: Any, evaluate: Callable[..., Any]) -> Iterator[Evaluate]:
    """How candidates are evaluated, with news for scikit-learn's callbacks, which it has from 1.9 on: each batch is a task."""
    if context is None:
        yield evaluate
        return
    whole = context.subcontext(task_name="search", max_subtasks=None).call_on_fit_task_begin(estimator=search)

    def evaluated(candidates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        fits = len(candidates) * search.n_splits_
        batch = whole.subcontext(task_name="batch", max_subtasks=fits, sequential_subtasks=False)
        batch.call_on_fit_task_begin(estimator=search)
        results: Mapping[str, Any] = evaluate(candidates, callback_ctx=batch)
        batch.call_on_fit_task_end(estimator=search)
        return results

    yield evaluated
    whole.call_on_fit_task_end(estimator=search)


def _client(target: str | os.PathLike[str], project: str) -> Client:
    if isinstance(target, str):
        return Client(target, project=project)
    return Client.local(target, project=project, speculate=False)


def _private_client() -> Client:
    """A client of this process's own server, whose database lasts as long as the process. Starting one for each fit would take a second."""
    with _lock:
        client = _clients.get(os.getpid())
        if client is None:
            folder = tempfile.TemporaryDirectory(prefix="asktell-")
            client = _clients[os.getpid()] = Client.local(Path(folder.name) / "searches.db", speculate=False)
            _folders.append(folder)
        return client


def _close_private_client() -> None:
    """End this process's own server, if it runs; the next fit starts another."""
    with _lock:
        client = _clients.pop(os.getpid(), None)
        if client is not None:
            client.close()


_lock = threading.Lock()
_clients: dict[int, Client] = {}
_folders: list[tempfile.TemporaryDirectory[str]] = []


def _require_positive(**numbers_: int | None) -> None:
    for name, number in numbers_.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, not {number}")
