"""A lease knows why a stopping rule ends its trial, so that renewals say so too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody who holds a lease now is known to have been told to stop: the next report says it."""
    op.add_column("trials", sa.Column("lease_stop", sa.Text(), nullable=True))


def downgrade() -> None:
    """Forget them."""
    op.drop_column("trials", "lease_stop")
