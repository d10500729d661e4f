"""A search over a pipeline of scikit-learn, in the place of RandomizedSearchCV.

Run it with `python -m examples.sklearn_search`: a server starts in this process. With a service of your own, give the search
`target="localhost:50051"`.
"""

from __future__ import annotations

from scipy.stats import loguniform
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

from asktell.integrations.sklearn import AskTellSearchCV


def main() -> None:
    """Search two kinds of classifier at once, each with parameters of its own."""
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
    scalers = [StandardScaler(), MinMaxScaler()]
    parameters = [
        {"scale": scalers, "model": [LogisticRegression(max_iter=1000)], "model__C": loguniform(1e-3, 1e3)},
        {
            "scale": scalers,
            "model": [SVC()],
            "model__C": loguniform(1e-3, 1e3),
            "model__gamma": loguniform(1e-5, 1e1),
        },
    ]
    pipeline = Pipeline([("scale", StandardScaler()), ("model", SVC())])
    search = AskTellSearchCV(pipeline, parameters, n_trials=15, cv=3, random_state=0, n_jobs=2)
    search.fit(x_train, y_train)
    print(f"best of {len(search.cv_results_['params'])}: {search.best_score_:.4f} with {search.best_params_}")
    print(f"on data that were kept back: {search.score(x_test, y_test):.4f}")


if __name__ == "__main__":
    main()
