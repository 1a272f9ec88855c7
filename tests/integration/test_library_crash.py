"""A process that dies at any of its file operations, and two that get in each other's way at any of theirs."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from litho.errors import LibraryError, NotFoundError
from litho.library import ImageRef, Library, Stage
from litho.library.care import remove, sweep
from litho.library.verify import check_streams
from support.images import Turns, dies_at, files_expected, files_of, fill, owner, publish, sweep_all


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: hundreds of libraries are made here, and each waits for its disk at each step."""
    with tempfile.TemporaryDirectory(prefix="litho-library-", dir="/dev/shm") as made:
        yield Path(made)


def whole(library: Library, ref: ImageRef) -> int:
    """The version behind `ref`, after reading every byte of it."""
    manifest = library.manifest(ref)
    assert check_streams(library, manifest) == []
    return manifest.version


def pointer(library: Library) -> int:
    return library.current("golden")


def test_a_capture_that_dies_at_any_step_leaves_the_last_good_version(tmp_path: Path) -> None:
    step, seen = 0, set()
    while True:
        library = Library.create(tmp_path / str(step))
        publish(library)
        died = dies_at(step, lambda library=library: publish(library))
        version = whole(library, ImageRef("golden"))
        seen.add(version)
        assert whole(library, ImageRef("golden", 1)) == 1
        sweep_all(library)
        kept = [1, 2] if library.versions("golden") == [1, 2] else [1]
        # The sweep turns the pointer to a version that was published just before the crash; it never takes one away.
        assert set(library.versions("golden")) >= {version}
        assert pointer(library) == kept[-1]
        assert (library.root / "golden.json").read_bytes() == b'{"format":1,"image":"golden","version":%d}\n' % kept[-1]
        assert files_of(library) == files_expected(*(("golden", number) for number in kept))
        for number in kept:
            whole(library, ImageRef("golden", number))
        if not died:
            break
        step += 1
    assert seen == {1, 2}
    assert step > 20


def test_the_first_capture_that_dies_leaves_an_image_or_none(tmp_path: Path) -> None:
    step = 0
    while True:
        library = Library.create(tmp_path / str(step))
        died = dies_at(step, lambda library=library: publish(library))
        sweep_all(library)
        if library.images():
            assert whole(library, ImageRef("golden")) == 1
            assert files_of(library) == files_expected(("golden", 1))
        else:
            assert files_of(library) == {".lithograph"}
            with pytest.raises(NotFoundError):
                library.current("golden")
        if not died:
            break
        step += 1
    assert library.images() == ["golden"]


@pytest.mark.parametrize(("doomed", "left"), [(1, [2]), (2, [1]), (0, [])])
def test_a_removal_that_dies_at_any_step_is_finished_by_the_sweep(tmp_path: Path, doomed: int, left: list[int]) -> None:
    step, undone = 0, 0
    while True:
        library = Library.create(tmp_path / str(step))
        publish(library)
        publish(library, stream=b"second" * 1000)
        died = dies_at(step, lambda library=library: remove(library, ImageRef("golden", doomed)))
        for number in library.versions("golden"):
            whole(library, ImageRef("golden", number))
        if library.versions("golden"):
            # Also with a pointer to a version that is gone, the name alone still restores.
            assert whole(library, ImageRef("golden")) == library.versions("golden")[-1]
        undone += library.versions("golden") == [1, 2]
        sweep_all(library)
        versions = library.versions("golden")
        assert set(left) <= set(versions)
        assert files_of(library) == files_expected(*(("golden", number) for number in versions))
        if not died:
            break
        step += 1
    assert versions == left
    assert undone >= 1


def test_a_sweep_that_dies_at_any_step_is_finished_by_the_next(tmp_path: Path) -> None:
    step = 0
    while True:
        library = Library.create(tmp_path / str(step))
        publish(library)
        stage = Stage.open(library, "golden", owner("dead"))
        fill(stage)
        stopped = dies_at(step, lambda library=library: sweep_all(library))
        assert whole(library, ImageRef("golden")) == 1
        sweep_all(library)
        assert files_of(library) == files_expected(("golden", 1))
        if not stopped:
            break
        step += 1
    assert step >= 4


def test_making_a_library_can_die_at_any_step_and_be_done_again(tmp_path: Path) -> None:
    step = 0
    while True:
        root = tmp_path / str(step)
        died = dies_at(step, lambda root=root: Library.create(root))
        identity = Library.create(root).identity
        assert Library.open(root).identity == identity
        if not died:
            break
        step += 1
    assert step >= 4


def test_a_sweep_and_a_publish_at_the_same_moment_end_with_a_whole_version_or_none(tmp_path: Path) -> None:
    """Every interleaving of two switches: a steps of one, b steps of the other, the rest of the first, the rest of the second."""
    outcomes = set()
    for first in range(0, 24, 1):
        for second in range(0, 12, 1):
            library = Library.create(tmp_path / f"{first}-{second}")
            stage = Stage.open(library, "golden", owner("thought dead"))
            finished = fill(stage)
            lost, failed = Turns(first, second).run(
                lambda stage=stage, finished=finished: stage.publish(finished),
                lambda library=library: sweep(library, dead=lambda _: True),
            )
            assert failed is None, (first, second)
            published = library.versions("golden")
            if lost is None:
                assert published == [1], (first, second)
                assert whole(library, ImageRef("golden")) == 1
            else:
                assert isinstance(lost, LibraryError), (first, second, lost)
                assert lost.code == "stage-lost", (first, second, lost)
                assert published == [], (first, second)
            stage.abort()
            sweep_all(library)
            assert files_of(library) == (files_expected(("golden", 1)) if published else {".lithograph"}), (
                first,
                second,
            )
            outcomes.add(lost is None)
    assert outcomes == {True, False}


def test_a_publish_that_a_removal_crosses_leaves_the_right_pointer(tmp_path: Path) -> None:
    for first in range(0, 26, 2):
        for second in range(0, 16, 2):
            library = Library.create(tmp_path / f"{first}-{second}")
            publish(library)
            stage = Stage.open(library, "golden", owner())
            finished = fill(stage, b"second" * 100)
            assert Turns(first, second).run(
                lambda stage=stage, finished=finished: stage.publish(finished),
                lambda library=library: remove(library, ImageRef("golden", 1)),
            ) == [None, None], (first, second)
            assert library.versions("golden") == [2]
            assert files_of(library) == files_expected(("golden", 2)), (first, second)
            assert whole(library, ImageRef("golden")) == 2
            assert (library.root / "golden.json").read_bytes().endswith(b'"version":2}\n')


def test_two_publishers_at_once_leave_the_pointer_at_the_higher_version(tmp_path: Path) -> None:
    for first in range(0, 26, 2):
        for second in range(0, 26, 3):
            library = Library.create(tmp_path / f"{first}-{second}")
            stages = [Stage.open(library, "golden", owner(f"s{number}")) for number in (1, 2)]
            assert [stage.version for stage in stages] == [1, 2]
            bodies = [fill(stage) for stage in stages]
            works = [partial(stage.publish, body) for stage, body in zip(stages, bodies, strict=True)]
            assert Turns(first, second).run(*works) == [None, None], (first, second)
            assert library.versions("golden") == [1, 2]
            assert (library.root / "golden.json").read_bytes().endswith(b'"version":2}\n'), (first, second)
