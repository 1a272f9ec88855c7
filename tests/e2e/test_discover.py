"""A machine that nobody has heard of boots over the network, shows itself, is made a node and gets its system, in one boot."""

import pytest

from .conftest import CACHE, Lab
from .lab import disks, tiny
from .lab.machine import Disk
from .lab.watching import stat


@pytest.mark.scenario("8 an unknown machine is discovered, becomes a node and is restored")
def test_an_unknown_machine_shows_what_it_is_and_is_restored_without_another_boot(lab: Lab):
    tiny.give(CACHE, lab.controller.library)
    target = Disk(file=disks.blank(lab.world.folder / "target.qcow2", 420), bus="sata", serial="lab-unknown-1")
    machine = lab.node(80, target, known=False, memory_mib=768)
    machine.power_on()
    machine.expect(f"lithograph: {machine.mac} is unknown and shows itself to the controller", 120)
    lab.world.wait(lambda: bool(lab.controller.ask("node", "ls", "--discovered")), "a machine is discovered", 180)
    (found,) = lab.controller.ask("node", "ls", "--discovered")
    assert found["mac"] == machine.mac
    inventory = found["inventory"]
    assert 600 * 2**20 < inventory["memory"] < 768 * 2**20
    assert [disk["serial"] for disk in inventory["disks"]] == ["lab-unknown-1"]
    assert stat(lab.address(machine)) == b"discovered, waiting for a task\n"
    table = lab.controller.litho("node", "ls", "--discovered")
    assert machine.mac in table

    lab.controller.litho("node", "add", "n80", "--from-discovered", machine.mac)
    assert lab.controller.ask("node", "ls", "--discovered") == []
    lab.controller.litho("nodeset", "n80", f"osimage={tiny.IMAGE}")
    machine.expect(r"claiming task t-000001 for n80", 60)
    lab.controller.wait_task("n80", "succeeded", 300)
    # Only now does it boot again, and finds its own disk.
    assert machine.said().count("lithograph: ") == 1
    machine.expect("lithograph: n80 boots its own disk", 120)
    machine.expect(r"LITHO-TINY content is whole on /dev/sda2", 180)
