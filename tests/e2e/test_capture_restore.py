"""The main job on real machines: capture one, print it onto another, and both boot."""

import json
from pathlib import Path

import pytest

from .conftest import CACHE, Keeper, Lab
from .lab import disks, tiny
from .lab.machine import Disk
from .lab.watching import watch

AGENT = r"claiming task \S+ for (n\d+)"


@pytest.mark.quick
@pytest.mark.scenario("1 capture: BIOS, MBR, GRUB, ext3, swap; partimage over NFS")
def test_a_node_is_captured_under_everybodys_eyes_and_boots_its_own_disk_again(lab: Lab, golden: Path, keeper: Keeper):
    source = Disk(file=disks.layer(golden, lab.world.folder / "source.qcow2"), bus="ide")
    n01 = lab.node(1, source)
    assert lab.controller.litho("nodeset", "n01", "image=golden", "--engine", "partimage").startswith("n01: ")
    n01.power_on()
    n01.expect("lithograph: n01 boots for t-000001: capture of golden", 90)
    n01.expect(AGENT, 120)
    seen = watch(lab.controller, lab.wire, "n01", lab.address(n01), 500)
    assert seen.task["state"] == "succeeded", seen.task
    seen.check()
    lab.figure("capture", seen.seconds)
    assert seen.task["plan"]["disk"]["path"] == "/dev/sda"

    n01.expect("lithograph: n01 boots its own disk", 90)
    n01.expect("LITHO-GRUB", 60)
    n01.expect("LITHO-MARKER content is whole on /dev/sda5 ext3", 180)
    n01.cut_power()

    _is_published(lab)
    keeper.keep(lab)


def _is_published(lab: Lab) -> None:
    """The image is in the library, whole, and xCAT's tables name it."""
    controller = lab.controller
    (image,) = controller.ask("image", "ls")
    assert (image["image"], image["version"], image["current"], image["node"]) == ("golden", 1, True, "n01")
    assert not image["error"]
    controller.litho("image", "verify", "golden", "--deep")
    manifest = json.loads((controller.library / "golden.v1.json").read_bytes())
    parts = {part["number"]: (part["kind"], part["fs"], part["engine"]) for part in manifest["body"]["parts"]}
    assert parts[1] == parts[5] == ("stream", "ext3", "partimage"), parts
    assert parts[6][:2] == ("swap", "swap"), parts
    assert not list(controller.library.glob("*.part"))

    osimage = controller.litho("lsdef", "-t", "osimage", "golden")
    for words in ("Object name: golden", "provmethod=install", "osvers=debian12", "osarch=x86_64", "profile=golden"):
        assert words in osimage
    assert '"golden"' in controller.litho("tabdump", "linuximage")


@pytest.mark.quick
@pytest.mark.scenario("2 restore: blank disk of another size, virtio for ide")
def test_another_node_with_another_disk_becomes_the_same(lab: Lab, golden_image: str):
    target = Disk(file=disks.blank(lab.world.folder / "target.qcow2", 3000), bus="virtio")
    n02 = lab.node(2, target)
    lab.controller.litho("nodeset", "n02", f"osimage={golden_image}")
    n02.power_on()
    n02.expect(AGENT, 120)
    seen = watch(lab.controller, lab.wire, "n02", lab.address(n02), 500)
    assert seen.task["state"] == "succeeded", seen.task
    seen.check()
    lab.figure("restore", seen.seconds)
    n02.expect("lithograph: n02 boots its own disk", 90)
    n02.expect("LITHO-GRUB", 60)
    n02.expect("LITHO-MARKER content is whole on /dev/vda5 ext3", 180)
    n02.expect("golden login:", 60)


@pytest.mark.scenario("1, 2 in chunks, as without a word about the engine: sata to nvme")
def test_a_disk_goes_into_chunks_and_comes_out_of_them(lab: Lab):
    source = Disk(file=disks.layer(tiny.disk(CACHE), lab.world.folder / "source.qcow2"), bus="sata")
    n03 = lab.node(3, source)
    lab.controller.litho("nodeset", "n03", "image=pieces", "--then", "poweroff")
    n03.power_on()
    n03.expect(AGENT, 120)
    seen = watch(lab.controller, lab.wire, "n03", lab.address(n03), 300)
    assert seen.task["state"] == "succeeded", seen.task
    lab.figure("capture", seen.seconds)
    n03.wait_off(60)
    manifest = json.loads((lab.controller.library / "pieces.v1.json").read_bytes())
    assert {part["engine"] for part in manifest["body"]["parts"] if part["kind"] == "stream"} == {"chunk"}
    lab.controller.litho("image", "verify", "pieces")

    n04 = lab.node(4, Disk(file=disks.blank(lab.world.folder / "target.qcow2", 500), bus="nvme"))
    lab.controller.litho("nodeset", "n04", "osimage=pieces")
    n04.power_on()
    n04.expect(AGENT, 120)
    seen = watch(lab.controller, lab.wire, "n04", lab.address(n04), 300)
    assert seen.task["state"] == "succeeded", seen.task
    lab.figure("restore", seen.seconds)
    n04.expect(r"LITHO-TINY content is whole on /dev/nvme0n1p2", 180)
