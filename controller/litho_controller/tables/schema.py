"""xCAT's tables as data: which tables there are, what their columns are called, in xCAT's order.

Everything that handles tables is driven by `TABLES`: the database schema, `tabdump`, the HTTP API. An xCAT administrator finds
every column where `tabdump` has it, also those that Lithograph itself never reads.

Source of the names and their order: xCAT's own schema (perl-xCAT/xCAT/Schema.pm of xcat-core 2.19; the columns are facts of that
program's interface). All columns are text there and here; a column without a value is NULL, which is not the empty string.
"""

from __future__ import annotations

import msgspec

_TAIL = ("comments", "disable")


class TableSpec(msgspec.Struct, frozen=True):
    """One of xCAT's tables."""

    name: str
    key: str
    """The one column that names a row."""
    columns: tuple[str, ...]
    """All columns in xCAT's order, the key among them."""


def _table(name: str, words: str) -> TableSpec:
    columns = (*words.split(), *_TAIL)
    return TableSpec(name, columns[0], columns)


TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        _table("bootparams", "node kernel initrd kcmdline addkcmdline dhcpstatements adddhcpstatements"),
        _table("chain", "node currstate currchain chain ondiscover"),
        _table("hosts", "node ip hostnames otherinterfaces"),
        _table("ipmi", "node bmc bmcport taggedvlan bmcid username password"),
        _table(
            "linuximage",
            "imagename template boottarget addkcmdline pkglist pkgdir otherpkglist otherpkgdir exlist postinstall rootimgdir "
            "kerneldir nodebootif otherifce netdrivers kernelver krpmver permission dump crashkernelsize partitionfile "
            "driverupdatesrc",
        ),
        _table("mac", "node interface mac"),
        _table("nodegroup", "groupname grouptype members membergroups wherevals"),
        _table(
            "nodehm",
            "node power mgt cons termserver termport conserver serialport serialspeed serialflow getmac cmdmapping "
            "consoleondemand consoleenabled",
        ),
        _table(
            "nodelist",
            "node groups status statustime appstatus appstatustime primarysn hidden updatestatus updatestatustime zonename",
        ),
        _table(
            "noderes",
            "node servicenode netboot tftpserver tftpdir nfsserver monserver nfsdir installnic primarynic discoverynics "
            "cmdinterface xcatmaster current_osimage next_osimage nimserver routenames nameservers proxydhcp syslog",
        ),
        _table("nodetype", "node os arch profile provmethod supportedarchs nodetype"),
        _table(
            "osimage",
            "imagename groups profile imagetype description provmethod rootfstype nfsrootopts osdistroname osupdatename cfmdir "
            "osname osvers osarch synclists postscripts postbootscripts serverrole isdeletable kitcomponents environvar",
        ),
        _table("site", "key value"),
    )
}
"""Every table, by name."""

NODE_TABLES = tuple(spec.name for spec in TABLES.values() if spec.key == "node")
"""Tables with a row for each node; removing a node removes its row from all of them."""
