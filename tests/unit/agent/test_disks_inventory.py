"""The inventory from recorded trees: files and links as machines of several kinds show them, below a root of the test's own."""

from pathlib import Path

import msgspec
import pytest

from litho.errors import DiskError
from litho_agent.disks import choose, facts, inventory, render
from litho_agent.disks.disk import Disk, Holder
from litho_agent.disks.inventory import Roots, holder_kind, natural, parse_mountinfo
from litho_agent.filesystems import Probe


class Tree:
    """Builds /sys, /proc and /dev of a machine."""

    def __init__(self, root: Path) -> None:
        self.roots = Roots(sys=root / "sys", proc=root / "proc", dev=root / "dev")
        self.minor = 0
        for directory in (
            self.roots.sys / "block",
            self.roots.sys / "class/block",
            self.roots.proc / "self",
            self.roots.dev,
        ):
            directory.mkdir(parents=True)
        self.contents: dict[str, tuple[Probe, ...]] = {}
        self.udev: dict[str, dict[str, str]] = {}

    def disk(self, name: str, bus: str, size: int = 1000, **attributes: str | bytes) -> Path:
        """A whole disk; `size` in units of 512 bytes, attributes by path with `__` for `/`."""
        directory = self.roots.sys / "devices" / bus / "block" / name
        directory.mkdir(parents=True)
        (self.roots.sys / "block" / name).symlink_to(directory)
        self._node(name, directory)
        plain = {"size": str(size), "ro": "0", "removable": "0", "queue__logical_block_size": "512"}
        for key, value in {**plain, **attributes}.items():
            path = directory / key.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value if isinstance(value, bytes) else f"{value}\n".encode())
        return directory

    def part(self, disk: Path, name: str, number: int) -> Path:
        directory = disk / name
        directory.mkdir()
        (directory / "partition").write_text(f"{number}\n")
        self._node(name, directory)
        return directory

    def _node(self, name: str, directory: Path) -> None:
        self.minor += 1
        (directory / "dev").write_text(f"8:{self.minor}\n")
        (self.roots.sys / "class/block" / name).symlink_to(directory)
        (self.roots.dev / name).touch()

    def holder(self, node: Path, by: str, uuid: str = "", name: str = "") -> None:
        (node / "holders" / by).mkdir(parents=True)
        if uuid:
            dm = self.roots.sys / "block" / by / "dm"
            if not dm.exists():
                dm.mkdir(parents=True)
                (dm / "uuid").write_text(f"{uuid}\n")
                (dm / "name").write_text(f"{name}\n")

    def link(self, kind: str, name: str, target: str) -> None:
        directory = self.roots.dev / "disk" / kind
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).symlink_to(f"../../{target}")

    def read(self) -> dict[str, Disk]:
        found = inventory.read(
            self.roots,
            properties=lambda name: self.udev.get(name, {}),
            prober=lambda path: self.contents.get(path.name, ()),
        )
        return {disk.name: disk for disk in found}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_sata_disk_is_told_from_sysfs_alone(tree: Tree) -> None:
    page = b"\x00\x80\x00\x14      S1AB2345CD6789"
    one = tree.disk(
        "sda",
        "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0",
        size=976773168,
        device__vpd_pg80=page,
        device__model="ST500DM002-1BD14",
        device__wwid="naa.5000c500a1b2c3d4",
        queue__physical_block_size="4096",
        queue__rotational="1",
    )
    tree.part(one, "sda1", 1)
    tree.part(one, "sda10", 10)
    tree.part(one, "sda2", 2)
    tree.link("by-path", "pci-0000:00:1f.2-ata-1", "sda")
    tree.link("by-path", "pci-0000:00:1f.2-ata-1-part1", "sda1")
    tree.link("by-id", "wwn-0x5000c500a1b2c3d4", "sda")
    tree.contents = {"sda": (Probe(table="gpt", table_uuid="u"),), "sda2": (Probe(type="ext4", usage="filesystem"),)}
    disk = tree.read()["sda"]
    assert (disk.transport, disk.serial, disk.model, disk.wwn) == (
        "ata",
        "S1AB2345CD6789",
        "ST500DM002-1BD14",
        "naa.5000c500a1b2c3d4",
    )
    assert (disk.size, disk.logical, disk.physical, disk.rotational) == (500107862016, 512, 4096, True)
    assert disk.partitions == ("sda1", "sda2", "sda10")
    assert disk.by_path == ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1",)
    assert disk.by_id == ("/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",)
    assert [(s.device, s.type) for s in disk.signatures] == [("sda", "gpt"), ("sda2", "ext4")]
    assert disk.has_content
    assert facts(disk).by_path == "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"


