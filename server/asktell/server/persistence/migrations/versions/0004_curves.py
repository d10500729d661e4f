"""Measurements that a stopping rule looks at know the change that they came with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CHARTED = sa.text("change_seq IS NOT NULL")


def upgrade() -> None:
    """No study that is there has a stopping rule: none of its measurements is looked at."""
    op.add_column("measurements", sa.Column("change_seq", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_measurements_curves",
        "measurements",
        ["study_id", "change_seq", "number", "step"],
        postgresql_where=_CHARTED,
        sqlite_where=_CHARTED,
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_index("ix_measurements_curves", "measurements")
    op.drop_column("measurements", "change_seq")
