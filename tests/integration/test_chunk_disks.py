"""The chunk engine on loop devices: every file system comes back whole, a second restore writes what differs."""

import hashlib
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from litho.errors import DiskError, IntegrityError, LibraryError
from litho.library import ImageRef, Library
from litho.library.chunks import ChunkStore, ChunkWriter, index, scrub
from litho.library.chunks.usedmap import UNIT
from litho.library.chunks.writer import Frame
from litho_agent.chunk import adapter
from litho_agent.chunk.crew import hands_here
from litho_agent.chunk.restore import PACKED, packed_buffers
from litho_agent.chunk.usage import used_map
from litho_agent.filesystems import prove
from support.chunked import MB, MKFS, SIZE, capture, fill, make_files, soil
from support.loop import loop_disk, needs_root, sh

pytestmark = needs_root


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(tmp_path / "lib")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return make_files(tmp_path / "files")


def tree_hash(disk: Path, fs: str, at: Path) -> dict[str, str]:
    """Every file on the disk and the hash of what it holds."""
    at.mkdir(exist_ok=True)
    if fs == "vfat":
        out = at / "out"
        out.mkdir()
        sh("mcopy", "-s", "-n", "-i", disk, "::/*", out)
        found = _hashes(out)
        sh("rm", "-r", out)
        return found
    sh(*(("ntfs-3g", "-o", "ro", disk, at) if fs == "ntfs" else ("mount", "-o", "ro", disk, at)))
    try:
        return _hashes(at)
    finally:
        sh("umount", at)


