"""Programs whose standard streams were closed by whoever started them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

TOLD = """
import os, sys
from litho import streams
streams.hold()
print("lost"); sys.stderr.write("lost"); assert sys.stdin.read() == ""
with open(sys.argv[1], "w") as file:
    file.write(f"{file.fileno() > 2} {[os.readlink(f'/proc/self/fd/{n}') for n in range(3)]}")
"""


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path):
    told = tmp_path / "told"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", TOLD, told], check=False, timeout=60
    )
    assert done.returncode == 0
    assert told.read_text() == "True ['/dev/null', '/dev/null', '/dev/null']"


def test_streams_that_are_open_stay_what_they_are():
    done = subprocess.run(
        [sys.executable, "-c", "from litho import streams; streams.hold(); print(input())"],
        input="word\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("word\n", "")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["litho", "--version"], 0), (["litho", "config", "show"], 0), (["litho-agent", "disks", "--json"], 0)],
)
def test_commands_without_standard_output_end_without_a_traceback(words, code):
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", BIN / words[0], *words[1:]],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize(
    "words",
    [
        ["litho", "config", "show"],
        ["litho", "--help"],
        ["litho", "--version"],
        ["litho-agent", "disks"],
        ["litho-agent", "disks", "--json"],
    ],
)
def test_an_output_that_is_full_is_one_sentence_and_one_that_is_closed_is_none(words):
    def run(output):
        done = subprocess.run(
            [BIN / words[0], *words[1:]],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
        return done.returncode, done.stderr

    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        assert run(full) == (1, f"{words[0]}: cannot write the output (No space left on device)\n")
    reading, writing = os.pipe()
    os.close(reading)
    assert run(writing) == (141, "")
    os.close(writing)
