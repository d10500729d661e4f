"""AskTellSearchCV where GridSearchCV or RandomizedSearchCV stands: what it searches, tells, keeps, and shares."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.model_selection import KFold, LeaveOneOut, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from asktell.client import Categorical, Client, Float, Int, InvalidArgument, TrialState
from asktell.integrations.sklearn import AskTellSearchCV
from asktell.integrations.sklearn_space import Space

ROOT = Path(__file__).parents[2]
X, Y = load_iris(return_X_y=True)
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


class Guess(ClassifierMixin, BaseEstimator):
    """Scores what its parameter says; it cannot be fitted below 0."""

    def __init__(self, level=0.5):
        self.level = level

    def fit(self, x, y):
        if self.level < 0:
            raise ArithmeticError("below zero")
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return np.full(len(x), self.classes_[0])

    def score(self, x, y):
        return 1 - (self.level - 0.3) ** 2


class Walk(Guess):
    """Scores by a part that only some of its kinds have."""

    def __init__(self, level=0.5, kind="a", part=None):
        super().__init__(level)
        self.kind = kind
        self.part = part

    def score(self, x, y):
        return super().score(x, y) - (0.5 if self.kind == "a" else (self.part - 4) ** 2 / 10)


def guess(parameters, **options):
    return AskTellSearchCV(Guess(), parameters, **{"random_state": 0, "cv": 3, "n_trials": 8} | options)


def test_it_finds_more_than_random_search_with_as_many_candidates():
    level = {"level": stats.uniform(0, 100)}
    random = RandomizedSearchCV(Guess(), level, n_iter=20, random_state=0, cv=3).fit(X, Y)
    assert guess(level, n_trials=20).fit(X, Y).best_score_ > random.best_score_


def test_a_fit_with_the_same_random_state_is_the_same_also_by_batches():
    for batch_size in (1, 3):
        first, second = (guess({"level": stats.uniform(0, 1)}, batch_size=batch_size).fit(X, Y) for _ in range(2))
        assert first.cv_results_["params"] == second.cv_results_["params"]
    other = guess({"level": stats.uniform(0, 1)}, random_state=1, batch_size=3).fit(X, Y)
    assert other.cv_results_["params"] != first.cv_results_["params"]


@pytest.mark.parametrize("cv", [LeaveOneOut(), KFold(3), iter(KFold(2).split(X)), list(KFold(2).split(X)), None])
def test_any_kind_of_folds_will_do(cv):
    some = slice(0, 150, 10)
    x, y = (X, Y) if not isinstance(cv, LeaveOneOut) else (X[some], Y[some])
    assert len(guess({"level": [0.1, 0.2, 0.5]}, cv=cv, n_jobs=1).fit(x, y).cv_results_["params"]) == 3


def test_a_random_state_object_moves_on():
    state = np.random.RandomState(0)
    first, second = (guess({"level": stats.uniform(0, 1)}, random_state=state).fit(X, Y) for _ in range(2))
    assert first.cv_results_["params"] != second.cv_results_["params"]


def test_a_grid_that_is_smaller_than_the_budget_is_searched_whole_and_once():
    found = guess({"level": [0.1, 0.2, 0.5, 0.9], "missing": [None]}, n_trials=50)
    found.estimator = WithMissing()
    found.fit(X, Y)
    assert sorted(each["level"] for each in found.cv_results_["params"]) == [0.1, 0.2, 0.5, 0.9]
    assert found.best_params_ == {"level": 0.2, "missing": None}


class WithMissing(Guess):
    """Has another parameter, with a constant."""

    def __init__(self, level=0.5, missing=0):
        super().__init__(level)
        self.missing = missing


def test_the_columns_are_those_of_randomized_search():
    options = {"scoring": ["accuracy", "f1_macro"], "refit": "f1_macro", "return_train_score": True, "cv": 3}
    grid = {"level": stats.uniform(0, 1)}
    random = RandomizedSearchCV(Guess(), grid, n_iter=4, random_state=0, **options).fit(X, Y)
    found = AskTellSearchCV(Guess(), grid, n_trials=4, random_state=0, **options).fit(X, Y)
    assert set(found.cv_results_) == set(random.cv_results_)
    assert found.best_score_ == found.cv_results_["mean_test_f1_macro"].max()


def test_choices_are_the_very_objects_that_were_given():
    double = FunctionTransformer(np.sqrt)
    scalers = [StandardScaler(), MinMaxScaler(), double, "passthrough", None]
    space = Space.of({"scale": scalers, "clf__n_neighbors": [1, 3, 5, 7]})
    (scale, neighbors) = space.parameters
    assert [space.received({"scale": each, "clf__n_neighbors": 3})["scale"] for each in scale.choices] == scalers
    assert neighbors.values == (1, 3, 5, 7)
    pipeline = Pipeline([("scale", None), ("clf", KNeighborsClassifier())])
    found = AskTellSearchCV(pipeline, {"scale": scalers, "clf__n_neighbors": [1, 3, 5, 7]}, n_trials=10, random_state=0)
    found.fit(X, Y)
    assert all(any(each["scale"] is scaler for scaler in scalers) for each in found.cv_results_["params"])


def test_each_candidate_follows_one_of_several_dicts():
    level = stats.uniform(0, 1)
    grids = [{"kind": ["a"], "level": level}, {"kind": ["b"], "level": level, "part": stats.randint(0, 10)}]
    found = AskTellSearchCV(Walk(), grids, n_trials=25, random_state=0, cv=3).fit(X, Y)
    assert {frozenset(each) for each in found.cv_results_["params"]} == {
        frozenset({"kind", "level"}),
        frozenset({"kind", "level", "part"}),
    }
    assert found.best_params_["kind"] == "b"
    assert found.best_score_ > 0.9


def test_what_dicts_have_alike_is_one_parameter():
    shared, other = stats.loguniform(0.1, 10), stats.loguniform(0.1, 100)
    grids = [{"kind": ["a"], "C": shared}, {"kind": ["b"], "C": shared}, {"kind": ["c"], "C": other}]
    selector, first, second = Space.of(grids).parameters
    assert (first.name, first.when.values) == ("C", selector.choices[:2])
    assert (second.name, second.when.values) == ("C:2", selector.choices[2:])


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        (stats.uniform(1, 4), Float("x", 1, 5)),
        (stats.loguniform(1e-3, 10), Float("x", 1e-3, 10, log=True)),
        (stats.randint(2, 9), Int("x", 2, 8)),
        (stats.norm(3, 2), Float("x:quantile", 0.001, 0.999)),
        (stats.poisson(3), Float("x:quantile", 0.001, 0.999)),
        (stats.uniform, Float("x", 0, 1)),
        (["a", "b"], Categorical("x", ["a", "b"])),
        ([3, 1], Categorical("x", [3, 1])),
        (np.linspace(0, 1, 2000), Int("x", 0, 1999)),
        (Float("x", 0, 2), Float("x", 0, 2)),
    ],
)
def test_choices_and_distributions_become_parameters(given, spec):
    assert Space.of({"x": given}).parameters == [spec]


def test_other_distributions_are_searched_by_their_quantiles():
    assert Space.of({"x": stats.norm(3, 2)}).received({"x:quantile": 0.5}) == {"x": 3.0}
    found = Space.of({"x": stats.poisson(3)}).received({"x:quantile": 0.5})["x"]
    assert (found, type(found)) == (3, int)


def test_asktells_own_parameters_may_have_conditions():
    parameters = [Float("level", 0, 1), Categorical("kind", ["a", "b"]), Int("part", 0, 10, when=("kind", ["b"]))]
    found = AskTellSearchCV(Walk(), parameters, n_trials=20, random_state=0, cv=3).fit(X, Y)
    assert all(("part" in each) == (each["kind"] == "b") for each in found.cv_results_["params"])


@pytest.mark.parametrize(
    ("parameters", "error", "named"),
    [
        ({"level": []}, ValueError, "level"),
        ({"level": 3.0}, TypeError, "level"),
        ({"level": "abc"}, TypeError, "level"),
        ({"level": Float("other", 0, 1)}, ValueError, "other"),
        ({"level": [object() for _ in range(1001)]}, ValueError, "1,001"),
        ([], TypeError, "parameters"),
        ([{"level": [0.1]}, Float("level", 0, 1)], TypeError, "parameters"),
    ],
)
def test_what_is_no_space_is_refused_by_name(parameters, error, named):
    with pytest.raises(error, match=named):
        guess(parameters).fit(X, Y)


@pytest.mark.parametrize("options", [{"n_trials": 0}, {"batch_size": 0}, {"study": "name"}, {"policy": "nonsense"}])
def test_what_makes_no_sense_is_refused_by_name(options):
    with pytest.raises((ValueError, InvalidArgument), match=next(iter(options))):
        guess({"level": [0.1, 0.2]}, **options).fit(X, Y)


def test_candidates_that_cannot_be_fitted_stand_in_the_table_and_are_told_as_failed(tmp_path):
    target = tmp_path / "searches.db"
    found = guess({"level": [-2.0, -1.0, 0.4, 0.8]}, n_trials=4, target=target, study="failing").fit(X, Y)
    scores = dict(zip(found.cv_results_["param_level"], found.cv_results_["mean_test_score"], strict=True))
    assert np.isnan([scores[-2.0], scores[-1.0]]).all()
    assert found.best_params_ == {"level": 0.4}
    assert len(found.cv_results_["rank_test_score"]) == len(found.cv_results_["params"]) == 4
    with Client.local(target) as client:
        counts = client.get_study("failing").counts
    assert (counts.succeeded, counts.failed) == (2, 2)


def test_if_nothing_can_be_fitted_scikit_learns_own_error_says_so():
    with pytest.raises(ValueError, match="All the 3 fits failed"):
        guess({"level": [-2.0, -1.0]}).fit(X, Y)


def test_with_error_score_raise_the_estimators_own_error_comes_and_the_trial_is_told_as_failed(tmp_path):
    target = tmp_path / "searches.db"
    with pytest.raises(ArithmeticError, match="below zero"):
        guess({"level": [-2.0, -1.0]}, error_score="raise", target=target, study="raising").fit(X, Y)
    with Client.local(target) as client:
        (trial,) = client.get_study("raising").list_trials()
    assert trial.state is TrialState.FAILED
    assert "below zero" in trial.message


def test_a_search_of_a_name_goes_on_where_it_was_left(tmp_path):
    target = tmp_path / "searches.db"
    options = {"target": target, "study": "left"}
    first = guess({"level": stats.uniform(0, 1)}, n_trials=6, **options).fit(X, Y)
    again = guess({"level": stats.uniform(0, 1)}, n_trials=6, **options).fit(X, Y)
    assert first.study_name_ == "projects/default/studies/left"
    assert again.best_params_ == first.best_params_
    assert again.best_score_ == pytest.approx(first.best_score_)
    levels = [sorted(each["level"] for each in search.cv_results_["params"]) for search in (first, again)]
    assert levels[0] == levels[1]
    assert sorted(first.cv_results_["split2_test_score"]) == pytest.approx(
        sorted(again.cv_results_["split2_test_score"])
    )


def test_searches_of_one_name_share_the_trials(tmp_path):
    found = []

    def search() -> None:
        found.append(
            guess({"level": stats.uniform(0, 1)}, n_trials=12, target=tmp_path / "a.db", study="shared").fit(X, Y)
        )

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    levels = [sorted(each["level"] for each in search.cv_results_["params"]) for search in found]
    assert levels[0] == levels[1]
    assert len(levels[0]) == 12
    assert found[0].best_params_ == found[1].best_params_


def test_scores_of_which_refit_names_none_are_all_objectives(tmp_path):
    options = {"scoring": {"one": "accuracy", "an other": "f1_macro"}, "refit": False, "cv": 3}
    target = tmp_path / "searches.db"
    search = AskTellSearchCV(Guess(), {"level": stats.uniform(0, 1)}, n_trials=3, target=target, study="two", **options)
    search.fit(X, Y)
    with Client.local(target) as client:
        assert len(client.get_study("two").objectives) == 2
    assert "mean_test_an other" in search.cv_results_
    assert not hasattr(search, "best_index_")


def test_a_scoring_function_with_names_is_searched_by_the_one_that_refit_says():
    def scores(estimator, x, y):
        return {"good": estimator.score(x, y), "bad": -estimator.score(x, y)}

    found = guess({"level": stats.uniform(0, 100)}, scoring=scores, refit="good", n_trials=15).fit(X, Y)
    assert found.best_score_ == found.cv_results_["mean_test_good"].max()
    with pytest.raises(ValueError, match="good, bad"):
        guess({"level": stats.uniform(0, 100)}, scoring=scores, refit=False).fit(X, Y)


def test_a_search_can_be_cloned_and_pickled_before_and_after_a_fit(tmp_path):
    search = guess({"level": stats.uniform(0, 1)}, target=tmp_path / "a.db")
    assert clone(search).get_params()["target"] == search.target
    fitted = pickle.loads(pickle.dumps(search.fit(X, Y)))
    assert fitted.best_params_ == search.best_params_
    assert (fitted.predict(X) == search.predict(X)).all()


def test_a_search_within_a_cross_validation_needs_nothing_else():
    from sklearn.model_selection import cross_val_score

    scores = cross_val_score(guess({"level": [0.1, 0.5, 0.9]}, n_trials=3), X, Y, cv=2, error_score="raise")
    assert len(scores) == 2


def test_the_example_runs():
    command = [sys.executable, "-m", "examples.sklearn_search"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "best" in done.stdout
