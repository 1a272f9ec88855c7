"""Which loader a firmware must be told of, and where its entry goes."""

from pathlib import Path

import pytest

from litho.errors import EngineError
from litho_agent import bootentry
from litho_agent.bootentry import Entries, behind, dos_path, entered, esp, label, parse, pick
from litho_agent.layout import Table
from litho_agent.layout.table import ESP_GPT, LINUX_GPT, Partition

# efibootmgr 17 -v, from OVMF in QEMU 7.2
SAID = """\
BootCurrent: 0003
Timeout: 0 seconds
BootOrder: 0003,0001,0000
Boot0000* UiApp	FvVol(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FvFile(462caa21-7614-4503-836e-8ab6f4662331)
Boot0001* UEFI Misc Device	PciRoot(0x0)/Pci(0x5,0x0){auto_created_boot_option}
Boot0003* UEFI PXEv4 (MAC:525400770002)	PciRoot(0x0)/Pci(0x3,0x0)/MAC(525400770002,1)/IPv4(0.0.0.0,0,DHCP)
      dp: 02 01 0c 00 d0 41 03 0a 00 00 00 00
Boot0007  debian	HD(1,GPT,117409af-0000-4000-8000-00000000e501,0x800,0x14000)/File(\\EFI\\debian\\grubx64.efi)
"""
GUID = "117409AF-0000-4000-8000-00000000E501"
TABLE = Table(
    label="gpt",
    sector_size=512,
    partitions=(
        Partition(number=1, start=2048, size=2048, type=LINUX_GPT, uuid="A" * 8),
        Partition(number=2, start=4096, size=2048, type=ESP_GPT, uuid=GUID),
    ),
)


def test_entries_and_their_order_are_read():
    found = parse(SAID)
    assert found.order == ("0003", "0001", "0000")
    assert set(found.found) == {"0000", "0001", "0003", "0007"}
    assert parse("") == Entries()


def test_an_entry_is_known_by_partition_and_loader_and_not_by_its_name():
    found = parse(SAID)
    assert found.has(GUID, "EFI/debian/grubx64.efi")
    assert found.has(GUID, "efi/DEBIAN/grubx64.EFI")
    assert not found.has(GUID, "EFI/debian/shimx64.efi")
    assert not found.has(GUID.replace("1", "2"), "EFI/debian/grubx64.efi")


def test_the_fallback_needs_no_entry_whatever_its_case():
    assert pick(["EFI/Boot/bootx64.efi", "EFI/debian/shimx64.efi"]) == ""


def test_shim_comes_before_grub_and_what_is_no_loader_is_none():
    files = ["EFI/debian/grubx64.efi", "EFI/debian/shimx64.efi", "EFI/debian/mmx64.efi", "EFI/debian/fbx64.efi"]
    assert pick(files) == "EFI/debian/shimx64.efi"
    assert (
        pick(["EFI/Microsoft/Boot/bootmgfw.efi", "EFI/Microsoft/Boot/memtest.efi"]) == "EFI/Microsoft/Boot/bootmgfw.efi"
    )
    assert pick(["EFI/debian/mmx64.efi", "startup.nsh", "shimx64.efi"]) == ""
    assert pick([]) == ""


def test_a_name_that_firmware_or_a_command_line_could_take_amiss_is_passed_over():
    assert pick(["EFI/de\nbian/grubx64.efi", "EFI/$(x)/shimx64.efi", "EFI/" + "a" * 65 + "/shimx64.efi"]) == ""


def test_the_entry_is_called_like_the_vendors_folder():
    assert label("EFI/debian/shimx64.efi") == "debian"
    assert dos_path("EFI/debian/shimx64.efi") == "\\EFI\\debian\\shimx64.efi"


@pytest.mark.parametrize("order", [("0003", "0001"), ("0008", "0003", "0001"), ("0003", "0001", "0008")])
def test_a_new_entry_goes_behind_all_others_wherever_the_firmware_put_it(order: tuple[str, ...]):
    before = Entries(order=("0003", "0001"), found={"0003": "net", "0001": "disk"})
    after = Entries(order=order, found={**before.found, "0008": "debian"})
    assert behind(before, after) == ("0008", ("0003", "0001", "0008"))


def test_without_a_new_entry_the_order_stays():
    before = Entries(order=("0003",), found={"0003": "net"})
    assert behind(before, before) == ("", ("0003",))


def test_the_efi_system_partition_is_found_by_its_type_and_only_in_a_gpt():
    assert esp(TABLE) == TABLE.partitions[1]
    assert esp(Table(label="none", sector_size=512)) is None


def test_a_machine_without_uefi_or_without_the_root_image_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bootentry, "mounted", _never)
    assert entered(Path("/dev/sdx"), TABLE, variables=tmp_path / "efivars") == ()
    monkeypatch.setattr(bootentry, "in_rootimg", lambda: False)
    assert entered(Path("/dev/sdx"), TABLE, variables=tmp_path) == ()


def test_what_could_not_be_done_is_told_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootentry, "in_rootimg", lambda: True)
    monkeypatch.setattr(bootentry, "mounted", _never)
    (note,) = entered(Path("/dev/sdx"), TABLE, variables=tmp_path)
    assert note.startswith("the firmware was not told of the restored system (mount ended with 32): ")


def _never(*_: object, **__: object) -> object:
    raise EngineError("mount ended with 32")
