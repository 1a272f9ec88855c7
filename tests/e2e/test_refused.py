"""What must not be overwritten is not: the task fails with the reason in nodestat, and the raw disks are as they were."""

import hashlib
import os
from pathlib import Path

import pytest

from .conftest import CACHE, Lab
from .lab import tiny
from .lab.follow import following
from .lab.machine import Disk, Machine

MIB = 1024 * 1024
SIZES = {1: (600, 200), 2: (600, 500, 500), 3: (600,)}
"""MiB of each node's disks; the first is the stick."""


def disk(file: Path, mib: int) -> Path:
    """A raw disk with something at its beginning and at its end that would be missed."""
    with file.open("wb") as raw:
        raw.write(os.urandom(4 * MIB))
        raw.seek((mib - 4) * MIB)
        raw.write(os.urandom(4 * MIB))
    return file


def digest(file: Path) -> str:
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


@pytest.mark.scenario("5 stick first, twin disks, target too small: refused, bytes untouched")
def test_nothing_is_written_when_it_is_not_sure_what_may_be_overwritten(lab: Lab):
    """Three nodes, each with a USB stick that comes first: it is sda, the first in the order in which disks are looked at.

    n01 has a disk besides that is too small, n02 has twins, n03 has the stick alone. They boot side by side.
    """
    tiny.give(CACHE, lab.controller.library)
    nodes: dict[str, Machine] = {}
    before: dict[Path, str] = {}
    for number, sizes in SIZES.items():
        attached = []
        for place, mib in enumerate(sizes):
            file = disk(lab.world.folder / f"n{number:02d}-{place}.raw", mib)
            before[file] = digest(file)
            attached.append(Disk(file=file, bus="virtio" if place else "usb"))
        node = lab.node(number, *attached, memory_mib=640)
        nodes[node.name] = node
        then = "reboot" if number == 3 else "poweroff"
        lab.controller.litho("nodeset", node.name, f"osimage={tiny.IMAGE}", "--then", then)
    with following(lab.world) as follow:
        for node in nodes.values():
            node.power_on()
        reasons = {name: follow.ended(name, "failed", 240).reason for name in nodes}
        assert all(said.state not in ("running", "succeeded") for said in follow.said), follow.said
    assert reasons["n01"].startswith("/dev/vda is too small: "), reasons
    assert "2 disks could be restored onto: " in reasons["n02"], reasons
    assert all(word in reasons["n02"] for word in ("vda", "vdb", "lab-n02-1-1", "lab-n02-2-2")), reasons
    assert reasons["n03"].startswith("no disk of this machine is one that the default rule takes"), reasons
    assert "/dev/sda" in reasons["n03"], reasons
    for name, reason in reasons.items():
        line = lab.controller.litho("nodestat", name)
        assert line.startswith(f"{name}: partimage-ng: failed: {reason[:60]}"), line
        assert lab.controller.litho("nodeset", name, "stat").strip() == f"{name}: failed restore of {tiny.IMAGE}"
    # No loop: a node that boots again after a failure is sent to its own disk.
    nodes["n03"].expect("lithograph: n03 boots its own disk", 90)
    nodes["n03"].cut_power()
    for name in ("n01", "n02"):
        nodes[name].wait_off(60)
    assert {file: digest(file) for file in before} == before
