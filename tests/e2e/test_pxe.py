"""Other roads into the root image than iPXE's own script: boot files by TFTP, and the PXE of a machine's UEFI firmware."""

import pytest

from .conftest import CACHE, Lab
from .lab import disks, tiny
from .lab.machine import Disk

AGENT = r"claiming task \S+ for n7\d"
FILES = {
    "pxe": "pxelinux.cfg/01-52-54-00-77-00-47",
    "xnba": "xcat/xnba/nodes/n72",
    "grub2": "boot/grub2/grub.cfg-01-52-54-00-77-00-49",
}
NUMBERS = {"pxe": 71, "xnba": 72, "grub2": 73}
LOCAL = {"pxe": "LOCALBOOT 0", "xnba": "exit", "grub2": "exit"}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("pxe", marks=pytest.mark.scenario("7 restore: PXELINUX, all by TFTP, then LOCALBOOT")),
        pytest.param("xnba", marks=pytest.mark.scenario("7 restore: xCAT's xnba files by TFTP, then exit")),
        pytest.param("grub2", marks=pytest.mark.scenario("7 restore: GRUB 2, all by TFTP, then exit")),
    ],
)
def test_boot_files_by_tftp_lead_to_the_root_image_and_then_to_the_disk(lab: Lab, way: str):
    tiny.give(CACHE, lab.controller.library)
    target = Disk(file=disks.blank(lab.world.folder / "target.qcow2", 420), bus="sata")
    node = lab.node(NUMBERS[way], target)
    lab.network.boots_by(node.mac, way)
    lab.controller.litho("nodech", node.name, f"noderes.netboot={way}")
    lab.controller.litho("nodeset", node.name, f"osimage={tiny.IMAGE}")
    lab.controller.wait_task(node.name, "armed", 60)
    file = lab.controller.tftp / FILES[way]
    lab.world.wait(lambda: file.is_file() and "litho.token=" in file.read_text(), f"a task in {file}", 60)
    node.power_on()
    node.expect(AGENT, 180)
    # The file with the token is turned as soon as the task is claimed.
    lab.world.wait(lambda: "litho.token=" not in file.read_text() and LOCAL[way] in file.read_text(), str(file), 60)
    lab.controller.wait_task(node.name, "succeeded", 300)
    node.expect("LITHO-GRUB", 120)
    node.expect(r"LITHO-TINY content is whole on /dev/sda2", 120)


@pytest.mark.scenario("7 UEFI firmware's own PXE, iPXE by TFTP, the script by HTTP")
def test_the_pxe_of_uefi_firmware_gets_ipxe_and_then_the_script(lab: Lab):
    node = lab.node(74, Disk(file=disks.blank(lab.world.folder / "target.qcow2", 64)), uefi=True, rom=False)
    lab.controller.litho("nodeset", node.name, "image=nothing", "--then", "poweroff")
    node.power_on()
    node.expect("lithograph: n74 boots for t-000001: capture of nothing", 180)
    node.expect(AGENT, 180)
    node.wait_off(120)
    assert lab.controller.task("n74")["state"] == "failed"