PLACES = [
    ("sda", "pci0000:00/ata1/host0/target0:0:0/0:0:0:0", "ata"),
    ("sda", "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host4/target4:0:0/4:0:0:0", "usb"),
    ("sda", "pci0000:00/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0", "sas"),
    ("sda", "pci0000:00/host7/rport-7:0-1/target7:0:1/7:0:1:0", "fc"),
    ("sda", "platform/host9/session1/target9:0:0/9:0:0:0", "iscsi"),
    ("sda", "pci0000:00/virtio3/host2/target2:0:0/2:0:0:0", "virtio"),
    ("sda", "pci0000:00/host2/target2:2:0/2:2:0:0", "scsi"),
    ("vda", "pci0000:00/0000:00:05.0/virtio2", "virtio"),
    ("nvme0n1", "pci0000:00/0000:01:00.0/nvme/nvme0", "nvme"),
    ("mmcblk0", "platform/soc/mmc_host/mmc0/mmc0:0001", "mmc"),
    ("mmcblk0boot0", "platform/soc/mmc_host/mmc0/mmc0:0001", "mmc-boot"),
    ("hda", "pci0000:00/ide0/0.0", "ata"),
    ("xvda", "vbd-768", "xen"),
    ("loop0", "virtual", "loop"),
    ("dm-0", "virtual", "device-mapper"),
    ("md127", "virtual", "md"),
    ("sr0", "pci0000:00/ata2/host1", "optical"),
    ("zram0", "virtual", "ram"),
    ("strange0", "virtual", "unknown"),
]


@pytest.mark.parametrize(("name", "bus", "transport"), PLACES, ids=[f"{name}-{t}" for name, _, t in PLACES])
def test_the_transport_is_told_from_the_place_in_the_device_tree(
    tree: Tree, name: str, bus: str, transport: str
) -> None:
    tree.disk(name, bus)
    assert tree.read()[name].transport == transport


def test_a_usb_bridge_is_usb_although_udev_calls_the_disk_behind_it_ata(tree: Tree) -> None:
    tree.disk("sda", "pci0000:00/usb1/1-2/host4/target4:0:0/4:0:0:0")
    tree.udev = {"sda": {"ID_BUS": "ata"}}
    assert tree.read()["sda"].transport == "usb"


def test_an_sd_card_counts_as_removable_and_an_emmc_does_not(tree: Tree) -> None:
    tree.disk("mmcblk0", "mmc0", device__type="MMC", device__serial="0x1234", device__name="DG4008")
    tree.disk("mmcblk1", "mmc1", device__type="SD")
    found = tree.read()
    assert (found["mmcblk0"].removable, found["mmcblk1"].removable) == (False, True)
    assert (found["mmcblk0"].serial, found["mmcblk0"].model) == ("0x1234", "DG4008")


