"""The library on a real directory: making, finding, checking, removing."""

import contextlib
import gzip
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import zstandard

from litho.errors import IntegrityError, LibraryError, NotFoundError, UsageError
from litho.library import FileRef, ImageRef, Library, Owner, Stage, parse_ref
from litho.library import verify as checks
from litho.library.care import STRAY_AGE_S, prune, remove, sweep
from support.images import files_expected, files_of, fill, flip, owner, publish, sha, sweep_all

GOLDEN = ImageRef("golden")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(tmp_path / "library")


def data_file(library: Library, version: int = 1) -> Path:
    return library.root / f"golden.v{version}-sda1.partclone.zst"


# ---------------------------------------------------------------- making and finding


def test_a_published_image_is_found_and_whole(library: Library) -> None:
    assert publish(library) == 1
    assert library.images() == ["golden"]
    assert library.versions("golden") == [1]
    assert library.resolve(GOLDEN) == ImageRef("golden", 1)
    manifest = library.manifest(GOLDEN)
    read = []
    assert checks.check_streams(library, manifest, read.append) == []
    assert sum(read) == manifest.stored + 6000
    checks.require([])
    assert files_of(library) == files_expected(("golden", 1))


def test_while_a_capture_runs_its_files_carry_the_images_name_and_end_in_part(library: Library) -> None:
    with Stage.open(library, "golden", owner()) as stage:
        fill(stage)
        assert files_of(library) == {
            ".lithograph",
            "golden.v1.json.part",
            "golden.v1-sda.sfdisk.part",
            "golden.v1-sda1.partclone.zst.part",
        }
        assert library.images() == []
    assert files_of(library) == {".lithograph"}


def test_an_error_inside_a_capture_leaves_nothing(library: Library) -> None:
    publish(library)
    with pytest.raises(RuntimeError), Stage.open(library, "golden", owner()) as stage:
        fill(stage)
        raise RuntimeError
    assert files_of(library) == files_expected(("golden", 1))


def test_a_new_version_leaves_the_old_one_as_it_was(library: Library) -> None:
    publish(library)
    before = {path.name: path.read_bytes() for path in library.root.glob("golden.v1*")}
    assert publish(library, stream=b"other" * 100) == 2
    assert {path.name: path.read_bytes() for path in library.root.glob("golden.v1*")} == before
    assert library.current("golden") == 2
    assert library.manifest(parse_ref("golden:1")).version == 1


def test_two_captures_of_one_name_at_once_get_two_versions(library: Library) -> None:
    with Stage.open(library, "golden", owner("a")) as one, Stage.open(library, "golden", owner("b")) as two:
        assert (one.version, two.version) == (1, 2)
        second = fill(two)
        two.publish(second)
        assert library.current("golden") == 2
        one.publish(fill(one))
        # The later number stays current, whoever was faster.
        assert library.current("golden") == 2
    assert library.versions("golden") == [1, 2]


# Programs of their own and not forks of this one: a fork would have the locks of threads that it does not have.
RESERVE = (
    "import os, sys; from pathlib import Path; from litho.library import Library, Owner, Stage\n"
    "library = Library.open(Path(sys.argv[1]))\n"
    "print('ready', flush=True); sys.stdin.readline()\n"
    "print(Stage.open(library, 'golden', Owner(session='s', node='n01', task='t1', host='here', pid=os.getpid())).version)\n"
)


def test_eight_processes_that_begin_at_the_same_moment_get_eight_versions(library: Library) -> None:
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RESERVE, library.root],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(8)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        assert sorted(int(worker.communicate(timeout=60)[0]) for worker in workers) == list(range(1, 9))


@pytest.mark.parametrize("name", ["../golden", "-rf", "golden.v2", "", "a b"])
def test_a_bad_name_touches_nothing(library: Library, name: str) -> None:
    for attempt in (
        lambda: Stage.open(library, name, owner()),
        lambda: library.manifest(ImageRef(name, 1)),
        lambda: library.current(name),
        lambda: remove(library, ImageRef(name)),
    ):
        with pytest.raises(UsageError):
            attempt()
    assert files_of(library) == {".lithograph"}


