"""The gateway to child processes, with real ones."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litho import process
from litho.errors import EngineError, MissingProgramError
from support.pace import Moment

PYTHON = sys.executable


def test_what_a_program_says_comes_back() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.out, done.err, done.code, done.last_words) == ("out\n", "err\n", 0, "err")
    assert done.argv == ("sh", "-c", "echo out; echo err >&2")


@pytest.mark.parametrize(
    ("program", "package"),
    [("partclone.nosuchfs", "partclone"), ("/nowhere/partimage", "partimage"), ("/nowhere/sfdisk", "fdisk")],
)
def test_a_missing_program_names_its_package(program: str, package: str) -> None:
    with pytest.raises(MissingProgramError) as missing:
        process.run([program])
    assert str(missing.value) == f"the program {program} is not installed: install the package {package}"
    with pytest.raises(MissingProgramError):
        process.start([program])


async def test_a_missing_program_is_told_before_an_event_loop_starts_it() -> None:
    with pytest.raises(MissingProgramError):
        await process.start_async(["no-such-program"])


def test_a_directory_is_not_a_program(tmp_path: Path) -> None:
    with pytest.raises(MissingProgramError):
        process.run([tmp_path])


def test_an_exit_code_is_told_from_a_signal() -> None:
    with pytest.raises(EngineError, match=r"^sh ended with exit code 3 \(no good\)$"):
        process.run(["sh", "-c", "echo fine; echo no good >&2; exit 3"])
    with pytest.raises(EngineError, match=r"^saving sda1: sh was ended by SIGKILL$"):
        process.run(["sh", "-c", "kill -9 $$"], doing="saving sda1")
    assert process.run(["sh", "-c", "exit 3"], ok=(0, 3)).code == 3
    assert process.told(["/sbin/x"], -64) == "x was ended by SIGRTMAX"
    assert process.told(["x"], -99) == "x was ended by signal 99"


def test_a_program_that_does_not_end_is_ended() -> None:
    begun = Moment()
    with pytest.raises(EngineError, match="sleep did not end within 0 s"):
        process.run(["sleep", "60"], timeout_s=0.2)
    assert begun.passed() < 30


def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_time_out() -> None:
    begun = Moment()
    with pytest.raises(EngineError, match="did not end"):
        process.run(["sh", "-c", "sleep 40 & sleep 60"], timeout_s=0.2)
    assert begun.passed() < 30


def test_the_environment_is_built_and_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/evil")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PATH", "/evil")
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    said = dict(line.split("=", 1) for line in process.run(["env"], env={"EXTRA": "1"}).out.splitlines())
    assert said == {"LC_ALL": "C", "PATH": process.PATH, "HOME": "/root", "EXTRA": "1"}


def test_standard_input_is_closed_unless_it_is_given() -> None:
    assert process.run(["wc", "-c"]).out.strip() == "0"
    assert process.run(["wc", "-c"], stdin=b"12345").out.strip() == "5"
    # A program that does not read what it is given is no failure of the caller.
    assert process.run(["true"], stdin=b"x" * 1_000_000).code == 0


def test_words_are_handed_over_as_they_are(tmp_path: Path) -> None:
    words = ["$(id)", "a b", "'", "*", ";", "-n", "ü", ""]
    assert process.run(["printf", "%s\\n", *words]).out.splitlines() == words
    assert process.pasteable(["printf", tmp_path / "a b"]) == f"printf '{tmp_path}/a b'"


def test_bytes_that_are_no_text_do_not_stop_anything() -> None:
    assert process.run(["printf", "\\377\\376x"]).out.endswith("x")


def test_an_argument_with_a_zero_byte_is_an_error_and_no_traceback() -> None:
    with pytest.raises(EngineError, match="holds a zero byte"):
        process.run(["mkswap", "-L", "a\0b"])


def test_an_argument_list_that_is_too_long_is_an_error_and_no_traceback() -> None:
    for begin in (process.run, process.start):
        with pytest.raises(EngineError, match="true could not be started"):
            begin(["true", "x" * 3_000_000])


def test_no_descriptor_reaches_a_child_but_what_is_handed_over() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        listing = process.run(["ls", "/proc/self/fd"]).out.split()
        assert str(write) not in listing
        process.run(["sh", "-c", f"echo hello > /dev/fd/{write}"], pass_fds=[write])
        assert os.read(read, 100) == b"hello\n"
    finally:
        os.close(read)
        os.close(write)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, within_s: float = 60.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


SPAWN = "import sys; from litho import process; child = process.start(['sleep', '300']); print(child.pid, flush=True); {then}"
SPAWN_ASYNC = (
    "import asyncio; from litho import process\n"
    "async def main():\n"
    "    child = await process.start_async(['sleep', '300'])\n"
    "    print(child.pid, flush=True)\n"
    "    await child.wait()\n"
    "asyncio.run(main())\n"
)


@pytest.mark.parametrize("program", [SPAWN.format(then="child.wait()"), SPAWN_ASYNC], ids=["sync", "async"])
def test_a_child_dies_when_its_parent_is_killed(program: str) -> None:
    parent = subprocess.Popen([PYTHON, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
            assert time.monotonic() < deadline, "setpriv has not become sleep"
            time.sleep(0.02)
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
    assert gone(pid)


def test_started_programs_can_be_joined_to_a_pipe() -> None:
    first = process.start(["seq", "5"], stdout=subprocess.PIPE)
    assert first.stdout is not None
    second = process.start(["wc", "-l"], stdin=first.stdout, stdout=subprocess.PIPE)
    first.stdout.close()
    assert second.stdout is not None
    with second.stdout:
        assert second.stdout.read().strip() == b"5"
    assert (first.wait(60), second.wait(60)) == (0, 0)


async def test_end_asks_first_and_then_insists() -> None:
    gentle = await process.start_async(["sleep", "300"])
    assert await process.end(gentle) == -signal.SIGTERM
    assert await process.end(gentle) == -signal.SIGTERM
    deaf = await process.start_async(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], stdout=asyncio.subprocess.PIPE
    )
    assert deaf.stdout is not None
    assert await deaf.stdout.readline() == b"ready\n"
    assert await process.end(deaf, grace_s=0.3) == -signal.SIGKILL
