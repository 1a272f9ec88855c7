"""A bundle as another site would send it: a system that runs in memory, in the form of seed 1's `manifest.cfg`.

Its initrd does what xCAT's does in stateless nodes: it asks for an address, fetches `imgurl=` and goes there. Kernel, drivers and
busybox are those of the root image. The system says on the console which node it runs on and whether its content is whole.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from litho import process
from litho_rootimg import archive

OS, ARCH, PROFILE = "debian12", "x86_64", "lab"
NAME = f"{OS}-{ARCH}-netboot-{PROFILE}"
_MANIFEST = f"""\
# a system that runs in memory
name    {NAME}
os      {OS}
arch    {ARCH}
profile {PROFILE}
method  netboot
kernel  vmlinuz
initrd  initrd.img
rootimg rootimg.gz
"""
_INITRD = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /run/lithograph
for pass in 1 2; do
    find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | xargs -r modprobe -a -q 2>/dev/null
done
modprobe af_packet
ip link set eth0 up
until udhcpc -i eth0 -s /etc/udhcpc -q -n -f -t 6 -T 1; do sleep 1; done
for word in $(cat /proc/cmdline); do
    case $word in imgurl=*) url=${word#*=} ;; esac
done
mount -t tmpfs -o mode=755 root /newroot
until wget -q -O - "$url" | gunzip -c | (cd /newroot && cpio -idm); do sleep 2; done
mount --move /proc /newroot/proc
mount --move /dev /newroot/dev
exec switch_root /newroot /sbin/init
"""
_INIT = """\
#!/bin/busybox sh
cd /content
for word in $(busybox cat /proc/cmdline); do
    case $word in NODE=* | lab=*) said="$said $word" ;; esac
done
if busybox sha256sum -c -s sums; then
    echo "LITHO-NETBOOT content is whole,$said"
else
    echo "LITHO-NETBOOT content is damaged,$said"
fi >/dev/console
while :; do busybox sleep 3600; done
"""


def bundle(rootimg: Path, folder: Path) -> Path:
    """Make the bundle in `folder`."""
    files, initrd, root = folder / "files", folder / "initrd", folder / "root"
    for made in (files, initrd, root / "bin", root / "sbin", root / "proc", root / "dev", root / "content"):
        made.mkdir(parents=True)
    shutil.copy(rootimg / "http/vmlinuz", files / "vmlinuz")
    process.run(["sh", "-c", f"cd '{initrd}' && zstd -dqc '{rootimg}/http/initrd.img' | cpio -idm --quiet"])
    _script(initrd / "init", _INITRD)
    archive.cpio_zst(initrd, files / "initrd.img")
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    _script(root / "sbin/init", _INIT)
    (root / "content/bytes").write_bytes(os.urandom(4 * 1024 * 1024))
    (root / "content/sums").write_text(f"{process.run(['sha256sum', root / 'content/bytes']).out.split()[0]}  bytes\n")
    archive.cpio_gz(root, files / "rootimg.gz")
    (files / "manifest.cfg").write_text(_MANIFEST)
    tarball = folder / "lab.tgz"
    process.run(["tar", "-czf", tarball, "-C", files, "manifest.cfg", "vmlinuz", "initrd.img", "rootimg.gz"])
    return tarball


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
