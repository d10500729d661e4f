"""Studies know the sequence number of their own latest change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A study that is there is taken as unchanged since its creation, which is sequence number 1: nobody has watched it yet."""
    op.add_column("studies", sa.Column("own_seq", sa.BigInteger(), nullable=False, server_default=sa.text("1")))


def downgrade() -> None:
    """Forget them."""
    op.drop_column("studies", "own_seq")
