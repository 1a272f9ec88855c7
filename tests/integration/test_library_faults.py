"""A library that is full, read-only, not mounted or taken away."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from litho.errors import LibraryError
from litho.library import ImageRef, Library, Stage, verify
from litho.library.care import remove
from litho.library.shelf import Marker
from support.images import files_expected, files_of, fill, owner, publish, sweep_all
from support.loop import sh

pytestmark = pytest.mark.root


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own: 1 MiB, 100 files."""
    point = tmp_path / "mnt"
    point.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=100", "litho-test", point)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)


def fill_up(library: Library) -> None:
    with (library.root / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


def test_a_full_library_is_told_in_the_middle_and_the_last_good_version_stays(mounted: Path) -> None:
    library = Library.create(mounted)
    publish(library)
    with Stage.open(library, "golden", owner()) as stage:
        finished = fill(stage)
        fill_up(library)
        with pytest.raises(LibraryError) as full:
            stage.publish(finished)
    assert full.value.code == "library-full"
    assert str(mounted) in full.value.message
    assert "prune" in full.value.hint
    assert verify.check_streams(library, library.manifest(ImageRef("golden"))) == []
    assert files_of(library) - {"ballast"} == files_expected(("golden", 1))
    fill_up(library)  # what the failed capture gave back
    with pytest.raises(LibraryError) as refused:
        library.check_writable()
    assert refused.value.code == "library-full"
    with pytest.raises(LibraryError):
        Stage.open(library, "golden", owner())
    assert files_of(library) - {"ballast"} == files_expected(("golden", 1))


@pytest.mark.parametrize("doomed", [1, 2, 0])
def test_a_full_library_can_be_cleared(mounted: Path, doomed: int) -> None:
    library = Library.create(mounted)
    publish(library)
    publish(library)
    Stage.open(library, "golden", owner("dead"))
    fill_up(library)
    remove(library, ImageRef("golden", doomed))
    sweep_all(library)
    left = [("golden", number) for number in (1, 2) if doomed not in (0, number)]
    assert files_of(library) - {"ballast"} == files_expected(*left)


def test_a_pointer_that_finds_no_room_is_told_and_the_version_exists(mounted: Path) -> None:
    library = Library.create(mounted)
    publish(library)
    with Stage.open(library, "golden", owner()) as stage:
        finished = fill(stage)
        with pytest.raises(LibraryError, match=r"golden:2 is published, but golden\.json could not be turned") as stale:
            stage.publish(finished, before_pointer=lambda: fill_up(library))
    assert stale.value.code == "pointer-stale"
    assert library.versions("golden") == [1, 2]
    (library.root / "ballast").unlink()
    sweep_all(library)
    assert library.current("golden") == 2
    assert files_of(library) == files_expected(("golden", 1), ("golden", 2))


def test_a_read_only_library_reads_and_says_why_it_does_not_write(mounted: Path) -> None:
    library = Library.create(mounted)
    publish(library)
    sh("mount", "-o", "remount,ro", mounted)
    for attempt in (
        library.check_writable,
        lambda: Stage.open(library, "golden", owner()),
        lambda: remove(library, ImageRef("golden")),
    ):
        with pytest.raises(LibraryError) as refused:
            attempt()
        assert refused.value.code == "library-read-only"
        assert "mounted read-only" in refused.value.message
    assert verify.check_streams(library, library.manifest(ImageRef("golden"))) == []


def test_a_mount_point_with_nothing_mounted_is_no_library(mounted: Path) -> None:
    library = Library.create(mounted)
    stage = Stage.open(library, "golden", owner())
    finished = fill(stage)
    sh("umount", mounted)
    with pytest.raises(LibraryError, match=r"has no marker file \.lithograph: check that it is mounted"):
        Library.open(mounted)
    with pytest.raises(LibraryError, match="went away while golden:1 was being made") as gone:
        stage.publish(finished)
    assert gone.value.code == "library-missing"
    stage.abort()
    assert list(mounted.iterdir()) == []


def test_a_library_that_does_not_exist_or_is_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="it does not exist"):
        Library.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(LibraryError) as refused:
        Library.open(tmp_path / "file")
    assert refused.value.code == "library-missing"


@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"\xff", b'{"format":2,"library":"x"}', b'{"format":1,"library":"%s"}' % (b"x" * 65)]
)
def test_a_damaged_marker_is_told(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / ".lithograph").write_bytes(junk)
    with pytest.raises(LibraryError, match=r"the marker .* is damaged"):
        Library.open(tmp_path)


def test_a_library_is_made_once_and_keeps_its_identity(tmp_path: Path) -> None:
    first = Library.create(tmp_path / "a" / "b")
    assert Library.create(first.root).identity == first.identity
    assert Marker(library=first.identity).format == 1
    assert first.free() > 0
