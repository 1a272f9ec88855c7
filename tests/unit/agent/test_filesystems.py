"""Rules about file systems: what tools say, parsed strictly, and what is decided from it."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import DiskError, RefusedError
from litho.messages import OsFacts
from litho_agent import condition, filesystems, osfacts
from litho_agent.filesystems import Probe, checker, make_swap, parse_blkid, parse_wipefs
from litho_agent.layout.grow import can_grow
from litho_agent.mounting import read_inside


def test_what_blkid_says_is_taken_field_by_field() -> None:
    said = (
        'DEVNAME=/dev/loop1\nUUID=c789833b-1f22-41a3-aea2-548a32ae7fc4\nVERSION=1.0\nLABEL=my\\ root\\"x\n'
        "BLOCK_SIZE=1024\nTYPE=ext4\nUSAGE=filesystem\nPART_ENTRY_NUMBER=1\n"
    )
    assert parse_blkid(said) == Probe(
        type="ext4",
        uuid="c789833b-1f22-41a3-aea2-548a32ae7fc4",
        label='my root"x',
        version="1.0",
        usage="filesystem",
        block_size=1024,
    )


def test_a_label_cannot_bring_its_own_fields_or_control_characters() -> None:
    found = parse_blkid("TYPE=vfat\nTYPE=ext4\nLABEL=a\x1b[31m\nBLOCK_SIZE=-5\nlower=1\nnoequals\nUUID=" + "x" * 1000)
    assert (found.type, found.label, found.block_size) == ("vfat", "a.[31m", 0)
    assert len(found.uuid) == 256


@given(st.text(max_size=300))
def test_whatever_blkid_says_gives_a_probe_of_printable_fields(text: str) -> None:
    found = parse_blkid(text)
    assert all(value.isprintable() for value in (found.type, found.uuid, found.label, found.version, found.usage))


def test_wipefs_lists_every_signature_once() -> None:
    said = (
        '{"signatures": [{"device":"loop0","offset":"0x1fe","type":"dos","uuid":null,"label":null},'
        '{"device":"loop0","offset":"0x438","type":"ext4","uuid":"u-1","label":"root"},'
        '{"device":"loop0","offset":"0x36","type":"vfat","uuid":"A","label":null},'
        '{"device":"loop0","offset":"0x0","type":"vfat","uuid":"A","label":null}]}'
    )
    assert parse_wipefs(said) == (
        Probe(table="dos"),
        Probe(type="ext4", uuid="u-1", label="root"),
        Probe(type="vfat", uuid="A"),
    )
    assert parse_wipefs("") == ()
    with pytest.raises(DiskError, match="not understood"):
        parse_wipefs('{"signatures": 5}')


def test_swap_is_made_with_what_it_had() -> None:
    uuid = "12345678-1234-1234-1234-123456789abc"
    assert make_swap(Path("/dev/sda2"), uuid=uuid, label="swap") == [
        "mkswap", "--force", "--uuid", uuid, "--label", "swap", Path("/dev/sda2"),
    ]  # fmt: skip
    assert make_swap(Path("/dev/sda2")) == ["mkswap", "--force", Path("/dev/sda2")]


@pytest.mark.parametrize(
    ("uuid", "label"),
    [("x", ""), ("12345678-1234-1234-1234-123456789abc; reboot", ""), ("", "-f"), ("", "x" * 17), ("", "a\nb")],
)
def test_swap_with_a_uuid_or_label_that_is_none_is_refused(uuid: str, label: str) -> None:
    with pytest.raises(DiskError):
        make_swap(Path("/dev/sda2"), uuid=uuid, label=label)


def test_checkers_only_look() -> None:
    for fs in ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "exfat", "ntfs", "f2fs", "swap"):
        found = checker(Path("/dev/sda1"), fs)
        assert found is not None
        assert found.argv[-1] == "/dev/sda1"
        assert fs == "swap" or {"-n", "--readonly", "--no-action", "--dry-run"} & set(found.argv)
    assert checker(Path("/dev/sda1"), "LVM2_member") is None


@pytest.mark.parametrize(
    ("features", "state", "expected"),
    [
        ("has_journal extent", "clean", "clean"),
        ("has_journal needs_recovery extent", "clean", "dirty"),
        ("has_journal", "not clean", "dirty"),
        ("has_journal", "clean with errors", "errors"),
        ("needs_recovery", "not clean with errors", "errors"),
    ],
)
def test_the_state_of_an_ext_file_system_is_told(features: str, state: str, expected: str) -> None:
    text = f"Filesystem features:      {features}\nFilesystem state:         {state}\nErrors behavior: Continue\n"
    assert condition.parse_dumpe2fs(text).state == expected


def test_the_state_of_xfs_and_ntfs_is_told() -> None:
    assert condition.parse_logprint("    log tail: 2 head: 9 state: <DIRTY>\n").state == "dirty"
    assert condition.parse_logprint("    log tail: 2 head: 2 state: <CLEAN>\n").state == "clean"
    assert condition.judge_ntfs(14, "").state == "hibernated"
    assert condition.judge_ntfs(15, "").state == "dirty"
    assert condition.judge_ntfs(0, "\tVolume Flags: 0x0001 DIRTY\n").state == "dirty"
    assert condition.judge_ntfs(0, "\tVolume Flags: 0x0080\n").state == "clean"
    assert condition.judge_ntfs(0, "").state == "unknown"


DIRTY = condition.parse_dumpe2fs("Filesystem features: needs_recovery\nFilesystem state: clean\n")
ASLEEP = condition.judge_ntfs(14, "")


@pytest.mark.parametrize(
    ("found", "on_dirty", "way"),
    [
        (condition.CLEAN, "refuse", "as-is"),
        (condition.CLEAN, "raw", "as-is"),
        (DIRTY, "repair", "repair"),
        (DIRTY, "raw", "raw"),
        (ASLEEP, "raw", "raw"),
    ],
)
def test_what_to_do_follows_from_the_state_and_the_wish(found: condition.Condition, on_dirty: str, way: str) -> None:
    assert condition.decide("/dev/sda1", found, on_dirty) == way  # type: ignore[arg-type]


def test_a_refusal_says_why_and_the_way_out() -> None:
    with pytest.raises(RefusedError) as caught:
        condition.decide("/dev/sda1", DIRTY, "refuse")
    assert str(caught.value) == (
        "/dev/sda1 has a journal that waits to be replayed: shut its system down cleanly, or say litho.on-dirty=repair or raw"
    )
    assert caught.value.code == "source-dirty"
    with pytest.raises(RefusedError, match=r"hibernated .* it cannot be repaired from here: start Windows"):
        condition.decide("/dev/sda1", ASLEEP, "repair")


def test_only_what_has_a_way_to_grow_can_grow() -> None:
    assert [fs for fs in ("ext4", "xfs", "btrfs", "ntfs", "swap", "vfat", "", "LVM2_member") if can_grow(fs)] == [
        "ext4", "xfs", "btrfs", "ntfs", "swap",
    ]  # fmt: skip


# ---------------------------------------------------------------- operating systems

DEBIAN = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'


def elf(machine: int, *, little: bool = True) -> bytes:
    order = "<" if little else ">"
    return b"\x7fELF\x02" + (b"\x01" if little else b"\x02") + bytes(10) + struct.pack(f"{order}HH", 2, machine)


@pytest.mark.parametrize(
    ("text", "vers"),
    [
        (DEBIAN, "debian12"),
        (b"ID='rhel'\nVERSION_ID='8.6'\n", "rhels8.6"),
        (b"ID=arch\n", "arch"),
        (b"# nothing\nNAME=x\n", "linux"),
        (b'ID="opensuse-leap"\nVERSION_ID="15.5"', "leap15.5"),
        (b'ID=debian\nVERSION_ID="$(reboot)"\n', "debian"),
    ],
)
def test_versions_are_named_as_in_xcat(text: bytes, vers: str) -> None:
    assert osfacts.parse_os_release(text) == OsFacts(name="Linux", vers=vers)


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe\x00", b"ID=../../etc\n", b"<html>", b"ID=a b\x1b[31m\n", b'ID="unclosed\n']
)
def test_what_is_no_os_release_tells_nothing(text: bytes) -> None:
    found = osfacts.parse_os_release(text)
    assert found in (OsFacts(), OsFacts(name="Linux", vers="linux"))
    assert b"html" not in text or found == OsFacts()


@given(st.binary(max_size=500))
def test_any_bytes_give_facts_of_a_safe_alphabet(data: bytes) -> None:
    found = osfacts.parse_os_release(data)
    assert found.vers.isascii()
    assert found.vers.isprintable()
    assert "/" not in found.vers
    assert osfacts.elf_arch(data) in ("", *osfacts._ELF.values(), "ppc64le")
    assert osfacts.pe_arch(data) in ("", "x86", "x86_64", "aarch64")


def test_machine_types_are_named_as_uname_names_them() -> None:
    assert [osfacts.elf_arch(elf(m)) for m in (62, 183, 3, 21, 999)] == ["x86_64", "aarch64", "x86", "ppc64le", ""]
    assert osfacts.elf_arch(elf(21, little=False)) == "ppc64"
    image = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664)
    assert osfacts.pe_arch(image) == "x86_64"


def test_facts_are_gathered_from_the_first_release_file_that_is_one() -> None:
    files = {"/etc/os-release": DEBIAN, "/bin/bash": elf(183)}
    found = osfacts.gather(lambda path: files.get(path, b""))
    assert found == OsFacts(name="Linux", vers="debian12", distro="debian12-aarch64", arch="aarch64")
    assert osfacts.gather(lambda _: b"") == OsFacts()


def test_links_on_a_foreign_file_system_stay_inside_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "usr/lib/os-release").write_bytes(b"ID=inside\n")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/absolute").symlink_to("/usr/lib/os-release")
    (root / "etc/out").symlink_to("../../../../../../etc/passwd")
    (root / "etc/loop").symlink_to("loop")
    (root / "lib").symlink_to("usr/lib")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(b"outside\n")
    for path in ("/etc/os-release", "/etc/absolute", "/lib/os-release", "//etc/./os-release"):
        assert read_inside(root, path, 100) == b"ID=inside\n"
    for path in ("/etc/out", "/etc/loop", "/etc/none", "/etc", "/../../etc/passwd"):
        assert read_inside(root, path, 100) == b""
    assert read_inside(root, "/etc/os-release", 4) == b"ID=i"


# ---------------------------------------------------------------- what checkers say


@pytest.mark.parametrize(
    ("fs", "code", "words", "complaint"),
    [
        ("ext4", 0, "e2fsck 1.47.0 (5-Feb-2023)\nPass 1: Checking inodes, blocks, and sizes\n", ""),
        (
            "ext4",
            4,
            "e2fsck 1.47.0 (5-Feb-2023)\nPass 1: Checking inodes, blocks, and sizes\nPass 4: Checking reference counts\n"
            "Inode 12 ref count is 7, should be 1.  Fix? no\n\n/dev/loop0: ********** WARNING: Filesystem still has errors "
            "**********\n\n/dev/loop0: 12/10240 files (0.0% non-contiguous), 1430/10240 blocks\n",
            "Inode 12 ref count is 7, should be 1.  Fix? no",
        ),
        (
            "xfs",
            1,
            "Phase 1 - find and verify superblock...\n        - scan filesystem freespace and inode maps...\n"
            "bad CRC for inode 128\nNo modify flag set, skipping phase 5\n",
            "bad CRC for inode 128",
        ),
        (
            "vfat",
            1,
            "fsck.fat 4.2 (2021-01-31)\nFATs differ - using second FAT.\n\nLeaving filesystem unchanged.\n"
            "/dev/loop1: 0 files, 1/201616 clusters\n",
            "FATs differ - using second FAT.",
        ),
        (
            "vfat",
            1,
            "fsck.fat 4.2 (2021-01-31)\nFree cluster summary wrong (16 vs. really 195755)\n  Auto-correcting.\n\n"
            "Leaving filesystem unchanged.\n/dev/loop1: 1 files, 5861/201616 clusters\n",
            "",
        ),
        (
            "ntfs",
            1,
            "Record 0 has no FILE magic (0xe842c713)\nMounting volume... FAILED\nAttempting to correct errors... FAILED\n",
            "Record 0 has no FILE magic (0xe842c713)",
        ),
        (
            "f2fs",
            255,
            'Info: Dry run\nInfo: MKFS version\n  "Linux version 6.18 (x)"\n'
            "[FSCK] Unreachable nat entries                        [Ok..] [0x0]\n"
            "[ASSERT] (__chk_dentries:1617)  --> Bad dentry 0x1\n",
            "[ASSERT] (__chk_dentries:1617)  --> Bad dentry 0x1",
        ),
        ("exfat", 8, "exfatprogs version : 1.2.0\nBad fs_name in boot sector\n", "Bad fs_name in boot sector"),
        ("btrfs", -11, "Opening filesystem to check...\n", "btrfs was ended by SIGSEGV"),
        ("ext4", 4, "\x1b[31mred\n", ".[31mred"),
    ],
)
def test_what_a_checker_complains_of_is_told_from_what_it_always_says(fs, code, words, complaint) -> None:
    check = checker(Path("/dev/sda1"), fs)
    assert check is not None
    assert filesystems.complaint(check, code, words) == complaint


def test_a_checker_without_memory_is_told_from_one_that_found_something() -> None:
    assert filesystems.starved(-9, "")
    assert filesystems.starved(8, "e2fsck 1.47.0\nError allocating icount link information: Memory allocation failed\n")
    assert not filesystems.starved(0, "Memory allocation failed\n")
    assert not filesystems.starved(4, "Inode 12 ref count is 7, should be 1.  Fix? no\n")
    assert not filesystems.starved(-11, "")
