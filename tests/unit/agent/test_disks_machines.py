"""Which disk, over generated machines: never a forbidden one, and a reason for every one that is passed over.

A few hundred machines by default; `LITHO_EXAMPLES=10000` asks for the full number (about a minute).
"""

import os

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litho.errors import DiskError, RefusedError
from litho_agent.disks import choose, guard
from litho_agent.disks.disk import Disk, Holder, Mount, Signature

EXAMPLES = int(os.environ.get("LITHO_EXAMPLES", "300"))
GB = 10**9

NAMES = {
    "ata": ["sda", "sdb", "sdc", "hda", "hdb"],
    "sas": ["sda", "sdb", "sdd"],
    "usb": ["sda", "sdb", "sde"],
    "nvme": ["nvme0n1", "nvme1n1"],
    "virtio": ["vda", "vdb"],
    "mmc": ["mmcblk0", "mmcblk1"],
    "mmc-boot": ["mmcblk0boot0"],
    "loop": ["loop0", "loop1"],
    "optical": ["sr0"],
    "device-mapper": ["dm-0"],
    "md": ["md0"],
    "ram": ["zram0"],
}
TYPES = [
    "ext4",
    "gpt",
    "LVM2_member",
    "linux_raid_member",
    "zfs_member",
    "ceph_bluestore",
    "mpath_member",
    "crypto_LUKS",
]


@st.composite
def machines(draw: st.DrawFn) -> tuple[Disk, ...]:
    found: dict[str, Disk] = {}
    for _ in range(draw(st.integers(0, 6))):
        transport = draw(st.sampled_from(sorted(NAMES)))
        name = draw(st.sampled_from(NAMES[transport]))
        serial = draw(st.sampled_from(["", "S1", "S12", "S123"]))
        found[name] = Disk(
            name=name,
            path=f"/dev/{name}",
            by_path=draw(st.sampled_from([(), (f"/dev/disk/by-path/{name}-path",)])),
            serial=serial,
            wwn=draw(st.sampled_from(["", "naa.5000c500a1", "0x5000c500a12"])),
            model=draw(st.sampled_from(["", "Twin", "Twin 2"])),
            size=draw(st.sampled_from([0, 8 * GB, 500 * GB, 2000 * GB])),
            removable=draw(st.booleans()) if transport in ("usb", "mmc", "ata") else False,
            transport=transport,
            read_only=draw(st.integers(0, 9)) == 0,
            holders=draw(st.sampled_from([(), (), (), (Holder(device=name, by="dm-0", kind="lvm"),)])),
            mounts=draw(
                st.sampled_from(
                    [(), (), (), (Mount(device=name, where="/x"),), (Mount(device=name, where="", swap=True),)]
                )
            ),
            signatures=tuple(
                Signature(device=name, type=kind)
                for kind in draw(st.lists(st.sampled_from(TYPES), max_size=2, unique=True))
            ),
        )
    return tuple(found.values())


TERMS = [
    "sda", "sdb", "nvme0n1", "vda", "loop0", "dm-0", "sr0", "/dev/sda", "/dev/disk/by-path/sda-path", "serial=S1", "serial=S12",
    "wwn=0x5000c500a1", "model=Twin", "size>=100G", "size<=600G", "transport=usb", "transport=nvme", "transport=loop",
]  # fmt: skip
selectors = st.one_of(st.just(""), st.lists(st.sampled_from(TERMS), min_size=1, max_size=2, unique=True).map(",".join))
allows = st.lists(st.sampled_from(guard.LIFTABLE), max_size=2, unique=True)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(machines(), selectors, st.sampled_from(["capture", "restore"]), allows)
def test_the_chooser_never_picks_a_forbidden_disk_and_explains_every_one(inventory, text, action, allow) -> None:
    choice = choose(inventory, text, action, allow)
    # Every disk has a verdict with a reason, and at most one is the chosen one.
    assert [verdict.name for verdict in choice.verdicts] == [one.name for one in inventory]
    assert all(len(verdict.reason) > 10 for verdict in choice.verdicts)
    assert [verdict.name for verdict in choice.verdicts if verdict.chosen] == (
        [choice.disk.name] if choice.disk else []
    )
    if choice.disk is None:
        assert choice.error is not None
        assert choice.message
        assert choice.hint
        assert choice.code.startswith(("disk-", "source-"))
        with pytest.raises((DiskError, RefusedError)):
            choice.require()
        return
    assert choice.error is None
    _check_allowed(choice.disk, inventory, text, action, allow)


def _check_allowed(one: Disk, inventory: tuple[Disk, ...], text: str, action: str, allow: list[str]) -> None:
    """The rule once more, told plainly and apart from the code."""
    assert one.size > 0
    assert not one.mounts
    assert not one.holders
    assert one.transport not in ("optical", "device-mapper", "md", "ram", "mmc-boot")
    words = text.split(",") if text else []
    named = any(word[0] == "/" or "=" not in word or word.startswith(("serial=", "wwn=")) for word in words)
    if one.transport == "usb" or one.removable:
        assert named or "removable" in allow or f"transport={one.transport}" in words
    if one.transport == "loop":
        assert named or "transport=loop" in words
    for word in words:
        key, _, value = word.partition("=")
        if word.startswith("/dev/disk"):
            assert word in one.by_path
        elif key in ("serial", "model"):
            assert getattr(one, key) == value
        elif key == "wwn":
            assert one.wwn.removeprefix("naa.").removeprefix("0x") == value.removeprefix("0x")
        elif key == "transport":
            assert one.transport == value
        elif "=" not in word:
            assert one.name == word.removeprefix("/dev/")
    if action == "restore":
        assert not one.read_only
        lifted = set(allow) | (set(guard.MEMBER_WORDS) if "member" in allow else set())
        kinds = {
            "LVM2_member": "lvm",
            "linux_raid_member": "raid",
            "zfs_member": "zfs",
            "ceph_bluestore": "ceph",
            "mpath_member": "multipath",
        }
        assert all(kinds[s.type] in lifted for s in one.signatures if s.type in kinds)
        if not text:
            others = [other for other in inventory if other is not one and _is_candidate(other, allow)]
            assert not others
    elif not text:
        assert one.signatures


def _is_candidate(one: Disk, allow: list[str]) -> bool:
    portable = (one.transport == "usb" or one.removable) and "removable" not in allow
    known = one.name in ("sda", "sdb", "hda", "hdb") or one.transport in ("nvme", "virtio", "mmc")
    return known and one.size > 0 and not portable and one.transport not in ("loop", "mmc-boot")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(machines(), selectors, st.sampled_from(["capture", "restore"]), st.randoms(use_true_random=False))
def test_the_order_of_the_inventory_does_not_matter(inventory, text, action, random) -> None:
    shuffled = list(inventory)
    random.shuffle(shuffled)
    one, other = choose(inventory, text, action), choose(shuffled, text, action)
    assert (one.disk, one.code) == (other.disk, other.code)


@given(machines())
def test_an_inventory_survives_its_json(inventory) -> None:
    assert msgspec.json.decode(msgspec.json.encode(inventory), type=tuple[Disk, ...]) == inventory
