"""Studies, trials, measurements, policy hints and kept replies."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_INSTANT = sa.DateTime(timezone=True)
_EXACT_FLOAT: sa.types.TypeEngine[Any] = sa.Double().with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _create_studies()
    _create_trials()
    _create_measurements()
    _create_policy_hints()
    _create_requests()


def downgrade() -> None:
    """Remove the tables and all that is in them."""
    for table in ("requests", "policy_hints", "measurements", "trials", "studies"):
        op.drop_table(table)


def _create_studies() -> None:
    op.create_table(
        "studies",
        sa.Column("id", _IDENTITY, sa.Identity(always=True), nullable=False),
        sa.Column("project", _NAME, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.Column("create_time", _INSTANT, nullable=False),
        sa.Column("update_time", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("project", "name", name="uq_studies_project_name"),
        sqlite_autoincrement=True,
    )


def _create_trials() -> None:
    op.create_table(
        "trials",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("checkpoint_uri", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("spent_attempts", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_duration", sa.BigInteger(), nullable=True),
        sa.Column("expire_time", _INSTANT, nullable=True),
        sa.Column("create_time", _INSTANT, nullable=False),
        sa.Column("start_time", _INSTANT, nullable=True),
        sa.Column("end_time", _INSTANT, nullable=True),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "number", name="pk_trials"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_trials_studies", ondelete="CASCADE"),
    )
    op.create_index("ix_trials_study_id_change_seq", "trials", ["study_id", "change_seq"])
    op.create_index("ix_trials_study_id_state_number", "trials", ["study_id", "state", "number"])
    op.create_index(
        "ix_trials_active_expire_time",
        "trials",
        ["expire_time"],
        postgresql_where=sa.text("state = 'active'"),
        sqlite_where=sa.text("state = 'active'"),
    )


def _create_measurements() -> None:
    op.create_table(
        "measurements",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("metric", _NAME, nullable=False),
        sa.Column("value", _EXACT_FLOAT, nullable=False),
        sa.Column("standard_error", _EXACT_FLOAT, nullable=True),
        sa.Column("create_time", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "number", "step", "metric", name="pk_measurements"),
        sa.ForeignKeyConstraint(
            ["study_id", "number"],
            ["trials.study_id", "trials.number"],
            name="fk_measurements_trials",
            ondelete="CASCADE",
        ),
    )


def _create_policy_hints() -> None:
    op.create_table(
        "policy_hints",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "policy", name="pk_policy_hints"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_policy_hints_studies", ondelete="CASCADE"),
    )


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("expire_time", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "method", "request_id", name="pk_requests"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_requests_studies", ondelete="CASCADE"),
    )
    op.create_index("ix_requests_expire_time", "requests", ["expire_time"])
