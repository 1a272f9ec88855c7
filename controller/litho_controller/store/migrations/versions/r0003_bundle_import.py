"""The table of imports that are committed and not tidied up yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "bundle_import",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("imagename", sa.String(128), nullable=False),
        sa.Column("committed", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_table("bundle_import")
