"""How the real programs fail on real devices, and the one sentence that the agent says about each."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from litho.errors import DiskError, EngineError, IntegrityError, LithoError, RefusedError
from litho.job import Compression, EngineName
from litho.library.manifest import FileRef
from litho_agent.engines import Source, choose_for, named, used_bytes, used_extents
from support import filesystems
from support.filesystems import MIB
from support.loop import loop_disk, needs_root, sh
from support.partimage_ng import StandInPartimageNg
from support.transfers import Stored, save

pytestmark = needs_root

SIZE = 48 * MIB
BOTH = pytest.mark.parametrize("engine_name", ["partclone", "partimage"])


@pytest.fixture
def ext3(tmp_path: Path) -> Iterator[Path]:
    with loop_disk(tmp_path / "ext3.img", size=SIZE) as disk:
        filesystems.make("ext3", disk)
        filesystems.fill("ext3", disk, tmp_path)
        yield disk


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    with loop_disk(tmp_path / "target.img", size=SIZE) as disk:
        yield disk


def source(device: Path, fs: str = "ext3", used: int = 0) -> Source:
    return Source(device=device, fs=fs, size=SIZE, used=used)


def stored(path: Path, stream: bytes) -> Stored:
    """A stream that no engine made, with a manifest that agrees with it: so the engine's own judgement is asked."""
    path.write_bytes(stream)
    digest = hashlib.sha256(stream).hexdigest()
    return Stored(path, "none", FileRef(file=path.name, bytes=len(stream), sha256=digest), len(stream), digest)


def saved_stream(engine_name: str, device: Path, folder: Path) -> bytes:
    save(named(engine_name), source(device), folder / "whole", "none")
    return (folder / "whole").read_bytes()


def digest_of(device: Path) -> str:
    return hashlib.sha256(device.read_bytes()).hexdigest()


def reason(caught: pytest.ExceptionInfo[LithoError], doing: str, device: Path) -> str:
    """The cause alone, after checking that the sentence names the program's work and the device, in one line."""
    message = caught.value.message
    assert f"could not {doing} {device}: " in message
    assert "\n" not in str(caught.value)
    return message.partition(f"{device}: ")[2]


# ---------------------------------------------------------------- save


@BOTH
def test_saving_another_file_system_than_was_said(engine_name: str, tmp_path: Path) -> None:
    with loop_disk(tmp_path / "d", size=SIZE) as disk:
        disk.write_bytes(os.urandom(SIZE))
        with pytest.raises(EngineError) as caught:
            save(named(engine_name), source(disk, "ntfs"), tmp_path / "p")
    assert caught.value.code == "wrong-fs"
    assert "file system" in reason(caught, "save", disk)


@BOTH
def test_saving_a_device_that_is_not_there(engine_name: str, tmp_path: Path) -> None:
    absent = tmp_path / "sdz1"
    with pytest.raises(EngineError) as caught:
        save(named(engine_name), source(absent), tmp_path / "p")
    assert caught.value.code == "disk-missing"
    assert reason(caught, "save", absent) == "the partition is not there"


@BOTH
def test_saving_a_mounted_partition(engine_name: str, ext3: Path, tmp_path: Path) -> None:
    sh("mount", ext3, tmp_path / "mnt")
    try:
        with pytest.raises(EngineError) as caught:
            save(named(engine_name), source(ext3), tmp_path / "p")
    finally:
        sh("umount", tmp_path / "mnt")
    assert caught.value.code == "mounted"
    assert reason(caught, "save", ext3).startswith("the partition is mounted")


@pytest.fixture
def dirty(ext3: Path, tmp_path: Path) -> Iterator[Path]:
    """As a node that lost power leaves it: the journal was not replayed, the counts are stale."""
    sh("mount", ext3, tmp_path / "mnt")
    shutil.copy(tmp_path / "mnt" / "tree" / "large", tmp_path / "mnt" / "another")
    sh("sync", "-f", tmp_path / "mnt")
    image = tmp_path / "dirty.img"
    shutil.copy(tmp_path / "ext3.img", image)
    sh("umount", tmp_path / "mnt")
    with loop_disk(image) as disk:
        yield disk


