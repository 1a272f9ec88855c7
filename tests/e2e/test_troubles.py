"""Servers that go away, nodes that lose their power, in the middle of a job: it goes on or ends right, and what is said is true.

The disks of these nodes are slow, so that there is a middle; what happens there is started by what the task says
of itself and not by a clock. Only how long a server stays away is a matter of seconds.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from litho import nodestat, process
from support.loop import loop_disk

from .conftest import CACHE, Lab
from .lab import disks, tiny
from .lab.controller import BIN
from .lab.follow import Follower, Said, following
from .lab.machine import Disk, Machine

WHOLE = r"LITHO-TINY content is whole on /dev/\w+2"
ORDER = ("queued", "armed", "claimed", "planned", "running", "succeeded")
BOTH = ("n01", "n02")


@pytest.mark.scenario("6 file server killed, for 30 s and for 60 s, in the middle of a capture and a restore")
def test_a_file_server_that_comes_back_costs_only_time(lab: Lab):
    nodes = side_by_side(lab)
    with following(lab.world) as follow:
        for node in nodes:
            node.power_on()
        for away_s in (30, 60):
            in_the_middle(follow)
            lab.nfs.stop()
            time.sleep(away_s)
            halted = {name: follow.now(name) for name in BOTH}
            assert [said.state for said in halted.values()] == ["running", "running"], halted
            lab.nfs.start()
            for name, before in halted.items():
                follow.wait(name, "on its way again", lambda said, was=before.percent: said.percent > was, 180)
        both_end_well(follow)
        nodes[1].expect(WHOLE, 120)
    captured_the_same(lab)


@pytest.mark.scenario("6 broker killed, then controller and broker, in the middle of a capture and a restore")
def test_broker_and_controller_may_be_killed_while_nodes_work(lab: Lab):
    """The controller starts its broker again. It is away itself for 20 s then, and the broker with it."""
    nodes = side_by_side(lab, "--engine", "auto")
    with following(lab.world) as follow:
        for node in nodes:
            node.power_on()
        at = in_the_middle(follow)
        os.kill(broker(), signal.SIGKILL)
        lab.world.note("killed the broker")
        for name, percent in at.items():
            follow.wait(name, "on its way again", lambda said, was=percent: said.percent > was, 60)
        lab.controller.kill()
        time.sleep(20)
        lab.controller.start()
        both_end_well(follow)
        nodes[1].expect(WHOLE, 120)
    captured_the_same(lab)


@pytest.mark.scenario("6 power cut at 50 % of a restore, then booted again")
def test_a_node_that_loses_its_power_begins_its_restore_anew(lab: Lab):
    """Its disk is called restored when it is, and not before; what is half on it does not pretend to boot."""
    tiny.give(CACHE, lab.controller.library)
    n01 = restoring(lab, 1, 8)
    with following(lab.world) as follow:
        lab.controller.litho("nodeset", "n01", f"osimage={tiny.IMAGE}")
        n01.power_on()
        follow.moving("n01", 50, 240)
        n01.cut_power()
        first = first_sector(lab)
        assert first[510:] == b"\x55\xaa", "the partition table is there"
        assert not any(first[:440]), "there is no boot code yet"
        assert not any(first[446 + 16 * entry] for entry in range(4)), "no partition is active yet"
        n01.power_on()
        n01.expect(r"lithograph: n01 boots for t-000002: restore of tiny", 180)
        lost = next(said for said in reversed(follow.said) if said.task == "t-000001")
        assert lost.state == "lost"
        assert lost.reason.startswith("the node booted again while its task was under way")
        done = follow.ended("n01", "succeeded", 300)
        assert (done.task, done.attempt) == ("t-000002", 2)
        n01.expect(WHOLE, 120)
    before = [said for said in follow.said if said.at < done.at]
    assert all(said.line not in ("boot", nodestat.COMPLETE) for said in before)
    in_order([said for said in follow.said if said.task == "t-000002"])
    in_order([said for said in follow.said if said.task == "t-000001" and said.state != "lost"])
    assert "succeeded" not in [said.state for said in follow.said if said.task == "t-000001"]


def side_by_side(lab: Lab, *options: str) -> tuple[Machine, Machine]:
    """Two nodes: n01 will be captured as `again`, slowly, and n02 restored."""
    tiny.give(CACHE, lab.controller.library)
    file = disks.layer(tiny.disk(CACHE), lab.world.folder / "n01.qcow2")
    nodes = lab.node(1, Disk(file=file, bus="sata", read_mib_s=4), memory_mib=768), restoring(lab, 2, 3)
    lab.controller.litho("nodeset", "n01", "image=again", "--then", "poweroff", *options)
    lab.controller.litho("nodeset", "n02", f"osimage={tiny.IMAGE}")
    return nodes


def restoring(lab: Lab, number: int, write_mib_s: int) -> Machine:
    """A node with an empty disk that is slow to write; with little memory, so that what is written does not stay there."""
    file = disks.blank(lab.world.folder / f"n{number:02d}.qcow2", 600)
    return lab.node(number, Disk(file=file, write_mib_s=write_mib_s), memory_mib=512)


def in_the_middle(follow: Follower) -> dict[str, int]:
    """Wait until both nodes move bytes; answers how many percent they have."""
    return {name: follow.moving(name, 10, 240).percent for name in BOTH}


def both_end_well(follow: Follower) -> None:
    """Each node has one task, which went from state to state to its good end."""
    for name in BOTH:
        follow.ended(name, "succeeded", 300)
        said = follow.of(name)
        assert {one.task for one in said} == {said[0].task}, said
        in_order(said)


def broker() -> int:
    """The process id of the broker; there is one in this namespace."""
    # What has ended and was not waited for has no command line any more.
    found = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(b"mosquitto\0")
    ]
    assert len(found) == 1, found
    return found[0]


def first_sector(lab: Lab) -> bytes:
    """Of the disk of n01."""
    out = lab.world.folder / "first"
    file = lab.world.folder / "n01.qcow2"
    process.run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=1", f"if={file}", f"of={out}"])
    return out.read_bytes()[:512]


def in_order(said: list[Said]) -> None:
    """States and percentages never went back."""
    steps = [(ORDER.index(one.state), one.percent) for one in said]
    assert steps == sorted(steps), steps


def captured_the_same(lab: Lab) -> None:
    """What the node captured as `again` is whole, and on another disk byte for byte what it was taken from."""
    assert lab.controller.litho("image", "verify", "--deep", "again")
    assert not list(lab.controller.library.glob("*.part"))
    target = lab.world.folder / "again.raw"
    with loop_disk(target, size=tiny.SIZE_MIB * tiny.MIB) as device:
        argv = ["--disk", device, "--library", lab.controller.library, "--image", "again", "--yes"]
        process.run([BIN / "litho-agent", "restore", *argv])
    # Both file systems, from the end of the boot loader's gap to the swap that is made anew.
    size = (tiny.SIZE_MIB - tiny.SWAP_MIB - 2) * tiny.MIB
    process.run(["cmp", "--ignore-initial", str(tiny.MIB), "--bytes", str(size), target, tiny.disk(CACHE)])
