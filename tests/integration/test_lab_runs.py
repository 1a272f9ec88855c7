"""How a run of the lab ends: everybody's result counts, and a test that hangs is ended and named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.loop import needs_root

pytestmark = [needs_root, pytest.mark.root]

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, labs: str, tests: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run some tests in labs of their own; the lab's conftest is not there, so each lab runs all of them."""
    file = tmp_path / "test_some.py"
    file.write_text(tests)
    argv = [
        "-m",
        "e2e.lab.side_by_side",
        tmp_path / "cache",
        "-c",
        ROOT / "pyproject.toml",
        "-p",
        "conftest",
        *words,
        file,
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "LITHO_LABS": labs}
    return subprocess.run(
        [sys.executable, *map(str, argv)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_test_that_hangs_ends_its_run_and_is_named_at_the_end(tmp_path: Path):
    hangs = "import time\n\ndef test_that_ends(): pass\n\ndef test_that_hangs(): time.sleep(600)\n"
    done = run(tmp_path, "1", hangs, "-o", "faulthandler_timeout=5")
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lab 1 ended with ")
    assert last.endswith("::test_that_hangs")


def test_two_labs_see_nothing_of_each_other_and_one_that_fails_fails_the_run(tmp_path: Path):
    seen = (
        "import os, subprocess\n\n"
        "def test_alone():\n"
        "    assert os.getpid() == 1\n"
        "    subprocess.run(['ip', 'link', 'add', 'br0', 'type', 'bridge'], check=True)\n"
        "    assert os.environ['LITHO_LAB'] == '1'\n"
    )
    done = run(tmp_path, "2", seen)
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    assert "2 E       AssertionError: assert '2' == '1'" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("lab 2 ended with 1; the last test that began in it: ")