@pytest.mark.parametrize(("engine_name", "code"), [("partclone", "fs-dirty"), ("partimage", "engine-failed")])
def test_saving_a_file_system_that_was_not_unmounted(engine_name: str, code: str, dirty: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        save(named(engine_name), source(dirty), tmp_path / "p")
    assert caught.value.code == code
    assert caught.value.hint.startswith(("shut the node down properly", "check the file system with fsck"))
    with pytest.raises(EngineError) as caught:
        used_bytes(dirty, "ext3")
    assert caught.value.code == "fs-dirty"


def test_partclone_refuses_a_file_system_with_errors(ext3: Path, tmp_path: Path) -> None:
    sh("debugfs", "-w", "-R", "ssv state 2", ext3)
    with pytest.raises(EngineError) as caught:
        save(named("partclone"), source(ext3), tmp_path / "p")
    assert caught.value.code == "fs-errors"
    assert reason(caught, "save", ext3) == "the file system is marked as having errors"


def test_partclone_refuses_an_ntfs_with_the_dirty_flag(tmp_path: Path) -> None:
    with loop_disk(tmp_path / "d", size=SIZE) as disk:
        filesystems.make("ntfs", disk)
        sh("ntfsfix", disk)  # sets the flag that makes Windows look at it
        with pytest.raises(EngineError) as caught:
            save(named("partclone"), source(disk, "ntfs"), tmp_path / "p")
    assert caught.value.code == "fs-dirty"
    assert "Windows was not fully shut down" in reason(caught, "save", disk)


@pytest.mark.parametrize(
    ("variant", "asked"), [("ext4", "partimage"), ("xfs", "partimage"), ("btrfs", "partimage"), ("jfs", "partclone")]
)
def test_an_engine_that_cannot_do_it_is_refused_before_anything_starts(
    variant: str, asked: EngineName, tmp_path: Path
) -> None:
    with loop_disk(tmp_path / "d", size=320 * MIB) as disk:
        filesystems.make(variant, disk)
        with pytest.raises(RefusedError, match=f"{asked} cannot save") as caught:
            choose_for(disk, variant, asked)
    assert caught.value.code == "engine-cannot"


@pytest.mark.parametrize(
    ("variant", "size", "code"),
    [("ext4", 48, "engine-failed"), ("xfs", 320, "engine-crashed"), ("jfs", 48, "engine-failed")],
)
def test_what_partimage_would_do_to_them_is_told_as_a_failure_too(
    variant: str, size: int, code: str, tmp_path: Path
) -> None:
    with loop_disk(tmp_path / "d", size=size * MIB) as disk:
        filesystems.make(variant, disk)
        with pytest.raises(EngineError) as caught:
            save(named("partimage"), source(disk, variant), tmp_path / "p")
    assert caught.value.code == code


@BOTH
def test_more_used_bytes_than_the_engine_gave_are_told(engine_name: str, ext3: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="fewer than") as caught:
        save(named(engine_name), source(ext3, used=SIZE * 2), tmp_path / "p")
    assert caught.value.code == "engine-unproven"


def test_a_map_of_another_file_system_is_refused(ext3: Path) -> None:
    with pytest.raises(EngineError) as caught:
        used_extents(ext3, "ntfs")
    assert caught.value.code == "wrong-fs"
    assert used_extents(ext3, "jfs") is None
    assert used_bytes(ext3, "swap") == 0


# ---------------------------------------------------------------- restore


@pytest.mark.parametrize(
    ("engine_name", "code"),
    [("partclone", "target-too-small"), ("partimage", "engine-failed"), ("raw", "target-too-small")],
)
def test_restoring_to_a_smaller_partition(engine_name: str, code: str, ext3: Path, tmp_path: Path) -> None:
    _, image = save(named(engine_name), source(ext3), tmp_path / "p")
    with loop_disk(tmp_path / "small.img", size=SIZE // 2) as small:
        filesystems.blank(small)
        before = digest_of(small)
        with pytest.raises(EngineError) as caught:
            image.restore(named(engine_name), small)
        assert "smaller than the one that was captured" in reason(caught, "restore", small)
        assert caught.value.code == code
        assert (digest_of(small) == before) == (engine_name != "raw")


@BOTH
@pytest.mark.parametrize("keep", [0, 600, 3 * MIB])
def test_restoring_a_stream_that_was_cut(engine_name: str, keep: int, ext3: Path, target: Path, tmp_path: Path) -> None:
    stream = saved_stream(engine_name, ext3, tmp_path)
    with pytest.raises(EngineError) as caught:
        stored(tmp_path / "p", stream[:keep]).restore(named(engine_name), target)
    assert caught.value.code in {"bad-stream", "engine-failed", "engine-crashed"}
    assert reason(caught, "restore", target)


@BOTH
def test_restoring_what_is_no_image(engine_name: str, target: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        stored(tmp_path / "p", os.urandom(MIB)).restore(named(engine_name), target)
    assert caught.value.code in {"bad-stream", "engine-failed"}
    assert digest_of(target) == hashlib.sha256(bytes(SIZE)).hexdigest()


def test_partimage_finds_a_flipped_byte_by_itself(ext3: Path, target: Path, tmp_path: Path) -> None:
    stream = bytearray(saved_stream("partimage", ext3, tmp_path))
    stream[len(stream) // 2] ^= 0xFF
    with pytest.raises(EngineError, match="its CRC differs") as caught:
        stored(tmp_path / "p", bytes(stream)).restore(named("partimage"), target)
    assert caught.value.code == "bad-stream"


@BOTH
@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_a_flipped_byte_in_the_file_is_found_whatever_the_engine_says(
    engine_name: str, compression: Compression, ext3: Path, target: Path, tmp_path: Path
) -> None:
    _, image = save(named(engine_name), source(ext3), tmp_path / "p", compression)
    data = bytearray(image.path.read_bytes())
    data[len(data) // 2] ^= 0x01
    image.path.write_bytes(data)
    with pytest.raises(IntegrityError):
        image.restore(named(engine_name), target)


def test_bytes_after_partimage_s_end_are_a_failure(ext3: Path, target: Path, tmp_path: Path) -> None:
    stream = saved_stream("partimage", ext3, tmp_path)
    with pytest.raises(EngineError):
        stored(tmp_path / "p", stream + bytes(8 * MIB)).restore(named("partimage"), target)


@BOTH
def test_restoring_over_a_mounted_partition(engine_name: str, ext3: Path, tmp_path: Path) -> None:
    _, image = save(named(engine_name), source(ext3), tmp_path / "p")
    sh("mount", ext3, tmp_path / "mnt")
    try:
        with pytest.raises(EngineError) as caught:
            image.restore(named(engine_name), ext3)
    finally:
        sh("umount", tmp_path / "mnt")
    assert caught.value.code == "mounted"
    filesystems.check("ext3", ext3)


@BOTH
def test_restoring_to_a_device_that_is_not_there(engine_name: str, ext3: Path, tmp_path: Path) -> None:
    _, image = save(named(engine_name), source(ext3), tmp_path / "p")
    absent = Path("/dev/litho-absent1")
    with pytest.raises(DiskError):
        image.restore(named(engine_name), absent)
    assert not absent.exists()


@pytest.mark.parametrize("engine_name", ["partclone", "partimage", "raw"])
def test_restoring_to_a_read_only_device(engine_name: str, ext3: Path, target: Path, tmp_path: Path) -> None:
    _, image = save(named(engine_name), source(ext3), tmp_path / "p")
    sh("blockdev", "--setro", target)
    try:
        with pytest.raises(EngineError) as caught:
            image.restore(named(engine_name), target)
    finally:
        sh("blockdev", "--setrw", target)
    assert reason(caught, "restore", target)


# ---------------------------------------------------------------- other programs


@pytest.mark.parametrize(("compression", "reader"), [("zstd", "zstd"), ("gzip", "gzip"), ("gzip", "pigz")])
@BOTH
def test_standard_tools_restore_what_we_saved(
    engine_name: str, compression: Compression, reader: str, ext3: Path, target: Path, tmp_path: Path
) -> None:
    _, image = save(named(engine_name), source(ext3), tmp_path / "p", compression)
    argv = [str(word) for word in named(engine_name).restore(target, "ext3")]
    with subprocess.Popen([reader, "-dc", image.path], stdout=subprocess.PIPE) as unpack:
        done = subprocess.run(argv, stdin=unpack.stdout, capture_output=True, check=False)
    assert (done.returncode, unpack.returncode) == (0, 0), done.stderr
    filesystems.check("ext3", target)


def test_partimage_itself_reads_our_gzip_members_from_a_file(ext3: Path, target: Path, tmp_path: Path) -> None:
    _, image = save(named("partimage"), source(ext3), tmp_path / "p.gz", "gzip")
    assert image.path.read_bytes().count(b"\x1f\x8b\x08\x00") > 1
    done = subprocess.run(
        ["partimage", "-B", "x=y", "-f3", "restore", target, image.path], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    filesystems.check("ext3", target)


# ---------------------------------------------------------------- partimage-ng, by its stand-in


def test_partimage_ng_s_command_lines_save_and_restore_through_the_stand_in(
    ext3: Path, target: Path, tmp_path: Path
) -> None:
    engine = StandInPartimageNg()
    _, image = save(engine, source(ext3), tmp_path / "p", "gzip")
    seen: list[float | None] = []
    image.restore(engine, target, watcher=lambda watch: seen.append(watch.fraction))
    assert digest_of(target) == digest_of(ext3)
    assert seen[-1] == 1.0


def test_partimage_ng_that_fails_is_told(target: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="partimage-ng ended with exit code 1"):
        stored(tmp_path / "p", b"x" * MIB).restore(StandInPartimageNg(), target)
    with pytest.raises(EngineError, match="could not save"):
        save(StandInPartimageNg(), source(tmp_path / "none"), tmp_path / "q")
