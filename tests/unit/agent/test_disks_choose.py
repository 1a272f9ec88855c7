"""Which disk: the rule, over inventories of machines that people have, written down as data."""

import msgspec
import pytest

from litho.errors import DiskError, RefusedError, UsageError
from litho_agent.disks import choose, guard, require_same
from litho_agent.disks.disk import Disk, Holder, Mount, Signature, described
from litho_agent.disks.selector import parse, parse_size

GB = 10**9


def disk(name: str, transport: str = "ata", *, content: bool = False, **more) -> Disk:
    signatures = (Signature(device=name, type="gpt", usage="table"),) if content else ()
    return Disk(
        name=name, path=f"/dev/{name}", transport=transport, **{"size": 500 * GB, "signatures": signatures, **more}
    )


def member(name: str, kind: str) -> tuple[Signature, ...]:
    return (Signature(device=f"{name}2", type=kind, usage="raid"),)


USB_FIRST = (disk("sda", "usb", removable=True, content=True, size=16 * GB), disk("sdb", content=True))
TWINS = (
    disk("nvme0n1", "nvme", content=True, serial="S3Z1NX0K1", model="SAMSUNG MZVL2512"),
    disk("nvme1n1", "nvme", content=True, serial="S3Z1NX0K12", model="SAMSUNG MZVL2512"),
)
OLD_KERNEL = (disk("hda", content=True), disk("hdb"))
MULTIPATH = tuple(
    disk(name, "fc", wwn="naa.600508b1", holders=(Holder(device=name, by="dm-0", kind="multipath", name="mpatha"),))
    for name in ("sda", "sdb")
)
CARD_READER = (
    disk("sda", "usb", removable=True, size=0),
    disk("sdb", "usb", removable=True, size=0),
    disk("sdc", "ata"),
)
SERVER = (
    disk("sda", "sas", content=True, serial="A1"),
    disk("sdb", "sas", signatures=member("sdb", "ceph_bluestore"), serial="A2"),
    disk("nvme0n1", "nvme", serial="N1"),
    disk("sr0", "optical", removable=True),
    disk("loop0", "loop"),
    disk("dm-0", "device-mapper"),
    disk("zram0", "ram"),
)


# ---------------------------------------------------------------- the default rule


def test_a_usb_stick_that_comes_first_is_passed_over() -> None:
    for action in ("capture", "restore"):
        choice = choose(USB_FIRST, "", action)
        assert choice.require().name == "sdb"
        assert choice.verdicts[0].reason == "it is a USB disk, which is taken only when it is named"
        assert not choice.verdicts[0].chosen


def test_the_first_of_the_seeds_four_names_with_content_is_captured() -> None:
    assert choose(OLD_KERNEL, "", "capture").require().name == "hda"
    both = (disk("sda"), disk("sdb", content=True), disk("hda", content=True))
    choice = choose(both, "", "capture")
    assert choice.require().name == "sdb"
    assert [verdict.reason for verdict in choice.verdicts] == [
        "nothing lies on it: no partition table, no file system",
        "it is the first in the order sda, sdb, hda, hdb, NVMe, virtio, eMMC on which something lies",
        "sdb comes before it in the order sda, sdb, hda, hdb, NVMe, virtio, eMMC",
    ]


def test_two_nvme_with_content_have_no_order_so_a_capture_lists_them() -> None:
    with pytest.raises(DiskError) as caught:
        choose(TWINS, "", "capture").require()
    assert caught.value.code == "disk-ambiguous"
    assert caught.value.message == (
        "2 NVMe disks carry something that could be captured: /dev/nvme0n1, 500 GB, nvme, SAMSUNG MZVL2512, "
        "serial S3Z1NX0K1; /dev/nvme1n1, 500 GB, nvme, SAMSUNG MZVL2512, serial S3Z1NX0K12"
    )
    assert caught.value.hint == "name one with litho.disk=, best by its serial"


def test_of_two_nvme_the_one_with_content_is_captured() -> None:
    disks = (disk("nvme0n1", "nvme"), disk("nvme1n1", "nvme", content=True))
    assert choose(disks, "", "capture").require().name == "nvme1n1"


