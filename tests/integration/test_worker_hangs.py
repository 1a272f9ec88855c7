"""A worker that hangs in the kernel, where no signal reaches it: the answer comes in time all the same, and is true.

A frozen file system (`fsfreeze`) makes it hang as a disk or a file server does that never answers: a write to it waits in
state D.
"""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litho.errors import EngineError
from litho.job import Job
from litho.library import Library, Owner, Stage
from litho.messages import Failed, Started, Stopped
from litho.progress import Progress
from litho_agent import keeper, mover
from litho_agent import mount as mount_module
from litho_agent.keeper import Patience
from litho_agent.mover import Tick, Touching, WorkOrder, encode_line
from support.loop import loop_disk, needs_root, sh

pytestmark = [needs_root, pytest.mark.root]
OWNER = Owner(session="s-hangs", pid=os.getpid())


@pytest.fixture
def mount(tmp_path):
    where = tmp_path / "mnt"
    where.mkdir()
    with loop_disk(tmp_path / "library.img", size=16 << 20) as device:
        sh("mkfs.ext4", "-q", device)
        sh("mount", device, where)
        try:
            yield where
        finally:
            subprocess.run(["fsfreeze", "-u", str(where)], capture_output=True, check=False)
            sh("umount", where)


def writer(target):
    """A worker that writes into `target` as soon as it has said what it does."""
    said = encode_line(Started()) + encode_line(Touching())
    script = (
        "import os, signal, sys\n"
        "sys.stdin.buffer.readline()\n"
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsys.stdout.buffer.write({said!r})\nsys.stdout.buffer.flush()\n"
        f"open({str(target)!r}, 'wb').write(b'x')\n"
    )
    return [sys.executable, "-c", script]


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def child_in(argv):
    """The process that runs the script of `argv`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argv[-1].encode() in words and (entry / "stat").exists():
                return int(entry.name)
    return 0


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_worker_that_hangs_in_the_kernel_is_left_behind_and_the_task_has_failed(mount, cancelled):
    library = Library.create(mount)
    stage = Stage.open(library, "golden", OWNER)
    stage.create("sda1.raw").close()
    order = WorkOrder(job=Job(action="capture", image="golden"), library=str(mount), owner=OWNER)
    argv = writer(mount / "golden.v1-sda1.raw.part")
    cancel = asyncio.Event()
    patience = Patience(grace_s=0.2, leave_s=1.0, silent_s=600 if cancelled else 5.0)
    sh("fsfreeze", "-f", mount)
    begun = time.monotonic()
    async with asyncio.timeout(60):
        news = []
        running = asyncio.create_task(mover.run(order, news.append, cancel, argv=argv, patience=patience))
        # While Python starts it may wait for its own files for a moment; what lasts, after its word, is the frozen library.
        lasting = 0
        while lasting < 5:
            await asyncio.sleep(0.02)
            pid = child_in(argv) if news else 0
            lasting = lasting + 1 if pid and state(pid) == "D" else 0
        assert keeper.where_it_waits(pid), "the kernel says where"
        if cancelled:
            begun = time.monotonic()
            cancel.set()
        end = await running
    took = time.monotonic() - begun
    assert isinstance(end, Failed), end
    assert (end.code, end.exit_code, end.touched) == ("worker-hangs", 8, True)
    assert took >= patience.leave_s
    lead = "the task was cancelled, but" if cancelled else "the worker process said nothing for 5 s and was ended, but"
    assert end.reason.startswith(f"{lead} the worker process (process {pid}) hangs in the kernel, in ")
    assert "restart the node" in end.reason
    # It is still there and may write when the disk answers: nothing of it was swept away or published.
    assert state(pid) == "D"
    sh("fsfreeze", "-u", mount)
    async with asyncio.timeout(60):
        while child_in(argv):  # noqa: ASYNC110 - another process's end
            await asyncio.sleep(0.02)
    assert sorted(path.name for path in mount.glob("golden*")) == ["golden.v1-sda1.raw.part", "golden.v1.json.part"]


async def test_a_silent_worker_that_can_be_ended_is_and_what_it_left_is_swept(tmp_path):
    library = Library.create(tmp_path / "library")
    Stage.open(library, "golden", OWNER).create("sda1.raw").close()
    order = WorkOrder(job=Job(action="capture", image="golden"), library=str(library.root), owner=OWNER)
    argv = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"]
    async with asyncio.timeout(60):
        end = await mover.run(order, lambda _: None, asyncio.Event(), argv=argv, patience=Patience(silent_s=1.0))
    assert (end.code, end.reason) == ("worker-died", "the worker process said nothing for 1 s and was ended")
    assert list(library.root.glob("golden*")) == []


def talker(told, program):
    """A worker that says `told` again and again, five times a second, while `program` runs as its engine does."""
    script = (
        "import subprocess, sys, time\nfrom litho import process\nsys.stdin.buffer.readline()\n"
        f"child = process.start({program!r}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        f"while True:\n    sys.stdout.buffer.write({told!r})\n    sys.stdout.buffer.flush()\n    time.sleep(0.2)\n"
    )
    return [sys.executable, "-c", script]


async def test_a_worker_that_talks_and_gets_nowhere_is_ended_and_what_it_left_is_swept(tmp_path):
    library = Library.create(tmp_path / "library")
    Stage.open(library, "golden", OWNER).create("sda1.raw").close()
    order = WorkOrder(job=Job(action="capture", image="golden"), library=str(library.root), owner=OWNER)
    # An engine that hangs: it is there, and neither reads nor computes.
    tick = Tick(progress=Progress(phase="partition", part=1, parts=3, done=42, total=100, fraction=0.42))
    argv = talker(encode_line(tick), ["sleep", "1000"])
    heard = []
    async with asyncio.timeout(60):
        end = await mover.run(order, heard.append, asyncio.Event(), argv=argv, patience=Patience(still_s=2.0))
    assert isinstance(end, Failed), end
    assert (end.code, end.exit_code) == ("stalled", 8)
    assert end.reason == (
        "nothing moved for 2 s in phase partition: the disk, the engine or the library does not answer any more, "
        "and the worker process was ended"
    )
    assert len(heard) > 5, "it talked all the time"
    assert list(library.root.glob("golden*")) == []


@pytest.mark.parametrize("sign", ["computes", "writes"])
async def test_a_worker_whose_figures_stand_is_left_in_peace_while_its_program_does_something(tmp_path, sign):
    writing = f"open({str(tmp_path / 'file')!r}, 'wb').write(bytes(9000)); time.sleep(0.2)"
    does = "import time\nwhile True: " + {"computes": "pass", "writes": writing}[sign]
    library = Library.create(tmp_path / "library")
    order = WorkOrder(job=Job(action="capture", image="golden"), library=str(library.root), owner=OWNER)
    argv = talker(encode_line(Tick(progress=Progress(phase="settle"))), [sys.executable, "-c", does])
    cancel = asyncio.Event()
    patience = Patience(still_s=6.0)
    async with asyncio.timeout(60):
        running = asyncio.create_task(mover.run(order, lambda _: None, cancel, argv=argv, patience=patience))
        await asyncio.wait({running}, timeout=9.0)
        assert not running.done()
        cancel.set()
        assert isinstance(await running, Stopped)


async def test_a_mount_or_umount_that_hangs_in_the_kernel_is_left_behind_too(mount, monkeypatch):
    monkeypatch.setattr(mount_module, "MOUNT_S", 0.5)
    monkeypatch.setattr(mount_module, "_LEAVE_S", 1.5)
    argv = ["touch", str(mount / "hangs")]
    sh("fsfreeze", "-f", mount)
    begun = time.monotonic()
    with pytest.raises(EngineError, match="touch did not end within"):
        await mount_module._run(argv)
    assert time.monotonic() - begun < 30
    pid = child_in(argv)
    assert state(pid) == "D"
    sh("fsfreeze", "-u", mount)
    async with asyncio.timeout(60):
        while child_in(argv):  # noqa: ASYNC110 - another process's end
            await asyncio.sleep(0.02)
