"""Several nodes at once from one image: two move bytes at a time, as there are two slots, and the third waits."""

import pytest

from .conftest import CACHE, Lab
from .lab import disks, tiny
from .lab.follow import ENDED, following
from .lab.machine import Disk

HOLDS = ("armed", "claimed", "planned", "running")
"""States of a task that has a slot."""
BUSES = {1: "virtio", 2: "sata", 3: "nvme"}
SLOW_MIB_S = {1: 2, 2: 2}
"""Their 160 MiB take 80 s: so one still moves bytes when the other begins, whose boot may take 40 s longer on a busy machine."""


@pytest.mark.scenario("4 three nodes from one image, two slots")
def test_nodes_are_restored_side_by_side_and_no_more_than_there_are_slots(lab: Lab):
    tiny.give(CACHE, lab.controller.library)
    lab.controller.kill()
    with lab.controller.config.open("a") as settings:
        settings.write("[slots]\nlibrary = 2\n")
    lab.controller.start()
    nodes = {}
    for number, bus in BUSES.items():
        target = disks.blank(lab.world.folder / f"n{number:02d}.qcow2", 500 + number)
        disk = Disk(file=target, bus=bus, write_mib_s=SLOW_MIB_S.get(number, 0))
        node = lab.node(number, disk, memory_mib=768)
        nodes[node.name] = node
    with following(lab.world) as follow:
        lab.controller.litho("nodeset", "n01-n03", f"osimage={tiny.IMAGE}")
        follow.wait("n02", "armed", lambda said: said.state == "armed", 60)
        assert follow.wait("n03", "known", lambda said: True, 30).line == "queued, waiting for a slot"
        for node in nodes.values():
            node.power_on()
        # It is told to wait while it stands in its firmware, and goes on by itself when a slot is free.
        nodes["n03"].expect("lithograph: n03 waits: t-000003 .* is queued", 120)
        for name, node in nodes.items():
            follow.ended(name, "succeeded", 400)
            node.expect(r"LITHO-TINY content is whole on /dev/\w+2", 180)
            node.cut_power()
    holding: dict[str, str] = {}
    together: set[frozenset[str]] = set()
    for said in follow.said:
        holding[said.node] = said.state
        together.add(frozenset(name for name, state in holding.items() if state == "running"))
        assert sum(state in HOLDS for state in holding.values()) <= 2, holding
        if said.node == "n03" and said.state != "queued":
            assert any(holding[name] in ENDED for name in ("n01", "n02")), holding
    assert frozenset(("n01", "n02")) in together, "the two never moved bytes at the same time"
