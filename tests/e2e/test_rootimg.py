"""The root image itself: what is in it, how long a node takes to reach the agent, who gets in, and what ends a hung agent."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from litho import process
from litho.errors import ConfigError
from litho_rootimg import tree

from .conftest import Lab
from .lab.controller import BIN

AGENT = r"claiming task \S+ for n01"
PROGRAMS = """
    python3 partimage partclone.ext4 partclone.xfs partclone.btrfs partclone.ntfs partclone.vfat partclone.exfat
    e2fsck mkfs.xfs btrfs ntfsresize mkfs.vfat mkfs.exfat lvm mdadm mount.nfs sfdisk sgdisk blkid
    zstd pigz smartctl efibootmgr kexec udp-receiver
"""
MODULES = """
    e1000 e1000e igb ixgbe tg3 bnx2 bnx2x i40e ice mlx4_en mlx5_core virtio_net
    virtio_blk ahci ata_piix mptsas megaraid_sas mpt3sas hpsa nvme usb-storage softdog nfs nfsv3 nfsv4
"""


@pytest.fixture
def root(rootimg: Path, tmp_path: Path):
    """The root image, mounted, with a layer for changes above it."""
    below, above, merged = (tmp_path / name for name in ("below", "above", "merged"))
    for folder in (below, above, merged):
        folder.mkdir()
    process.run(["mount", "-t", "tmpfs", "above", above])
    (above / "changes").mkdir()
    (above / "work").mkdir()
    process.run(["mount", "-o", "loop,ro", rootimg / "http/rootimg.squashfs", below])
    process.run(
        [
            "mount",
            "-t",
            "overlay",
            "-o",
            f"lowerdir={below},upperdir={above}/changes,workdir={above}/work",
            "root",
            merged,
        ]
    )
    yield merged
    for folder in (merged, below, above):
        process.run(["umount", folder])


def test_everything_that_the_agent_starts_is_there_and_runs(root: Path, rootimg: Path):
    missing = [name for name in PROGRAMS.split() if process.run(["chroot", root, "which", name], ok=(0, 1)).code]
    assert not missing
    for name in PROGRAMS.split():
        path = process.run(["chroot", root, "which", name]).out.strip()
        done = process.run(["chroot", root, "ldd", path], ok=(0, 1))
        assert tree.missing_libraries(done.out) == [], name
    version = next((root / "lib/modules").iterdir()).name
    for name in MODULES.split():
        assert process.run(["chroot", root, "modprobe", "-S", version, "-D", name]).out.strip(), name
    process.run(["tar", "-xzf", rootimg / "http/agent.tar.gz", "-C", root])
    assert "capture" in process.run(["chroot", root, "litho-agent", "--help"]).out
    assert (root / "etc/mtab").is_symlink()
    assert (root / "etc/lithograph-rootimg").is_file()


def test_it_is_small_and_says_what_is_in_it(rootimg: Path):
    sizes = {name: (rootimg / name).stat().st_size for name in ("http/rootimg.squashfs", "http/initrd.img")}
    sizes["rootimg.gz"] = (rootimg / "xcat/install/image/x86/installer_files/rootimg.gz").stat().st_size
    assert max(sizes.values()) < 150e6, sizes
    names = {component["name"] for component in json.loads((rootimg / "sbom.json").read_bytes())["components"]}
    assert {"partclone", "msgspec", "busybox-static"} <= names
    assert any(name.startswith("linux-image-") for name in names)
    process.run(["sh", "-c", f"cd {rootimg} && sha256sum --quiet -c SHA256SUMS"])


def test_one_command_puts_it_where_a_controller_gives_it_out(rootimg: Path, tmp_path: Path):
    """Nothing has changed since it was built, so the build has nothing to fetch: there is no way to Debian's archive here."""
    settings = tmp_path / "lithograph.toml"
    settings.write_text(f'state_dir = "{tmp_path}/state"\n[boot]\ndir = "{tmp_path}/boot"\n')
    argv = [BIN / "litho", "rootimg", "build", "--out", rootimg]
    told = process.run(argv, env={"LITHO_CONFIG": str(settings)}).out
    assert f"MB  {rootimg}/http/rootimg.squashfs" in told
    assert told.endswith("nodes boot this root image from now on\n")
    for name in ("vmlinuz", "initrd.img", "rootimg.squashfs", "agent.tar.gz"):
        assert (tmp_path / "boot" / name).read_bytes() == (rootimg / "http" / name).read_bytes()


