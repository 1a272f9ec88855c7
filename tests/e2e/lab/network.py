"""The lab's network: a bridge with DHCP and TFTP on it, as a site's own installation network would have them.

iPXE (QEMU's own network boot ROM, or one that dnsmasq hands to other firmware) is sent to the controller's
`/boot/ipxe`, as docs/reference/boot.md shows it.

Traps, measured with iPXE 1.0.0+git-20190125 and OVMF 2022.11: iPXE waits 13 s for an IPv6 router before it uses the
IPv4 lease that it has, so dnsmasq announces one; it waits 3 s for a second DHCP server that may know more, so it is told
that there is none (option 175, 176); UEFI firmware that goes on to the next way to boot tries HTTP for a minute, so it gets an
address where there is nothing (404). And `udp-receiver` answers to the interface's broadcast address, so the bridge has one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from litho import process

from .world import World

ADDRESS = "10.77.0.1"
LOADERS = (
    "/usr/lib/ipxe/undionly.kpxe", "/usr/lib/ipxe/snponly.efi",
    "/usr/lib/PXELINUX/pxelinux.0", "/usr/lib/syslinux/modules/bios/ldlinux.c32",
)  # fmt: skip
GRUB_MODULES = ("pxe", "tftp", "net", "normal", "linux", "minicmd", "echo", "configfile")
XNBA_NODE = "n72"
"""xCAT's DHCP server hands each node the file of its own name; one node is enough here."""


class Network:
    """The bridge and its taps."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taps = 0
        for argv in (
            ["ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"],
            ["ip", "link", "set", "br0", "address", "52:54:00:77:00:fe"],
            ["ip", "addr", "add", f"{ADDRESS}/24", "brd", "+", "dev", "br0"],
            ["ip", "addr", "add", "fd00:77::1/64", "dev", "br0", "nodad"],
            ["ip", "link", "set", "br0", "up"],
            ["ip", "route", "add", "224.0.0.0/4", "dev", "br0"],
        ):
            process.run(argv)

    def tap(self) -> str:
        """A port of the bridge for one more machine."""
        name = f"tap{self._taps}"
        self._taps += 1
        process.run(["ip", "tuntap", "add", name, "mode", "tap"])
        process.run(["ip", "link", "set", name, "master", "br0", "up"])
        return name

    def boots_by(self, card: str, way: str) -> None:
        """What DHCP hands to this card from now on: `pxe`, `grub2` or `xnba`."""
        (self._world.folder / "hosts" / way).write_text(f"{card},set:{way}\n")

    def cable(self, tap: str, *, plugged: bool) -> None:
        """Pull or plug a machine's cable."""
        process.run(["ip", "link", "set", tap, "up" if plugged else "down"])

    def close(self) -> None:
        """Take bridge and taps away."""
        for number in range(self._taps):
            process.run(["ip", "link", "del", f"tap{number}"], ok=(0, 1))
        process.run(["ip", "link", "del", "br0"])


def lay_out_tftp(tftp: Path, rootimg: Path) -> None:
    """What a site puts into its TFTP server's directory once: boot loaders, and the root image's kernel and initrd."""
    tftp.mkdir(exist_ok=True)
    for loader in LOADERS:
        shutil.copy(loader, tftp)
    # As grub-mknetdir makes it. A prefix without a device means the TFTP server that GRUB came from, and only there does it look
    # for the file by the card's address: grub.cfg-01-52-54-00-...
    process.run(["grub-mkimage", "-O", "i386-pc-pxe", "-p", "/boot/grub2", "-o", tftp / "grub2.0", *GRUB_MODULES])
    (tftp / "xcat").mkdir()
    (tftp / "xcat/image").symlink_to(rootimg / "xcat/tftpboot/xcat/image")


def serve_dhcp(world: World, tftp: Path, script_url: str) -> None:
    """Start dnsmasq; iPXE gets `script_url` as its script, but for the cards that `boots_by` names."""
    (world.folder / "hosts").mkdir()
    config = world.folder / "dnsmasq.conf"
    config.write_text(
        f"""\
port=0
interface=br0
bind-interfaces
dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0,2m
dhcp-leasefile={world.folder}/leases
enable-ra
dhcp-range=fd00:77::,ra-only
ra-param=br0,4,60
dhcp-authoritative
dhcp-no-override
no-ping
enable-tftp
tftp-root={tftp}
dhcp-match=set:ipxe,175
dhcp-match=set:efi64,option:client-arch,7
dhcp-match=set:efi64,option:client-arch,9
dhcp-hostsdir={world.folder}/hosts
tag-if=set:chain,tag:!ipxe,tag:efi64
tag-if=set:bios,tag:!ipxe,tag:!efi64,tag:!http
tag-if=set:script,tag:ipxe,tag:!pxe,tag:!xnba,tag:!grub2
dhcp-boot=tag:chain,snponly.efi
dhcp-boot=tag:bios,undionly.kpxe
dhcp-boot=tag:script,{script_url}
dhcp-boot=tag:pxe,pxelinux.0
dhcp-boot=tag:grub2,grub2.0
dhcp-option=tag:ipxe,encap:175,176,1b
dhcp-match=set:http,option:client-arch,16
dhcp-option-force=tag:http,60,HTTPClient
dhcp-boot=tag:http,{script_url}.efi
dhcp-boot=tag:xnba,tftp://{ADDRESS}/xcat/xnba/nodes/{XNBA_NODE}
log-dhcp
user=root
group=root
"""
    )
    world.start("dnsmasq", "dnsmasq", "-k", "-C", config, "--log-facility=-")