def test_a_manifest_that_does_not_fit_its_files_is_not_published(library: Library) -> None:
    with Stage.open(library, "golden", owner()) as stage:
        finished = fill(stage)
        short = msgspec.structs.replace(finished.table_dump or pytest.fail(), bytes=3)
        with pytest.raises(LibraryError, match="has 11 bytes and the manifest says 3"):
            stage.publish(msgspec.structs.replace(finished, table_dump=short))
        ghost = FileRef(file=stage.file_name("sda.head"), bytes=1, sha256=sha(b"x"))
        with pytest.raises(LibraryError, match="never made"):
            stage.publish(msgspec.structs.replace(finished, head=ghost))
        with pytest.raises(LibraryError, match="speaks of 'golden' version 7"):
            stage.publish(msgspec.structs.replace(finished, version=7))
        assert library.images() == []
    assert files_of(library) == {".lithograph"}


def test_what_is_published_cannot_be_published_again(library: Library) -> None:
    with Stage.open(library, "golden", owner()) as stage:
        finished = fill(stage)
        stage.publish(finished)
        with pytest.raises(LibraryError, match="not being made any more"):
            stage.publish(finished)
    assert library.versions("golden") == [1]


# ---------------------------------------------------------------- sweeping


def test_a_sweep_leaves_the_living_and_takes_the_dead(library: Library) -> None:
    publish(library)
    alive, dead = (Stage.open(library, "golden", owner(session)) for session in ("alive", "dead"))
    finished = fill(alive)
    fill(dead)
    asked: list[Owner | None] = []

    def is_dead(who: Owner | None) -> bool:
        asked.append(who)
        return who is None or who.session == "dead"

    assert sweep(library, dead=is_dead) == [ImageRef("golden", 3)]
    assert [who.session for who in asked if who] == ["alive", "dead"]
    alive.publish(finished)
    assert files_of(library) == files_expected(("golden", 1), ("golden", 2))


def test_a_stage_that_was_swept_away_refuses_to_publish_although_its_number_lives_on(library: Library) -> None:
    with Stage.open(library, "golden", owner("slow")) as slow:
        finished = fill(slow)
        assert sweep_all(library) == ["golden:1"]
        # The same number, the same file names, and on most file systems the same inode.
        with Stage.open(library, "golden", owner("new")) as new:
            assert new.version == slow.version
            theirs = fill(new)
            with pytest.raises(LibraryError) as lost:
                slow.publish(finished)
            assert lost.value.code == "stage-lost"
            assert "start it again" in lost.value.hint
            slow.abort()
            new.publish(theirs)
    assert checks.check_streams(library, library.manifest(GOLDEN)) == []


def test_a_reservation_that_nobody_can_read_belongs_to_nobody(library: Library) -> None:
    (library.root / "golden.v4.json.part").write_bytes(b"\xff" * 10)
    # What is no file at all is somebody else's, and nothing to wait at.
    os.mkfifo(library.root / "golden.v5.json.part")
    assert sweep_all(library) == ["golden:4"]
    assert files_of(library) == {".lithograph", "golden.v5.json.part"}


def test_strays_go_when_they_are_old_and_foreign_files_stay(library: Library) -> None:
    publish(library)
    strays = [".golden.json.0123456789ab.part", ".write-test.0123456789ab.part", "golden.v9-sda1.zst.part"]
    foreign = ["winxp-sda1.gz", "other.v1-notes.txt", ".nfs0001", "golden.img.capturedone", "golden.tmpl", "x.part"]
    for name in [*strays, *foreign]:
        (library.root / name).write_bytes(b"x")
    sweep(library, dead=lambda _: True)
    assert files_of(library) == files_expected(("golden", 1)) | {*strays, *foreign}
    old = time.time() - STRAY_AGE_S - 10
    for name in [*strays, *foreign]:
        os.utime(library.root / name, (old, old))
    sweep(library, dead=lambda _: True)
    assert files_of(library) == files_expected(("golden", 1)) | set(foreign)


# ---------------------------------------------------------------- removing


