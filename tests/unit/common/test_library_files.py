"""Reading small files of a library."""

import os
from pathlib import Path

import pytest

from litho.library import files


def test_a_file_is_read_with_the_memory_that_it_needs_and_not_with_what_it_may_have(tmp_path: Path) -> None:
    """A limit that no machine has memory for: a node of 1 GiB met that with the index of a small image."""
    (tmp_path / "index").write_bytes(b"x" * 200_000)
    assert files.read_small(tmp_path / "index", 2**50) == b"x" * 200_000
    assert files.read_small(tmp_path / "index", 1000) == b"x" * 1000
    assert files.read_small(tmp_path / "index", 200_001) == b"x" * 200_000


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_small(tmp_path / "pipe", 10)
