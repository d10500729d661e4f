"""The SQL, built once: each statement serves one method of the transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    Executable,
    FromClause,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningUpdate

from asktell.server.persistence.clock import database_now, database_now_plus
from asktell.server.persistence.column_types import Duration
from asktell.server.persistence.incarnation import database_incarnation
from asktell.server.persistence.membership import DIALECTS, among, given, kind_of
from asktell.server.persistence.tables import ACTIVE, FAILED, measurements, policy_hints, requests, studies, trials

_NAMED = and_(studies.c.project == bindparam("of_project"), studies.c.name == bindparam("of_name"))
_ONE_TRIAL = and_(trials.c.study_id == bindparam("of_study"), trials.c.number == bindparam("of_number"))
_LEASE_ENDED = and_(trials.c.state == ACTIVE, trials.c.expire_time <= database_now())
_REQUEST = and_(requests.c.method == bindparam("of_method"), requests.c.request_id == bindparam("of_request"))


def _of_request(column: ColumnElement[Any]) -> ScalarSelect[Any]:
    return select(column).where(requests.c.study_id == studies.c.id, _REQUEST).correlate(studies).scalar_subquery()


_STUDY_NOW_AND_REPLY = (
    *studies.c,
    database_now().label("now"),
    _of_request(requests.c.fingerprint).label("fingerprint"),
    _of_request(requests.c.response).label("response"),
    database_incarnation().label("incarnation"),
)


def _by_whether_writing(statement: Select[Any]) -> Mapping[bool, Select[Any]]:
    """What is read to be changed is locked; on SQLite, where that compiles to nothing, the whole database is."""
    return {False: statement, True: statement.with_for_update()}


# ON CONFLICT is spelled alike in both dialects, and is part of neither's standard SQL.
_ON_CONFLICT: Mapping[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}

INSERT_STUDY = {
    dialect: insert_into(studies)
    .values(create_time=database_now(), update_time=database_now())
    .on_conflict_do_nothing(index_elements=[studies.c.project, studies.c.name])
    .returning(*studies.c)
    for dialect, insert_into in _ON_CONFLICT.items()
}

# The policy's name is in the spec, where SQL does not look: a row for each policy that left a hint, and one if none did.
FIND_STUDY = (
    select(*_STUDY_NOW_AND_REPLY, policy_hints.c.policy.label("hint_policy"), policy_hints.c.hint)
    .select_from(studies.outerjoin(policy_hints, policy_hints.c.study_id == studies.c.id))
    .where(_NAMED)
)

INCARNATION = select(database_incarnation())

FIND_STUDY_BY_ID = select(studies).where(studies.c.id == bindparam("of_study"))

STUDY_SEQUENCES = select(studies.c.id, studies.c.change_seq).where(
    studies.c.id.in_(bindparam("of_studies", expanding=True))
)

_LOCKED = update(studies).where(_NAMED).returning(*_STUDY_NOW_AND_REPLY)
LOCK_STUDY = _LOCKED.values(change_seq=studies.c.change_seq)
LOCK_AND_CHANGE_STUDY = _LOCKED.values(
    change_seq=studies.c.change_seq + bindparam("changes"),
    next_number=studies.c.next_number + bindparam("new_trials"),
    update_time=database_now(),
)

_CHANGING = {
    dialect: given(dialect, "changing", {"project": "text", "name": "text", "changes": "bigint"})
    for dialect in DIALECTS
}


def _lock_idle_studies(changing: FromClause) -> ReturningUpdate[Any]:
    """Rows that others hold are passed over, so that no study waits for another; whoever must wait for one does it elsewhere."""
    idle = (
        select(studies.c.id, changing.c.changes)
        .join_from(changing, studies, and_(studies.c.project == changing.c.project, studies.c.name == changing.c.name))
        # As an UPDATE locks: new rows that refer to the study are no reason to wait.
        .with_for_update(of=studies, key_share=True, skip_locked=True)
        .cte("idle")
    )
    return (
        update(studies)
        .where(studies.c.id == idle.c.id)
        .values(change_seq=studies.c.change_seq + idle.c.changes, update_time=database_now())
        .returning(*_STUDY_NOW_AND_REPLY)
    )


LOCK_IDLE_STUDIES = {dialect: _lock_idle_studies(changing) for dialect, changing in _CHANGING.items()}

FIND_REPLIES = select(requests.c.method, requests.c.request_id, requests.c.fingerprint, requests.c.response).where(
    requests.c.study_id == bindparam("of_study"),
    tuple_(requests.c.method, requests.c.request_id).in_(bindparam("of_requests", expanding=True)),
)

FIND_REPLIES_OF = {
    dialect: select(requests).where(
        tuple_(requests.c.study_id, requests.c.method, requests.c.request_id).in_(
            select(given(dialect, "sought", {"study_id": "bigint", "method": "text", "request_id": "text"}))
        )
    )
    for dialect in DIALECTS
}

UPDATE_STUDY = update(studies).where(studies.c.id == bindparam("of_study"))

FIND_STUDY_IDS = select(studies.c.id, studies.c.project, studies.c.name).where(
    tuple_(studies.c.project, studies.c.name).in_(bindparam("of_names", expanding=True))
)

DELETE_STUDY = delete(studies).where(_NAMED).returning(studies.c.id)

LIST_STUDIES = (
    select(studies)
    .where(studies.c.project == bindparam("of_project"), studies.c.name > bindparam("after"))
    .order_by(studies.c.name)
    .limit(bindparam("limit"))
)

COUNT_TRIALS = (
    select(trials.c.study_id, trials.c.state, func.count().label("trials"))
    .where(among(trials.c.study_id, "of_studies"))
    .group_by(trials.c.study_id, trials.c.state)
)

COUNT_ACTIVE = select(func.count()).where(trials.c.study_id == bindparam("of_study"), trials.c.state == ACTIVE)

# Not all are counted: the limit is a few, and there may be thousands.
COUNT_FAILED = select(func.count()).select_from(
    select(trials.c.number)
    .where(trials.c.study_id == bindparam("of_study"), trials.c.state == FAILED)
    .limit(bindparam("limit"))
    .subquery()
)

INSERT_TRIALS = insert(trials)

TRIAL_STATE = (
    "state",
    "metrics",
    "metadata",
    "message",
    "checkpoint_uri",
    "worker_id",
    "attempt",
    "spent_attempts",
    "lease_token",
    "lease_duration",
    "expire_time",
    "lease_stop",
    "start_time",
    "end_time",
    "change_seq",
)
"""The columns of a trial that may change."""

_CHANGED = {
    dialect: given(dialect, "changed", {name: kind_of(trials.c[name]) for name in ("study_id", "number", *TRIAL_STATE)})
    for dialect in DIALECTS
}

UPDATE_TRIALS = {
    dialect: update(trials)
    .where(trials.c.study_id == changed.c.study_id, trials.c.number == changed.c.number)
    .values({name: changed.c[name] for name in TRIAL_STATE})
    for dialect, changed in _CHANGED.items()
}

CLAIM_TRIALS = update(trials).where(_ONE_TRIAL, trials.c.change_seq == bindparam("seen"))

FIND_TRIALS = _by_whether_writing(
    select(trials)
    .where(trials.c.study_id == bindparam("of_study"), among(trials.c.number, "of_numbers"))
    .order_by(trials.c.number)
)

FIND_IDLE_TRIALS = {
    dialect: select(trials)
    .where(
        tuple_(trials.c.study_id, trials.c.number).in_(
            select(given(dialect, "sought", {"study_id": "bigint", "number": "bigint"}))
        )
    )
    .with_for_update(of=trials, skip_locked=True)
    for dialect in DIALECTS
}

CHANGED_TRIALS = (
    select(trials)
    .where(
        trials.c.study_id == bindparam("of_study"),
        trials.c.change_seq > bindparam("after"),
        trials.c.change_seq <= bindparam("upto"),
    )
    .order_by(trials.c.change_seq)
    .limit(bindparam("limit"))
)

EXPIRED_TRIALS = _by_whether_writing(
    select(trials).where(trials.c.study_id == bindparam("of_study"), _LEASE_ENDED).order_by(trials.c.number)
)

_OLDEST_EXPIRED = (
    select(trials.c.study_id, func.min(trials.c.expire_time).label("expire_time"))
    .where(_LEASE_ENDED)
    .group_by(trials.c.study_id)
    .subquery()
)
STUDIES_WITH_EXPIRED_LEASES = (
    select(studies.c.project, studies.c.name)
    .join(_OLDEST_EXPIRED, _OLDEST_EXPIRED.c.study_id == studies.c.id)
    .order_by(_OLDEST_EXPIRED.c.expire_time, studies.c.id)
    .limit(bindparam("limit"))
)

# Tokens are unguessable and each is one trial's: which of the tokens belongs to which of the trials need not be said.
_HELD = and_(trials.c.state == ACTIVE, among(trials.c.lease_token, "of_tokens"))
# Locked in the order in which changes of a study lock its trials, or else the two could wait for each other.
_RENEWED = (
    select(trials.c.study_id, trials.c.number)
    .where(tuple_(trials.c.study_id, trials.c.number).in_(bindparam("of_trials", expanding=True)), _HELD)
    .order_by(trials.c.study_id, trials.c.number)
    .with_for_update()
)
RENEW_LEASES = (
    update(trials)
    .where(tuple_(trials.c.study_id, trials.c.number).in_(_RENEWED), _HELD)
    .values(expire_time=database_now_plus(trials.c.lease_duration))
    .returning(
        trials.c.study_id,
        trials.c.number,
        trials.c.lease_token,
        trials.c.worker_id,
        trials.c.expire_time,
        trials.c.lease_duration,
        trials.c.lease_stop,
    )
)

FORGET_STOPS = (
    update(trials)
    .where(
        trials.c.study_id == bindparam("of_study"),
        trials.c.state.in_((ACTIVE, "queued")),
        trials.c.lease_stop != "",
    )
    .values(lease_stop="")
)

CHART_ANEW = (
    update(measurements)
    .where(measurements.c.study_id == bindparam("of_study"))
    .values(change_seq=case((measurements.c.metric == bindparam("charted"), bindparam("sequence", type_=BigInteger))))
)

_MEASURED = {
    dialect: given(dialect, "measured", {column.name: kind_of(column) for column in measurements.c})
    for dialect in DIALECTS
}

# One statement for however many rows: to send a row by itself costs more than to store it. Without its condition SQLite would take
# ON CONFLICT for that of a join.
INSERT_MEASUREMENTS = {
    dialect: insert_into(measurements).from_select(list(measurements.c), select(_MEASURED[dialect]).where(true()))
    for dialect, insert_into in _ON_CONFLICT.items()
}

RECORD_MEASUREMENTS = {
    dialect: statement.on_conflict_do_update(
        index_elements=list(measurements.primary_key),
        set_={name: statement.excluded[name] for name in ("value", "standard_error", "create_time", "change_seq")},
    )
    for dialect, statement in INSERT_MEASUREMENTS.items()
}

LIST_MEASUREMENTS = (
    select(measurements)
    .where(measurements.c.study_id == bindparam("of_study"), measurements.c.number == bindparam("of_number"))
    .order_by(measurements.c.step, measurements.c.metric)
)

METRICS_AFTER = (
    select(measurements)
    .where(
        measurements.c.study_id == bindparam("of_study"),
        tuple_(measurements.c.number, measurements.c.step, measurements.c.metric)
        > tuple_(bindparam("after_number"), bindparam("after_step"), bindparam("after_metric")),
    )
    .order_by(measurements.c.number, measurements.c.step, measurements.c.metric)
    .limit(bindparam("limit"))
)

CURVE_POINTS = (
    select(
        measurements.c.change_seq,
        measurements.c.number,
        measurements.c.step,
        measurements.c.value,
        measurements.c.metric,
    )
    .where(
        measurements.c.study_id == bindparam("of_study"),
        measurements.c.change_seq.is_not(None),
        tuple_(measurements.c.change_seq, measurements.c.number, measurements.c.step)
        >= tuple_(bindparam("from_sequence"), bindparam("from_number"), bindparam("from_step")),
    )
    .order_by(measurements.c.change_seq, measurements.c.number, measurements.c.step)
    .limit(bindparam("limit"))
)

STAGED = "#staged"
"""The project of studies that are being imported: no id of a project begins so."""

STAGED_FOR = timedelta(hours=1)

_STAGED = and_(studies.c.id == bindparam("of_study"), studies.c.project == STAGED)

STAGE_STUDY = insert(studies).values(update_time=database_now()).returning(studies.c.id)

KEEP_STAGED = update(studies).where(_STAGED).values(update_time=database_now())

PUBLISH_STUDY = update(studies).where(_STAGED).returning(database_now().label("now"))

ABANDONED_STUDIES = (
    select(studies.c.id)
    .where(
        studies.c.project == STAGED,
        studies.c.update_time <= database_now_plus(literal(-STAGED_FOR, Duration())),
    )
    .order_by(studies.c.id)
    .limit(bindparam("limit"))
)

DISCARD_TRIALS = delete(trials).where(
    trials.c.study_id == bindparam("of_study"),
    trials.c.number.in_(
        select(trials.c.number)
        .where(trials.c.study_id == select(studies.c.id).where(_STAGED).scalar_subquery())
        .order_by(trials.c.number)
        .limit(bindparam("limit"))
    ),
)

DISCARD_STUDY = delete(studies).where(_STAGED)

_others = measurements.alias()
_LAST_STEP = (
    select(func.max(_others.c.step))
    .where(_others.c.study_id == trials.c.study_id, _others.c.number == trials.c.number)
    .correlate(trials)
    .scalar_subquery()
)
# From trials, so that each trial's last step is sought in the key and not among all its steps.
LAST_MEASUREMENTS = (
    select(*measurements.c)
    .select_from(trials)
    .join(
        measurements,
        and_(
            measurements.c.study_id == trials.c.study_id,
            measurements.c.number == trials.c.number,
            measurements.c.step == _LAST_STEP,
        ),
    )
    .where(trials.c.study_id == bindparam("of_study"), among(trials.c.number, "of_numbers"))
    .order_by(measurements.c.number, measurements.c.metric)
)

SAVE_HINT = {
    dialect: (statement := insert_into(policy_hints)).on_conflict_do_update(
        index_elements=list(policy_hints.primary_key), set_={"hint": statement.excluded.hint}
    )
    for dialect, insert_into in _ON_CONFLICT.items()
}

SAVE_REPLY = insert(requests)


def _forget_old_replies() -> Delete:
    key = tuple_(*requests.primary_key)
    # Several servers forget at once: each skips the rows that another is at, instead of waiting to find them gone.
    old = (
        select(*requests.primary_key)
        .where(requests.c.expire_time <= database_now())
        .order_by(requests.c.expire_time)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True)
    )
    return delete(requests).where(key.in_(old))


FORGET_OLD_REPLIES: Executable = _forget_old_replies()


def list_trials(*, states: Collection[str], worker_id: str) -> Select[Any]:
    """The trials of a study above a number, by number, in any of the states (all if empty), of the worker (any if "")."""
    statement = select(trials).where(trials.c.study_id == bindparam("of_study"), trials.c.number > bindparam("after"))
    if states:
        statement = statement.where(trials.c.state.in_(sorted(states)))
    if worker_id:
        statement = statement.where(trials.c.worker_id == worker_id)
    return statement.order_by(trials.c.number).limit(bindparam("limit"))