def test_removing_an_old_version_leaves_the_current_one(library: Library) -> None:
    for _ in range(3):
        publish(library)
    assert remove(library, parse_ref("golden:1")) == [ImageRef("golden", 1)]
    assert library.current("golden") == 3
    assert remove(library, parse_ref("golden:3")) == [ImageRef("golden", 3)]
    assert library.current("golden") == 2
    assert checks.check_streams(library, library.manifest(GOLDEN)) == []
    assert remove(library, GOLDEN) == [ImageRef("golden", 2)]
    assert files_of(library) == {".lithograph"}
    with pytest.raises(NotFoundError) as missing:
        remove(library, GOLDEN)
    assert missing.value.code == "image-missing"


def test_removing_one_image_leaves_those_with_longer_names(library: Library) -> None:
    for name in ("golden", "golden-2", "golden.img", "golde"):
        publish(library, name)
    remove(library, GOLDEN)
    assert files_of(library) == files_expected(("golden-2", 1), ("golden.img", 1), ("golde", 1))


def test_pruning_keeps_the_newest_and_those_in_use(library: Library) -> None:
    for _ in range(5):
        publish(library)
    gone = prune(library, "golden", keep=2, used=lambda ref: ref.version == 2)
    assert gone == [ImageRef("golden", 1), ImageRef("golden", 3)]
    assert library.versions("golden") == [2, 4, 5]
    assert prune(library, "golden", keep=0, used=lambda _: False) == [ImageRef("golden", 2), ImageRef("golden", 4)]


def test_all_versions_can_be_removed_while_a_new_one_is_being_made(library: Library) -> None:
    publish(library)
    with Stage.open(library, "golden", owner()) as stage:
        finished = fill(stage)
        remove(library, GOLDEN)
        stage.publish(finished)
    assert library.current("golden") == 2
    assert files_of(library) == files_expected(("golden", 2))


# ---------------------------------------------------------------- pointers


@pytest.mark.parametrize("junk", [b"\x00" * 40, b"{", b'{"format":1,"image":"other","version":1}'])
def test_a_damaged_pointer_is_said_and_a_named_version_still_restores(library: Library, junk: bytes) -> None:
    publish(library)
    (library.root / "golden.json").write_bytes(junk)
    with pytest.raises(IntegrityError) as damaged:
        library.manifest(GOLDEN)
    assert damaged.value.code == "corrupt-manifest"
    assert library.manifest(parse_ref("golden:1")).version == 1
    publish(library)
    assert library.current("golden") == 2


def test_a_pointer_that_is_missing_empty_or_names_what_is_gone_falls_back_to_the_highest_version(
    library: Library,
) -> None:
    publish(library)
    publish(library)
    pointer = library.root / "golden.json"
    for damage in (
        pointer.unlink,
        lambda: pointer.write_bytes(b""),
        (library.root / "golden.v2.json").unlink,
    ):
        damage()
        assert library.manifest(GOLDEN).version == library.versions("golden")[-1]


def test_a_version_that_does_not_exist_is_told_with_those_that_do(library: Library) -> None:
    publish(library)
    with pytest.raises(NotFoundError, match=r"has no version 7 \(it has: 1\)"):
        library.manifest(parse_ref("golden:7"))
    with pytest.raises(NotFoundError, match="there is no image silver"):
        library.manifest(parse_ref("silver"))


# ---------------------------------------------------------------- checking


def sentences(library: Library) -> list[str]:
    return [problem.sentence for problem in checks.check_files(library, library.manifest(GOLDEN))]


def test_a_missing_a_cut_a_longer_and_a_flipped_file_are_found(library: Library) -> None:
    publish(library)
    path = data_file(library)
    whole = path.read_bytes()
    path.unlink()
    assert sentences(library) == [f"the file {path.name} is missing"]
    path.write_bytes(whole[:-1])
    assert sentences(library) == [f"the file {path.name} has {len(whole) - 1} bytes instead of {len(whole)}"]
    path.write_bytes(whole + b"\x00")
    assert sentences(library) == [f"the file {path.name} has {len(whole) + 1} bytes instead of {len(whole)}"]
    for at in range(len(whole)):
        path.write_bytes(whole)
        flip(path, at, at % 8)
        assert sentences(library) == [f"the file {path.name} is damaged: its SHA-256 is not what the manifest says"]
    path.write_bytes(whole)
    assert sentences(library) == []


