"""The same tree gives the same bytes, and real programs read them."""

import os
import subprocess
from pathlib import Path

import pytest

from litho_rootimg import archive


def make(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 7)
    (root / "link").symlink_to("a/b")
    (root / "run.sh").chmod(0o755)
    archive.clamp(root, 1_000_000)
    return root


NAMES = ["a/b", "a/c/d", "run.sh", "z", "ä"]


@pytest.fixture
def trees(tmp_path: Path) -> list[Path]:
    """The same tree, made in two orders at two places."""
    return [make(tmp_path / "one", NAMES), make(tmp_path / "two", NAMES[::-1])]


def test_newc_is_the_same_for_the_same_tree_and_cpio_unpacks_it(trees: list[Path], tmp_path: Path):
    files = [tmp_path / "one.cpio", tmp_path / "two.cpio"]
    for tree, file in zip(trees, files, strict=True):
        with file.open("wb") as out:
            archive.write_newc(tree, out)
    assert files[0].read_bytes() == files[1].read_bytes()
    target = tmp_path / "target"
    target.mkdir()
    with files[0].open("rb") as data:
        subprocess.run(["cpio", "-idm", "--quiet"], stdin=data, cwd=target, check=True)
    assert (target / "ä").read_text() == "ä" * 7
    assert (target / "link").readlink() == Path("a/b")
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "a/c/d").stat().st_mtime == 1_000_000


@pytest.mark.parametrize("kind", ["cpio_gz", "cpio_zst", "squashfs", "tar_gz"])
def test_compressed_forms_are_the_same_for_the_same_tree(kind: str, trees: list[Path], tmp_path: Path):
    out = []
    for number, tree in enumerate(trees):
        file = tmp_path / f"{number}.out"
        if kind in ("squashfs", "tar_gz"):
            getattr(archive, kind)(tree, file, 1_000_000)
        else:
            getattr(archive, kind)(tree, file)
        out.append(file.read_bytes())
    assert out[0] == out[1]
    assert len(out[0]) > 100


def test_busybox_unpacks_the_agents_archive(trees: list[Path], tmp_path: Path):
    file = tmp_path / "a.tar.gz"
    archive.tar_gz(trees[0], file, 1_000_000)
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["busybox", "tar", "-xzf", file, "-C", target], check=True)
    assert (target / "a/c/d").read_text() == "a/c/d" * 7
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755


def test_devices_and_owners_are_kept(tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mknod(tree / "null", 0o020666, os.makedev(1, 3))
    (tree / "file").write_text("x")
    os.chown(tree / "file", 123, 456)
    file = tmp_path / "x.cpio"
    with file.open("wb") as out:
        archive.write_newc(tree, out)
    with file.open("rb") as data:
        listing = subprocess.run(
            ["cpio", "-itvn", "--quiet"], stdin=data, check=True, capture_output=True, text=True
        ).stdout
    null = next(line for line in listing.splitlines() if line.endswith("null"))
    assert null.startswith("crw") and "1,   3" in null
    assert "123" in listing and "456" in listing
