"""A node: QEMU without KVM, its network card on the bridge, its disks, and its serial console as a file that can be waited for.

The machine's own settings (one processor, `qemu64`) are the fastest under emulation, as measured with QEMU 7.2.
Disks are written through the host's cache and never synced: the lab may lose power, its tests may not depend on it.
`cut_power` is the guest's loss of power.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import msgspec
import psutil

from .network import Network
from .world import PATIENCE, World, plain, wait_socket

BUSES = {
    "ide": "ide-hd,drive={id},bus=ide.{n}",
    "sata": "ide-hd,drive={id},bus=ahci.{n}",
    "virtio": "virtio-blk-pci,drive={id}",
    "nvme": "nvme,drive={id}",
    "scsi": "scsi-hd,drive={id},bus=scsi.0",
    "usb": "usb-storage,drive={id},bus=usb.0,removable=on",
}
NEEDS = {
    "sata": ("-device", "ahci,id=ahci"),
    "scsi": ("-device", "virtio-scsi-pci,id=scsi"),
    "usb": ("-device", "qemu-xhci,id=usb"),
}


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a machine."""

    file: Path
    bus: str = "virtio"
    serial: str = ""
    read_mib_s: int = 0
    """MiB a second that it reads at most, for tests that need time in the middle; 0 for as fast as it goes."""
    write_mib_s: int = 0

    def arguments(self, number: int) -> list[str]:
        """QEMU's words for it; `number` is its place, also in the firmware's order after the network."""
        kind = "qcow2" if self.file.suffix == ".qcow2" else "raw"
        name = f"disk{number}"
        device = BUSES[self.bus].format(id=name, n=number) + f",bootindex={number + 2}"
        serial = self.serial or (f"lab-{self.file.stem}-{number}"[:20])
        drive = f"file={self.file},format={kind},id={name},if=none,cache=unsafe,discard=unmap,detect-zeroes=unmap"
        for word, limit in (("read", self.read_mib_s), ("write", self.write_mib_s)):
            if limit:
                drive += f",throttling.bps-{word}={limit * 1024 * 1024}"
        return ["-drive", drive, "-device", f"{device},serial={serial}"]


def mac(number: int) -> str:
    """The address of the network card of node `number`."""
    return f"52:54:00:77:00:{number:02x}"


class Machine:
    """A node that can be switched on and off."""

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        address: str,
        disks: list[Disk],
        *,
        memory_mib: int = 1024,
        nic: str = "virtio-net-pci",
        uefi: bool = False,
        rom: bool = True,
        spare: bool = False,
    ) -> None:
        """`rom`: the network card has iPXE in it; without it the firmware's own PXE is on its own (UEFI only).

        `spare`: before this card there is another one like it, whose cable is pulled.
        """
        self.name = name
        self.mac = address
        self._world = world
        self._tap = network.tap()
        self._disks = disks
        self._memory = memory_mib
        self._nic = nic
        self._uefi = uefi
        self._rom = rom
        self._spare = network.tap() if spare else ""
        self._child: subprocess.Popen[bytes] | None = None
        self._from = self._seen = 0
        self.on_at = 0.0
        self.serial = world.folder / f"log/{name}.serial"

    def power_on(self) -> None:
        """Switch it on: the network first, then its disks."""
        argv: list[str | Path] = [
            "qemu-system-x86_64",
            "-name",
            self.name,
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
        ]
        # The BIOS and iPXE show on the serial line what they would show on a screen.
        argv += ["-machine", "pc,graphics=off"]
        argv += ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64", "-smp", "1", "-m", str(self._memory)]
        argv += ["-chardev", f"file,id=serial,path={self.serial},append=on", "-serial", "chardev:serial"]
        argv += ["-device", "virtio-rng-pci", "-netdev", f"tap,id=net,ifname={self._tap},script=no,downscript=no"]
        control = Path(f"/run/{self.name}.qmp")
        if self._spare:
            argv += ["-netdev", f"tap,id=spare,ifname={self._spare},script=no,downscript=no"]
            argv += ["-device", f"{self._nic},netdev=spare,romfile=", "-qmp", f"unix:{control},server=on,wait=off"]
        rom = "" if self._rom else ",romfile="
        argv += ["-device", f"{self._nic},netdev=net,mac={self.mac},bootindex=1{rom}"]
        for bus in dict.fromkeys(disk.bus for disk in self._disks):
            argv += NEEDS.get(bus, ())
        for number, disk in enumerate(self._disks):
            argv += disk.arguments(number)
        if self._uefi:
            variables = self._world.folder / f"{self.name}.vars.fd"
            if not variables.exists():
                shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", variables)
            code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
            argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"]
            argv += ["-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
            # Half a minute for each address that never comes.
            for word in ("IPv6PXESupport", "IPv6Support"):
                argv += ["-fw_cfg", f"name=opt/org.tianocore/{word},string=no"]
        self._from, self._seen = self.serial.stat().st_size if self.serial.exists() else 0, 0
        self._child = self._world.start(f"qemu-{self.name}", *argv)
        self.on_at = time.monotonic()
        if self._spare:
            self._pull_cable(control)

    def _pull_cable(self, control: Path) -> None:
        """Of the spare card, in QEMU's own protocol: a card that has a tap has a link, whatever becomes of the tap."""
        assert self._child is not None
        wait_socket(control, of=self._child)
        with socket.socket(socket.AF_UNIX) as peer, peer.makefile("rw") as lines:
            peer.connect(str(control))
            for command in (
                {"execute": "qmp_capabilities"},
                {"execute": "set_link", "arguments": {"name": "spare", "up": False}},
            ):
                lines.write(json.dumps(command) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    assert "error" not in answer, answer

    def cut_power(self) -> None:
        """Off, at once."""
        self._world.stop(f"qemu-{self.name}", kill=True)
        self._child = None

    @property
    def running(self) -> bool:
        """True while it is switched on."""
        return self._child is not None and self._child.poll() is None

    @property
    def on_for(self) -> float:
        """Seconds since it was switched on."""
        return time.monotonic() - self.on_at

    def said(self) -> str:
        """Everything on its serial console since it was switched on, without escape sequences."""
        raw = self.serial.read_bytes() if self.serial.exists() else b""
        return plain(raw[self._from :])

    def expect(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """Wait for a pattern on the console, behind what was matched last. Fails with the console's end."""
        until = time.monotonic() + timeout_s * PATIENCE
        while True:
            text = self.said()
            if match := re.compile(pattern).search(text, self._seen):
                self._seen = match.end()
                self._world.note(f"{self.name}: {match[0][:100]!r} {self.on_for:.1f} s after power on")
                return match
            assert self.running, f"{self.name} is off; it said last:\n{text[-2000:]}"
            assert time.monotonic() < until, f"{self.name} said no {pattern!r} in {timeout_s} s, but:\n{text[-3000:]}"
            time.sleep(0.1)

    def wait_off(self, timeout_s: float) -> None:
        """Wait until it switches itself off."""
        until = time.monotonic() + timeout_s * PATIENCE
        while self.running:
            assert time.monotonic() < until, f"{self.name} is still on; it said last:\n{self.said()[-3000:]}"
            time.sleep(0.2)

    def computed_s(self) -> float:
        """Seconds of processor time that QEMU took for it so far: what a busy machine does not change."""
        assert self._child is not None
        used = psutil.Process(self._child.pid).cpu_times()
        return used.user + used.system

    def peak_mib(self) -> int:
        """The most memory that QEMU held for it."""
        assert self._child is not None
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+)", status)
        return int(match[1]) // 1024 if match else 0