def test_a_disk_whose_content_cannot_be_told_is_not_skipped_in_silence() -> None:
    disks = (disk("nvme0n1", "nvme", note="nvme0n1: cannot be read"), disk("nvme1n1", "nvme", content=True))
    assert choose(disks, "", "capture").code == "disk-ambiguous"


def test_a_restore_needs_exactly_one_candidate_whatever_the_names() -> None:
    choice = choose((disk("sda"), disk("sdb")), "", "restore")
    assert choice.disk is None
    assert choice.code == "disk-ambiguous"
    assert choice.message.startswith("2 disks could be restored onto: /dev/sda")
    assert choose((disk("vda", "virtio"),), "", "restore").require().name == "vda"
    assert choose((disk("mmcblk0", "mmc"),), "", "restore").require().name == "mmcblk0"


def test_a_disk_that_the_guard_refuses_still_counts_so_its_neighbour_is_never_the_only_one_left() -> None:
    disks = (disk("sda", mounts=(Mount(device="sda1", where="/srv"),)), disk("sdb"))
    assert choose(disks, "", "restore").code == "disk-ambiguous"
    alone = choose(disks[:1], "", "restore")
    assert alone.disk is None
    with pytest.raises(RefusedError, match="has sda1 mounted on /srv: unmount /srv first"):
        alone.require()


def test_multipath_shows_as_two_disks_in_use_and_neither_is_taken() -> None:
    assert choose(MULTIPATH, "", "restore").code == "disk-ambiguous"
    named = choose(MULTIPATH, "sda", "restore")
    with pytest.raises(RefusedError) as caught:
        named.require()
    assert str(caught.value) == (
        "/dev/sda is not for restoring onto: it is in use by multipath mpatha (dm-0 holds sda): flush it with `multipath -f`"
    )


def test_a_name_beyond_the_rule_is_taken_only_when_it_is_named() -> None:
    choice = choose(CARD_READER, "", "restore")
    assert choice.code == "disk-missing"
    assert choice.verdicts[0].reason == "it is a USB disk, which is taken only when it is named"
    assert "name it to use it" in choice.verdicts[2].reason
    assert choose(CARD_READER, "sdc", "restore").require().name == "sdc"


def test_a_machine_without_disks_says_so() -> None:
    with pytest.raises(DiskError, match="it has no disks at all"):
        choose((), "", "restore").require()


# ---------------------------------------------------------------- selectors


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ("sda", "sda"),
        ("/dev/nvme0n1", "nvme0n1"),
        ("serial=A1", "sda"),
        ("serial=S3Z-LONG", "nvme0n1"),
        ("wwn=0x5000C500A1", "sda"),
        ("wwn=naa.5000c500a1", "sda"),
        ("model=Samsung SSD 980", "nvme0n1"),
        ("model=Samsung_SSD_980", "nvme0n1"),
        ("transport=nvme", "nvme0n1"),
        ("transport=nvme,size>=400G,size<=500G", "nvme0n1"),
        ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "sda"),
        ("/dev/disk/by-id/usb-Stick-0:0", "sdc"),
        ("transport=usb", "sdc"),
        ("loop0", "loop0"),
    ],
)
def test_a_selector_finds_its_disk(selector: str, name: str) -> None:
    disks = (
        disk("sda", serial="A1", wwn="naa.5000c500a1", by_path=("/dev/disk/by-path/pci-0000:00:1f.2-ata-1",)),
        disk("sdc", "usb", removable=True, by_id=("/dev/disk/by-id/usb-Stick-0:0",)),
        disk("nvme0n1", "nvme", serial="N1", other_serials=("S3Z-LONG",), model="Samsung SSD 980"),
        disk("loop0", "loop"),
    )
    assert choose(disks, selector, "restore").require().name == name


def test_a_serial_that_is_a_prefix_of_anothers_does_not_match_it() -> None:
    assert choose(TWINS, "serial=S3Z1NX0K1", "restore").require().name == "nvme0n1"
    assert choose(TWINS, "serial=S3Z1NX0K", "restore").code == "disk-missing"
    assert choose(TWINS, "serial=s3z1nx0k1", "restore").code == "disk-missing"
    assert choose(TWINS, "model=SAMSUNG", "restore").code == "disk-missing"


