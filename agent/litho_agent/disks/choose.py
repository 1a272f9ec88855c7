"""Which disk: one pure function over the inventory, with a reason for every disk that it passes over.

**Named.** With a selector, exactly one disk must meet it. None is an error (`disk-missing`) and never another disk;
several are an error (`disk-ambiguous`) that lists them. A removable or USB disk or a loop device is taken only when
the selector singles it out (name, path, serial, WWN), asks for its transport in so many words, or `removable` is
allowed.

**Not named.** The default rule looks at sda, sdb, hda, hdb, then NVMe, virtio (vda...), eMMC, and never at anything
removable, USB, loop, or without a medium.

* *Restore*: exactly one such disk must be there. The order plays no part: what would be destroyed is never a matter
  of which name comes first. A disk that the guard refuses (mounted, in use, part of LVM/RAID/ZFS/Ceph/multipath)
  still counts: otherwise a machine whose system disk is in use would have its data disk overwritten, as "the only one
  left".
* *Capture*: the first in that order on which something lies (a partition table or a file system). Two NVMe disks have
  no order that survives a boot, so if several of the first kind (NVMe, virtio, eMMC) carry something, the rule stops
  and lists them.

At the end the guard looks at the one that is left. A refusal is the answer then, not a reason to take the next disk.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from litho.errors import DiskError, LithoError, RefusedError
from litho_agent.disks import guard
from litho_agent.disks.disk import VIRTUAL, Disk, described
from litho_agent.disks.guard import Action
from litho_agent.disks.selector import Selector, parse

_SEEDS = ("sda", "sdb", "hda", "hdb")
_KINDS = {"nvme": 4, "virtio": 5, "mmc": 6}
_RANK_NAMES = {4: "NVMe", 5: "virtio", 6: "eMMC"}
DEFAULT_RULE = "sda, sdb, hda, hdb, NVMe, virtio, eMMC"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one disk, and why."""

    name: str
    path: str
    chosen: bool
    reason: str


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: a disk, or an error, and a verdict for every disk of the inventory in its order."""

    disk: Disk | None
    verdicts: tuple[Verdict, ...]
    message: str = ""
    hint: str = ""
    code: str = ""
    refused: bool = False
    """The error is a rule's refusal (RefusedError) and not a missing disk (DiskError)."""

    @property
    def error(self) -> LithoError | None:
        """The error that stands in place of a disk."""
        if self.disk is not None:
            return None
        kind = RefusedError if self.refused else DiskError
        return kind(self.message, hint=self.hint, code=self.code)

    def require(self) -> Disk:
        """The chosen disk. Raises DiskError or RefusedError when there is none."""
        if self.disk is None:
            assert self.error is not None  # noqa: S101 - what the property says
            raise self.error
        return self.disk


def choose(inventory: Sequence[Disk], selector: Selector | str, action: Action, allow: Sequence[str] = ()) -> Choice:
    """Choose the disk to capture or to restore onto. Pure. Raises UsageError for a selector or an `allow` word that is none."""
    wanted = parse(selector) if isinstance(selector, str) else selector
    words = guard.check_allow(allow)
    passed: dict[str, str] = {}
    candidates: list[Disk] = []
    for disk in inventory:
        why = _not_meant(disk, wanted, words) if wanted else _not_by_default(disk, words)
        if why:
            passed[disk.name] = why
        else:
            candidates.append(disk)
    if not wanted and action == "capture":
        candidates = _first_with_content(candidates, passed)
    if not candidates:
        return _none_left(inventory, wanted, action, passed)
    if len(candidates) > 1:
        return _several(inventory, candidates, wanted, action, passed)
    chosen = candidates[0]
    found = guard.objections(chosen, action, words) or guard.by_another_path(chosen, inventory)
    if found:
        error = guard.refusal(chosen, action, found)
        reasons = "; ".join(dict.fromkeys(objection.reason for objection in found))
        passed[chosen.name] = f"the guard refuses it: it {reasons}"
        return Choice(
            disk=None,
            verdicts=_verdicts(inventory, passed, ""),
            message=error.message,
            hint=error.hint,
            code=error.code,
            refused=True,
        )
    passed[chosen.name] = _why_chosen(chosen, wanted, action)
    return Choice(disk=chosen, verdicts=_verdicts(inventory, passed, chosen.name))


def require_same(chosen: Disk, held: Disk) -> None:
    """Raise DiskError (`disk-changed`) unless `held`, chosen anew while nobody else can have it, is the disk `chosen` before.

    A name belongs to whatever has it now: between the look and the hold a disk can be pulled out and another one be given its
    name. A serial or WWN that only one of the looks knows is no difference: udev may have come to it in between. Pure.
    """
    known = [("serial", chosen.serial, held.serial), ("WWN", chosen.wwn, held.wwn), ("model", chosen.model, held.model)]
    found = [f"its {what} was {was} and is {is_}" for what, was, is_ in known if was and is_ and was != is_]
    if chosen.path != held.path:
        found.append(f"the choice is now {held.path}")
    if (chosen.size, chosen.logical) != (held.size, held.logical):
        found.append(
            f"it had {chosen.size} bytes in sectors of {chosen.logical} and has {held.size} in sectors of {held.logical}"
        )
    if found:
        raise DiskError(
            f"{chosen.path} is not the disk any more that was chosen a moment ago: {'; '.join(found)}",
            hint="nothing was written; start again when the machine's disks are at rest",
            code="disk-changed",
        )


