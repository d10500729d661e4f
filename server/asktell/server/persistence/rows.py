"""Domain values as rows of the tables, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from asktell.server.application.ports import Charted, CurvePoint, Locked, NewStudy, Replay, Request, StoredMetric
from asktell.server.domain.metric import Measurement, MetricValue
from asktell.server.domain.study import Study, StudyName, StudyState, TrialCounts
from asktell.server.domain.trial import Lease, Trial, TrialState
from asktell.server.persistence import encoding
from asktell.server.persistence.column_types import digits_of, text_of
from asktell.server.persistence.membership import Item
from asktell.server.persistence.statements import TRIAL_STATE
from asktell.server.persistence.tables import studies

Values = dict[str, Any]

_STUDY_COLUMNS = len(studies.c)
_TRIAL_STATES = {state.value: state for state in TrialState}
_STUDY_STATES = {state.value: state for state in StudyState}

REPLY_LIFETIME = timedelta(hours=24)


def new_study_values(new: NewStudy) -> Values:
    """The columns of a new study but its times, which are the database's."""
    return {
        "project": new.name.project,
        "name": new.name.study,
        "spec": encoding.pack_spec(new.spec),
        "seed": new.seed,
        "state": StudyState.ACTIVE.value,
        "budget": encoding.pack_budget(new.budget),
        "labels": encoding.pack_notes(new.labels),
        "next_number": 1,
        "change_seq": 1,
        "own_seq": 1,
    }


def staged_study_values(study: Study, *, project: str, name: str) -> Values:
    """The columns of a study that exists elsewhere, under another name, but the time of its update."""
    return {
        "project": project,
        "name": name,
        "seed": study.seed,
        "change_seq": study.sequence,
        "create_time": study.create_time,
        **study_changes(study),
    }


def study_changes(study: Study) -> Values:
    """The columns of a study that may change."""
    return {
        "spec": encoding.pack_spec(study.spec),
        "state": study.state.value,
        "budget": encoding.pack_budget(study.budget),
        "labels": encoding.pack_notes(study.labels),
        "next_number": study.next_number,
        "own_seq": study.own_sequence,
    }


def study(row: Row[Any]) -> Study:
    """The study in a row that begins with the columns of `studies`."""
    (
        study_id,
        project,
        name,
        spec,
        seed,
        state,
        budget,
        labels,
        next_number,
        sequence,
        create_time,
        update_time,
        own_sequence,
    ) = row[:_STUDY_COLUMNS]
    return Study(
        id=study_id,
        name=StudyName(project, name),
        spec=encoding.unpack_spec(spec),
        seed=seed,
        budget=encoding.unpack_budget(budget),
        labels=encoding.unpack_notes(labels),
        state=_STUDY_STATES[state],
        next_number=next_number,
        sequence=sequence,
        own_sequence=own_sequence,
        create_time=create_time,
        update_time=update_time,
    )


def locked(row: Row[Any], *, changes: int, new_trials: int = 0) -> Locked:
    """The locked study in a row of `studies` with `now`, `fingerprint`, `response` and `incarnation`, in which so much was reserved."""
    return locked_study(study(row), row, changes=changes, new_trials=new_trials)


def locked_study(of_row: Study, row: Row[Any], *, changes: int, new_trials: int = 0) -> Locked:
    """As `locked`, of a row whose study was read already."""
    now, fingerprint, response, incarnation = row[_STUDY_COLUMNS:]
    # PostgreSQL took the statement's snapshot before it waited for the lock: a reply that the lock's last holder saved is not in it.
    first_sequence, first_number = of_row.sequence - changes + 1, of_row.next_number - new_trials
    return Locked(of_row, first_sequence, first_number, now, _replay(fingerprint, response), incarnation)


def new_trial_values(study_id: int, trial: Trial) -> Values:
    """All columns of a trial."""
    return {
        "study_id": study_id,
        "number": trial.number,
        "parameters": encoding.pack_parameters(trial.parameters),
        "origin": encoding.pack_origin(trial.origin),
        "nonce": trial.nonce,
        "parent": trial.parent,
        "member": trial.member,
        "create_time": trial.create_time,
        **_trial_state(trial),
    }


def claimed_values(study_id: int, trial: Trial) -> Values:
    """The columns of a trial that may change, and its key under the names that the claim gives it."""
    return {"of_study": study_id, "of_number": trial.number, **_trial_state(trial)}


def _trial_state(trial: Trial) -> Values:
    return dict(zip(TRIAL_STATE, trial_state(trial), strict=True))


def trial_state(trial: Trial) -> tuple[Item, ...]:
    """What a trial has in the columns of `TRIAL_STATE`."""
    lease = trial.lease
    return (
        trial.state.value,
        encoding.pack_metrics(trial.metrics),
        encoding.pack_notes(trial.metadata),
        trial.message,
        trial.checkpoint_uri,
        trial.worker_id,
        trial.attempt,
        trial.spent_attempts,
        *((None, None, None, None) if lease is None else (lease.token, lease.duration, lease.expire_time, lease.stop)),
        trial.start_time,
        trial.end_time,
        trial.sequence,
    )


