"""Images of other tools, made here by the real ones, are adopted, printed by the ordinary restore, and found equal.

The disk's files are called as Apache VCL's first years called them (`golden-hda.sfdisk`, `golden-hda1.gz`), and its table
is in the words of an sfdisk of then.
"""

import bz2
import gzip
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from demo.proof import prove

from litho.errors import LithoError
from litho.library import ImageRef, Library, Owner, Stage, verify
from litho_controller.adopt import names
from litho_controller.adopt.adopting import Adoption
from support.loop import loop_disk, needs_root, part, reread, sh

pytestmark = [needs_root, pytest.mark.root]

MIB = 1024**2
LITHO = Path(sys.executable).with_name("litho")
AGENT = Path(sys.executable).with_name("litho-agent")
TABLE = """label: dos
label-id: 0x1a2b3c4d
start=2048, size=20MiB, type=6
start=43008, size=36MiB, type=83, bootable
start=116736, size=8MiB, type=83
start=133120, size=44MiB, type=5
start=135168, size=8MiB, type=82
start=153600, size=20MiB, type=7
"""


def partimage(*words):
    done = subprocess.run(
        ["partimage", "-B", "x=y", "-f3", "-o", "-d", "-M", "-c", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-500:]
    return done.stdout


def in_words_of_then(dump):
    """What `sfdisk -d` of util-linux 2.1x would have said of the same table."""
    lines = ["# partition table of /dev/hda", "unit: sectors", ""]
    for number, rest in re.findall(r"^\S+?p?(\d) : (start=.*)$", dump, re.MULTILINE):
        lines.append(f"/dev/hda{number} : {rest.replace('type=', 'Id=')}")
    return "\n".join([*lines, "/dev/hda7 : start=        0, size=        0, Id= 0", ""])


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A disk, and the folder of what the tools made of it."""
    folder = tmp_path_factory.mktemp("origin")
    old = folder / "old"
    old.mkdir()
    noise = folder / "noise"
    noise.write_bytes(b"".join(gzip.compress(b"%d" % n) for n in range(300_000)))
    with loop_disk(folder / "disk", size=132 * MIB) as disk:
        sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin=TABLE)
        with disk.open("r+b") as raw:
            raw.write(b"BOOT".ljust(440, b"\x90"))
        reread(disk)
        sh("mkfs.fat", "-F", "16", part(disk, 1))
        sh("mcopy", "-i", part(disk, 1), noise, "::noise")
        (folder / "tree").mkdir()
        shutil.copy(noise, folder / "tree/noise")
        sh("mkfs.ext3", "-q", "-d", folder / "tree", part(disk, 2))
        sh("mkfs.ext3", "-q", "-L", "small", part(disk, 3))
        sh("mkswap", "-L", "SWAP", "-U", "0a1b2c3d-0000-4000-8000-00000000abcd", part(disk, 5))
        sh("mkntfs", "-q", "-F", "-f", "-L", "windows", part(disk, 6))
        sh("sync")
        (old / "golden-hda.sfdisk").write_text(in_words_of_then(sh("sfdisk", "--dump", disk)))
        sh("dd", f"if={disk}", f"of={old}/golden-hda.mbr", "count=1", "status=none")
        (old / "golden-hda1.gz").write_bytes(gzip.compress(partimage("-V0", "-z0", "save", part(disk, 1), "stdout"), 1))
        partimage("-V1", "-z1", "save", part(disk, 2), old / "golden-hda2.gz")
        partimage("-V0", "-z2", "save", part(disk, 3), old / "golden-hda3")
        (old / "swappt-hda5.info").write_text('UUID="0a1b2c3d-0000-4000-8000-00000000abcd"\nLABEL="SWAP"\n')
        clone = ("partclone.ntfs", "-c", "-s", str(part(disk, 6)), "-o", "-", "-L", "/dev/null")
        stream = gzip.compress(subprocess.run(clone, capture_output=True, check=True).stdout)
        for letter, at in zip("abc", range(0, 3 * 60_000, 60_000), strict=True):
            piece = stream[at : at + 60_000] if letter != "c" else stream[at:]
            (old / f"golden-hda6.ntfs-ptcl-img.gz.a{letter}").write_bytes(piece)
        yield disk, old


@pytest.fixture
def library(tmp_path):
    made = Library.create(tmp_path / "library")
    (tmp_path / "lithograph.toml").write_text(f'library = "{made.root}"\n')
    return made


@pytest.fixture
def adopt(library, tmp_path):
    """`litho image adopt`, as (exit code, stdout, stderr)."""

    def run(*words):
        argv = [LITHO, "--config", tmp_path / "lithograph.toml", "image", "adopt", *words]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def copy(origin, tmp_path):
    """The files, to be damaged."""
    return Path(shutil.copytree(origin[1], tmp_path / "copy"))


def state(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in folder.iterdir()}


def nothing_in(library):
    return [path.name for path in library.root.iterdir()] == [".lithograph"]


def test_a_disk_of_old_images_is_adopted_whole_and_its_print_is_the_same(origin, library, adopt, tmp_path):
    disk, old = origin
    before = state(old)
    assert (old / "golden-hda2.gz.001").exists()
    code, out, err = adopt("golden", old, "--json")
    assert (code, err) == (0, "")
    assert state(old) == before, "the originals are only read"
    shown = json.loads(out)
    parts = {one["number"]: one for one in shown["parts"]}
    assert {number: (one["fs"], one.get("compression")) for number, one in parts.items()} == {
        1: ("vfat", "gzip"),
        2: ("ext3", "zstd"),
        3: ("ext3", "zstd"),
        4: ("", "none"),
        5: ("swap", "none"),
        6: ("ntfs", "gzip"),
    }
    manifest = library.manifest(ImageRef("golden", 1))
    assert verify.check_streams(library, manifest) == []
    assert (library.root / parts[1]["data"]["file"]).read_bytes() == (old / "golden-hda1.gz").read_bytes()

    with loop_disk(tmp_path / "blank", size=140 * MIB) as blank:
        sh(AGENT, "restore", "--disk", blank, "--library", library.root, "--image", "golden", "--yes")
        reread(blank)
        proven = {one.partition: one for one in prove(disk, blank, tmp_path)}
        sh("ntfsfix", "--no-action", part(blank, 6))
    assert {number: (one.fs, one.clean) for number, one in proven.items()} == {
        1: ("vfat", True),
        2: ("ext3", True),
        3: ("ext3", True),
        5: ("swap", True),
        6: ("ntfs", True),
    }
    assert proven[1].used > 5 * MIB
    assert proven[2].used > 5 * MIB


def test_a_file_that_can_stay_as_it_is_is_linked_when_that_is_asked_for(library, adopt, copy):
    code, out, _ = adopt("golden", copy, "--link")
    assert code == 0
    assert "adopted golden:1" in out
    linked = library.root / "golden.v1-hda1.partimage.gz"
    assert linked.samefile(copy / "golden-hda1.gz")
    assert not (library.root / "golden.v1-hda2.partimage.zst").samefile(copy / "golden-hda2.gz.000")
    assert verify.check_files(library, library.manifest(ImageRef("golden", 1))) == []


def spoil(path, at, value=0xFF):
    data = bytearray(path.read_bytes())
    data[at] ^= value
    path.write_bytes(data)


def repacked(path, change):
    plain = bytearray(gzip.decompress(path.read_bytes()))
    change(plain)
    path.write_bytes(gzip.compress(bytes(plain), 1))


def flip(at):
    def change(plain):
        plain[at] ^= 1

    return change


def swap_volumes(copy):
    first, second = copy / "golden-hda2.gz.001", copy / "golden-hda2.gz.002"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def last_volume(copy):
    return max(copy.glob("golden-hda2.gz.*"))


FAULTS = {
    "a byte of a packed file": (
        lambda copy: spoil(copy / "golden-hda1.gz", 100_000),
        7,
        r"golden-hda1\.gz cannot be adopted",
    ),
    "a bit of the data": (
        lambda copy: repacked(copy / "golden-hda1.gz", flip(3 * MIB)),
        7,
        r"golden-hda1\.gz cannot be adopted: its data is damaged between bytes \d+ and \d+",
    ),
    "a bit of a header": (
        lambda copy: repacked(copy / "golden-hda1.gz", flip(600)),
        7,
        r"golden-hda1\.gz cannot be adopted: the sum of its main header is wrong",
    ),
    "a bit of the bitmap": (
        lambda copy: repacked(copy / "golden-hda1.gz", flip(33_500)),
        7,
        r"golden-hda1\.gz cannot be adopted: ",
    ),
    "a cut stream in a whole packing": (
        lambda copy: repacked(copy / "golden-hda1.gz", lambda plain: plain.__delitem__(slice(-MIB, None))),
        7,
        r"golden-hda1\.gz cannot be adopted: it ends early, after \d+ bytes, in its data",
    ),
    "bytes behind the end": (
        lambda copy: repacked(copy / "golden-hda1.gz", lambda plain: plain.extend(b"more")),
        7,
        r"golden-hda1\.gz cannot be adopted: it goes on after its end at \d+ bytes",
    ),
    "a cut packed file": (
        lambda copy: (copy / "golden-hda1.gz").write_bytes((copy / "golden-hda1.gz").read_bytes()[:-9]),
        7,
        r"golden-hda1\.gz cannot be adopted: the gzip stream ends early",
    ),
    "a volume in the middle": (
        lambda copy: (copy / "golden-hda2.gz.001").unlink(),
        2,
        r"what comes before golden-hda2\.gz\.002 is not there: volume 1 is missing",
    ),
    "the last volume": (
        lambda copy: last_volume(copy).unlink(),
        7,
        r"golden-hda2\.gz\.000 cannot be adopted: it ends early, .*a volume is missing, or the last one is cut",
    ),
    "volumes in each other's place": (
        swap_volumes,
        7,
        r"golden-hda2\.gz\.001 cannot be adopted: it is volume 2, and volume 1 is expected here",
    ),
    "a cut bzip2 file": (
        lambda copy: (copy / "golden-hda3").write_bytes((copy / "golden-hda3").read_bytes()[:-5]),
        7,
        r"golden-hda3 cannot be adopted: the bzip2 stream ends early",
    ),
    "a byte of a bzip2 file": (
        lambda copy: spoil(copy / "golden-hda3", 900),
        7,
        r"golden-hda3 cannot be adopted: (not a whole|the) bzip2 stream",
    ),
    "the end of a partclone image": (
        lambda copy: (copy / "golden-hda6.ntfs-ptcl-img.gz.ac").unlink(),
        7,
        r"golden-hda6\.ntfs-ptcl-img\.gz\.aa cannot be adopted: the gzip stream ends early",
    ),
    "the table of another disk": (
        lambda copy: (copy / "golden-hda.sfdisk").write_text(
            (copy / "golden-hda.sfdisk").read_text().replace("40960", "30720")
        ),
        2,
        r"golden-hda1\.gz cannot be adopted: it is of a partition of 20971520 bytes, and partition 1 of the table has 15728640",
    ),
    "a table without one of the partitions": (
        lambda copy: (copy / "golden-hda.sfdisk").write_text(
            re.sub(r"/dev/hda3 .*\n", "", (copy / "golden-hda.sfdisk").read_text())
        ),
        2,
        r"the image of partition 3 does not go with the table golden-hda\.sfdisk: the partition is not in it",
    ),
    "a table that is none": (
        lambda copy: (copy / "golden-hda.sfdisk").write_text("hello\n"),
        2,
        r"golden-hda\.sfdisk holds no partition table that can be adopted",
    ),
    "no table": (lambda copy: (copy / "golden-hda.sfdisk").unlink(), 2, r"no partition table is among the files"),
    "an image that is missing": (
        lambda copy: (copy / "golden-hda3").unlink(),
        2,
        r"has a partition 3 of 8388608 bytes, and no image of it is among the files: give its files too|no image of it",
    ),
    "a file of another tool": (
        lambda copy: (copy / "golden-hda3").write_bytes(b"\0ntfsclone-image" + bytes(100)),
        4,
        r"golden-hda3 was written by ntfsclone, which is not read here",
    ),
    "a file of two disks": (
        lambda copy: (copy / "golden-hda3").rename(copy / "golden-sda3"),
        2,
        r"the files are not of one image: the disks in their names are 'hda', 'sda'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_damaged_cut_missing_or_does_not_belong_together_is_refused_in_words(fault, library, copy):
    spoiling, wanted, words = FAULTS[fault]
    spoiling(copy)
    before = state(copy)
    with pytest.raises(LithoError, match=words) as refused:
        Adoption("golden", names.sort([], optional=sorted(copy.iterdir()))).run(library, lambda _: None)
    assert refused.value.exit_code == wanted
    assert nothing_in(library)
    assert state(copy) == before


def test_the_command_says_what_is_wrong_in_one_sentence_and_ends_with_its_code(library, adopt, copy):
    spoil(copy / "golden-hda1.gz", 100_000)
    code, out, err = adopt("golden", copy)
    assert code == 7
    assert "adopted" not in out
    assert re.fullmatch(r"litho: golden-hda1\.gz cannot be adopted: .*\n(  .*\n)?", err), err
    assert nothing_in(library)


def test_a_joined_stream_says_to_partimage_that_it_is_one_volume(origin, library, adopt):
    """partimage itself refuses an image whose tail names another number of volumes than it has read."""
    code, _, err = adopt("golden", origin[1])
    assert code == 0, err
    packed = library.root / "golden.v1-hda2.partimage.zst"
    stream = subprocess.run(["zstd", "-dc", packed], capture_output=True, check=True).stdout
    assert stream[-16384 + 8 : -16384 + 12] == bytes(4)
    assert stream[-16384 - 16 : -16384] == b"MAGIC-BEGIN-TAIL"
    small = subprocess.run(
        ["zstd", "-dc", library.root / "golden.v1-hda3.partimage.zst"], capture_output=True, check=True
    ).stdout
    assert small == bz2.decompress((origin[1] / "golden-hda3").read_bytes())


def test_files_with_names_that_say_nothing_are_named_outright(library, adopt, copy):
    words = []
    for old, new, option in (
        ("golden-hda.sfdisk", "table", "--table={}"),
        ("golden-hda.mbr", "boot", "--boot={}"),
        ("golden-hda1.gz", "one", "--part=1={}"),
        ("golden-hda3", "three", "--part=3={}"),
    ):
        (copy / old).rename(copy / new)
        words.append(option.format(copy / new))
    code, _, err = adopt("golden", *words, "--leave-out=2", "--leave-out=6")
    assert code == 0, err
    manifest = library.manifest(ImageRef("golden", 1))
    assert {one.number: one.kind for one in manifest.parts} == {
        1: "stream",
        2: "skipped",
        3: "stream",
        4: "empty",
        5: "swap",
        6: "skipped",
    }
    assert any("swap whose UUID nobody kept" in note for note in manifest.notes)


def test_what_a_killed_adoption_left_goes_with_the_next_one_and_a_living_one_stays(library, adopt, copy):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    here = platform.node()
    for session, pid in ((f"adopt-{boot}-1", 2**22 + 1), (f"adopt-{boot}-2", os.getpid())):
        stage = Stage.open(library, "golden", Owner(session=session, host=here, pid=pid))
        stage.create("hda1.partimage.gz").close()
    code, out, err = adopt("golden", copy)
    assert code == 0, err
    assert "adopted golden:3" in out
    left = {path.name for path in library.root.glob("*.part")}
    assert left == {"golden.v2.json.part", "golden.v2-hda1.partimage.gz.part"}


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_folder_of_clonezilla_is_adopted_and_its_print_is_the_same(label, library, adopt, tmp_path):
    folder = tmp_path / "office-img"
    folder.mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(4 * MIB))
    for name in ("disk", "parts", "Info-dmi.txt", "blkdev.list", "clonezilla-img", "sda-chs.sf", "sda-gpt-1st"):
        (folder / name).write_text("for Clonezilla\n")
    with loop_disk(tmp_path / "disk", size=64 * MIB) as disk, loop_disk(tmp_path / "blank", size=64 * MIB) as blank:
        table = f"label: {label}\nstart=2048, size=24MiB\nsize=24MiB\n"
        sh("sfdisk", "--no-reread", "--no-tell-kernel", "--quiet", disk, stdin=table)
        reread(disk)
        with disk.open("r+b") as raw:
            raw.write(b"BOOT".ljust(440, b"\x90"))
            raw.seek(100 * 512)
            raw.write(b"GRUB's core image".ljust(9 * 512, b"\x42"))
        for number in (1, 2):
            sh("mkfs.ext4", "-q", "-d", tree, part(disk, number))
        sh("sync")
        (folder / "sda-pt.sf").write_text(sh("sfdisk", "--dump", disk).replace(str(disk) + "p", "/dev/sda"))
        sh("dd", f"if={disk}", f"of={folder}/sda-mbr", "count=1", "status=none")
        sh("dd", f"if={disk}", f"of={folder}/sda-hidden-data-after-mbr", "skip=1", "count=2047", "status=none")
        for number, check in ((1, "-a1"), (2, "-a0")):
            clone = ("partclone.ext4", "-c", check, "-s", str(part(disk, number)), "-o", "-", "-L", "/dev/null")
            stream = subprocess.run(clone, capture_output=True, check=True).stdout
            packed = subprocess.run(["zstd", "-q", "-c"], input=stream, capture_output=True, check=True).stdout
            half = len(packed) // 2
            (folder / f"sda{number}.ext4-ptcl-img.zst.aa").write_bytes(packed[:half])
            (folder / f"sda{number}.ext4-ptcl-img.zst.ab").write_bytes(packed[half:])
        code, out, err = adopt("office", folder)
        assert (code, err) == (0, "")
        assert (
            "note: sda2.ext4-ptcl-img.zst.aa has no checksums: only its length and its packing could be checked" in out
        )
        sh(AGENT, "restore", "--disk", blank, "--library", library.root, "--image", "office", "--yes")
        reread(blank)
        proven = prove(disk, blank, tmp_path)
    assert [(one.fs, one.clean, one.files) for one in proven] == [("ext4", True, 1), ("ext4", True, 1)]
