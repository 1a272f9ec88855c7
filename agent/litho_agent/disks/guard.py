"""What must not be written to, or read from, and which of that a task may lift.

`objections` is pure: it looks at one disk of the inventory and says every reason against using it. Some reasons can be
lifted by `litho.allow=` (or the task's `allow`), each by a word of its own that the refusal names:

| word        | lifts |
|-------------|-------|
| `removable` | a removable or USB disk that the selector does not single out |
| `lvm`       | a physical volume of LVM whose volume group is not active |
| `raid`      | a member of a Linux, BIOS or hardware-format RAID that is not running |
| `zfs`       | a member of a ZFS pool |
| `ceph`      | a Ceph OSD |
| `multipath` | a path of a multipath device that is not set up |
| `cluster`   | VMFS, OCFS2, GFS2, DRBD, bcache, Stratis: storage that other machines or layers count on |
| `member`    | all of the above from `lvm` on |

No word lifts what would fail or destroy in any case: a mounted file system or swap in use, a holder in the kernel
(running md, active LVM, multipath, dm-crypt), a write-protected target, a disk without medium. The way out of these
is to stop what uses the disk; the refusal says how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from litho.errors import RefusedError, UsageError
from litho_agent.disks.disk import VIRTUAL, Disk, Holder

Action = Literal["capture", "restore"]

MEMBER_WORDS = ("lvm", "raid", "zfs", "ceph", "multipath", "cluster")
LIFTABLE = ("removable", *MEMBER_WORDS, "member")
"""The words that `litho.allow=` takes."""
NEVER = ("mounted", "held", "read-only", "no-medium")
"""Words that people try, and that lift nothing."""

_MEMBERS = {
    "LVM2_member": "lvm",
    "LVM1_member": "lvm",
    "linux_raid_member": "raid",
    "ddf_raid_member": "raid",
    "isw_raid_member": "raid",
    "adaptec_raid_member": "raid",
    "hpt37x_raid_member": "raid",
    "hpt45x_raid_member": "raid",
    "jmicron_raid_member": "raid",
    "lsi_mega_raid_member": "raid",
    "nvidia_raid_member": "raid",
    "promise_fasttrack_raid_member": "raid",
    "silicon_medley_raid_member": "raid",
    "via_raid_member": "raid",
    "zfs_member": "zfs",
    "ceph_bluestore": "ceph",
    "mpath_member": "multipath",
    "VMFS": "cluster",
    "VMFS_volume_member": "cluster",
    "ocfs2": "cluster",
    "gfs2": "cluster",
    "drbd": "cluster",
    "bcache": "cluster",
    "stratis": "cluster",
}
_TOLD = {
    "lvm": "a physical volume of LVM",
    "raid": "a RAID member",
    "zfs": "a member of a ZFS pool",
    "ceph": "a Ceph OSD",
    "multipath": "a path of a multipath device",
    "cluster": "storage that something else counts on",
}
_WAYS_OUT = {
    "lvm": "deactivate it with `vgchange -an`",
    "md": "stop it with `mdadm --stop`",
    "raid": "stop it with `dmraid -an`",
    "multipath": "flush it with `multipath -f`",
    "dm-crypt": "close it with `cryptsetup close`",
    "loop": "detach it with `losetup -d`",
}


class Objection(msgspec.Struct, frozen=True):
    """One reason against using a disk."""

    rule: str
    """`mounted`, `held`, `read-only`, `no-medium`, `not-a-disk`, or the word that would lift it."""
    reason: str
    """A clause that follows the disk's name: `is mounted on /srv`."""
    way_out: str

    @property
    def liftable(self) -> bool:
        """True when a word of `litho.allow=` lifts it."""
        return self.rule in LIFTABLE


def check_allow(words: Iterable[str]) -> tuple[str, ...]:
    """`words` when each of them lifts something. Raises UsageError that names the word and what is allowed."""
    checked = tuple(words)
    for word in checked:
        if word in NEVER:
            raise UsageError(
                f"{word!r} cannot be allowed",
                hint="stop what uses the disk, or choose another one",
                code="bad-allow",
            )
        if word not in LIFTABLE:
            raise UsageError(f"{word[:60]!r} lifts no guard", hint=f"use {', '.join(LIFTABLE)}", code="bad-allow")
    return checked


