"""A bundle from elsewhere is imported, a node is set to it, and the node runs it: no disk is touched."""

import pytest

from .conftest import Lab
from .lab import netboot


@pytest.mark.scenario("bundle: netboot image imported, nodeset, a node runs it from memory")
def test_a_node_boots_an_imported_netboot_bundle(lab: Lab):
    controller, folder = lab.controller, lab.world.folder
    (folder / "netboot").mkdir()
    tarball = netboot.bundle(lab.rootimg, folder / "netboot")
    controller.litho("tabch", "key=installdir", f"site.value={folder / 'install'}")
    (folder / "install").mkdir()
    controller.litho("import", str(tarball))
    home = folder / "install/netboot" / netboot.OS / netboot.ARCH / netboot.PROFILE
    assert (home / "rootimg/sbin/init").is_file(), "the root image is expanded beside itself"

    n50 = lab.node(50, memory_mib=512)
    controller.litho("nodech", "n50", "nodehm.serialport=0", "nodehm.serialspeed=115200")
    controller.litho("nodech", "n50", "bootparams.addkcmdline=lab=yes")
    state = f"netboot {netboot.OS}-{netboot.ARCH}-{netboot.PROFILE}"
    assert controller.litho("nodeset", "n50", f"osimage={netboot.NAME}").strip() == f"n50: {state}"
    assert controller.litho("nodeset", "n50", "stat").strip() == f"n50: {state}"
    n50.power_on()
    n50.expect("lithograph: n50 boots ", 120)
    n50.expect("LITHO-NETBOOT content is whole, NODE=n50 lab=yes", 180)
    lab.figure("to its own system", n50.on_for)
    # It stays set to it: the next boot is the same, and only nodeset ends that.
    n50.cut_power()
    controller.litho("nodeset", "n50", "boot")
    n50.power_on()
    n50.expect("lithograph: n50 boots its own disk", 120)
