"""`litho-agent` as a person or the root image runs it: a process of its own, with real signals, a real terminal, real disks."""

import asyncio
import json
import os
import pty
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from litho.errors import CancelledError, DiskError, NotFoundError, RefusedError
from litho.job import Job
from litho.library import Library
from litho.messages import Failed, Succeeded
from litho.task import State
from litho_agent import local
from litho_agent.disks.disk import Disk, Signature
from support.loop import loop_disk, needs_root, part, reread, sh
from support.nodebench import (
    DONE,
    ClaimServer,
    Controller,
    Mosquitto,
    ScriptedMove,
    an_order,
    beside,
    denied,
    free_port,
    granted,
    until,
)
from support.pace import Moment

TOKEN = "a-token-that-nobody-may-see"
MIB = 1024**2
ME = Path(sys.executable).with_name("litho-agent")


async def agent(*words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE):
    return await asyncio.create_subprocess_exec(
        ME, *(str(word) for word in words), stdin=stdin, stdout=stdout, stderr=asyncio.subprocess.PIPE
    )


async def said(child, *, within_s=60):
    async with asyncio.timeout(within_s):
        out, err = await child.communicate()
    return child.returncode, (out or b"").decode(), err.decode()


def cmdline(folder, url, *more):
    path = folder / "cmdline"
    words = ["quiet", f"litho.controller={url}", "litho.task=t1", f"litho.token={TOKEN}", "litho.node=n01", *more]
    path.write_text(" ".join(words) + "\n")
    return path


# ------------------------------------------------------------------ run


async def test_run_tells_a_failure_to_the_controller_and_ends_with_its_code(tmp_path):
    async with Mosquitto(tmp_path) as broker:
        order = an_order(tmp_path / "no-library", broker.port)
        async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
            child = await agent("run", "--cmdline", cmdline(tmp_path, server.url), "--debug")
            code, out, err = await said(child)
            await until(lambda: not controller.statuses[-1].online)
    assert code == 6
    assert controller.task.state is State.FAILED
    assert "is not an image library" in controller.task.reason
    assert "claiming task t1 for n01" in out
    assert "failed: " in out
    assert TOKEN not in out + err
    assert "Traceback" not in out + err


async def test_run_that_is_refused_says_so_in_one_sentence_and_ends_with_four(tmp_path):
    async with ClaimServer(denied("token-used", "the token of task t1 was used", "say nodeset again")) as server:
        code, _, err = await said(await agent("run", "--cmdline", cmdline(tmp_path, server.url)))
        assert len(server.claims) == 1
    assert code == 4
    assert err == (
        "litho-agent: the controller refused the claim: the token of task t1 was used\n  say nodeset again\n"
    )


async def test_run_with_json_tells_its_error_as_json(tmp_path):
    async with ClaimServer(denied("token-used", "used")) as server:
        code, out, _ = await said(await agent("run", "--json", "--cmdline", cmdline(tmp_path, server.url)))
    last = json.loads(out.splitlines()[-1])
    assert code == last["exit_code"] == 4
    assert (last["type"], last["code"]) == ("failed", "token-used")


