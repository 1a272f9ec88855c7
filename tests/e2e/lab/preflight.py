"""Can this machine run the lab? Every reason why not, with the way out: before anything is built, and no test is left out.

Needed: root, also in a container, with the rights to make namespaces, bridges, taps and loop devices (`--privileged`, or
CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_MKNOD and access to these devices); the packages of apt-packages.txt; 3 GiB of free memory and
8 GiB of disk. KVM is not needed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from pathlib import Path

import psutil

from litho import process
from litho.errors import LithoError

GIB = 1024**3
PROGRAMS = {
    "dnsmasq": "dnsmasq-base",
    "dbclient": "dropbear-bin",
    "ganesha.nfsd": "nfs-ganesha",
    "grub-mkimage": "grub-common",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mosquitto": "mosquitto",
    "partclone.ext4": "partclone",
    "partimage": "partimage",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "unshare": "util-linux",
}
FILES = {
    "/usr/lib/PXELINUX/pxelinux.0": "pxelinux",
    "/usr/lib/grub/i386-pc/boot.img": "grub-pc-bin",
    "/usr/lib/ipxe/undionly.kpxe": "ipxe",
    "/usr/lib/ipxe/qemu/pxe-virtio.rom": "ipxe-qemu",
    "/usr/lib/syslinux/modules/bios/ldlinux.c32": "syslinux-common",
    "/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so": "nfs-ganesha-vfs",
    "/usr/share/OVMF/OVMF_CODE_4M.fd": "ovmf",
}
TUN, TUN_NUMBER = Path("/dev/net/tun"), os.makedev(10, 200)
MEMORY, DISK = 3 * GIB, 8 * GIB
_TRY = """
ip link set lo up && ip link add br0 type bridge && ip tuntap add tap0 mode tap && ip link set tap0 master br0 &&
mount -t tmpfs try /run
"""


def missing_programs() -> list[str]:
    """Which packages to install."""
    lacking = {package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    lacking |= {package for name, package in FILES.items() if not Path(name).exists()}
    return [f"packages are missing: apt-get install {' '.join(sorted(lacking))}"] if lacking else []


def no_tun() -> list[str]:
    """Make the device when it is not there, as udev would."""
    with contextlib.suppress(OSError):
        if not TUN.exists():
            TUN.parent.mkdir(mode=0o755, exist_ok=True)
            os.mknod(TUN, 0o666 | stat.S_IFCHR, TUN_NUMBER)
    try:
        with TUN.open("r+b", buffering=0):
            return []
    except OSError as exc:
        return [f"{TUN} cannot be opened ({exc.strerror}): load the module tun, or give the container this device"]


def no_namespace() -> list[str]:
    """Try what the lab will do, in a namespace that is gone at once."""
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", _TRY]
    try:
        process.run(argv, doing="trying a namespace with a bridge and a tap", timeout_s=60)
    except LithoError as exc:
        return [f"{exc}: run as root, in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN (docker: --privileged)"]
    return []


def no_loop() -> list[str]:
    """A loop device must be free: one test mounts the root image, another captures from one."""
    try:
        process.run(["losetup", "--find"], timeout_s=30)
    except LithoError as exc:
        return [f"no loop device can be had ({exc}): load the module loop, or give the container /dev/loop*"]
    return []


def too_little(folder: Path) -> list[str]:
    """Memory and disk."""
    found = []
    if (free := psutil.virtual_memory().available) < MEMORY:
        found.append(f"{free / GIB:.1f} GiB of memory are free, {MEMORY / GIB:.0f} are needed")
    if (free := shutil.disk_usage(folder).free) < DISK:
        found.append(f"{free / GIB:.1f} GiB of disk are free in {folder}, {DISK / GIB:.0f} are needed")
    return found


def problems(folder: Path) -> list[str]:
    """Every reason why the lab cannot run here; its files would go to `folder`."""
    if os.geteuid() != 0:
        return ["the lab runs as root: it makes namespaces, bridges and file systems"]
    lacking = missing_programs()
    return lacking + no_tun() + ([] if lacking else no_namespace()) + no_loop() + too_little(folder)


def main() -> int:
    """Say them; 1 when there are any."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    found = problems(folder)
    for line in found:
        sys.stderr.write(f"this machine cannot run the lab: {line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
