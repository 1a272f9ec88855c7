"""The table of tasks, and xCAT's tables.

A revision is frozen: it lists its own columns and does not follow later changes of `store.schema`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ACTIVE = "state IN ('queued', 'armed', 'claimed', 'planned', 'running')"

_XCAT = {
    "bootparams": "node kernel initrd kcmdline addkcmdline dhcpstatements adddhcpstatements comments disable",
    "chain": "node currstate currchain chain ondiscover comments disable",
    "hosts": "node ip hostnames otherinterfaces comments disable",
    "ipmi": "node bmc bmcport taggedvlan bmcid username password comments disable",
    "linuximage": "imagename template boottarget addkcmdline pkglist pkgdir otherpkglist otherpkgdir exlist postinstall "
    "rootimgdir kerneldir nodebootif otherifce netdrivers kernelver krpmver permission dump crashkernelsize partitionfile "
    "driverupdatesrc comments disable",
    "mac": "node interface mac comments disable",
    "nodehm": "node power mgt cons termserver termport conserver serialport serialspeed serialflow getmac cmdmapping "
    "consoleondemand consoleenabled comments disable",
    "nodelist": "node groups status statustime appstatus appstatustime primarysn hidden updatestatus updatestatustime "
    "zonename comments disable",
    "noderes": "node servicenode netboot tftpserver tftpdir nfsserver monserver nfsdir installnic primarynic discoverynics "
    "cmdinterface xcatmaster current_osimage next_osimage nimserver routenames nameservers proxydhcp syslog comments disable",
    "nodetype": "node os arch profile provmethod supportedarchs nodetype comments disable",
    "osimage": "imagename groups profile imagetype description provmethod rootfstype nfsrootopts osdistroname osupdatename "
    "cfmdir osname osvers osarch synclists postscripts postbootscripts serverrole isdeletable kitcomponents environvar "
    "comments disable",
    "site": "key value comments disable",
}


def upgrade() -> None:
    """Make everything."""
    op.create_table(
        "task",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("node", sa.String(128), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("image", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("inventory", sa.Text),
        sa.Column("plan", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("progress", sa.Text),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("armed", sa.Float),
        sa.Column("claimed", sa.Float),
        sa.Column("started", sa.Float),
        sa.Column("ended", sa.Float),
        sa.Column("heard", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("task_by_state", "task", ["state"])
    op.create_index("task_by_node", "task", ["node", "number"])
    op.create_index(
        "one_active_task_a_node",
        "task",
        ["node"],
        unique=True,
        sqlite_where=sa.text(_ACTIVE),
        postgresql_where=sa.text(_ACTIVE),
    )
    for table, words in _XCAT.items():
        key, *columns = words.split()
        op.create_table(
            table,
            sa.Column(key, sa.String(128), primary_key=True),
            *(sa.Column(name, sa.Text) for name in columns),
        )


def downgrade() -> None:
    """Take everything away."""
    for table in _XCAT:
        op.drop_table(table)
    op.drop_table("task")
