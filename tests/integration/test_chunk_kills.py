"""Killed at any moment, a capture or a restore goes on where it was, and nothing is lost or left behind.

The number of kills is `LITHO_KILLS`, 12 when it is not set.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litho.library import ImageRef, Library, care
from litho.library.chunks import ChunkStore, gc, index, scrub
from litho_agent.chunk import adapter
from litho_agent.filesystems import prove
from support.chunked import MB, SIZE, capture, fill, make_files, soil
from support.loop import loop_disk, needs_root, sh

pytestmark = needs_root

KILLS = int(os.environ.get("LITHO_KILLS", "12"))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(tmp_path / "lib")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return make_files(tmp_path / "files")


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.chunked import capture
from litho.library import ImageRef, Library
from litho_agent.chunk import adapter
library, device = Library.open(Path(sys.argv[3])), Path(sys.argv[4])
print("go", flush=True)
if sys.argv[2] == "capture":
    capture(library, "golden", device, fs="ext4")
else:
    part = library.manifest(ImageRef("golden")).parts[0]
    done = adapter.restore_part(library, part, device)
    print(done.right, done.written)
"""


def child(what: str, library: Library, device: Path, *, kill_when: Callable[[], bool] | None = None) -> tuple[int, str]:
    """Capture or restore in a process of its own, killed when `kill_when` says so; its code and what it said."""
    argv = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), what, str(library.root), str(device)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    if kill_when is not None:
        while process.poll() is None and not kill_when():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    return process.wait(), rest


def names_in(library: Library) -> int:
    """How many files the store has: it grows as packs are begun, sealed and counted."""
    directory = library.root / ".chunks"
    return sum(1 for _ in directory.iterdir()) if directory.is_dir() else 0


def sectors_written(disk: Path) -> int:
    """Of a block device, since it was made."""
    return int(Path(f"/sys/block/{disk.name}/stat").read_text().split()[6])


def test_a_capture_killed_at_any_moment_goes_on_where_it_was_and_leaks_nothing(library, files, tmp_path):
    rng = random.Random(6)  # noqa: S311  repeatable moments
    with loop_disk(tmp_path / "a", size=SIZE) as source, loop_disk(tmp_path / "b", size=SIZE) as target:
        fill(source, "ext4", files, tmp_path / "mnt")
        killed = 0
        for n in range(KILLS):
            if n % 4 == 0:
                sh("mount", source, tmp_path / "mnt")
                (tmp_path / "mnt" / "deep" / "er" / "random.bin").write_bytes(rng.randbytes(12 * MB))
                sh("umount", tmp_path / "mnt")
            until = names_in(library) + rng.randrange(0, 12)
            code, _ = child("capture", library, source, kill_when=lambda until=until: names_in(library) >= until)
            killed += code == -signal.SIGKILL
            care.sweep(library, dead=lambda owner: True)
            for version in library.versions("golden"):
                assert scrub.check_image(library, library.manifest(ImageRef("golden", version))) == []
        assert killed >= KILLS // 4
        code, _ = child("capture", library, source)
        assert code == 0
        last = library.manifest(ImageRef("golden")).parts[0]
        held = _held(library)
        assert len(held) == len(set(held)), "what a dead capture had stored was stored again"
        for version in library.versions("golden")[:-1]:
            care.remove(library, ImageRef("golden", version))
        for _ in range(4):
            gc.collect(ChunkStore(library), grace_s=0, pack_bytes=MB)
        assert not list((library.root / ".chunks").glob("*.part"))
        held = _held(library)
        assert set(held) >= _digests(library)
        assert len(held) <= 2 * len(_digests(library)), "packs are at least half needed after a collection"
        soil(target)
        adapter.restore_part(library, last, target, verify_target=True)
        prove(target, "ext4")
        care.remove(library, ImageRef("golden"))
        for _ in range(3):
            gc.collect(ChunkStore(library), grace_s=0, pack_bytes=MB)
        assert names_in(library) == 0


def _held(library: Library) -> list[bytes]:
    store = ChunkStore(library)
    return [record.digest for pack in store.listing().live for record in store.index(pack)]


def _digests(library: Library) -> set[bytes]:
    found = scrub.read_index(library, library.manifest(ImageRef("golden")).parts[0])
    return {found.digest(i) for i in range(len(found.numbers)) if found.pack_of[i] != index.ZEROS}


def test_a_restore_killed_at_any_moment_is_taken_up_and_does_not_start_over(library, files, tmp_path):
    rng = random.Random(7)  # noqa: S311  repeatable moments
    with loop_disk(tmp_path / "a", size=SIZE) as source, loop_disk(tmp_path / "b", size=SIZE) as target:
        fill(source, "ext4", files, tmp_path / "mnt")
        part = capture(library, "golden", source, fs="ext4").parts[0]
        soil(target)
        killed = 0
        for n in range(KILLS):
            if n % 6 == 0:
                soil(target)
            until = sectors_written(target) + rng.randrange(0, part.used // 512)
            code, _ = child("restore", library, target, kill_when=lambda until=until: sectors_written(target) >= until)
            killed += code == -signal.SIGKILL
        assert killed >= KILLS // 4
        code, said = child("restore", library, target)
        assert code == 0
        right, written = map(int, said.split())
        assert right > 0
        assert right + written >= part.used
        assert adapter.verify_part(library, part, target) == part.chunk_root
        prove(target, "ext4")
