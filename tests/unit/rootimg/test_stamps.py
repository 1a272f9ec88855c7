"""What is up to date."""

import os
from pathlib import Path

import pytest

from litho_rootimg.stamps import Stamp, digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub/file").write_text("one")
    (root / "link").symlink_to("sub/file")
    return root


def test_times_and_caches_do_not_count(tree: Path):
    before = digest([tree])
    os.utime(tree / "sub/file", (1, 1))
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__/x.pyc").write_text("x")
    assert digest([tree]) == before


@pytest.mark.parametrize("change", ["content", "mode", "name", "link", "more"])
def test_everything_else_does(tree: Path, change: str):
    before = digest([tree])
    file = tree / "sub/file"
    match change:
        case "content":
            file.write_text("two")
        case "mode":
            file.chmod(0o755)
        case "name":
            file.rename(tree / "sub/other")
        case "link":
            (tree / "link").unlink()
            (tree / "link").symlink_to("sub")
        case "more":
            (tree / "empty").touch()
    assert digest([tree]) != before


def test_pieces_do_not_run_into_each_other():
    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_a_build_that_was_interrupted_is_not_taken_for_finished(tmp_path: Path):
    result = tmp_path / "result"
    stamp = Stamp(tmp_path / "stamp", "hash")
    result.write_text("old")
    stamp.done()
    assert stamp.fresh(result)
    stamp.begin()
    assert not stamp.fresh(result), "an interrupted build leaves no stamp"
    stamp.done()
    result.unlink()
    assert not stamp.fresh(result), "and a result that is gone is made again"
    assert not Stamp(tmp_path / "stamp", "other").fresh()
