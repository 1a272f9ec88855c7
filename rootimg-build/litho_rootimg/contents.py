"""What goes into the root image, and what is left out.

The lists are data, so that a person can read what a node can do without reading how it is built. Kernel modules are
named by patterns under the kernel's own folders; what a module needs is found from `modules.dep`, not listed here.
"""

from __future__ import annotations

KERNEL = "linux-image-amd64"
"""The generic kernel. The cloud kernel lacks e1000, e1000e, igb and AHCI; see docs/decisions/0010-root-image.md."""

PACKAGES = (
    # the agent's ground
    "usr-is-merged", "python3", "libudev1", "ca-certificates", "busybox-static", "udev", "kmod", "procps", "iproute2", "mount",
    # engines and file systems
    "partimage", "partclone", "e2fsprogs", "xfsprogs", "btrfs-progs", "ntfs-3g", "dosfstools", "exfatprogs",
    # disks and partition tables
    "fdisk", "gdisk", "lvm2", "mdadm", "smartmontools", "efibootmgr",
    # the library: without netbase's /etc/protocols an NFSv3 mount says "Protocol not supported"
    "nfs-common", "netbase", "udpcast",
    # compressors of images that older tools made
    "zstd", "pigz", "bzip2",
    # straight into the restored system, without the firmware's minutes
    "kexec-tools",
    # for the person who was let in: a small ssh server, what the hardware is
    "dropbear-bin", "pciutils", "ethtool", "dmidecode", "less",
)  # fmt: skip

EXCLUDED = (
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*",
    "/usr/share/bash-completion/*", "/usr/share/zsh/*", "/usr/share/bug/*",
    # names of vendors for a person's eyes: 17 MB
    "/usr/lib/udev/hwdb.d/*", "/lib/udev/hwdb.d/*",
    # 36 MB that only xfs_scrub needs, to look for confusing file names
    "/usr/lib/*/libicudata.so.*", "/usr/lib/*/libicui18n.so.*", "/usr/lib/*/libicuio.so.*", "/usr/lib/*/libicutest.so.*",
    "/usr/lib/*/libicutu.so.*", "/usr/lib/*/libicuuc.so.*", "/usr/sbin/xfs_scrub",
)  # fmt: skip
"""Paths that dpkg does not unpack."""

KEPT = ("/usr/share/doc/*/copyright",)
"""Paths below an excluded one that dpkg unpacks all the same: whoever passes the image on passes the licences on."""

MODULES = (
    # network cards; of the USB ones what docks and service processors have
    "drivers/net/ethernet", "drivers/net/phy", "drivers/net/mdio", "drivers/net/bonding", "drivers/net/vmxnet3",
    "drivers/net/hyperv", "drivers/net/usb", "drivers/net/virtio_net.ko", "drivers/net/xen-netfront.ko",
    "drivers/infiniband/hw/mlx*", "drivers/infiniband/ulp/ipoib", "net/packet", "net/8021q",
    # disks and what they hang on
    "drivers/ata", "drivers/scsi", "drivers/message/fusion", "drivers/nvme/host", "drivers/block", "drivers/md", "drivers/mmc",
    "drivers/virtio", "drivers/usb/host", "drivers/usb/storage", "drivers/usb/common", "drivers/usb/core", "drivers/hv",
    "drivers/xen", "drivers/cdrom", "drivers/firmware", "drivers/nvdimm", "drivers/acpi/nfit", "drivers/pci",
    # the person at the console; random numbers; watchdogs; the service processor
    "drivers/hid/hid-generic.ko", "drivers/hid/usbhid", "drivers/hid/hid-hyperv.ko", "drivers/input/serio",
    "drivers/char/hw_random", "drivers/char/ipmi", "drivers/watchdog",
    # file systems: the library's, the image's own, and those of the disks
    "fs/nfs", "fs/nfs_common", "fs/lockd", "net/sunrpc", "fs/squashfs", "fs/overlayfs", "fs/fscache", "fs/netfs",
    "fs/ext4", "fs/xfs", "fs/btrfs", "fs/fat", "fs/exfat", "fs/f2fs", "fs/jfs", "fs/reiserfs",
    "fs/fuse", "fs/isofs", "fs/udf", "fs/nls",
    "fs/efivarfs", "fs/hfsplus", "fs/hfs", "fs/minix", "fs/ufs",
    "crypto", "arch/x86/crypto", "lib",
)  # fmt: skip
"""Patterns under `/lib/modules/<version>/kernel/`: a folder with all below it, or one file."""

INITRD_MODULES = (
    "drivers/net/ethernet", "drivers/net/phy", "drivers/net/vmxnet3", "drivers/net/hyperv", "drivers/net/usb",
    "drivers/net/virtio_net.ko", "drivers/net/xen-netfront.ko",
    "drivers/usb/host", "drivers/virtio", "drivers/hv", "drivers/xen", "drivers/pci/controller", "drivers/char/hw_random",
    "net/packet", "drivers/block/loop.ko", "fs/squashfs", "fs/overlayfs",
)  # fmt: skip
"""What the initrd needs until the root image is fetched; patterns as above."""

NOT_INITRD = (
    "drivers/net/ethernet/netronome", "drivers/net/ethernet/cavium/liquidio",
)  # fmt: skip
"""Offload engines that no node boots from."""

FIRMWARE = ("firmware-bnx2", "firmware-bnx2x", "firmware-misc-nonfree", "firmware-netxen", "firmware-qlogic", "firmware-realtek",
            "firmware-myricom", "firmware-cavium", "firmware-netronome", "firmware-siano")  # fmt: skip
"""Debian's packages (component non-free-firmware) that network cards and disk controllers load code from; `--with-firmware`.

Only files that a module of the image names are taken from them."""
