"""Looking into images: a file system mounted from chunks, files taken out of it, and links that lead nowhere else."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from litho.errors import NotFoundError, RefusedError
from litho.library import ImageRef, Library
from litho.library.chunks.window import Window
from litho_controller.looking import inside, serve
from support.chunked import MB, contents
from support.images import publish
from support.loop import loop_disk, sh

LITHO = Path(__file__).parents[2] / ".venv/bin/litho"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a library of one image of an ext4 with files, and one stream."""
    folder = tmp_path_factory.mktemp("look")
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/fstab").write_text("/dev/sda1 / ext4\n")
    (tree / "etc/motd").symlink_to("/etc/fstab")
    (tree / "etc/out").symlink_to("../../../../etc/hostname")
    (tree / "loop").symlink_to("loop")
    (tree / "big").write_bytes(contents(3, 5 * MB))
    disk = folder / "disk"
    sh("truncate", "-s", "64M", disk)
    sh("mkfs.ext4", "-q", "-F", "-d", tree, disk)
    library = Library.create(folder / "lib")
    with loop_disk(disk) as device:
        sh(LITHO.with_name("litho-agent"), "capture", "--disk", device, "--library", library.root, "--image", "golden")
    publish(library, "stream")
    (folder / "litho.toml").write_text(f'library = "{folder}/lib"\n')
    return folder


def litho(place: Path, *words: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [LITHO, *words],
        env=os.environ | {"LITHO_CONFIG": str(place / "litho.toml")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def window(place: Path) -> Iterator[Window]:
    library = Library.open(place / "lib")
    window = Window(library, library.manifest(ImageRef("golden")).parts[0])
    yield window
    window.close()


def test_any_piece_of_a_partition_reads_as_it_was(window, place):
    used = (place / "disk").read_bytes()
    assert window.size == len(used)
    # The superblock, a piece across two chunks, the end, and beyond it.
    for offset, length in ((1024, 1024), (262_000, 600), (window.size - 10, 100)):
        found = window.pread(length, offset)
        assert len(found) == min(length, window.size - offset)
        assert all(a in (b, 0) for a, b in zip(found, used[offset : offset + length], strict=True))
    assert window.pread(1024, 1024) == used[1024:2048]


def test_a_file_and_a_directory_are_taken_out(place, tmp_path):
    code, said = litho(place, "image", "cp", "golden:/etc/motd", tmp_path)
    assert code == 0 and "from partition 0" in said
    assert (tmp_path / "fstab").read_text() == "/dev/sda1 / ext4\n"
    assert litho(place, "image", "cp", "golden:1:/big", tmp_path / "mine")[0] == 0
    assert (tmp_path / "mine").read_bytes() == contents(3, 5 * MB)
    assert litho(place, "image", "cp", "golden:/etc", tmp_path)[0] == 0
    assert (tmp_path / "etc/out").readlink() == Path("../../../../etc/hostname")


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("golden:/etc/nothing", 3, "has /etc/nothing"),
        # The link leads to /etc/hostname of the image, not of this machine; the image has none.
        ("golden:/etc/out", 3, "has /etc/out"),
        ("golden", 2, "names no path"),
        ("stream:/etc/fstab", 4, "captured as streams"),
    ],
)
def test_what_cannot_be_taken_out_is_said(place, tmp_path, source, code, said):
    got, words = litho(place, "image", "cp", source, tmp_path)
    assert (got, said in words) == (code, True), words
    assert list(tmp_path.iterdir()) == []


def test_links_stay_inside_and_circles_end(tmp_path):
    (tmp_path / "a").symlink_to("/b")
    (tmp_path / "b").symlink_to("/a")
    with pytest.raises(RefusedError):
        inside.find(tmp_path, "/a")
    (tmp_path / "up").symlink_to("../../../../..")
    assert inside.find(tmp_path, "/up") == tmp_path
    with pytest.raises(NotFoundError):
        inside.find(tmp_path, "/up/proc/self")


def test_what_is_there_is_not_replaced(place, tmp_path):
    (tmp_path / "fstab").write_text("mine")
    code, said = litho(place, "image", "cp", "golden:/etc/fstab", tmp_path)
    assert code == 4 and "exists already" in said
    assert (tmp_path / "fstab").read_text() == "mine"


@pytest.mark.parametrize("raw", [(), ("--raw",)])
def test_a_mount_lasts_until_ctrl_c_and_leaves_nothing(place, tmp_path, raw):
    at = tmp_path / "mnt"
    at.mkdir()
    argv = ["env", "--default-signal=INT", LITHO, "image", "mount", "golden", at, *raw]
    child = subprocess.Popen(
        argv, env=os.environ | {"LITHO_CONFIG": str(place / "litho.toml")}, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        first = child.stdout.readline()
        assert str(at) in first
        assert "Ctrl-C" in child.stdout.readline()
        if raw:
            assert (at / "p0/part0").stat().st_size == 64 * MB
        else:
            assert (at / "etc/fstab").read_text() == "/dev/sda1 / ext4\n"
            assert not os.access(at / "etc/fstab", os.W_OK)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    assert list(at.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_streams_are_pointed_to_convert(place):
    library = Library.open(place / "lib")
    with pytest.raises(RefusedError, match="cannot be read at any place"):
        serve.windows(library.manifest(ImageRef("stream")))


def used_bytes(place: Path, ref: ImageRef) -> bytes:
    library = Library.open(place / "lib")
    window = Window(library, library.manifest(ref).parts[0])
    try:
        return window.pread(window.size, 0)
    finally:
        window.close()


def test_an_image_is_saved_anew_by_another_engine_and_back(place):
    """Chunks -> partclone's stream -> chunks: the same used bytes, the same files."""
    code, said = litho(place, "image", "convert", "golden:1", "--to", "partclone", "--name", "converted")
    assert code == 0 and said.endswith("golden:1 is converted:1 now, by partclone\n"), said
    library = Library.open(place / "lib")
    manifest = library.manifest(ImageRef("converted", 1))
    assert manifest.parts[0].engine == "partclone" and manifest.labels["converted-from"] == "golden:1"
    code, said = litho(place, "image", "convert", "converted", "--to", "chunk")
    assert code == 0 and said.endswith("converted:1 is converted:2 now, by chunk\n"), said
    assert used_bytes(place, ImageRef("converted", 2)) == used_bytes(place, ImageRef("golden", 1))
    assert not any("litho-convert" in line for line in sh("losetup", "-a").splitlines())


def test_a_conversion_without_room_is_refused_before_it_begins(place, tmp_path):
    sh("mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path)
    try:
        code, said = litho(place, "image", "convert", "golden", "--to", "raw", "--scratch", tmp_path)
    finally:
        sh("umount", tmp_path)
    assert code == 6 and "--scratch" in said
    assert Library.open(place / "lib").versions("golden") == [1]
