"""Killed at any moment, a capture, a restore or a collection goes on where it was, and nothing is lost or left behind.

The number of kills of each is `LITHO_KILLS`, 8 when it is not set (`make kills`: 100). What ends before its moment comes is done
again.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litho.library import ImageRef, Library, care
from litho.library.chunks import ChunkStore, gc, index, roll, scrub
from litho.library.chunks.store import DIRECTORY
from litho_agent.chunk import adapter
from litho_agent.filesystems import prove
from support.chunked import MB, SIZE, capture, change, contents, fill, make_files, soil
from support.killed import Helper, helper
from support.loop import loop_disk, needs_root, sh
from support.memory import in_memory

KILLS = int(os.environ.get("LITHO_KILLS", "8"))
CARELESS = 6
"""Runs that may end before their moment, for each kill."""


@pytest.fixture
def place() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def away() -> Iterator[Helper]:
    with helper() as made:
        yield made


@pytest.fixture
def library(place: Path) -> Library:
    return Library.create(place / "lib")


@pytest.fixture
def files(place: Path) -> Path:
    return make_files(place / "files")


class Rounds:
    """Runs, until there were enough kills."""

    def __init__(self) -> None:
        self.killed = self.ended = 0
        self._takes_s = 0.0

    def __iter__(self) -> Iterator[int]:
        while self.killed < KILLS:
            assert self.ended <= CARELESS * KILLS, f"the moments are chosen wrongly: {self}"
            yield self.killed + self.ended

    @contextlib.contextmanager
    def moment(self, rng: random.Random) -> Iterator[Callable[[], bool]]:
        """A random moment of a run, as long as runs have been taking on this machine: tells whether it has come.

        The first run goes to its end, for its time.
        """
        begun, killed = time.monotonic(), self.killed
        until = begun + (rng.random() * self._takes_s or 3600)
        yield lambda: time.monotonic() >= until
        took = time.monotonic() - begun
        self._takes_s = self._takes_s * 1.05 if self.killed > killed else took

    def count(self, code: int) -> bool:
        """Take note of how a run ended; True when it was killed."""
        assert code in (0, -signal.SIGKILL)
        self.killed += code != 0
        self.ended += code == 0
        return code != 0

    def __str__(self) -> str:
        return f"{self.killed} killed, {self.ended} ended before their moment"


def left(library: Library) -> set[str]:
    """Names of files in the store, but for the list of what there is."""
    return {path.name for path in (library.root / DIRECTORY).iterdir()} - {roll.NAME}


def sectors_written(disk: Path) -> int:
    """Of a block device, since it was made."""
    return int(Path(f"/sys/block/{disk.name}/stat").read_text().split()[6])


def whole(library: Library, version: int = 0) -> bool:
    return scrub.check_image(library, library.manifest(ImageRef("golden", version))) == []


def sweep(library: Library) -> None:
    for _ in range(4):
        gc.collect(ChunkStore(library), grace_s=0, pack_bytes=MB)


@needs_root
def test_a_capture_killed_at_any_moment_goes_on_where_it_was_and_leaks_nothing(library, files, place, away):
    rng = random.Random(6)  # noqa: S311  repeatable moments
    with loop_disk(place / "a", size=SIZE) as source, loop_disk(place / "b", size=SIZE) as target:
        fill(source, "ext4", files, place / "mnt")
        rounds = Rounds()
        for n in rounds:
            if n % 4 == 0:
                sh("mount", source, place / "mnt")
                (place / "mnt" / "deep" / "er" / "random.bin").write_bytes(rng.randbytes(12 * MB))
                sh("umount", place / "mnt")
            with rounds.moment(rng) as over:
                code, _ = away.do("capture", library.root, source, kill_when=over)
                rounds.count(code)
            care.sweep(library, dead=lambda owner: True)
            if library.versions("golden"):
                assert whole(library)
        code, _ = away.do("capture", library.root, source)
        assert code == 0
        held = _held(library)
        assert len(held) == len(set(held)), "what a dead capture had stored was stored again"
        *old, last = library.versions("golden")
        assert all(whole(library, version) for version in old[-3:])
        for version in old:
            care.remove(library, ImageRef("golden", version))
        sweep(library)
        assert not list((library.root / DIRECTORY).glob("*.part"))
        held = _held(library)
        assert set(held) >= _digests(library)
        assert len(held) <= 2 * len(_digests(library)), "packs are at least half needed after a collection"
        soil(target)
        part = library.manifest(ImageRef("golden", last)).parts[0]
        adapter.restore_part(library, part, target, verify_target=True)
        prove(target, "ext4")
        care.remove(library, ImageRef("golden"))
        sweep(library)
        assert left(library) == set()
        print(f"captures: {rounds}")  # noqa: T201 - the result


def _held(library: Library) -> list[bytes]:
    store = ChunkStore(library)
    return [record.digest for pack in store.listing().live for record in store.index(pack)]


def _digests(library: Library) -> set[bytes]:
    found = scrub.read_index(library, library.manifest(ImageRef("golden")).parts[0])
    return {found.digest(i) for i in range(len(found.numbers)) if found.pack_of[i] != index.ZEROS}


@needs_root
def test_a_restore_killed_at_any_moment_is_taken_up_and_does_not_start_over(library, files, place, away):
    rng = random.Random(7)  # noqa: S311  repeatable moments
    with loop_disk(place / "a", size=SIZE) as source, loop_disk(place / "b", size=SIZE) as target:
        fill(source, "ext4", files, place / "mnt")
        part = capture(library, "golden", source, fs="ext4").parts[0]
        rounds = Rounds()
        for n in rounds:
            # Four kills on the way of one restore, each of which finds what the one before wrote.
            if n % 4 == 0:
                soil(target)
            until = sectors_written(target) + rng.randrange(0, part.used // 512 // 3)
            code, _ = away.do(
                "restore", library.root, target, kill_when=lambda until=until: sectors_written(target) >= until
            )
            rounds.count(code)
        code, said = away.do("restore", library.root, target)
        assert code == 0
        right, written = said
        assert right > 0
        assert right + written >= part.used
        assert adapter.verify_part(library, part, target) == part.chunk_root
        prove(target, "ext4")
        print(f"restores: {rounds}")  # noqa: T201 - the result


def test_a_collector_killed_at_any_moment_loses_nothing_and_leaks_nothing(library, place, away):
    rng = random.Random(4)  # noqa: S311  repeatable moments
    data = contents(1, 4 * MB)
    source, target = place / "source", place / "target"
    rounds = Rounds()
    for n in rounds:
        change(data, n, 0.02)
        source.write_bytes(data)
        capture(library, "golden", source)
        versions = library.versions("golden")
        if len(versions) > 2:
            care.remove(library, ImageRef("golden", versions[0]))
        with rounds.moment(rng) as over:
            code, _ = away.do("collect", library.root, kill_when=over)
            rounds.count(code)
        (library.root / DIRECTORY / "gc.lock").unlink(missing_ok=True)
        assert all(whole(library, version) for version in library.versions("golden"))
    for version in library.versions("golden")[:-1]:
        care.remove(library, ImageRef("golden", version))
    sweep(library)
    target.write_bytes(b"\x5a" * len(data))
    adapter.restore_part(library, library.manifest(ImageRef("golden")).parts[0], target, verify_target=True)
    assert target.read_bytes() == data
    stored = sum(path.stat().st_size for path in (library.root / DIRECTORY).glob("*.pack"))
    assert stored < 2.1 * (len(data) + MB)
    care.remove(library, ImageRef("golden"))
    sweep(library)
    assert left(library) == set()
    print(f"collections: {rounds}")  # noqa: T201 - the result