def _hashes(tree: Path) -> dict[str, str]:
    paths = [path for path in sorted(tree.rglob("*")) if path.is_file()]
    return {str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("fs", list(MKFS))
def test_a_file_system_comes_back_whole_on_a_target_full_of_other_bytes(library, files, tmp_path, fs):
    with loop_disk(tmp_path / "a", size=SIZE) as source, loop_disk(tmp_path / "b", size=SIZE) as target:
        fill(source, fs, files, tmp_path / "mnt")
        wanted = tree_hash(source, fs, tmp_path / "mnt")
        manifest = capture(library, "golden", source, fs=fs)
        part = manifest.parts[0]
        assert 20 * MB < part.used < SIZE * 0.6
        assert 12 * MB < part.chunk_stored < part.used * 0.8
        soil(target)
        first = adapter.restore_part(library, part, target, mode="plain", verify_target=True)
        assert first.root == part.chunk_root
        prove(target, fs)
        assert tree_hash(target, fs, tmp_path / "mnt") == wanted
        # Mounting may have written; what it did is undone, and little else is written.
        again = adapter.restore_part(library, part, target, mode="delta", verify_target=True)
        assert again.right > again.total * 0.8
        assert re.fullmatch(r"[\d.]+ of [\d.]+ MB were already right, [\d.]+ [kM]?B written", again.sentence())
        second = capture(library, "golden", target, fs=fs)
        assert second.parts[0].chunk_stored < part.chunk_stored * 0.1
        assert scrub.check_image(library, manifest) == []


def test_a_partition_without_a_file_system_comes_back_byte_for_byte(library, tmp_path):
    with loop_disk(tmp_path / "a", size=40 * MB + 512) as source, loop_disk(tmp_path / "b", size=48 * MB) as target:
        rng = random.Random(2)  # noqa: S311  the same bytes each time
        with source.open("r+b") as file:
            for at in (0, 5 * MB + 100, 40 * MB - 1000):
                file.seek(at)
                file.write(rng.randbytes(1512))
        part = capture(library, "raw", source).parts[0]
        assert part.used == 40 * MB + 512
        assert part.chunk_stored < 10_000
        soil(target, 48 * MB)
        adapter.restore_part(library, part, target, verify_target=True)
        with source.open("rb") as one, target.open("rb") as other:
            assert one.read() == other.read(40 * MB + 512)
            assert set(other.read()) == {0xA5}


def test_a_disk_with_large_sectors_takes_an_image_of_one_with_small_ones(library, files, tmp_path):
    with (
        loop_disk(tmp_path / "a", size=SIZE) as source,
        loop_disk(tmp_path / "b", size=SIZE, sector_size=4096) as target,
    ):
        fill(source, "ext3", files, tmp_path / "mnt")
        part = capture(library, "golden", source, fs="ext3").parts[0]
        soil(target)
        adapter.restore_part(library, part, target, verify_target=True)
        prove(target, "ext3")


def test_unused_space_is_given_back_when_asked(library, files, tmp_path):
    with loop_disk(tmp_path / "a", size=SIZE) as source, loop_disk(tmp_path / "b", size=SIZE) as target:
        fill(source, "ext4", files, tmp_path / "mnt")
        part = capture(library, "golden", source, fs="ext4").parts[0]
        soil(target)
        assert (tmp_path / "b").stat().st_blocks * 512 > SIZE * 0.95
        adapter.restore_part(library, part, target, free="discard", verify_target=True)
        assert (tmp_path / "b").stat().st_blocks * 512 < SIZE * 0.5
        soil(target)
        adapter.restore_part(library, part, target, free="zero", verify_target=True)
        used = used_map(source, "ext4", SIZE)
        with target.open("rb") as file:
            for hole in used.holes(0, SIZE):
                start, end = hole.start + 128 * 1024, hole.end - 128 * 1024
                if end > start:
                    file.seek(start)
                    assert not any(file.read(end - start))
        prove(target, "ext4")


def test_what_changed_on_a_restored_disk_is_found_and_undone(library, files, tmp_path):
    with loop_disk(tmp_path / "a", size=SIZE) as source:
        fill(source, "ext4", files, tmp_path / "mnt")
        part = capture(library, "golden", source, fs="ext4").parts[0]
        assert adapter.verify_part(library, part, source) == part.chunk_root
        sh("mount", source, tmp_path / "mnt")
        (tmp_path / "mnt" / "zeros.bin").write_bytes(b"changed" * MB)
        (tmp_path / "mnt" / "deep" / "0.py").unlink()
        sh("umount", tmp_path / "mnt")
        with pytest.raises(IntegrityError) as told:
            adapter.verify_part(library, part, source)
        assert told.value.code == "target-differs"
        done = adapter.restore_part(library, part, source, verify_target=True)
        assert 0 < done.written < done.total * 0.5
        prove(source, "ext4")


def test_a_target_that_is_too_small_keeps_what_it_holds(library, tmp_path):
    with loop_disk(tmp_path / "a", size=8 * MB) as source, loop_disk(tmp_path / "b", size=7 * MB) as target:
        soil(target, 7 * MB)
        part = capture(library, "raw", source).parts[0]
        with pytest.raises(DiskError) as told:
            adapter.restore_part(library, part, target)
        assert told.value.code == "target-too-small"
        assert set(target.read_bytes()) == {0xA5}


# ---------------------------------------------------------------- the library fails


def test_a_library_that_fills_up_in_the_middle_ends_in_words_and_the_next_capture_goes_on(files, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    with loop_disk(tmp_path / "a", size=SIZE) as source, loop_disk(tmp_path / "b", size=SIZE) as target:
        fill(source, "ext4", files, tmp_path / "mnt")
        sh("mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", small)
        try:
            library = Library.create(small)
            with pytest.raises(LibraryError) as told:
                capture(library, "golden", source, fs="ext4")
            assert told.value.code == "library-full"
            assert library.images() == []
            before = sum(len(ChunkStore(library).index(pack)) for pack in ChunkStore(library).listing().live)
            assert before > 0
            sh("mount", "-o", "remount,size=100m", small)
            part = capture(library, "golden", source, fs="ext4").parts[0]
            held = sum(len(ChunkStore(library).index(pack)) for pack in ChunkStore(library).listing().live)
            assert held == len(_digests(library)), "nothing was stored twice"
            adapter.restore_part(library, part, target, verify_target=True)
            prove(target, "ext4")
        finally:
            sh("umount", small)


def test_a_library_that_is_read_only_restores_and_refuses_a_capture_in_words(files, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    with loop_disk(tmp_path / "a", size=SIZE) as source, loop_disk(tmp_path / "b", size=SIZE) as target:
        fill(source, "ext4", files, tmp_path / "mnt")
        sh("mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", small)
        try:
            library = Library.create(small)
            part = capture(library, "golden", source, fs="ext4").parts[0]
            sh("mount", "-o", "remount,ro", small)
            adapter.restore_part(library, part, target, verify_target=True)
            with pytest.raises(LibraryError) as told:
                ChunkWriter(ChunkStore(library)).add([Frame(bytes(32), 3, False, b"new")])
            assert told.value.code == "library-read-only"
        finally:
            sh("umount", small)


# ---------------------------------------------------------------- bounds


MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.chunked import capture
from litho.library import ImageRef, Library
from litho_agent.chunk import adapter
library, device, target = Library.open(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4])
part = capture(library, "big", device, pack_bytes=1 << 26).parts[0]
adapter.restore_part(library, part, target, mode="delta", verify_target=True)
# Not ru_maxrss, which begins with what the parent had when it forked.
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def test_memory_stays_the_same_however_large_the_partition_is(library, tmp_path):
    size = 1500 * MB
    with loop_disk(tmp_path / "a", size=size) as source, loop_disk(tmp_path / "b", size=size) as target:
        rng = random.Random(8)  # noqa: S311  the same bytes each time
        noise = rng.randbytes(4 * MB)
        with source.open("r+b", buffering=0) as file:
            for n in range(0, size, 4 * MB):
                file.write(n.to_bytes(8, "little") * 8192 + noise[65536:])
        argv = [sys.executable, "-c", MEMORY, str(Path(__file__).parents[1]), library.root, source, target]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        hands = hands_here()
        buffers = hands.buffers * UNIT + packed_buffers(hands) * PACKED
        assert int(done.stdout) * 1024 < buffers + 64 * MB


def _digests(library: Library) -> set[bytes]:
    found = scrub.read_index(library, library.manifest(ImageRef("golden")).parts[0])
    return {found.digest(i) for i in range(len(found.numbers)) if found.pack_of[i] != index.ZEROS}
