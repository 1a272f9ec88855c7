"""Volume groups for tests, made and read by LVM's own tools without device-mapper: nothing is activated.

`--driverloaded n` lets the tools do all that concerns metadata; logical volumes get no device, so a test writes into them through
a loop device over the place where the metadata say that they lie.
"""

import os
import subprocess
from pathlib import Path

from support.loop import sh

_CONF = """
devices {{ filter = [ {accept} "r|.*|" ] use_devicesfile = 0 }}
activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }}
global {{ use_lvmpolld = 0 use_lvmlockd = 0 event_activation = 0 locking_dir = "{room}/lock" }}
backup {{ backup = 0 archive = 0 }}
"""


class Lvm:
    """LVM's tools, which see the given devices and no others."""

    def __init__(self, room: Path, *devices: Path) -> None:
        room.mkdir(parents=True, exist_ok=True)
        accept = "".join(f'"a|^{device}$|", ' for device in devices)
        (room / "lvm.conf").write_text(_CONF.format(accept=accept, room=room))
        self._env = {**os.environ, "LVM_SYSTEM_DIR": str(room), "LVM_SUPPRESS_FD_WARNINGS": "1", "LC_ALL": "C"}

    def __call__(self, command: str, *words: str | Path) -> str:
        argv = [command, "--driverloaded", "n", *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=self._env)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def volume(self, group: str, name: str, mib: int, *more: str) -> None:
        """Make a logical volume."""
        self("lvcreate", "-an", "-Zn", "-Wn", "-y", "-n", name, "-L", f"{mib}M", *more, group)

    def facts(self, group: str) -> list[str]:
        """All that identifies a group: UUIDs of group, physical and logical volumes, sizes, places."""
        words = ("--noheadings", "--separator", "|", "--units", "b")
        found = [
            self("vgs", *words, "-o", "vg_name,vg_uuid,vg_seqno,vg_size,vg_free", group),
            self("pvs", *words, "-o", "pv_uuid,pv_size,pe_start,pv_pe_count,vg_name"),
            self("lvs", *words, "-a", "-o", "lv_name,lv_uuid,lv_size,segtype,seg_start_pe,seg_size_pe", group),
        ]
        return [line.strip() for text in found for line in text.splitlines() if line.strip()]


def window(device: Path, start: int, size: int) -> Path:
    """A loop device over a stretch of `device`; the caller detaches it."""
    words = ("losetup", "--find", "--show", f"--offset={start}", f"--sizelimit={size}", device)
    return Path(sh(*words).strip())
