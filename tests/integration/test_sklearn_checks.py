"""scikit-learn's own checks of estimators, on searches like those that it checks of its own."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils._test_common.instance_generator import PER_ESTIMATOR_XFAIL_CHECKS
from sklearn.utils.estimator_checks import estimator_checks_generator

from asktell.integrations.sklearn import AskTellSearchCV


def searches() -> list[AskTellSearchCV]:
    """Those of GridSearchCV in scikit-learn's own tests."""
    regression = Pipeline([("pca", PCA()), ("ridge", Ridge())])
    classification = Pipeline([("pca", PCA()), ("logisticregression", LogisticRegression())])
    return [
        search(Ridge(), "alpha"),
        search(LogisticRegression(), "C"),
        search(regression, "ridge__alpha"),
        search(classification, "logisticregression__C"),
    ]


def search(estimator: Any, name: str) -> AskTellSearchCV:
    return AskTellSearchCV(estimator, {name: [0.1, 1.0]}, cv=2, error_score="raise")


def checks() -> list[Any]:
    """All but those of array libraries, which need a graphics card or a switch that SciPy reads when it is imported."""
    xfails = PER_ESTIMATOR_XFAIL_CHECKS.get(GridSearchCV, {})
    found: list[Any] = []
    for index, each in enumerate(searches()):
        for pair in estimator_checks_generator(each, legacy=True, expected_failed_checks=xfails, mark="xfail"):
            estimator, check = pair if isinstance(pair, tuple) and len(pair) == 2 else pair.values
            name = getattr(check, "func", check).__name__
            marks = [*getattr(pair, "marks", ()), *([pytest.mark.slow] if index >= 2 else [])]
            if "array_api" not in name:
                found.append(pytest.param(estimator, check, marks=marks, id=f"{index}-{name}-{len(found)}"))
    return found


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(("estimator", "check"), checks())
def test_a_search_is_an_estimator_as_scikit_learn_wants_it(estimator, check):
    check(estimator)
