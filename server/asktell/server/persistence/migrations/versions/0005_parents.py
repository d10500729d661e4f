"""Trials know the trial that they go on from, and which member of a population they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """All trials that are there started afresh, outside a population."""
    op.add_column("trials", sa.Column("parent", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("trials", sa.Column("member", sa.Integer(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    """Forget them."""
    op.drop_column("trials", "member")
    op.drop_column("trials", "parent")
