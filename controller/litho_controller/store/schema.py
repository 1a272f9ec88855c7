"""What the database looks like: the table of tasks, and xCAT's tables as `litho_controller.tables.schema` lists them.

This is the newest shape; `migrations/` leads every older database here, and a test holds the two against each other.
Times are seconds since 1970 by the controller's clock. JSON columns hold what the wire's structs say, as text.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, text

from litho.task import State
from litho_controller.tables.schema import TABLES

ACTIVE = tuple(state.value for state in State if not state.ended)
"""States in which a node's one task is under way or waits."""
_ACTIVE_SQL = "state IN ({})".format(", ".join(f"'{state}'" for state in ACTIVE))

metadata = MetaData()

task = Table(
    "task",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("node", String(128), nullable=False),
    Column("action", String(16), nullable=False),
    Column("image", String(128), nullable=False),
    # Restore: what is printed; capture: what was published, 0 until then.
    Column("version", Integer, nullable=False),
    Column("job", Text, nullable=False),
    # What litho.task moves.
    Column("state", String(16), nullable=False),
    Column("session", String(64), nullable=False),
    Column("last_seq", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("code", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    # SHA-256 of the one-time token, in hex; the token itself is only in the node's boot file.
    Column("token_hash", String(64), nullable=False),
    # What the agent said, as JSON.
    Column("inventory", Text),
    Column("plan", Text),
    Column("result", Text),
    Column("progress", Text),
    Column("line", Text, nullable=False),
    # Somebody has set the node to boot since: nodestat need not tell of this task's end any more.
    Column("settled", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Column("armed", Float),
    Column("claimed", Float),
    Column("started", Float),
    Column("ended", Float),
    Column("heard", Float),
    # The queue: the higher one first; not before this time.
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("not_before", Float),
    # From 1; a task that is tried again is a new row, which says of which one.
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("retry_of", Integer, nullable=False, server_default="0"),
    # Number of the wave that it belongs to, and in which of its steps it starts; 0 for none.
    Column("wave", Integer, nullable=False, server_default="0"),
    Column("step", Integer, nullable=False, server_default="0"),
    Index("task_by_wave", "wave"),
    Index("task_by_state", "state"),
    Index("task_by_node", "node", "number"),
    # The rule "two tasks for one node are refused", held by the database itself.
    Index(
        "one_active_task_a_node",
        "node",
        unique=True,
        sqlite_where=text(_ACTIVE_SQL),
        postgresql_where=text(_ACTIVE_SQL),
    ),
    # A number that was given once is never given again: it is in file names, in topics and in people's heads.
    sqlite_autoincrement=True,
)

wave = Table(
    "wave",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    # How many nodes each step has, as it was asked for: `2,10,50%`.
    Column("sizes", Text, nullable=False),
    # Failures after which no further step starts; 0: never.
    Column("stop_after", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    sqlite_autoincrement=True,
)

discovered = Table(
    "discovered",
    metadata,
    # The card that booted; `macs` are all of the machine's.
    Column("mac", String(17), primary_key=True),
    Column("macs", Text, nullable=False),
    Column("address", String(64), nullable=False),
    Column("inventory", Text, nullable=False),
    Column("first", Float, nullable=False),
    Column("last", Float, nullable=False),
)

bundle_import = Table(
    "bundle_import",
    metadata,
    # The id of the journal in state_dir/imports. Written in one transaction with the image's rows: that an import is done means
    # that its id is here. Deleted when its journal is.
    Column("id", String(32), primary_key=True),
    Column("imagename", String(128), nullable=False),
    Column("committed", Float, nullable=False),
)

xcat: dict[str, Table] = {
    spec.name: Table(
        spec.name,
        metadata,
        *(
            Column(name, String(128), primary_key=True) if name == spec.key else Column(name, Text)
            for name in spec.columns
        ),
    )
    for spec in TABLES.values()
}
"""xCAT's tables, by name."""
