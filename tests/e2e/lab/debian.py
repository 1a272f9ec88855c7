"""A small Debian that boots from a disk: made once from the machine's own apt sources, and kept under build/e2e.

It is what a site's golden node has: systemd, a generic kernel with an initramfs, a login on the serial console. Two
things make it quick under emulation: kernel modules and the initramfs hold only what the lab's disks and cards
need. On its console it says `LITHO-MARKER <content>` when a file of random bytes still has the hash that was taken
when it was made.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from litho import process
from litho_rootimg import base, sources, stamps

PACKAGES = (
    "systemd-sysv",
    "udev",
    "linux-image-amd64",
    "initramfs-tools",
    "zstd",
    "iproute2",
    "e2fsprogs",
    "usr-is-merged",
)
_LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/lib/modules/*/kernel/*",
    "/usr/lib/udev/hwdb.d/*",
    "/lib/udev/hwdb.d/*",
)
_TAKEN = tuple(
    f"/lib/modules/*/kernel/{name}"
    for name in (
        "block/*", "drivers/ata/*", "drivers/scsi/s*", "drivers/virtio/*", "drivers/block/virtio*", "drivers/block/loop*",
        "drivers/nvme/*",
        "drivers/net/virtio*", "drivers/net/ethernet/intel/e1000*", "net/core/*", "drivers/char/hw_random/*", "drivers/message/*",
        "fs/ext4/*", "fs/jbd2/*", "fs/mbcache*", "fs/xfs/*", "fs/fat/*", "fs/nls/*", "fs/efivarfs/*", "lib/*", "crypto/*",
        "arch/x86/crypto/*", "drivers/ptp/*", "drivers/pps/*",
    )
)  # fmt: skip
_MARKER = """\
[Unit]
Description=Say that this system is what it was
After=local-fs.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/usr/local/sbin/litho-marker
[Install]
WantedBy=multi-user.target
"""
_MARKER_SCRIPT = """\
#!/bin/sh
cd /var/lib/payload || exit 1
if sha256sum --status -c sums; then
    echo "LITHO-MARKER content is whole on $(findmnt -no SOURCE,FSTYPE /)"
else
    echo "LITHO-MARKER content is damaged"
fi
"""
_MASKED = (
    "systemd-timesyncd.service", "systemd-pstore.service", "systemd-update-utmp.service", "e2scrub_reap.service",
    "apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer",
)  # fmt: skip
PAYLOAD_MIB = 48


def make(cache: Path) -> Path:
    """The tree; made when it is not there or this recipe changed."""
    tree, stamp = cache / "debian", stamps.Stamp(cache / "debian.stamp", stamps.digest([Path(__file__)]))
    if stamp.fresh(tree):
        return tree
    cache.mkdir(parents=True, exist_ok=True)
    stamp.begin()
    shutil.rmtree(tree, ignore_errors=True)
    argv: list[str | Path] = ["mmdebstrap", "--mode=root", "--variant=essential", "--format=directory"]
    argv += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
    options = base.apt_options(process.run(["apt-config", "dump"]).out)
    argv += [f"--aptopt={option}" for option in [*options, 'APT::Install-Recommends "false";']]
    argv += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT)]
    argv += [f"--dpkgopt=path-include={path}" for path in _TAKEN]
    argv += [f"--include={','.join(PACKAGES)}"]
    # Before the kernel's package makes its initramfs.
    argv += ["--essential-hook=mkdir -p $1/etc/initramfs-tools/conf.d"]
    argv += ["--essential-hook=printf 'MODULES=most\\nCOMPRESS=zstd\\n' > $1/etc/initramfs-tools/conf.d/lab"]
    process.run(
        [*argv, "", tree, "-"],
        stdin=sources.choose(sources.read()).encode(),
        env=base.network_environment(),
        timeout_s=900,
        doing="making the lab's Debian",
    )
    _configure(tree)
    stamp.done()
    return tree


def _configure(tree: Path) -> None:
    (tree / "etc/hostname").write_text("golden\n")
    (tree / "etc/fstab").write_text("")
    (tree / "etc/machine-id").write_text("")
    process.run(["chroot", tree, "chpasswd"], stdin=b"root:lab\n")
    payload = tree / "var/lib/payload"
    payload.mkdir(parents=True)
    (payload / "bytes").write_bytes(os.urandom(PAYLOAD_MIB * 1024 * 1024))
    sums = process.run(["sha256sum", payload / "bytes"]).out.split()[0]
    (payload / "sums").write_text(f"{sums}  bytes\n")
    units = tree / "etc/systemd/system"
    (units / "litho-marker.service").write_text(_MARKER)
    script = tree / "usr/local/sbin/litho-marker"
    script.write_text(_MARKER_SCRIPT)
    script.chmod(0o755)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "litho-marker.service").symlink_to("/etc/systemd/system/litho-marker.service")
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
