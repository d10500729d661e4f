"""Trials as a table."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asktell.client.errors import MissingExtra
from asktell.client.values import TrialRecord

if TYPE_CHECKING:
    import pandas as pd


def to_dataframe(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """A pandas table with one row a trial. MissingExtra without pandas."""
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise MissingExtra("to_dataframe needs pandas: install asktell[dataframe]", reason="MISSING_EXTRA") from error
    table: pd.DataFrame = pandas.DataFrame([row(trial) for trial in trials])
    return table


def row(trial: TrialRecord) -> dict[str, Any]:
    """A trial as columns; a parameter or metric is named after its kind, such as `parameters.learning_rate` and `metrics.accuracy`."""
    metrics = {f"metrics.{name}": metric.value for name, metric in trial.metrics.items()}
    spreads = {
        f"metrics.{name}.standard_error": metric.standard_error
        for name, metric in trial.metrics.items()
        if metric.standard_error is not None
    }
    return {
        "number": trial.number,
        "state": trial.state.value,
        **{f"parameters.{name}": value for name, value in trial.parameters.items()},
        **metrics,
        **spreads,
        "policy": trial.origin.policy,
        "parent": trial.parent,
        "member": trial.member,
        "worker_id": trial.worker_id,
        "attempt": trial.attempt,
        "message": trial.message,
        "create_time": trial.create_time,
        "start_time": trial.start_time,
        "end_time": trial.end_time,
    }
