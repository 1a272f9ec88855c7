"""Hooks: which may run, what they are told, how long they may take. The programs are real ones."""

import asyncio
import os
from pathlib import Path

import pytest

from litho.errors import CancelledError, EngineError
from litho.job import Job
from litho.messages import Failed, Stopped
from litho_agent.hooks import MOST, Hooks, copied, environment, find, refusal
from support.nodebench import DONE, until
from support.pace import Moment

JOB = Job(action="restore", image="golden", version=2, disk="serial=S1")
TOLD = {"node": "n01", "task": "t-000017", "library": "/run/lithograph/library"}
REFERENCE = Path(__file__).parents[3] / "docs/reference/hooks.md"


@pytest.fixture
def folder(tmp_path):
    for when in ("before", "after"):
        (tmp_path / "hooks" / f"{when}.d").mkdir(parents=True)
    return tmp_path / "hooks"


def write(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text("#!/bin/sh\n" + text + "\n")
    path.chmod(mode)
    return path


def gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def before(hooks: Hooks, tmp_path: Path, *, cancel: asyncio.Event | None = None, **env: str) -> list[str]:
    said: list[str] = []
    await hooks.before(env, tmp_path / "library", cancel=cancel or asyncio.Event(), say=said.append)
    return said


async def after(hooks: Hooks, tmp_path: Path) -> list[str]:
    return await hooks.after({}, tmp_path / "library", cancel=asyncio.Event(), say=lambda _: None)


@pytest.mark.parametrize(
    ("mode", "uid", "told"),
    [
        (0o755, 0, ""),
        (0o700, 0, ""),
        (0o777, 0, "may be written by others"),
        (0o775, 0, "may be written by others"),
        (0o755, 1000, "is not owned by root"),
    ],
)
def test_only_what_root_alone_may_change_is_trusted(mode, uid, told):
    why = refusal(mode, uid, what="it")
    assert (told in why) if told else why == ""


def test_hooks_are_found_in_the_order_of_their_names_and_others_are_told(folder):
    here = folder / "before.d"
    for name in ("50-b", "10-a", "README"):
        write(here / name, "true")
    (here / "README").chmod(0o644)
    write(here / "60-open", "true", 0o777)
    write(here / "70-theirs", "true")
    os.chown(here / "70-theirs", 1000, 1000)
    write(here / "80 blank", "true")
    (here / "90-link").symlink_to("10-a")
    found = find(here)
    assert [path.name for path in found.programs] == ["10-a", "50-b"]
    reasons = {why.split(" does not run: ")[0].rpartition("/")[2]: why.split(": ")[1] for why in found.refused}
    assert reasons == {
        "60-open": "it may be written by others than root",
        "70-theirs": "it is not owned by root",
        "80 blank": "its name holds more than letters, digits and . _ -",
        "90-link": "it is not a regular file",
    }


def test_a_folder_that_others_may_write_holds_no_hook_and_one_that_is_missing_none_at_all(folder):
    write(folder / "before.d" / "10-a", "true")
    (folder / "before.d").chmod(0o777)
    found = find(folder / "before.d")
    assert found.programs == ()
    assert "the folder may be written by others" in found.refused[0]
    assert find(folder / "absent").refused == ()


def test_there_is_a_most_number_of_hooks(folder):
    for number in range(MOST + 2):
        write(folder / "before.d" / f"h{number:03}", "true")
    found = find(folder / "before.d")
    assert len(found.programs) == MOST
    assert len(found.refused) == 2


def test_what_a_hook_is_told_is_what_the_reference_lists():
    names = set(environment("before", JOB, **TOLD))
    for end in (DONE, Failed(code="disk", reason="no\ndisk"), Stopped()):
        names |= set(environment("after", JOB, **TOLD, disk="/dev/sda", end=end))
    assert names == {line.split("`")[1] for line in REFERENCE.read_text().splitlines() if line.startswith("| `LITHO_")}
    failed = environment(
        "after", JOB, **TOLD, disk="/dev/sda", end=Failed(code="disk", reason="no\ndisk", touched=True)
    )
    assert failed["LITHO_STATE"] == "failed"
    assert failed["LITHO_DISK"] == "/dev/sda"
    assert failed["LITHO_REASON"] == "no disk"
    assert failed["LITHO_TOUCHED"] == "yes"


async def test_hooks_run_in_order_with_their_environment_and_nothing_else_of_ours(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LITHO_SECRET", "must not get out")
    out = tmp_path / "out"
    write(folder / "before.d" / "20-b", f'echo "b $LITHO_ACTION $LITHO_SECRET." >> {out}')
    write(folder / "before.d" / "10-a", f'echo "a $LITHO_ACTION" >> {out}')
    said = await before(Hooks(folder), tmp_path, LITHO_ACTION="capture")
    assert out.read_text() == "a capture\nb capture .\n"
    assert said == ["hook before the job: 10-a", "hook before the job: 20-b"]


async def test_a_hook_that_fails_before_the_job_stops_it_with_its_last_words(folder, tmp_path):
    write(folder / "before.d" / "10-raid", "echo 'no controller found' >&2; exit 3")
    write(folder / "before.d" / "20-late", f"touch {tmp_path}/late")
    with pytest.raises(
        EngineError, match=r"the hook 10-raid before the job ended with exit code 3 \(no controller"
    ) as c:
        await before(Hooks(folder), tmp_path)
    assert c.value.code == "hook-failed"
    assert not (tmp_path / "late").exists()


async def test_a_hook_that_may_not_run_stops_the_job_too_because_the_job_needs_it(folder, tmp_path):
    write(folder / "before.d" / "10-raid", "true", 0o777)
    with pytest.raises(EngineError, match="does not run: it may be written by others") as caught:
        await before(Hooks(folder), tmp_path)
    assert caught.value.code == "hook-refused"


async def test_a_hook_that_fails_after_the_job_is_a_note_and_the_others_run(folder, tmp_path):
    write(folder / "after.d" / "10-bad", "exit 1")
    write(folder / "after.d" / "20-good", f"touch {tmp_path}/ran")
    write(folder / "after.d" / "30-open", "true", 0o777)
    notes = await after(Hooks(folder), tmp_path)
    assert (tmp_path / "ran").exists()
    assert len(notes) == 2
    assert any("10-bad after the job ended with exit code 1" in note for note in notes)


async def test_a_hook_that_takes_too_long_is_killed_with_all_that_it_started(folder, tmp_path):
    write(folder / "after.d" / "10-slow", f"trap '' TERM\nsleep 300 & echo $! > {tmp_path}/pid\nwait\nwait\nsleep 300")
    began = Moment()
    notes = await after(Hooks(folder, limit_s=0.5), tmp_path)
    assert began.took() < 5
    assert "did not end within" in notes[0]
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: gone(pid))


async def test_a_hook_that_leaves_something_behind_does_not_hold_the_job(folder, tmp_path):
    write(folder / "before.d" / "10-daemon", "sleep 300 &\nexit 0")
    began = Moment()
    await before(Hooks(folder), tmp_path)
    assert began.took() < 4


async def test_a_cancel_ends_the_hook_within_two_seconds(folder, tmp_path):
    write(folder / "before.d" / "10-slow", "trap '' TERM\nsleep 300")
    cancel = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, cancel.set)
    began = Moment()
    with pytest.raises(CancelledError, match="10-slow"):
        await before(Hooks(folder), tmp_path, cancel=cancel)
    assert began.took() < 0.3 + 2