def rank(disk: Disk) -> int | None:
    """The disk's place in the default rule, 0 first; None when the rule does not know it. Kinds without an order share one."""
    if disk.name in _SEEDS:
        return _SEEDS.index(disk.name)
    return _KINDS.get(disk.transport)


def _not_meant(disk: Disk, wanted: Selector, allow: Sequence[str]) -> str:
    why = wanted.differs(disk)
    if why:
        return why
    if wanted.singles_out or wanted.names_transport(disk.transport):
        return ""
    if disk.transport in VIRTUAL:
        return f"it is no disk of its own ({disk.transport})"
    return _portable(disk, allow) or ("it has no medium (size 0)" if disk.size <= 0 else "")


def _portable(disk: Disk, allow: Sequence[str]) -> str:
    if disk.transport == "loop":
        return "it is a loop device, which is taken only when it is named"
    if "removable" in allow:
        return ""
    if disk.transport == "usb":
        return "it is a USB disk, which is taken only when it is named"
    return "it is removable, and taken only when it is named" if disk.removable else ""


def _not_by_default(disk: Disk, allow: Sequence[str]) -> str:
    if disk.transport in VIRTUAL:
        return f"it is no disk of its own ({disk.transport})"
    why = _portable(disk, allow)
    if why:
        return why
    if disk.size <= 0:
        return "it has no medium (size 0)"
    return "" if rank(disk) is not None else f"the default rule takes only {DEFAULT_RULE}; name it to use it"


def _first_with_content(candidates: Sequence[Disk], passed: dict[str, str]) -> list[Disk]:
    """Of the candidates with content those of the best rank; the rest is passed over."""
    full = []
    for disk in candidates:
        # A disk whose content could not be told may hold the system: it is not skipped in silence.
        if disk.has_content or disk.note:
            full.append(disk)
        else:
            passed[disk.name] = "nothing lies on it: no partition table, no file system"
    if not full:
        return []
    best = min(rank(disk) or 0 for disk in full)
    first = [disk for disk in full if rank(disk) == best]
    for disk in full:
        if disk not in first:
            passed[disk.name] = f"{first[0].name} comes before it in the order {DEFAULT_RULE}"
    return first


def _none_left(inventory: Sequence[Disk], wanted: Selector, action: Action, passed: dict[str, str]) -> Choice:
    near = [disk for disk in inventory if not wanted.differs(disk)] if wanted else []
    listed = _listed([disk for disk in inventory if disk.transport not in VIRTUAL and disk.size])
    if near:
        message = f"the disk {wanted.text} is not taken: {near[0].name}: {passed[near[0].name]}"
        hint = "name it by its device name, path, serial or WWN, or say litho.allow=removable"
    elif wanted:
        message = f"no disk of this machine is {wanted.text}"
        owner = next(
            (d for d in inventory for t in wanted.terms if t.value.removeprefix("/dev/") in d.partitions), None
        )
        hint = f"that is a partition: name the disk {owner.name}" if owner else f"it has {listed}"
    elif action == "capture":
        message = f"no disk of this machine has anything to capture by the default rule ({DEFAULT_RULE})"
        hint = f"name one with litho.disk=; it has {listed}"
    else:
        message = f"no disk of this machine is one that the default rule takes ({DEFAULT_RULE})"
        hint = f"name one with litho.disk=; it has {listed}"
    return Choice(
        disk=None,
        verdicts=_verdicts(inventory, passed, ""),
        message=message,
        hint=hint,
        code="disk-missing",
    )


def _several(
    inventory: Sequence[Disk], candidates: Sequence[Disk], wanted: Selector, action: Action, passed: dict[str, str]
) -> Choice:
    for disk in candidates:
        others = ", ".join(other.name for other in candidates if other is not disk)
        passed[disk.name] = f"it is not the only one that could be meant: {others} could be, too"
    listed = _listed(candidates)
    if wanted:
        message = f"{len(candidates)} disks are {wanted.text}: {listed}"
        hint = "add a term that only one of them meets, such as serial="
    elif action == "capture":
        kind = _RANK_NAMES.get(rank(candidates[0]) or 0, "")
        message = f"{len(candidates)} {kind} disks carry something that could be captured: {listed}"
        hint = "name one with litho.disk=, best by its serial"
    else:
        message = f"{len(candidates)} disks could be restored onto: {listed}"
        hint = "name one with litho.disk=, best by its serial"
    return Choice(
        disk=None,
        verdicts=_verdicts(inventory, passed, ""),
        message=message,
        hint=hint,
        code="disk-ambiguous",
    )


def _why_chosen(disk: Disk, wanted: Selector, action: Action) -> str:
    if wanted:
        return f"it is the one that is {wanted.text}"
    if action == "capture":
        return f"it is the first in the order {DEFAULT_RULE} on which something lies"
    return f"it is the only one that the default rule takes ({DEFAULT_RULE})"


def _listed(disks: Sequence[Disk]) -> str:
    if not disks:
        return "no disks at all"
    shown = [described(disk) for disk in disks[:8]]
    more = f"; and {len(disks) - 8} more" if len(disks) > 8 else ""
    return "; ".join(shown) + more


def _verdicts(inventory: Sequence[Disk], passed: dict[str, str], chosen: str) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(name=disk.name, path=disk.path, chosen=disk.name == chosen, reason=passed[disk.name])
        for disk in inventory
    )