def test_partimage_ng_goes_in_when_its_libraries_are_there(root: Path, tmp_path: Path):
    tree.add_program(root, Path("/usr/bin/env"))
    assert os.access(root / tree.PARTIMAGE_NG, os.X_OK)
    with pytest.raises(
        ConfigError, match=r"needs libraries that the root image does not have: .*libaio|needs libraries"
    ):
        tree.add_program(root, Path(shutil.which("qemu-img") or ""))


@pytest.mark.parametrize(
    "nic",
    [
        pytest.param("virtio-net-pci", marks=pytest.mark.scenario("power on to the agent, virtio, 512 MiB")),
        pytest.param("e1000", marks=pytest.mark.scenario("power on to the agent, e1000, 512 MiB")),
    ],
)
def test_an_armed_node_reaches_the_agent_with_half_a_gibibyte(lab: Lab, nic: str):
    """Power on to the agent's first word, stage by stage."""
    n01 = lab.node(1, memory_mib=512, nic=nic)
    lab.controller.litho("nodeset", "n01", "image=golden")
    n01.power_on()
    n01.expect("iPXE initialising devices", 60)
    lab.figure("iPXE", n01.on_for)
    n01.expect(r"lithograph: n01 boots for t-000001: capture of golden", 60)
    lab.figure("its script", n01.on_for)
    uptime = float(n01.expect(r"initrd \[(.*)\] address", 90)[1])
    lab.figure("kernel", n01.on_for - uptime)
    n01.expect(r"initrd \[.*\] fetched", 90)
    lab.figure("root image fetched", n01.on_for)
    n01.expect(AGENT, 90)
    lab.figure("agent's first word", n01.on_for)
    lab.figure("processor time", n01.computed_s())
    n01.expect("task t-000001: capture golden", 30)
    lab.figure("QEMU's memory", f"{n01.peak_mib()} MiB")


@pytest.mark.scenario("a node with two cards, one of them with a link, and no disk")
def test_a_node_without_a_disk_fails_with_the_reason_and_switches_itself_off(lab: Lab):
    """It has two network cards and is not told which one it booted from: the first has no cable, so it takes the other."""
    n01 = lab.node(1, spare=True)
    lab.controller.litho("nodech", "n01", "bootparams.addkcmdline=BOOTIF=")
    lab.controller.litho("nodeset", "n01", "image=golden", "--then", "poweroff")
    n01.power_on()
    n01.expect(r"initrd \[.*\] address \S+ on eth1", 90)
    n01.expect(AGENT, 90)
    n01.wait_off(120)
    task = lab.controller.task("n01")
    assert task["state"] == "failed"
    assert "disk" in task["reason"]


class Key:
    """A key pair, and what one does with it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        process.run(["dropbearkey", "-t", "ed25519", "-f", file])
        self.public = process.run(["dropbearkey", "-y", "-f", file]).out.splitlines()[1].split()[1]

    def run(self, address: str, command: str) -> process.Done:
        """Run a command on a node as root."""
        argv = ["dbclient", "-y", "-y", "-T", "-i", self._file, "-p", "2222", f"root@{address}", command]
        return process.run(argv, ok=range(256), timeout_s=30)


def test_only_the_holder_of_the_key_gets_in_and_a_hung_agent_does_not_hold_the_node_for_ever(lab: Lab, tmp_path: Path):
    """The agent waits for a controller that is gone, and is stopped in its tracks by SIGSTOP."""
    key, other = Key(tmp_path / "key"), Key(tmp_path / "other")
    n01 = lab.node(1)
    lab.controller.litho("nodech", "n01", f"bootparams.addkcmdline=litho.sshkey={key.public} litho.watchdog=15")
    lab.controller.litho("nodeset", "n01", "image=golden")
    n01.power_on()
    n01.expect("port 2222 is open for one ssh-ed25519 key", 90)
    # Image and agent have been fetched, and the agent's Python begins: it has not asked for anything yet.
    lab.controller.kill()
    n01.expect("the controller at .* does not answer", 60)
    address = lab.address(n01)
    assert "Lithograph" in key.run(address, "cat /etc/lithograph-rootimg").out
    assert other.run(address, "cat /etc/lithograph-rootimg").code != 0
    assert "softdog" in key.run(address, "lsmod").out
    # By this an NFS server tells it from other nodes.
    assert key.run(address, "modprobe nfs && cat /sys/module/nfs/parameters/nfs4_unique_id").out.strip() == n01.mac
    # Longer than the watchdog waits: an agent that only waits is alive.
    time.sleep(20)
    assert key.run(address, "pkill -STOP -f '[l]itho_agent.main'").code == 0
    n01.expect("the agent has had no pulse for .* s: the machine starts anew", 60)
    n01.expect("iPXE", 60)