async def test_run_ends_within_seconds_of_sigterm_while_nobody_answers(tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    child = await agent("run", "--cmdline", cmdline(tmp_path, url))
    async with asyncio.timeout(60):
        # Until it says that it tries again it may not have its signal handlers yet.
        while b"trying again" not in await child.stdout.readline():
            pass
    child.send_signal(signal.SIGTERM)
    code, _, err = await said(child)
    assert code == 10
    assert "ended before it had its order" in err


@pytest.mark.parametrize("words", ["quiet splash", "litho.task=t1", "litho.level=99"])
async def test_run_on_a_command_line_that_is_wrong_ends_with_two(tmp_path, words):
    (tmp_path / "cmdline").write_text(words)
    code, _, err = await said(await agent("run", "--cmdline", tmp_path / "cmdline"))
    assert code == 2
    assert err.startswith("litho-agent: the kernel ")
    assert len(err.splitlines()) <= 2


# ------------------------------------------------------------------ local jobs, with a stand-in for the worker


class Screen:
    def __init__(self):
        self.lines = []

    def hear(self, message):
        self.lines.append(message)

    def say(self, text):
        self.lines.append(text)


SDA = Disk(
    name="sda",
    path="/dev/sda",
    serial="S1",
    model="M",
    size=8 * 1024**3,
    transport="ata",
    signatures=(Signature(device="sda", type="dos", usage="table"),),
)
CAPTURE = Job(action="capture", image="golden")


async def do(job, library, move, *, ask=None, yes=False, disks=(SDA,), terminate=None):
    screen = Screen()
    code = await local.run(
        job,
        str(library),
        show=screen,
        terminate=terminate or asyncio.Event(),
        ask=ask,
        yes=yes,
        move=move,
        disks=lambda: disks,
    )
    return code, screen.lines


def library_with_an_image(folder):
    """A library in which golden:1 exists as far as names go; the stand-in reads no more of it."""
    Library.create(folder)
    (folder / "golden.v1.json").write_text("{}")
    return folder


RESTORE = Job(action="restore", image="golden")


async def test_a_capture_says_which_disk_before_anything_and_the_worker_gets_that_one(tmp_path):
    Library.create(tmp_path)
    move = ScriptedMove()
    code, lines = await do(CAPTURE, tmp_path, move)
    assert code == 0
    assert lines[0] == f"capture /dev/sda, 8.6 GB, ata, M, serial S1 as golden into the library {tmp_path}"
    assert lines[-1] == DONE
    assert move.orders[0].job == msgspec.structs.replace(CAPTURE, disk="/dev/sda")
    assert len(move.orders[0].owner.session) == 32


async def test_a_restore_that_nobody_can_be_asked_about_is_refused(tmp_path):
    move = ScriptedMove()
    with pytest.raises(RefusedError, match="say --yes") as caught:
        await do(RESTORE, library_with_an_image(tmp_path), move)
    assert caught.value.code == "not-confirmed"
    assert move.orders == []


@pytest.mark.parametrize("typed", ["sda\n", "/dev/sda\n", "  sda  "])
async def test_a_restore_goes_on_when_the_disks_name_is_typed_and_takes_the_version_that_was_shown(tmp_path, typed):
    async def ask(question):
        assert "Everything on /dev/sda will be overwritten" in question
        return typed

    move = ScriptedMove()
    code, lines = await do(RESTORE, library_with_an_image(tmp_path), move, ask=ask)
    assert code == 0
    assert lines[0].startswith("restore golden:1 from the library ")
    assert move.orders[0].job.version == 1


@pytest.mark.parametrize("typed", ["", "\n", "y\n", "yes\n", "sdb\n", "sda1\n"])
async def test_anything_else_writes_nothing(tmp_path, typed):
    async def ask(_):
        return typed

    move = ScriptedMove()
    with pytest.raises(RefusedError, match="nothing was written"):
        await do(RESTORE, library_with_an_image(tmp_path), move, ask=ask)
    assert move.orders == []


async def test_a_missing_image_and_a_missing_disk_are_told_before_any_question(tmp_path):
    async def ask(_):
        raise AssertionError("was asked")

    Library.create(tmp_path)
    with pytest.raises(NotFoundError, match="there is no image golden"):
        await do(RESTORE, tmp_path, ScriptedMove(), ask=ask)
    with pytest.raises(DiskError):
        await do(CAPTURE, tmp_path, ScriptedMove(), disks=())


async def test_an_interrupt_stops_a_local_job_and_ends_with_ten(tmp_path):
    Library.create(tmp_path)
    terminate = asyncio.Event()
    move = ScriptedMove(hold=True)
    doing = asyncio.create_task(do(CAPTURE, tmp_path, move, terminate=terminate))
    await move.started.wait()
    terminate.set()
    code, _ = await asyncio.wait_for(doing, 60)
    assert code == 10
    with pytest.raises(CancelledError):
        await do(CAPTURE, tmp_path, ScriptedMove(), terminate=terminate)


async def test_a_failure_of_the_worker_becomes_the_exit_code(tmp_path):
    Library.create(tmp_path)
    code, _ = await do(CAPTURE, tmp_path, ScriptedMove(Failed(code="fs-dirty", reason="x", exit_code=5)))
    assert code == 5


# ------------------------------------------------------------------ on real disks


def test_disks_lists_what_there_is_and_explains_its_choice(tmp_path):
    listed = json.loads(sh(ME, "disks", "--json"))
    assert {"name", "path", "size", "serial"} <= set(listed["disks"][0])
    explained = sh(ME, "disks", "--explain", "--disk", "serial=there-is-none")
    assert "no disk of this machine is serial=there-is-none" in explained


def swap(device):
    return [
        line for line in sh("blkid", "-p", "-o", "export", device).splitlines() if line.startswith(("UUID=", "LABEL="))
    ]


@needs_root
async def test_a_loop_disk_is_captured_and_restored_by_hand(tmp_path):
    library = tmp_path / "lib"
    Library.create(library)
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "words").write_bytes(os.urandom(5 * MIB))
    with (
        loop_disk(tmp_path / "a.img", size=96 * MIB) as source,
        loop_disk(tmp_path / "b.img", size=96 * MIB) as target,
    ):
        sh("sfdisk", source, stdin="label: dos\n2048,163840,L,*\n167936,,82\n")
        reread(source)
        sh("mkfs.ext4", "-q", "-d", tmp_path / "content", part(source, 1))
        sh("mkswap", "-L", "swap0", part(source, 2))

        child = await agent("capture", "--disk", source, "--library", library, "--image", "golden", "--json")
        code, out, err = await said(child)
        assert (code, err) == (0, ""), out
        told = [json.loads(line) for line in out.splitlines()]
        kinds = [line["type"] for line in told]
        assert kinds[0] == "note"
        assert kinds.index("planned") < kinds.index("started") < kinds.index("succeeded")
        assert "tick" in kinds
        assert told[0]["text"].startswith(f"capture {source}, 101 MB, loop")
        done = msgspec.convert({k: v for k, v in told[-1].items() if k != "type"} | {"type": "succeeded"}, Succeeded)
        assert (done.image, done.version) == ("golden", 1)
        assert done.used > 5 * MIB

        refused = await agent("restore", "--disk", target, "--library", library, "--image", "golden")
        code, _, err = await said(refused)
        assert code == 4
        assert "say --yes" in err
        assert (tmp_path / "b.img").stat().st_blocks == 0

        child = await agent("restore", "--disk", target, "--library", library, "--image", "golden:1", "--yes")
        code, out, err = await said(child)
        assert code == 0, out + err
        assert f"restore golden:1 from the library {library} onto {target}" in out.splitlines()[0]
        assert "done: golden:1" in out
        reread(target)
        sh("e2fsck", "-fn", part(target, 1))
        sh("debugfs", "-R", f"dump /words {tmp_path}/back", part(target, 1))
        assert (tmp_path / "back").read_bytes() == (tmp_path / "content" / "words").read_bytes()
        assert sh("sfdisk", "-d", source).replace(str(source), "X") == sh("sfdisk", "-d", target).replace(
            str(target), "X"
        )
        assert swap(part(source, 2)) == swap(part(target, 2))
        assert "LABEL=swap0" in swap(part(target, 2))


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_in_the_middle_of_a_capture_ends_it_within_seconds_and_leaves_nothing(tmp_path, number):
    library = tmp_path / "lib"
    Library.create(library)
    with loop_disk(tmp_path / "a.img", size=512 * MIB) as source:
        noisy_disk(source, tmp_path / "content", size=300)
        # A level that keeps the job busy for long enough.
        words = ["--disk", source, "--library", library, "--image", "golden", "--level", "19", "--json"]
        child = await agent("capture", *words)
        async with asyncio.timeout(60):
            while b'"started"' not in await child.stdout.readline():
                pass
        await until(lambda: any(path.stat().st_size for path in library.glob("golden.v1-*.part")))
        child.send_signal(number)
        begun = Moment()
        code, out, _ = await said(child)
        assert begun.took() < 4
    assert code == 10
    assert json.loads(out.splitlines()[-1])["type"] == "cancelled"
    # Whole packs stay, so that the next capture need not store the same again.
    assert {path.name for path in library.iterdir()} <= {".lithograph", ".chunks"}
    assert {path.suffix for path in (library / ".chunks").iterdir()} <= {".pack", ".idx"}


