"""The main job on real machines: capture one, restore another, and both boot."""

from pathlib import Path

from .conftest import Lab
from .lab import disks
from .lab.machine import Disk

AGENT = r"claiming task \S+ for (n\d+)"


def test_a_node_is_captured_and_another_becomes_the_same(lab: Lab, golden: Path):
    folder = lab.world.folder
    source = Disk(file=disks.layer(golden, folder / "source.qcow2"), bus="ide")
    n01 = lab.node(1, source)
    lab.controller.litho("nodeset", "n01", "image=golden", "--engine", "partimage")
    n01.power_on()
    n01.expect(AGENT, 90)
    lab.controller.wait_task("n01", "succeeded", 300)
    n01.expect("LITHO-GRUB", 60)
    n01.expect("LITHO-MARKER content is whole", 120)
    n01.cut_power()

    target = Disk(file=disks.blank(folder / "target.qcow2", 3000), bus="virtio")
    n02 = lab.node(2, target)
    lab.controller.litho("nodeset", "n02", "osimage=golden")
    n02.power_on()
    n02.expect(AGENT, 90)
    lab.controller.wait_task("n02", "succeeded", 300)
    n02.expect("LITHO-GRUB", 60)
    n02.expect("LITHO-MARKER content is whole on /dev/vda5 ext3", 120)
    n02.expect("golden login:", 60)
