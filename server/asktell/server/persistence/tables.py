"""The schema, equal to what the migrations make (a test holds them together)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)

from asktell.server.persistence.column_types import IDENTITY, NAME, Duration, ExactFloat, Instant

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# A partial index serves a statement whose condition stands there as text, not as a parameter.
ACTIVE: ColumnElement[str] = literal_column("'active'")
FAILED: ColumnElement[str] = literal_column("'failed'")

studies = Table(
    "studies",
    metadata,
    Column("id", IDENTITY, Identity(always=True), primary_key=True),
    Column("project", NAME, nullable=False),
    Column("name", NAME, nullable=False),
    Column("spec", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("budget", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("next_number", BigInteger, nullable=False),
    Column("change_seq", BigInteger, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("update_time", Instant, nullable=False),
    # The server of the release before creates studies without it.
    Column("own_seq", BigInteger, nullable=False, server_default=text("1")),
    UniqueConstraint("project", "name"),
    sqlite_autoincrement=True,
)

trials = Table(
    "trials",
    metadata,
    Column("study_id", BigInteger, ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("state", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("checkpoint_uri", Text, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("spent_attempts", Integer, nullable=False),
    Column("lease_token", Text),
    Column("lease_duration", Duration),
    Column("expire_time", Instant),
    Column("create_time", Instant, nullable=False),
    Column("start_time", Instant),
    Column("end_time", Instant),
    Column("change_seq", BigInteger, nullable=False),
    # The server of the release before adds trials without them.
    Column("parent", BigInteger, nullable=False, server_default=text("0")),
    Column("member", Integer, nullable=False, server_default=text("0")),
    Column("lease_stop", Text),
)
Index(None, trials.c.study_id, trials.c.change_seq)
# Serves the queue in the order of numbers, the counts by state, and the few active trials among which a lease is sought.
Index(None, trials.c.study_id, trials.c.state, trials.c.number)
Index(
    "ix_trials_active_expire_time",
    trials.c.expire_time,
    postgresql_where=trials.c.state == ACTIVE,
    sqlite_where=trials.c.state == ACTIVE,
)

measurements = Table(
    "measurements",
    metadata,
    Column("study_id", BigInteger, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("metric", NAME, primary_key=True),
    Column("value", ExactFloat, nullable=False),
    Column("standard_error", ExactFloat),
    Column("create_time", Instant, nullable=False),
    # Of what a stopping rule looks at: the sequence number of the trial's change that came with it.
    Column("change_seq", BigInteger),
    ForeignKeyConstraint(["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"),
)
Index(
    "ix_measurements_curves",
    measurements.c.study_id,
    measurements.c.change_seq,
    measurements.c.number,
    measurements.c.step,
    postgresql_where=measurements.c.change_seq.is_not(None),
    sqlite_where=measurements.c.change_seq.is_not(None),
)

policy_hints = Table(
    "policy_hints",
    metadata,
    Column("study_id", BigInteger, ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("policy", Text, primary_key=True),
    Column("hint", LargeBinary, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("study_id", BigInteger, ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("method", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("expire_time", Instant, nullable=False, index=True),
)
