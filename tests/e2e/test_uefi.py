"""The main job under UEFI: GPT, EFI system partition, ext4 and XFS, by partclone; the firmware finds the restored system."""

from pathlib import Path

import pytest

from litho.library import ImageRef, Library

from .conftest import CACHE, Lab
from .lab import disks, efi
from .lab.follow import following
from .lab.machine import Disk


@pytest.mark.scenario("3 UEFI: GPT, EFI system partition, ext4, XFS; partclone; a boot entry in NVRAM")
def test_a_node_with_uefi_is_captured_and_another_becomes_the_same(lab: Lab):
    """Its loader lies where the distribution put it, and not where firmware looks by itself: n02's must be told."""
    folder: Path = lab.world.folder
    source = disks.layer(efi.disk(CACHE, loader=efi.VENDOR), folder / "source.qcow2")
    n01 = lab.node(1, Disk(file=source, bus="sata"), uefi=True, rom=False)
    n02 = lab.node(2, Disk(file=disks.blank(folder / "target.qcow2", 1500), bus="virtio"), uefi=True, rom=False)
    with following(lab.world) as follow:
        lab.controller.litho("nodeset", "n01", "image=golden", "--engine", "partclone", "--then", "poweroff")
        n01.power_on()
        follow.ended("n01", "succeeded", 300)
        n01.wait_off(60)
        library = Library.open(lab.controller.library)
        manifest = library.manifest(library.resolve(ImageRef("golden")))
        assert manifest.table == "gpt"
        assert [(part.fs, part.engine) for part in manifest.parts] == [
            ("vfat", "partclone"),
            ("ext4", "partclone"),
            ("xfs", "partclone"),
            ("swap", ""),
        ]
        lab.controller.litho("nodeset", "n02", f"osimage={manifest.image}")
        n02.power_on()
        follow.ended("n02", "succeeded", 300)
        notes = lab.controller.ask("task", "show", "t-000002")["result"]["notes"]
        assert any(note.startswith("the firmware was told of EFI/debian/grubx64.efi") for note in notes), notes
        n02.expect("lithograph: n02 boots its own disk", 120)
        # The firmware tries every other way to boot over the network first, each with a time of its own.
        n02.expect('BdsDxe: loading Boot.... "debian"', 240)
        n02.expect("LITHO-GRUB", 60)
        n02.expect("LITHO-MARKER content is whole on /dev/vda3 xfs", 180)
        n02.expect("golden login:", 60)