def trial(row: Sequence[Any]) -> Trial:
    """The trial in a whole row of `trials`, without its measurements."""
    # Taken apart at once: a row that is asked for its columns by name takes as long as reading what is in them.
    (
        _study_id,
        number,
        state,
        parameters,
        origin,
        metrics,
        metadata,
        message,
        checkpoint_uri,
        worker_id,
        nonce,
        attempt,
        spent_attempts,
        token,
        duration,
        expire_time,
        create_time,
        start_time,
        end_time,
        sequence,
        parent,
        member,
        stop,
    ) = row
    return Trial(
        number=number,
        state=_TRIAL_STATES[state],
        parameters=encoding.unpack_parameters(parameters),
        origin=encoding.unpack_origin(origin),
        nonce=nonce,
        metrics=encoding.unpack_metrics(metrics),
        message=message,
        metadata=encoding.unpack_notes(metadata),
        lease=None if token is None else Lease(token, worker_id, expire_time, duration, stop or ""),
        worker_id=worker_id,
        attempt=attempt,
        spent_attempts=spent_attempts,
        checkpoint_uri=checkpoint_uri,
        parent=parent,
        member=member,
        sequence=sequence,
        create_time=create_time,
        start_time=start_time,
        end_time=end_time,
    )


def lease(row: Row[Any]) -> Lease:
    """The lease in columns of a row of `trials` that has one."""
    return Lease(row.lease_token, row.worker_id, row.expire_time, row.lease_duration, row.lease_stop or "")


def trials_by_number(rows: Iterable[Row[Any]]) -> dict[int, Trial]:
    """The trials in rows of `trials`, by number."""
    found = (trial(row) for row in rows)
    return {each.number: each for each in found}


def trial_counts(rows: Iterable[Row[Any]]) -> dict[int, TrialCounts]:
    """The counts in rows of (study_id, state, trials)."""
    counts: dict[int, dict[str, int]] = {}
    for row in rows:
        counts.setdefault(row.study_id, {})[row.state] = row.trials
    return {study_id: TrialCounts(**states) for study_id, states in counts.items()}


def measured(
    study_id: int, measurements: Mapping[int, Sequence[Measurement]], now: datetime | None, charted: Charted | None
) -> Collection[tuple[Item, ...]]:
    """What stands in the columns of `measurements` for each metric of each step of each trial, by its number; of one that comes again, the
    last. `now` is the time of those that have none.
    """
    # A statement cannot write a row twice.
    found: dict[tuple[int, int, str], tuple[Item, ...]] = {}
    stamp = None if now is None else text_of(now)
    for number, of_one in measurements.items():
        for measurement in of_one:
            step, time = measurement.step, measurement.create_time
            written = stamp if time is None else text_of(time)
            for metric, each in measurement.metrics.items():
                error = None if each.standard_error is None else digits_of(each.standard_error)
                sequence = charted.sequences[number] if charted and charted.metric == metric else None
                value = digits_of(each.value)
                found[number, step, metric] = (study_id, number, step, metric, value, error, written, sequence)
    return found.values()


def measurements(rows: Iterable[Row[Any]]) -> list[Measurement]:
    """The measurements in rows of `measurements` that are sorted by step. A step is as old as the latest of its metrics."""
    found = []
    for step, group in groupby(rows, lambda row: row.step):
        same_step = list(group)
        metrics = {row.metric: MetricValue(row.value, row.standard_error) for row in same_step}
        found.append(Measurement(step, metrics, max(row.create_time for row in same_step)))
    return found


def stored_metric(row: Row[Any]) -> StoredMetric:
    """The metric in a row of `measurements`."""
    return StoredMetric(row.number, row.step, row.metric, MetricValue(row.value, row.standard_error), row.create_time)


def curve_point(row: Row[Any]) -> CurvePoint:
    """The point of a curve in a row of `measurements`."""
    return CurvePoint(row.change_seq, row.number, row.step, row.value, row.metric)


def measurement_by_number(rows: Iterable[Row[Any]]) -> dict[int, Measurement]:
    """One measurement for each trial, by its number, in rows of `measurements` that are sorted by number and of one step each."""
    return {number: measurements(group)[0] for number, group in groupby(rows, lambda row: row.number)}


def reply_values(study_id: int, request: Request, response: bytes, now: datetime) -> Values:
    """All columns of a kept reply."""
    return {
        "study_id": study_id,
        "method": request.method,
        "request_id": request.id,
        "fingerprint": request.fingerprint,
        "response": response,
        "expire_time": now + REPLY_LIFETIME,
    }


def hint(rows: Iterable[Row[Any]], policy: str) -> bytes:
    """The policy's hint among the rows with `hint_policy` and `hint`; b"" if it is not there."""
    return next((bytes(row.hint) for row in rows if row.hint_policy == policy), b"")


def replay(row: Row[Any] | None) -> Replay | None:
    """The kept reply in a row with `fingerprint` and `response`, if it has one."""
    return None if row is None else _replay(row.fingerprint, row.response)


def _replay(fingerprint: str | None, response: bytes) -> Replay | None:
    return None if fingerprint is None else Replay(fingerprint, bytes(response))