def test_names_that_change_places_between_two_boots_do_not_change_the_disk() -> None:
    before = (
        disk("sda", serial="A1", wwn="naa.5000c500a1", by_path=("/dev/disk/by-path/pci-0000:00:1f.2-ata-1",)),
        disk("sdb", serial="B2", wwn="naa.5000c500b2", by_path=("/dev/disk/by-path/pci-0000:00:1f.2-ata-2",)),
    )
    names = {"sda": "sdb", "sdb": "sda"}
    after = tuple(msgspec.structs.replace(one, name=names[one.name], path=f"/dev/{names[one.name]}") for one in before)
    for selector in ("serial=B2", "wwn=0x5000c500b2", "/dev/disk/by-path/pci-0000:00:1f.2-ata-2"):
        found = [choose(disks, selector, "restore").require() for disks in (before, after)]
        assert [one.serial for one in found] == ["B2", "B2"]
        assert [one.name for one in found] == ["sdb", "sda"]
    # By the kernel's name it would be another one: told with its serial before anything is written.
    assert choose(after, "sdb", "restore").require().serial == "A1"
    assert "serial A1" in described(choose(after, "sdb", "restore").require())


def test_equal_twins_are_listed_and_none_is_taken() -> None:
    choice = choose(TWINS, "model=SAMSUNG MZVL2512", "restore")
    assert choice.code == "disk-ambiguous"
    assert choice.hint == "add a term that only one of them meets, such as serial="


@pytest.mark.parametrize("action", ["capture", "restore"])
def test_a_name_that_is_absent_is_an_error_and_never_another_disk(action: str) -> None:
    choice = choose((disk("sda", content=True),), "sdb", action)
    assert choice.disk is None
    assert choice.message == "no disk of this machine is sdb"
    assert choice.hint == "it has /dev/sda, 500 GB, ata"


def test_a_partition_that_is_named_is_told_from_a_missing_disk() -> None:
    choice = choose((disk("sda", partitions=("sda1",)),), "/dev/sda1", "restore")
    assert choice.hint == "that is a partition: name the disk sda"


def test_a_sort_of_disk_does_not_reach_a_removable_one() -> None:
    stick = (disk("sda", "usb", removable=True, model="Stick"),)
    choice = choose(stick, "model=Stick", "restore")
    assert (
        choice.message
        == "the disk model=Stick is not taken: sda: it is a USB disk, which is taken only when it is named"
    )
    assert choose(stick, "model=Stick", "restore", ["removable"]).require().name == "sda"
    assert choose(stick, "", "restore", ["removable"]).require().name == "sda"


@pytest.mark.parametrize("name", ["sr0", "dm-0", "zram0"])
def test_what_is_no_disk_is_refused_even_by_name(name: str) -> None:
    with pytest.raises(RefusedError, match="is no disk of its own"):
        choose(SERVER, name, "restore").require()


@pytest.mark.parametrize(
    "text",
    [
        "sda sdb",
        "/dev/",
        "/dev/../sda",
        "serial",
        "size>5",
        "size>=big",
        "size>=-1",
        "transport=warp",
        "foo=1",
        ",",
        "sda,",
    ],
)
def test_a_selector_that_is_none_is_an_error_that_says_what_is(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.code == "bad-selector"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("500G", 500 * GB),
        ("500GB", 500 * GB),
        ("1Ki", 1024),
        ("2TiB", 2 * 1024**4),
        ("7B", 7),
    ],
)
def test_sizes_are_decimal_unless_they_say_otherwise(text: str, size: int) -> None:
    assert parse_size(text) == size


# ---------------------------------------------------------------- guard


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("LVM2_member", "lvm"),
        ("linux_raid_member", "raid"),
        ("some_new_raid_member", "raid"),
        ("zfs_member", "zfs"),
        ("ceph_bluestore", "ceph"),
        ("mpath_member", "multipath"),
        ("VMFS_volume_member", "cluster"),
    ],
)
def test_a_member_of_something_larger_is_refused_with_the_word_that_allows_it(kind: str, word: str) -> None:
    disks = (disk("sda", signatures=member("sda", kind)),)
    with pytest.raises(RefusedError) as caught:
        choose(disks, "sda", "restore").require()
    assert caught.value.code == f"disk-{word}"
    assert caught.value.hint == f"say litho.allow={word} if what lies on it may be destroyed"
    assert f"({kind} on sda2)" in caught.value.message
    for allowed in (word, "member"):
        assert choose(disks, "sda", "restore", [allowed]).require().name == "sda"
    assert choose(disks, "sda", "capture").require().name == "sda"


