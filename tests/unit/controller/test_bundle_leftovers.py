"""What a killed export left is taken away by the next one; what a living one writes, and what is others', is not."""

import os
import signal
import subprocess
import sys

import pytest

from litho_controller.bundle import leftovers
from litho_controller.bundle.leftovers import sweep

WRITER = """
import sys, time
from pathlib import Path
from litho_controller.bundle import leftovers
folder = Path(sys.argv[1])
beside, file = leftovers.write_beside(folder / "golden.tgz")
with leftovers.scratch(folder) as room:
    (room / "tree").write_bytes(b"x")
    print("written", flush=True)
    time.sleep(600)
"""
LATER = 10**10
"""A time at which everything is old."""


@pytest.fixture
def writer(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"written\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_what_is_being_written_stays_and_what_a_killed_export_left_goes(tmp_path, writer):
    there = sorted(tmp_path.iterdir())
    assert len(there) == 2
    assert sweep(tmp_path, now=LATER) == []
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert sweep(tmp_path) == [], "the young may still be about to be locked"
    assert sorted(tmp_path.iterdir()) == there
    assert sorted(sweep(tmp_path, now=LATER)) == there
    assert list(tmp_path.iterdir()) == []


def test_names_of_others_stay_however_old_they_are(tmp_path):
    names = (
        "golden.tgz",
        ".golden.tgz.part",
        ".golden.tgz.0123456789ab",
        ".x.txt.0123456789ab.part",
        ".litho-export-a",
    )
    for name in names:
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / ".pipe.tgz.0123456789ab.part.x")
    (tmp_path / ".litho-export-abcd1234").symlink_to(tmp_path)
    (tmp_path / ".link.tgz.0123456789ab.part").symlink_to(tmp_path / "golden.tgz")
    before = sorted(tmp_path.iterdir())
    assert sweep(tmp_path, now=LATER) == []
    assert sorted(tmp_path.iterdir()) == before
    assert sweep(tmp_path / "missing") == []


def test_a_scratch_directory_is_gone_after_its_export(tmp_path):
    with leftovers.scratch(tmp_path) as room:
        (room / "file").touch()
    assert list(tmp_path.iterdir()) == []
