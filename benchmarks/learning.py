"""Problems that train scikit-learn's models on the data sets that ship with it. They are the same for every seed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.problem import Choice, Configuration, Param, Problem, Real, Seeded, Whole

Make = Callable[[Configuration], Any]
Function = Callable[[Configuration], float]
BROKEN = 10.0
"""The value of a configuration that cannot be trained."""
DIGITS = 700
"""So many of the handwritten digits are enough, and quick."""


def svm(data: str) -> Seeded:
    """Accuracy of a support-vector classifier."""

    def make(c: Configuration) -> Any:
        from sklearn.svm import SVC  # noqa: PLC0415 - slow to import, and only these problems need it.

        names = ("C", "gamma", "kernel", "coef0")
        return _scaled(SVC(**{name: c[name] for name in names}, degree=int(c["degree"]), max_iter=2000))

    params: list[Param] = [
        Real("C", 1e-3, 1e3, log=True),
        Real("gamma", 1e-4, 10, log=True),
        Real("coef0", -1, 1),
        Whole("degree", 2, 5),
        Choice("kernel", ("rbf", "poly", "sigmoid")),
    ]
    return _seedless(f"svm_{data}", params, lambda: cross_validated(make, data, scoring="accuracy"))


def mlp(data: str) -> Seeded:
    """Loss of a small network after fifteen epochs."""

    def make(c: Configuration) -> Any:
        from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: PLC0415

        model = MLPRegressor if data == "diabetes" else MLPClassifier
        return _scaled(
            model(
                hidden_layer_sizes=(int(c["width"]),) * int(c["depth"]),
                learning_rate_init=c["lr"],
                alpha=c["alpha"],
                batch_size=int(c["batch"]),
                activation=c["act"],
                beta_1=1 - c["one_minus_beta1"],
                max_iter=15,
                random_state=0,
            )
        )

    params: list[Param] = [
        Real("lr", 1e-5, 1e-1, log=True),
        Real("alpha", 1e-6, 1, log=True),
        Real("one_minus_beta1", 1e-2, 0.9, log=True),
        Whole("width", 4, 128, log=True),
        Whole("depth", 1, 3),
        Whole("batch", 8, 128, log=True),
        Choice("act", ("relu", "tanh", "logistic")),
    ]
    return _seedless(f"mlp_{data}", params, lambda: cross_validated(make, data, scoring=_loss(data)))


def gbm(data: str) -> Seeded:
    """Loss of gradient-boosted trees."""

    def make(c: Configuration) -> Any:
        from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # noqa: PLC0415

        model = GradientBoostingRegressor if data == "diabetes" else GradientBoostingClassifier
        return model(
            learning_rate=c["lr"],
            n_estimators=int(c["n"]),
            max_depth=int(c["depth"]),
            subsample=c["sub"],
            min_samples_leaf=int(c["leaf"]),
            max_features=c["feat"],
            random_state=0,
        )

    params: list[Param] = [
        Real("lr", 1e-3, 1, log=True),
        Whole("n", 5, 80),
        Whole("depth", 1, 8),
        Real("sub", 0.3, 1),
        Whole("leaf", 1, 30),
        Real("feat", 0.1, 1),
    ]
    return _seedless(f"gbm_{data}", params, lambda: cross_validated(make, data, scoring=_loss(data)))


def krr(data: str) -> Seeded:
    """Logarithm of the squared error of kernel ridge regression."""

    def make(c: Configuration) -> Any:
        from sklearn.kernel_ridge import KernelRidge  # noqa: PLC0415

        names = ("alpha", "kernel", "gamma", "coef0")
        return _scaled(KernelRidge(**{name: c[name] for name in names}, degree=int(c["degree"])))

    params: list[Param] = [
        Real("alpha", 1e-4, 1e4, log=True),
        Real("gamma", 1e-6, 1e2, log=True),
        Real("coef0", -2, 2),
        Whole("degree", 1, 4),
        Choice("kernel", ("rbf", "laplacian", "poly", "sigmoid")),
    ]

    def build() -> Function:
        error = cross_validated(make, data, scoring="neg_mean_squared_error")
        return lambda c: min(math.log(max(error(c), 1e-9)), 30.0)

    return _seedless(f"krr_{data}", params, build)


def ridge(data: str) -> Seeded:
    """Error of a linear model with an elastic net, trained by stochastic gradient descent."""

    def make(c: Configuration) -> Any:
        from sklearn.linear_model import SGDClassifier, SGDRegressor  # noqa: PLC0415

        options = {
            "alpha": c["alpha"],
            "l1_ratio": c["l1_ratio"],
            "eta0": c["eta0"],
            "power_t": c["power_t"],
            "learning_rate": "invscaling",
            "penalty": "elasticnet",
            "max_iter": 20,
            "random_state": 0,
        }
        if data == "diabetes":
            return _scaled(SGDRegressor(**options))
        return _scaled(SGDClassifier(loss="log_loss", **options))

    params: list[Param] = [
        Real("alpha", 1e-7, 1e1, log=True),
        Real("l1_ratio", 0, 1),
        Real("eta0", 1e-5, 1e1, log=True),
        Real("power_t", 0.05, 1),
    ]

    def build() -> Function:
        error = cross_validated(make, data, scoring=_loss(data))
        return lambda c: math.log1p(max(error(c), 0.0))

    return _seedless(f"ridge_{data}", params, build)


def cross_validated(make: Make, data: str, *, scoring: str) -> Function:
    """The mean loss of a model over three folds; `BROKEN` where it cannot be trained or is not finite."""
    from sklearn import datasets  # noqa: PLC0415
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score  # noqa: PLC0415

    inputs, labels = getattr(datasets, f"load_{data}")(return_X_y=True)
    if data == "digits":
        inputs, labels = inputs[:DIGITS], labels[:DIGITS]
    folds = (KFold if data == "diabetes" else StratifiedKFold)(3, shuffle=True, random_state=0)

    def function(configuration: Configuration) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                scores = cross_val_score(make(configuration), inputs, labels, cv=folds, scoring=scoring)
            except Exception:  # noqa: BLE001 - whatever a model cannot bear is a bad configuration, as in life.
                return BROKEN
        value = float(-np.mean(scores))
        return value if math.isfinite(value) else BROKEN

    return function


def _loss(data: str) -> str:
    return "neg_mean_squared_error" if data == "diabetes" else "neg_log_loss"


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), model)


def _seedless(name: str, params: list[Param], build: Callable[[], Function]) -> Seeded:
    return lambda _seed: Problem(name, params, build())