@needs_root
async def test_at_a_terminal_the_disks_name_is_asked_for_and_a_live_line_is_drawn(tmp_path):
    library = tmp_path / "lib"
    Library.create(library)
    with (
        loop_disk(tmp_path / "a.img", size=64 * MIB) as source,
        loop_disk(tmp_path / "b.img", size=64 * MIB) as target,
    ):
        sh("sfdisk", source, stdin="label: dos\n2048,,L\n")
        reread(source)
        sh("mkfs.ext4", "-q", part(source, 1))
        sh(ME, "capture", "--disk", source, "--library", library, "--image", "golden")
        for typed, code in (("no\n", 4), (f"{target.name}\n", 0)):
            ours, theirs = pty.openpty()
            child = await agent(
                "restore", "--disk", target, "--library", library, "--image", "golden", stdin=theirs, stdout=theirs
            )
            os.close(theirs)
            screen = asyncio.create_task(asyncio.to_thread(drain, ours))
            os.write(ours, typed.encode())
            assert (await said(child))[0] == code
            shown = await screen
            os.close(ours)
            assert f"Everything on {target} will be overwritten. Type {target.name} to go on: " in shown
        assert "\x1b[K" in shown
        assert "done: golden:1" in shown
        reread(target)
        sh("e2fsck", "-fn", part(target, 1))


