"""xCAT's table of groups, for dynamic ones.

A revision is frozen: it lists its own columns and does not follow later changes of `store.schema`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = "grouptype members membergroups wherevals comments disable"


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "nodegroup",
        sa.Column("groupname", sa.String(128), primary_key=True),
        *(sa.Column(name, sa.Text) for name in _COLUMNS.split()),
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_table("nodegroup")
