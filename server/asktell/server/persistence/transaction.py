"""One database transaction, as the use cases see it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, CursorResult, Row
from sqlalchemy.exc import IntegrityError

from asktell.server.application.ports import (
    Charted,
    CurvePlace,
    CurvePoint,
    Found,
    Locked,
    MetricKey,
    NewStudy,
    Replay,
    Request,
    StoredMetric,
)
from asktell.server.domain.errors import Conflict
from asktell.server.domain.metric import Measurement
from asktell.server.domain.study import Study, StudyName, TrialCounts
from asktell.server.domain.trial import Lease, Trial, TrialState
from asktell.server.persistence import rows, statements
from asktell.server.persistence.failures import taken
from asktell.server.persistence.membership import rows_parameter


class SqlTransaction:
    """Implements `application.ports.Transaction` on a connection that has begun.

    After a `Conflict` nothing more can be done in the transaction but to let it roll back. `writing` says whether rows that are read to be
    changed are locked; a lock on PostgreSQL, on SQLite the transaction itself is one. `changed` are the ids of the studies whose sequence
    has moved, or that are new or gone, should the transaction be committed.
    """

    def __init__(self, connection: Connection, *, writing: bool) -> None:
        self._connection = connection
        self._dialect = connection.dialect.name
        self._writing = writing
        self.changed: set[int] = set()

    @property
    def connection(self) -> Connection:
        """For what is no use case's business."""
        return self._connection

    def insert_study(self, new: NewStudy) -> Study | None:
        row = self._execute(statements.INSERT_STUDY[self._dialect], rows.new_study_values(new)).one_or_none()
        if row is None:
            return None
        self.changed.add(row.id)
        return rows.study(row)

    def incarnation(self) -> str:
        return str(self._execute(statements.INCARNATION, {}).scalar_one())

    def find_study_by_id(self, study_id: int) -> Study | None:
        row = self._execute(statements.FIND_STUDY_BY_ID, {"of_study": study_id}).one_or_none()
        return None if row is None else rows.study(row)

    def study_sequences(self, study_ids: Collection[int]) -> dict[int, int]:
        if not study_ids:
            return {}
        found = self._execute(statements.STUDY_SEQUENCES, {"of_studies": list(study_ids)})
        return {row.id: row.change_seq for row in found}

    def find_study(self, name: StudyName, *, request: Request | None = None) -> Found | None:
        found = self._execute(statements.FIND_STUDY, {**_named(name), **_requested(request)}).all()
        if not found:
            return None
        study = rows.study(found[0])
        first, hint = found[0], rows.hint(found, study.spec.policy)
        return Found(study, first.now, rows.replay(first), hint, first.incarnation)

    def lock_study(
        self, name: StudyName, *, changes: int, new_trials: int = 0, request: Request | None = None
    ) -> Locked | None:
        parameters = {**_named(name), **_requested(request)}
        if changes:
            reserved = {"changes": changes, "new_trials": new_trials}
            row = self._execute(statements.LOCK_AND_CHANGE_STUDY, {**parameters, **reserved}).one_or_none()
        else:
            row = self._execute(statements.LOCK_STUDY, parameters).one_or_none()
        if row is None:
            return None
        if changes:
            self.changed.add(row.id)
        return rows.locked(row, changes=changes, new_trials=new_trials)

    def lock_idle_studies(
        self, changes: Mapping[StudyName, int], *, request: Request | None = None
    ) -> dict[StudyName, Locked]:
        changing = rows_parameter((name.project, name.study, count) for name, count in changes.items())
        parameters = {"changing": changing, **_requested(request)}
        found = self._execute(statements.LOCK_IDLE_STUDIES[self._dialect], parameters).all()
        studies = [(rows.study(row), row) for row in found]
        self.changed.update(study.id for study, _ in studies)
        return {study.name: rows.locked_study(study, row, changes=changes[study.name]) for study, row in studies}

    def update_study(self, study: Study) -> None:
        self._execute(statements.UPDATE_STUDY, {"of_study": study.id, **rows.study_changes(study)})

    def delete_study(self, name: StudyName) -> bool:
        deleted = self._execute(statements.DELETE_STUDY, _named(name)).scalars().all()
        self.changed.update(deleted)
        return bool(deleted)

    def list_studies(self, project: str, *, after: str, limit: int) -> list[Study]:
        parameters = {"of_project": project, "after": after, "limit": limit}
        return [rows.study(row) for row in self._execute(statements.LIST_STUDIES, parameters)]

    def count_trials(self, study_ids: Collection[int]) -> dict[int, TrialCounts]:
        if not study_ids:
            return {}
        return rows.trial_counts(self._execute(statements.COUNT_TRIALS, {"of_studies": list(study_ids)}))

    def insert_trials(self, study_id: int, trials: Sequence[Trial]) -> None:
        if not trials:
            return
        try:
            self._execute(statements.INSERT_TRIALS, [rows.new_trial_values(study_id, trial) for trial in trials])
        except IntegrityError as error:
            if taken(error):
                numbers = ", ".join(str(trial.number) for trial in trials[:10])
                raise Conflict(f"one of the trial numbers {numbers} is taken") from error
            raise

    def update_trials(self, study_id: int, trials: Sequence[Trial]) -> None:
        self.update_trials_of({study_id: trials})

    def update_trials_of(self, trials: Mapping[int, Collection[Trial]]) -> None:
        changed = [
            (study_id, trial.number, *rows.trial_state(trial))
            for study_id, of_one in trials.items()
            for trial in of_one
        ]
        if changed:
            self._execute(statements.UPDATE_TRIALS[self._dialect], {"changed": rows_parameter(changed)})

    def claim_trials(self, study_id: int, trials: Sequence[tuple[Trial, int]]) -> None:
        if not trials:
            return
        values = [{**rows.claimed_values(study_id, trial), "seen": sequence} for trial, sequence in trials]
        if self._execute(statements.CLAIM_TRIALS, values).rowcount < len(trials):
            numbers = ", ".join(str(trial.number) for trial, _ in trials[:10])
            raise Conflict(f"one of the trials {numbers} has changed")

    def find_trials(self, study_id: int, numbers: Collection[int]) -> dict[int, Trial]:
        if not numbers:
            return {}
        parameters = {"of_study": study_id, "of_numbers": list(numbers)}
        return rows.trials_by_number(self._execute(statements.FIND_TRIALS[self._writing], parameters))

    def find_idle_trials(self, numbers: Mapping[int, Collection[int]]) -> dict[int, dict[int, Trial]]:
        sought = [(study_id, number) for study_id, of_one in numbers.items() for number in of_one]
        if not sought:
            return {}
        found: dict[int, dict[int, Trial]] = {}
        for row in self._execute(statements.FIND_IDLE_TRIALS[self._dialect], {"sought": rows_parameter(sought)}):
            trial = rows.trial(row)
            found.setdefault(row[0], {})[trial.number] = trial
        return found

    def changed_trials(self, study_id: int, *, after: int, upto: int, limit: int) -> list[Trial]:
        parameters = {"of_study": study_id, "after": after, "upto": upto, "limit": limit}
        return _trials(self._execute(statements.CHANGED_TRIALS, parameters))

    def list_trials(
        self, study_id: int, *, after: int, limit: int, states: Collection[TrialState], worker_id: str
    ) -> list[Trial]:
        statement = statements.list_trials(states={state.value for state in states}, worker_id=worker_id)
        return _trials(self._execute(statement, {"of_study": study_id, "after": after, "limit": limit}))

    def expired_trials(self, study_id: int) -> list[Trial]:
        return _trials(self._execute(statements.EXPIRED_TRIALS[self._writing], {"of_study": study_id}))

    def studies_with_expired_leases(self, limit: int) -> list[StudyName]:
        found = self._execute(statements.STUDIES_WITH_EXPIRED_LEASES, {"limit": limit})
        return [StudyName(row.project, row.name) for row in found]

    def find_study_ids(self, names: Collection[StudyName]) -> dict[StudyName, int]:
        if not names:
            return {}
        parameters = {"of_names": [(name.project, name.study) for name in names]}
        found = self._execute(statements.FIND_STUDY_IDS, parameters)
        return {StudyName(row.project, row.name): row.id for row in found}

    def renew_leases(self, tokens: Mapping[tuple[int, int], Collection[str]]) -> dict[tuple[int, int], Lease]:
        if not tokens:
            return {}
        parameters = {"of_trials": list(tokens), "of_tokens": [token for of_one in tokens.values() for token in of_one]}
        renewed = self._execute(statements.RENEW_LEASES, parameters)
        return {(row.study_id, row.number): rows.lease(row) for row in renewed}

    def forget_stops(self, study_id: int) -> None:
        self._execute(statements.FORGET_STOPS, {"of_study": study_id})

    def chart_anew(self, study_id: int, *, metric: str, sequence: int) -> None:
        self._execute(statements.CHART_ANEW, {"of_study": study_id, "charted": metric, "sequence": sequence})

    def record_measurements(
        self,
        study_id: int,
        measurements: Mapping[int, Sequence[Measurement]],
        *,
        now: datetime,
        charted: Charted | None = None,
    ) -> None:
        self.record_measurements_of({study_id: measurements}, now=now, charted={study_id: charted})

    def record_measurements_of(
        self,
        measurements: Mapping[int, Mapping[int, Sequence[Measurement]]],
        *,
        now: datetime,
        charted: Mapping[int, Charted | None],
    ) -> None:
        measured = [
            row
            for study_id, of_one in measurements.items()
            for row in rows.measured(study_id, of_one, now, charted[study_id])
        ]
        if measured:
            self._execute(statements.RECORD_MEASUREMENTS[self._dialect], {"measured": rows_parameter(measured)})

    def list_measurements(self, study_id: int, number: int) -> list[Measurement]:
        parameters = {"of_study": study_id, "of_number": number}
        return rows.measurements(self._execute(statements.LIST_MEASUREMENTS, parameters))

    def curve_points(self, study_id: int, place: CurvePlace, *, limit: int) -> list[CurvePoint]:
        sequence, number, step = place
        start = {"from_sequence": sequence, "from_number": number, "from_step": step}
        found = self._execute(statements.CURVE_POINTS, {"of_study": study_id, "limit": limit, **start})
        return [rows.curve_point(row) for row in found]

    def metrics_after(self, study_id: int, after: MetricKey, *, limit: int) -> list[StoredMetric]:
        number, step, metric = after
        place = {"after_number": number, "after_step": step, "after_metric": metric}
        found = self._execute(statements.METRICS_AFTER, {"of_study": study_id, "limit": limit, **place})
        return [rows.stored_metric(row) for row in found]

    def insert_measurements(
        self, study_id: int, number: int, measurements: Sequence[Measurement], *, charted: Charted | None = None
    ) -> None:
        measured = rows.measured(study_id, {number: measurements}, None, charted)
        if measured:
            self._execute(statements.INSERT_MEASUREMENTS[self._dialect], {"measured": rows_parameter(measured)})

    def stage_study(self, study: Study, *, key: str) -> int:
        values = rows.staged_study_values(study, project=statements.STAGED, name=key)
        staged: int = self._execute(statements.STAGE_STUDY, values).scalar_one()
        return staged

    def keep_staged(self, study_id: int) -> bool:
        return self._execute(statements.KEEP_STAGED, {"of_study": study_id}).rowcount > 0

    def publish_study(self, study: Study) -> datetime:
        named = {"project": study.name.project, "name": study.name.study, "update_time": study.update_time}
        try:
            now: datetime = self._execute(statements.PUBLISH_STUDY, {"of_study": study.id, **named}).scalar_one()
        except IntegrityError as error:
            if taken(error):
                raise Conflict(f"there is a study {study.name}") from error
            raise
        return now

    def abandoned_studies(self, *, limit: int) -> list[int]:
        return list(self._execute(statements.ABANDONED_STUDIES, {"limit": limit}).scalars())

    def discard_trials(self, study_id: int, *, limit: int) -> int:
        return self._execute(statements.DISCARD_TRIALS, {"of_study": study_id, "limit": limit}).rowcount

    def discard_study(self, study_id: int) -> None:
        self._execute(statements.DISCARD_STUDY, {"of_study": study_id})

    def last_measurements(self, study_id: int, numbers: Collection[int]) -> dict[int, Measurement]:
        if not numbers:
            return {}
        parameters = {"of_study": study_id, "of_numbers": list(numbers)}
        return rows.measurement_by_number(self._execute(statements.LAST_MEASUREMENTS, parameters))

    def save_hint(self, study_id: int, policy: str, hint: bytes) -> None:
        values = {"study_id": study_id, "policy": policy, "hint": hint}
        self._execute(statements.SAVE_HINT[self._dialect], values)

    def count_active(self, study_id: int) -> int:
        return int(self._execute(statements.COUNT_ACTIVE, {"of_study": study_id}).scalar_one())

    def count_failed(self, study_id: int, *, limit: int) -> int:
        return int(self._execute(statements.COUNT_FAILED, {"of_study": study_id, "limit": limit}).scalar_one())

    def find_replies(self, study_id: int, requests: Collection[Request]) -> dict[tuple[str, str], Replay]:
        if not requests:
            return {}
        parameters = {"of_study": study_id, "of_requests": [request.key for request in requests]}
        found = self._execute(statements.FIND_REPLIES, parameters)
        return {(row.method, row.request_id): Replay(row.fingerprint, bytes(row.response)) for row in found}

    def find_replies_of(self, requests: Mapping[int, Collection[Request]]) -> dict[int, dict[tuple[str, str], Replay]]:
        sought = [(study_id, *request.key) for study_id, of_one in requests.items() for request in of_one]
        if not sought:
            return {}
        found: dict[int, dict[tuple[str, str], Replay]] = {}
        for row in self._execute(statements.FIND_REPLIES_OF[self._dialect], {"sought": rows_parameter(sought)}):
            kept = Replay(row.fingerprint, bytes(row.response))
            found.setdefault(row.study_id, {})[row.method, row.request_id] = kept
        return found

    def save_replies(self, study_id: int, replies: Sequence[tuple[Request, bytes]], *, now: datetime) -> None:
        self.save_replies_of({study_id: replies}, now=now)

    def save_replies_of(self, replies: Mapping[int, Sequence[tuple[Request, bytes]]], *, now: datetime) -> None:
        values = [
            rows.reply_values(study_id, request, response, now)
            for study_id, of_one in replies.items()
            for request, response in of_one
        ]
        if not values:
            return
        try:
            self._execute(statements.SAVE_REPLY, values)
        except IntegrityError as error:
            if taken(error):
                ids = ", ".join(repr(each["request_id"]) for each in values[:10])
                raise Conflict(f"one of the requests {ids} was answered already") from error
            raise

    def forget_old_replies(self, limit: int) -> int:
        return self._execute(statements.FORGET_OLD_REPLIES, {"limit": limit}).rowcount

    def _execute(
        self, statement: Any, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> CursorResult[Any]:
        return self._connection.execute(statement, parameters)


def _named(name: StudyName) -> dict[str, str]:
    return {"of_project": name.project, "of_name": name.study}


def _requested(request: Request | None) -> dict[str, str]:
    # No request has an empty id: this finds no reply.
    return (
        {"of_method": "", "of_request": ""}
        if request is None
        else {"of_method": request.method, "of_request": request.id}
    )


def _trials(found: Iterable[Row[Any]]) -> list[Trial]:
    return [rows.trial(row) for row in found]
