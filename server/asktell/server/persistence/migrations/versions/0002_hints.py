"""Hints are opaque bytes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing wrote hints before, so that there are none to keep."""
    op.drop_table("policy_hints")
    op.create_table("policy_hints", *_keys(), sa.Column("hint", sa.LargeBinary(), nullable=False), *_constraints())


def downgrade() -> None:
    """Go back to hints with a version."""
    op.drop_table("policy_hints")
    op.create_table(
        "policy_hints",
        *_keys(),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        *_constraints(),
    )


def _keys() -> list[sa.Column[Any]]:
    return [
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
    ]


def _constraints() -> list[sa.Constraint]:
    return [
        sa.PrimaryKeyConstraint("study_id", "policy", name="pk_policy_hints"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_policy_hints_studies", ondelete="CASCADE"),
    ]