def objections(disk: Disk, action: Action, allow: Sequence[str] = ()) -> tuple[Objection, ...]:
    """Every reason against using `disk` that `allow` does not lift; those that nothing lifts come first."""
    found = [*_absolute(disk, action), *_members(disk, action)]
    lifted = set(allow) | (set(MEMBER_WORDS) if "member" in allow else set())
    return tuple(objection for objection in found if objection.rule not in lifted)


def by_another_path(disk: Disk, inventory: Iterable[Disk]) -> tuple[Objection, ...]:
    """The reasons against using `disk` that another path to the same disk has: same WWN, same size, another name.

    Without multipath the kernel takes each path for a disk of its own, and a claim of one says nothing about the other. Pure.
    """
    twins = [
        one for one in inventory if one.name != disk.name and disk.wwn and (one.wwn, one.size) == (disk.wwn, disk.size)
    ]
    return tuple(
        Objection(
            objection.rule,
            f"has the WWN of {twin.name} and may be the same disk by another path, which {objection.reason}",
            objection.way_out,
        )
        for twin in twins
        for objection in _absolute(twin, "capture")
        if objection.rule in ("mounted", "held")
    )


def check(disk: Disk, action: Action, allow: Sequence[str] = ()) -> None:
    """Raise RefusedError with every reason when `disk` must not be used; UsageError for a word that lifts nothing."""
    found = objections(disk, action, check_allow(allow))
    if found:
        raise refusal(disk, action, found)


def refusal(disk: Disk, action: Action, found: Sequence[Objection]) -> RefusedError:
    """The error that tells all of `found`, with the way out of the first."""
    reasons = "; ".join(dict.fromkeys(objection.reason for objection in found))
    return RefusedError(
        f"{disk.path} is not for {_GERUND[action]}: it {reasons}",
        hint=found[0].way_out,
        code=f"disk-{found[0].rule}",
    )


_GERUND = {"capture": "capturing", "restore": "restoring onto"}


def _absolute(disk: Disk, action: Action) -> Iterable[Objection]:
    if disk.transport in VIRTUAL:
        yield Objection("not-a-disk", f"is no disk of its own ({disk.transport})", "name the disk itself")
    if disk.size <= 0:
        yield Objection("no-medium", "has no medium (size 0)", "insert a medium or choose another disk")
    if disk.read_only and action == "restore":
        yield Objection(
            "read-only",
            "is write-protected",
            "lift the write protection (`blockdev --setrw`, or the switch on the card)",
        )
    for mount in disk.mounts:
        if mount.swap:
            yield Objection("mounted", f"has swap in use on {mount.device}", f"run `swapoff /dev/{mount.device}`")
        else:
            how = " read-only" if mount.read_only else ""
            yield Objection(
                "mounted", f"has {mount.device} mounted{how} on {mount.where}", f"unmount {mount.where} first"
            )
    for holder in disk.holders:
        yield Objection("held", f"is in use by {_told(holder)}", _WAYS_OUT.get(holder.kind, "stop what uses it"))


def _told(holder: Holder) -> str:
    kinds = {
        "md": "a running RAID",
        "lvm": "active LVM",
        "multipath": "multipath",
        "dm-crypt": "an open dm-crypt volume",
    }
    name = f" {holder.name}" if holder.name else ""
    return f"{kinds.get(holder.kind, holder.kind)}{name} ({holder.by} holds {holder.device})"


def _members(disk: Disk, action: Action) -> Iterable[Objection]:
    # Reading a member destroys nothing, and an image of one part of a whole is the raw copy that was asked for.
    if action == "capture":
        return
    for signature in disk.signatures:
        word = _MEMBERS.get(signature.type) or ("raid" if signature.type.endswith("_raid_member") else "")
        if word:
            yield Objection(
                word,
                f"carries {_TOLD[word]} ({signature.type} on {signature.device})",
                f"say litho.allow={word} if what lies on it may be destroyed",
            )