def test_a_pipe_under_a_files_name_is_told_and_not_waited_for(library: Library) -> None:
    with Stage.open(library, "golden", owner()) as stage:
        finished = fill(stage)
        stage.create("sda.head").close()
        empty = FileRef(file=stage.file_name("sda.head"), bytes=0, sha256=sha(b""))
        stage.publish(msgspec.structs.replace(finished, head=empty))
    assert sentences(library) == []
    head = library.root / "golden.v1-sda.head"
    head.unlink()
    os.mkfifo(head)
    assert sentences(library) == ["golden.v1-sda.head is not a regular file"]
    (library.root / "golden.json").unlink()
    os.mkfifo(library.root / "golden.json")
    with pytest.raises(LibraryError, match="not a regular file"):
        library.current("golden")


def test_all_that_is_wrong_is_told_and_the_first_is_raised(library: Library) -> None:
    publish(library)
    data_file(library).unlink()
    flip(library.root / "golden.v1-sda.sfdisk", 3)
    problems = checks.check_streams(library, library.manifest(GOLDEN))
    assert [problem.file for problem in problems] == ["golden.v1-sda.sfdisk", "golden.v1-sda1.partclone.zst"]
    with pytest.raises(IntegrityError, match=r"golden\.v1-sda\.sfdisk is damaged.*\(and 1 more\)"):
        checks.require(problems)


def test_a_stream_that_is_not_what_was_saved_is_found_although_the_file_is(library: Library) -> None:
    with Stage.open(library, "golden", owner()) as stage:
        finished = fill(stage)
        part = msgspec.structs.replace(finished.parts[0], stream_sha256=sha(b"something else"))
        stage.publish(msgspec.structs.replace(finished, parts=(part,)))
    manifest = library.manifest(GOLDEN)
    assert checks.check_files(library, manifest) == []
    assert [problem.sentence for problem in checks.check_streams(library, manifest)] == [
        "the stream in golden.v1-sda1.partclone.zst is not what the manifest says"
    ]


PLAIN = os.urandom(300_000) + bytes(3_000_000) + b"the end"
PACKED = {
    "zstd": zstandard.ZstdCompressor(level=1).compress(PLAIN),
    "gzip": gzip.compress(PLAIN, 1),
    "none": PLAIN,
}


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_a_packed_stream_comes_out_whole_also_in_several_frames(compression: str) -> None:
    packed = PACKED[compression]
    assert b"".join(checks.unpacked(io.BytesIO(packed), compression)) == PLAIN
    assert b"".join(checks.unpacked(io.BytesIO(packed + packed), compression)) == PLAIN + PLAIN


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_stream_that_is_cut_or_has_a_tail_is_damaged(compression: str) -> None:
    packed = PACKED[compression]
    cuts = [0, 1, 3, 5, 100, len(packed) // 2, *range(len(packed) - 30, len(packed))]
    for data in [*(packed[:cut] for cut in cuts), packed + b"\x01", packed + b"tail" * 10, packed + packed[:-1]]:
        with pytest.raises(IntegrityError):
            b"".join(checks.unpacked(io.BytesIO(data), compression))


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_bomb_is_unpacked_in_small_pieces(compression: str) -> None:
    zeros = bytes(1 << 20)
    packer = zstandard.ZstdCompressor(level=1).compressobj() if compression == "zstd" else None
    if packer is not None:
        packed = b"".join([*(packer.compress(zeros) for _ in range(1024)), packer.flush()])
    else:
        packed = gzip.compress(bytes(256 << 20), 1)
    pieces = [len(piece) for piece in checks.unpacked(io.BytesIO(packed), compression)]
    assert sum(pieces) == (1 << 30 if compression == "zstd" else 256 << 20)
    assert max(pieces) <= 64 << 20


def test_a_file_does_not_become_a_library(tmp_path):
    (tmp_path / "library").write_text("mine")
    with pytest.raises(LibraryError, match="is no directory"):
        Library.create(tmp_path / "library")
    assert (tmp_path / "library").read_text() == "mine"