async def test_hooks_of_the_library_run_only_when_that_is_allowed_and_as_copies(folder, tmp_path):
    theirs = tmp_path / "library" / ".hooks" / "before.d"
    theirs.mkdir(parents=True)
    write(theirs / "10-site", f'echo "$0" >> {tmp_path}/out')
    assert await before(Hooks(folder), tmp_path) == []
    assert await before(Hooks(folder, in_library=True), tmp_path) == ["hook before the job: 10-site"]
    ran = Path((tmp_path / "out").read_text().strip())
    assert ran.name == "10-site"
    assert not ran.is_relative_to(tmp_path / "library")
    assert not find(ran.parent).refused and not find(ran.parent).programs, "the copy is gone"


def test_a_hook_of_the_library_that_others_may_write_is_not_even_copied(tmp_path):
    (tmp_path / "hooks").mkdir()
    (tmp_path / "room").mkdir()
    write(tmp_path / "hooks" / "10-a", "true", 0o775)
    found = copied(tmp_path / "hooks", tmp_path / "room")
    assert found.programs == ()
    assert len(found.refused) == 1
    assert list((tmp_path / "room").iterdir()) == []


async def test_what_a_hook_prints_moves_no_terminal_and_makes_no_second_line(folder, tmp_path):
    write(folder / "before.d/10-garbage", r"printf '\033[2Jbo\007om\r\377\000end\n'; exit 3")
    with pytest.raises(EngineError, match="exit code 3") as told:
        await before(Hooks(folder), tmp_path)
    assert str(told.value).isprintable()
    assert "[2Jbo om \ufffd end" in str(told.value)
