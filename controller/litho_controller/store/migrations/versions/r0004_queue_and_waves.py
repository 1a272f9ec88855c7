"""When a task may start and before which others, which attempt it is, waves of tasks, and machines that nobody has defined yet.

A revision is frozen: it lists its own columns and does not follow later changes of `store.schema`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and make the tables."""
    op.add_column("task", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.add_column("task", sa.Column("not_before", sa.Float))
    op.add_column("task", sa.Column("attempt", sa.Integer, nullable=False, server_default="1"))
    op.add_column("task", sa.Column("retry_of", sa.Integer, nullable=False, server_default="0"))
    op.add_column("task", sa.Column("wave", sa.Integer, nullable=False, server_default="0"))
    op.add_column("task", sa.Column("step", sa.Integer, nullable=False, server_default="0"))
    op.create_index("task_by_wave", "task", ["wave"])
    op.create_table(
        "wave",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("sizes", sa.Text, nullable=False),
        sa.Column("stop_after", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("ended", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "discovered",
        sa.Column("mac", sa.String(17), primary_key=True),
        sa.Column("macs", sa.Text, nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("inventory", sa.Text, nullable=False),
        sa.Column("first", sa.Float, nullable=False),
        sa.Column("last", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_table("discovered")
    op.drop_table("wave")
    op.drop_index("task_by_wave", "task")
    for name in ("step", "wave", "retry_of", "attempt", "not_before", "priority"):
        op.drop_column("task", name)