def test_udev_adds_serials_and_the_kernels_own_comes_first(tree: Tree) -> None:
    tree.disk("sda", "host0/target0", device__model="MODEL")
    tree.disk("nvme0n1", "nvme", device__serial="  S3Z1  ", wwid="eui.0025385b01")
    tree.udev = {
        "sda": {
            "ID_SERIAL": "35000c500a1",
            "ID_SERIAL_SHORT": "5000c500a1",
            "ID_SCSI_SERIAL": "Z1X2",
            "ID_WWN": "0x5000c500a1",
        },
        "nvme0n1": {"ID_SERIAL": "Samsung_S3Z1", "ID_SERIAL_SHORT": "S3Z1"},
    }
    found = tree.read()
    assert (found["sda"].serial, found["sda"].other_serials) == ("Z1X2", ("5000c500a1", "35000c500a1"))
    assert (found["nvme0n1"].serial, found["nvme0n1"].other_serials) == ("S3Z1", ("Samsung_S3Z1",))
    assert (found["sda"].wwn, found["nvme0n1"].wwn) == ("0x5000c500a1", "eui.0025385b01")


def test_multipath_lvm_raid_and_crypt_show_as_holders_of_disk_and_partitions(tree: Tree) -> None:
    one = tree.disk("sda", "host0")
    two = tree.disk("sdb", "host1")
    first = tree.part(two, "sdb1", 1)
    second = tree.part(two, "sdb2", 2)
    tree.holder(one, "dm-0", "mpath-3600508b1", "mpatha")
    tree.holder(first, "md0")
    tree.holder(second, "dm-1", "LVM-abcdef", "vg0-root")
    tree.holder(second, "dm-2", "CRYPT-LUKS2-abc", "home")
    found = tree.read()
    assert found["sda"].holders == (Holder(device="sda", by="dm-0", kind="multipath", name="mpatha"),)
    assert [(h.device, h.by, h.kind, h.name) for h in found["sdb"].holders] == [
        ("sdb1", "md0", "md", ""),
        ("sdb2", "dm-1", "lvm", "vg0-root"),
        ("sdb2", "dm-2", "dm-crypt", "home"),
    ]


@pytest.mark.parametrize(
    ("by", "uuid", "kind"),
    [
        ("dm-0", "part1-mpath-36005", "multipath"),
        ("dm-0", "DMRAID-isw", "raid"),
        ("dm-0", "", "dm"),
        ("bcache0", "", "bcache"),
        ("drbd1", "", "drbd"),
        ("what", "", "other"),
    ],
)
def test_a_holder_is_told_by_its_name_and_device_mappers_uuid(by: str, uuid: str, kind: str) -> None:
    assert holder_kind(by, uuid) == kind


def test_mounts_are_found_by_number_by_source_and_as_swap(tree: Tree) -> None:
    disk = tree.disk("sda", "host0")
    numbers = {}
    for number in (1, 2, 3, 4):
        numbers[number] = (tree.part(disk, f"sda{number}", number) / "dev").read_text().strip()
    (tree.roots.proc / "self/mountinfo").write_text(
        f"22 1 {numbers[1]} / /srv\\040images rw,relatime shared:1 - ext4 /dev/root rw\n"
        "23 1 0:45 /sub /mnt ro,relatime - btrfs /dev/sda2 ro,space_cache\n"
        f"24 1 {numbers[3]} / /bound ro - xfs /dev/sda3 rw\n"
        "25 1 0:5 / /proc rw - proc proc rw\n"
        "garbage\n"
    )
    (tree.roots.proc / "swaps").write_text(
        "Filename Type Size Used Priority\n/dev/sda4 partition 1 0 -2\n/swapfile file 1 0 -3\n"
    )
    mounts = tree.read()["sda"].mounts
    assert [(m.device, m.where, m.fs, m.read_only, m.swap) for m in mounts] == [
        ("sda1", "/srv images", "ext4", False, False),
        ("sda2", "/mnt", "btrfs", True, False),
        ("sda3", "/bound", "xfs", False, False),
        ("sda4", "", "swap", False, True),
    ]


@pytest.mark.parametrize("line", ["", "a - b", "1 2 3:4 / / - ext4", "x" * 9000])
def test_a_line_of_mountinfo_that_is_none_is_left_out(line: str) -> None:
    assert parse_mountinfo(line) is None