NEVER = {
    "read-only": {"read_only": True},
    "mounted": {"mounts": (Mount(device="sda2", where="/"),)},
    "swap": {"mounts": (Mount(device="sda3", where="", swap=True),)},
    "held": {"holders": (Holder(device="sda2", by="md0", kind="md"),)},
    "no-medium": {"size": 0},
}


@pytest.mark.parametrize("case", NEVER)
def test_no_word_lifts_what_would_destroy_in_any_case(case: str) -> None:
    one = disk("sda", **NEVER[case])
    for allow in ((), guard.LIFTABLE):
        with pytest.raises(RefusedError):
            choose((one,), "sda", "restore", allow).require()
        with pytest.raises(RefusedError):
            guard.check(one, "restore", allow)


def test_a_write_protected_source_can_be_captured_and_one_in_use_cannot() -> None:
    assert choose((disk("sda", content=True, read_only=True),), "", "capture").require().name == "sda"
    for case in ("mounted", "swap", "held"):
        with pytest.raises(RefusedError):
            choose((disk("sda", content=True, **NEVER[case]),), "", "capture").require()


@pytest.mark.parametrize(("word", "text"), [("mounted", "cannot be allowed"), ("everything", "lifts no guard")])
def test_a_word_that_lifts_nothing_is_an_error(word: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        choose((disk("sda"),), "sda", "restore", [word])


def test_every_reason_is_told_at_once() -> None:
    one = disk(
        "sda",
        read_only=True,
        mounts=(Mount(device="sda1", where="/a"), Mount(device="sda2", where="/b", read_only=True)),
    )
    with pytest.raises(RefusedError) as caught:
        guard.check(one, "restore")
    assert caught.value.message == (
        "/dev/sda is not for restoring onto: it is write-protected; has sda1 mounted on /a; has sda2 mounted read-only on /b"
    )


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"serial": "B"}, "its serial was A and is B"),
        ({"wwn": "naa.2"}, "its WWN was naa.1 and is naa.2"),
        ({"size": 2 * GB}, "it had 500000000000 bytes in sectors of 512 and has 2000000000"),
        ({"logical": 4096}, "in sectors of 4096"),
        ({"path": "/dev/sdb"}, "the choice is now /dev/sdb"),
    ],
)
def test_a_disk_that_is_another_one_once_it_is_held_is_an_error(now: dict[str, object], told: str) -> None:
    chosen = disk("sda", serial="A", wwn="naa.1")
    with pytest.raises(DiskError, match=told) as caught:
        require_same(chosen, msgspec.structs.replace(chosen, **now))
    assert caught.value.code == "disk-changed"


def test_what_udev_had_not_said_yet_makes_no_other_disk() -> None:
    require_same(disk("sda"), disk("sda", serial="A", wwn="naa.1", model="M", content=True))


@pytest.mark.parametrize("action", ["capture", "restore"])
def test_a_second_path_to_a_disk_in_use_is_refused_although_nothing_holds_it(action) -> None:
    used = disk("sdb", "fc", wwn="naa.600508b1", mounts=(Mount(device="sdb1", where="/srv"),))
    paths = (disk("sda", "fc", wwn="naa.600508b1"), used)
    choice = choose(paths, "sda", action)
    assert choice.code == "disk-mounted"
    assert (
        "has the WWN of sdb and may be the same disk by another path, which has sdb1 mounted on /srv" in choice.message
    )
    assert choose((paths[0], msgspec.structs.replace(used, mounts=())), "sda", action).disk == paths[0]
    assert choose((paths[0], msgspec.structs.replace(used, wwn="naa.2")), "sda", action).disk == paths[0]
    assert choose((disk("sda"), msgspec.structs.replace(used, wwn="")), "sda", action).disk == disk("sda")
