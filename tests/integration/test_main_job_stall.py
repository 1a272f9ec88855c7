"""The library stands still in the middle of a capture, and goes on: the job is only later.

A frozen file system (`fsfreeze`) is what an NFS mount looks like to a writer while the server is away: writes and syncs hang in
the kernel, nothing fails. What it cannot show is the end of the NFS client's patience, and a kill that gets through to a hanging
write; both are the kernel's NFS client's own, and the lab with a real server is the place for them.

A library that never answers again is the second test: the figures stand, while the worker talks on.
"""

import asyncio
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from litho.job import Job
from litho.library import ImageRef, Library, Owner, verify
from litho.messages import Failed, Started, Succeeded
from litho_agent import mover
from litho_agent.keeper import Patience
from litho_agent.mover import Tick, WorkOrder
from support.loop import loop_disk, needs_root, sh
from support.site import plain_disk, source

pytestmark = [needs_root, pytest.mark.root]
AWAY_S = 6.0
ROOM = 512 * 1024 * 1024


@pytest.fixture
def disk(tmp_path):
    with source(plain_disk(tmp_path)) as made:
        yield made


@pytest.fixture
def mount(tmp_path):
    where = tmp_path / "mnt"
    where.mkdir()
    with loop_disk(tmp_path / "library.img", size=ROOM) as device:
        sh("mkfs.ext4", "-q", device)
        sh("mount", device, where)
        try:
            yield where
        finally:
            subprocess.run(["fsfreeze", "-u", str(where)], capture_output=True, check=False)
            sh("umount", where)


async def test_a_library_that_never_answers_again_ends_the_job_with_a_reason_although_the_worker_still_talks(
    disk, mount
):
    Library.create(mount)
    order = WorkOrder(
        job=Job(action="capture", image="golden", engine="auto", disk=str(disk)),
        library=str(mount),
        owner=Owner(session="s-away", pid=os.getpid()),
    )
    ticks: list[float] = []

    def hear(message):
        if isinstance(message, Started):
            sh("fsfreeze", "-f", mount)
        elif isinstance(message, Tick):
            ticks.append(time.monotonic())

    patience = Patience(still_s=4.0, leave_s=1.0)
    async with asyncio.timeout(90):
        end = await mover.run(order, hear, asyncio.Event(), patience=patience)
        sh("fsfreeze", "-u", mount)
        assert isinstance(end, Failed), end
        pid = re.search(r"\(process (\d+)\)", end.reason)[1]
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240 - another process's end
            await asyncio.sleep(0.02)
    # A frozen ext4 cannot be killed away from, so the worker is left behind; one that can be killed is `stalled`.
    assert (end.code, end.exit_code, end.touched) == ("worker-hangs", 8, False)
    assert end.reason.startswith("nothing moved for 4 s in phase ")
    assert "the library does not answer" in end.reason
    assert "restart the node" in end.reason
    assert len(ticks) >= patience.still_s, "it was not for silence"


async def test_a_library_that_stands_still_for_a_while_costs_only_that_while(disk, mount):
    library = Library.create(mount)
    order = WorkOrder(
        job=Job(action="capture", image="golden", engine="auto", disk=str(disk)),
        library=str(mount),
        owner=Owner(session="s-stall", pid=os.getpid()),
    )
    begun = asyncio.Event()
    ticks: list[float] = []

    def hear(message):
        if isinstance(message, Started):
            # The worker is in `layout` now and has its first file before it.
            sh("fsfreeze", "-f", mount)
            begun.set()
        elif isinstance(message, Tick):
            ticks.append(time.monotonic())

    async with asyncio.timeout(90):
        running = asyncio.create_task(mover.run(order, hear, asyncio.Event()))
        await begun.wait()
        frozen = time.monotonic()
        await asyncio.sleep(AWAY_S)
        assert not running.done(), "nothing fails while the library is away"
        assert len([tick for tick in ticks if tick > frozen]) >= AWAY_S, "how far it is is still told"
        sh("fsfreeze", "-u", mount)
        end = await running
    assert isinstance(end, Succeeded), end
    assert end.seconds >= AWAY_S
    assert verify.check_streams(library, library.manifest(ImageRef("golden", 1))) == []