def test_a_loop_device_that_stands_on_a_disk_uses_it(tree: Tree) -> None:
    tree.disk("sda", "host0")
    tree.disk("loop7", "virtual", loop__backing_file="/dev/sda")
    tree.disk("loop8", "virtual", loop__backing_file="/srv/sda")
    assert tree.read()["sda"].holders == (Holder(device="sda", by="loop7", kind="loop"),)


def test_a_reader_without_a_medium_is_listed_and_not_probed(tree: Tree) -> None:
    tree.disk("sda", "usb1/1-1", size=0, removable="1")
    found = inventory.read(tree.roots, properties=lambda _: {}, prober=lambda _: pytest.fail("probed"))
    assert (found[0].size, found[0].removable) == (0, True)


def test_what_cannot_be_probed_is_noted_and_does_not_stop_the_rest(tree: Tree) -> None:
    tree.disk("sda", "host0")
    tree.disk("sdb", "host1")

    def prober(path: Path) -> tuple[Probe, ...]:
        if path.name == "sda":
            raise DiskError("/dev/sda cannot be read: Input/output error")
        return (Probe(type="xfs"),)

    found = inventory.read(tree.roots, properties=lambda _: {}, prober=prober)
    assert found[0].note == "sda: /dev/sda cannot be read: Input/output error"
    assert found[1].signatures[0].type == "xfs"


def test_the_hidden_paths_of_a_multipath_nvme_are_left_out(tree: Tree) -> None:
    tree.disk("nvme0n1", "nvme-subsystem")
    tree.disk("nvme0c0n1", "nvme0", hidden="1")
    assert list(tree.read()) == ["nvme0n1"]


def test_firmware_strings_cannot_play_with_the_terminal(tree: Tree) -> None:
    tree.disk("sda", "host0", device__model=b"\x1b[31mEvil\x00\xff  disk \n\n", size="not a number")
    disk = tree.read()["sda"]
    assert disk.model == "[31mEvil \ufffd disk"
    assert disk.size == 0


def test_names_sort_as_the_kernel_counts() -> None:
    names = ["sdaa", "nvme10n1", "sdb", "vda", "nvme2n1", "sda", "loop10", "loop9"]
    assert sorted(names, key=natural) == ["loop9", "loop10", "nvme2n1", "nvme10n1", "sda", "sdb", "sdaa", "vda"]


def test_a_machine_without_sysfs_has_no_disks(tmp_path: Path) -> None:
    assert inventory.read(Roots(sys=tmp_path / "none", proc=tmp_path, dev=tmp_path)) == ()


def test_the_table_and_the_json_explain_every_disk(tree: Tree) -> None:
    tree.disk("sda", "usb1/1-1", size=0, removable="1")
    tree.disk("nvme0n1", "nvme", size=1000215216, device__serial="S1", device__model="SSD 980")
    tree.contents = {"nvme0n1": (Probe(table="gpt"),)}
    disks = tuple(tree.read().values())
    choice = choose(disks, "", "capture")
    lines = render.as_text(disks, choice).splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "SECTOR", "TRANSPORT", "MODEL", "SERIAL", "WWN", "ON", "IT"]
    assert "nvme0n1  512 GB" in lines[1]
    assert "nvme0n1:gpt" in lines[1]
    assert lines[4].startswith("chosen  nvme0n1  it is the first in the order")
    assert lines[5].startswith("not     sda      it is a USB disk")
    told = msgspec.json.decode(render.as_json(disks, choice))
    assert told["chosen"] == "nvme0n1"
    assert [verdict["name"] for verdict in told["verdicts"]] == ["nvme0n1", "sda"]
    assert told["error"] is None
    none = msgspec.json.decode(render.as_json(disks, choose(disks, "sdx", "restore")))
    assert none["error"]["code"] == "disk-missing"
    assert "no disk of this machine is sdx" in render.as_text(disks, choose(disks, "sdx", "restore"))
    assert render.as_text(()) == "this machine has no disks\n"
