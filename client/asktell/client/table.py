"""Trials as a table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asktell.client import feasibility, wire
from asktell.client.errors import MissingExtra, Unavailable
from asktell.client.values import MetricValue, StudyRecord, TrialRecord
from asktell.v1 import study_service_pb2

if TYPE_CHECKING:
    import pandas as pd

_LAST = (
    *("feasible", "policy", "parent", "member", "worker_id", "attempt", "message"),
    *("create_time", "start_time", "end_time", "duration"),
)
"""The columns after those of parameters and metrics, whatever the study."""


def to_dataframe(study: StudyRecord, trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """A pandas table with one row a trial, with its columns also where there is none. MissingExtra without pandas."""
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise MissingExtra("to_dataframe needs pandas: install asktell[dataframe]", reason="MISSING_EXTRA") from error
    rows = [row(trial, study) for trial in trials]
    table: pd.DataFrame = pandas.DataFrame(rows, columns=_columns(study, rows))
    return table


def row(trial: TrialRecord, study: StudyRecord) -> dict[str, Any]:
    """A trial as columns; a parameter or metric is named after its kind, such as `parameters.learning_rate` and `metrics.accuracy`."""
    return {
        "number": trial.number,
        "state": trial.state.value,
        **{f"parameters.{name}": value for name, value in trial.parameters.items()},
        **_metrics(trial.metrics),
        "feasible": feasibility.of(trial, study),
        "policy": trial.origin.policy,
        "parent": trial.parent,
        "member": trial.member,
        "worker_id": trial.worker_id,
        "attempt": trial.attempt,
        "message": trial.message,
        "create_time": trial.create_time,
        "start_time": trial.start_time,
        "end_time": trial.end_time,
        "duration": trial.end_time - trial.start_time if trial.start_time and trial.end_time else None,
        **{f"metadata.{key}": text for key, text in trial.metadata.items()},
    }


def _metrics(given: Mapping[str, MetricValue]) -> dict[str, float]:
    """The values by their columns, then the standard errors that there are."""
    errors = {name: metric.standard_error for name, metric in given.items() if metric.standard_error is not None}
    return {
        **{f"metrics.{name}": metric.value for name, metric in given.items()},
        **{f"metrics.{name}.standard_error": error for name, error in errors.items()},
    }


def _columns(study: StudyRecord, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns in their order: parameters and metrics in the study's, and what else there is of a kind by name."""
    named = [f"metrics.{each.metric}" for each in (*study.objectives, *study.outcome_constraints)]
    first = ["number", "state", *(f"parameters.{each.name}" for each in study.parameters)]
    known = list(dict.fromkeys([*first, *named]))
    others = sorted({name for each in rows for name in each} - {*known, *_LAST})
    inner, notes = (
        [name for name in others if not name.startswith("metadata.")],
        [name for name in others if name.startswith("metadata.")],
    )
    return [*known, *inner, *_LAST, *notes]


@dataclass(slots=True)
class History:
    """What trials reported on the way, out of the replies of an export."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    def take(self, reply: study_service_pb2.ExportStudyResponse) -> None:
        """Take in a reply."""
        for record in reply.records:
            self.ended = record.HasField("end")
            for message in record.reported.measurements:
                measured = wire.unpack_measurement(message)
                number = {"number": record.reported.number, "step": measured.step}
                self.rows.append({**number, **_metrics(measured.metrics), "create_time": measured.create_time})

    def whole(self) -> list[dict[str, Any]]:
        """All of it; Unavailable if the stream was cut before its end."""
        if not self.ended:
            raise Unavailable("the history was cut off before its end: read it again", reason="ARCHIVE_CUT_OFF")
        return self.rows