def noisy_disk(source, folder, *, size):
    """One partition with `size` MiB that do not compress."""
    sh("sfdisk", source, stdin="label: dos\n2048,,L\n")
    reread(source)
    folder.mkdir()
    with (folder / "noise").open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MIB))
    sh("mkfs.ext4", "-q", "-d", folder, part(source, 1))


def family(pid):
    """The process and all below it that live."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in below for one in family(int(child)))]


@needs_root
async def test_a_node_captures_for_its_controller_while_the_broker_restarts(tmp_path):
    library = tmp_path / "lib"
    Library.create(library)
    with loop_disk(tmp_path / "a.img", size=256 * MIB) as source:
        noisy_disk(source, tmp_path / "content", size=100)
        async with Mosquitto(tmp_path) as broker:
            order = an_order(library, broker.port, job=Job(action="capture", image="golden", level=15))
            async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
                child = await agent("run", "--cmdline", cmdline(tmp_path, server.url, f"litho.disk={source}"))
                await until(lambda: controller.task.state is State.RUNNING)
                await broker.stop(kill=True)
                await asyncio.sleep(0.5)
                await broker.start()
                code, out, err = await said(child)
                assert (code, err) == (0, ""), out
                assert controller.task.state is State.SUCCEEDED
                done = controller.events[-1].body
    assert isinstance(done, Succeeded)
    assert done.disk.path == str(source)
    assert done.used > 100 * MIB
    assert (library / "golden.v1.json").exists()
    assert not list(library.glob("*.part"))
    assert TOKEN not in out


@needs_root
async def test_an_agent_that_is_killed_takes_its_worker_along_and_its_last_will_is_heard(tmp_path):
    library = tmp_path / "lib"
    Library.create(library)
    with loop_disk(tmp_path / "a.img", size=256 * MIB) as source:
        noisy_disk(source, tmp_path / "content", size=150)
        async with Mosquitto(tmp_path) as broker:
            order = an_order(library, broker.port, job=Job(action="capture", image="golden", level=19))
            async with ClaimServer(granted(order)) as server, beside(Controller(order, broker.port)) as controller:
                child = await agent("run", "--cmdline", cmdline(tmp_path, server.url, f"litho.disk={source}"))
                await until(lambda: controller.task.state is State.RUNNING)
                await until(lambda: len(family(child.pid)) >= 2)
                alive = family(child.pid)
                assert controller.statuses[-1].online
                child.kill()
                await child.communicate()
                await until(lambda: not controller.statuses[-1].online)
                await until(lambda: not any(Path(f"/proc/{pid}/fd").exists() and running(pid) for pid in alive))
    assert not (library / "golden.v1.json").exists()
    assert controller.statuses[-1].session == controller.session


def running(pid):
    """False for one that is gone or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def drain(fd):
    """All that a terminal showed, until its last user is gone."""
    shown = b""
    while True:
        try:
            block = os.read(fd, 65536)
        except OSError:
            return shown.decode()
        if not block:
            return shown.decode()
        shown += block
