"""xCAT's objects: which attributes a node, an osimage or a group has, and in which column each is kept. Pure data.

`lsdef`, `mkdef` and `chdef` speak of attributes; `nodels`, `nodech` and the table commands of columns. The two are tied together
here: the node's attribute `ip` is hosts.ip, an osimage's `usercomment` is linuximage.comments.

Some attributes only have a meaning beside another: xCAT takes `bmc` for a node whose `mgt` is ipmi, and `template` for
an osimage whose `imagetype` is linux. It refuses them elsewhere, and so does this.

Source of the names: the object definitions in xCAT's schema (perl-xCAT/xCAT/Schema.pm) and its man page node(7). Attributes
that xCAT keeps in tables which there are not here (vpd, switch, nics, postscripts, ...) are left out.
"""

from __future__ import annotations

import msgspec

from litho.errors import UsageError

KINDS = ("node", "osimage", "group", "site")
SITE = "clustersite"
"""The one object of the kind `site`: every key of the site table is an attribute of it."""


class Attribute(msgspec.Struct, frozen=True):
    """One attribute of one kind of object."""

    name: str
    table: str
    column: str
    only_if: tuple[str, tuple[str, ...]] | None = None
    """Another attribute, and the values of it beside which this one may be set."""


def _in(table: str, words: str, only_if: tuple[str, tuple[str, ...]] | None = None) -> list[Attribute]:
    """Attributes of a table: `name` where it is called like its column, else `name=column`."""
    found = []
    for word in words.split():
        name, _, column = word.partition("=")
        found.append(Attribute(name, table, column or name, only_if))
    return found


_NODE = (
    *_in(
        "nodelist",
        "groups status statustime appstatus appstatustime primarysn hidden updatestatus updatestatustime zonename "
        "usercomment=comments",
    ),
    *_in("nodetype", "arch os profile provmethod supportedarchs nodetype"),
    *_in(
        "noderes",
        "servicenode netboot tftpserver tftpdir nfsserver monserver nfsdir installnic primarynic xcatmaster nimserver "
        "routenames nameservers supportproxydhcp=proxydhcp syslog",
    ),
    *_in("bootparams", "kernel initrd kcmdline addkcmdline"),
    *_in("mac", "interface mac"),
    *_in("hosts", "ip hostnames otherinterfaces"),
    *_in("chain", "currstate currchain chain ondiscover"),
    *_in(
        "nodehm",
        "mgt power cons termserver termport conserver serialport serialspeed serialflow getmac cmdmapping consoleondemand "
        "consoleenabled",
    ),
    *_in(
        "ipmi",
        "bmc bmcport bmcvlantag=taggedvlan bmcid bmcusername=username bmcpassword=password",
        ("mgt", ("ipmi", "openbmc", "redfish")),
    ),
)

_IMAGE_TYPES = ("imagetype", ("linux", "windows"))

_OSIMAGE = (
    *_in(
        "osimage",
        "groups profile imagetype description provmethod rootfstype nfsrootopts osdistroname osupdatename cfmdir osname "
        "osvers osarch synclists postscripts postbootscripts serverrole isdeletable kitcomponents environvar",
    ),
    *_in(
        "linuximage",
        "template boottarget addkcmdline pkglist pkgdir otherpkglist otherpkgdir exlist postinstall rootimgdir kerneldir "
        "nodebootif otherifce netdrivers kernelver krpmver permission dump crashkernelsize partitionfile driverupdatesrc "
        "usercomment=comments",
        _IMAGE_TYPES,
    ),
)

_GROUP = _in("nodegroup", "grouptype members membergroups wherevals usercomment=comments")

ATTRIBUTES: dict[str, dict[str, Attribute]] = {
    kind: {one.name: one for one in attributes}
    for kind, attributes in (("node", _NODE), ("osimage", _OSIMAGE), ("group", _GROUP))
}
"""Kind -> name -> attribute. `site` is not here: its attributes are whatever keys there are."""


def attribute(kind: str, name: str) -> Attribute:
    """The attribute of that name. Raises UsageError with xCAT's words."""
    found = ATTRIBUTES[kind].get(name)
    if found is None:
        raise UsageError(
            f"'{name[:80]}' is not a valid attribute name for an object type of '{kind}'.", code="bad-attribute"
        )
    return found
