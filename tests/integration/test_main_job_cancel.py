"""A job is cancelled in each of its phases, by real workers on real disks: it ends within two seconds, and what it says is true.

The worker is told the moment it enters the phase. It may have left a short one before it hears that, so both ends are allowed
where both can be true; never allowed is an end that does not fit what lies in the library or on the disk.
"""

import asyncio
import os
import signal
import time

import pytest

from litho.job import Job
from litho.library import ImageRef, Library, Owner, whole
from litho.messages import Planned, Started, Stopped, Succeeded
from litho_agent import mover
from litho_agent.mover import Tick, WorkOrder
from support.loop import needs_root
from support.pace import Moment
from support.site import below, digest, pretends_to_boot, target

pytestmark = [needs_root, pytest.mark.root]
WITHIN_S = 2.0


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "library")


@pytest.fixture(scope="module", params=["auto", "chunk"])
def stocked(tmp_path_factory, plain, request):
    """A library with golden:1 in it."""
    made = Library.create(tmp_path_factory.mktemp("stock") / "library")
    end, _ = asyncio.run(run(order(made, "capture", plain, request.param), None))
    assert isinstance(end, Succeeded), end
    return made


def order(library, action, disk, engine="auto"):
    return WorkOrder(
        job=Job(action=action, image="golden", engine=engine, disk=str(disk)),
        library=str(library.root),
        owner=Owner(session=f"s-{time.monotonic_ns()}", pid=os.getpid()),
        node="n01",
    )


async def run(what, phase, *, freeze=False):
    """Let a worker do it, cancelled when it enters `phase`; answers its end and how many seconds that took."""
    cancel = asyncio.Event()
    phases, news = [], []
    since = Moment()

    def hear(message):
        nonlocal since
        news.append(message)
        if not isinstance(message, Tick):
            return
        phases.append(message.progress.phase)
        if message.progress.phase == phase and not cancel.is_set():
            if freeze:
                # It hears nothing any more, not even SIGTERM.
                os.kill(below(os.getpid(), "python"), signal.SIGSTOP)
            since = Moment()
            cancel.set()

    async with asyncio.timeout(60):
        end = await mover.run(what, hear, cancel)
    took = since.took()
    if phase:
        assert phase in phases, phases
    assert below(os.getpid(), "partclone") == 0, "no engine outlives its job"
    return end, took


@pytest.mark.parametrize("phase", ["look", "layout", "partition", "verify", "publish"])
@pytest.mark.parametrize("engine", ["auto", "chunk"])
async def test_a_capture_cancelled_in_any_phase_ends_in_time_and_says_what_is_true(plain, library, phase, engine):
    before = digest(plain)
    end, took = await run(order(library, "capture", plain, engine), phase)
    assert took < WITHIN_S
    made = list(library.root.glob("golden*"))
    if isinstance(end, Succeeded):
        assert phase in ("verify", "publish"), "there was time enough to stop"
        found = library.manifest(library.resolve(end_ref(end)))
        assert whole.check(library, found, lambda _: None, deep=True) == []
    else:
        assert end == Stopped(reason=end.reason, touched=False)
        assert "cancelled" in end.reason
        assert made == []
    assert list(library.root.glob("*.part")) == []
    assert digest(plain) == before


def end_ref(end):
    return ImageRef(end.image, end.version)


@pytest.mark.parametrize("phase", ["look", "verify", "layout", "partition", "settle"])
async def test_a_restore_cancelled_in_any_phase_ends_in_time_and_says_what_is_true(stocked, tmp_path, phase):
    with target(tmp_path) as disk:
        before = digest(disk)
        end, took = await run(order(stocked, "restore", disk), phase)
        assert took < WITHIN_S
        if isinstance(end, Succeeded):
            assert phase == "settle", "there was time enough to stop"
            assert pretends_to_boot(disk)
        else:
            assert isinstance(end, Stopped)
            assert end.touched == (digest(disk) != before)
            assert not pretends_to_boot(disk) or not end.touched
        if phase in ("look", "verify") and not end.touched:
            assert digest(disk) == before


@pytest.mark.parametrize("phase", ["partition", "verify"])
async def test_a_worker_that_no_longer_hears_anything_is_ended_in_time_and_swept_up_after(plain, library, phase):
    end, took = await run(order(library, "capture", plain), phase, freeze=True)
    assert took < WITHIN_S + 0.5
    assert end == Stopped(touched=False)
    assert list(library.root.glob("golden*")) == []


async def test_a_whole_capture_says_its_plan_its_start_and_how_far_it_is(plain, library):
    news = []
    end = await mover.run(order(library, "capture", plain), news.append, asyncio.Event())
    assert isinstance(end, Succeeded)
    assert [type(one) for one in news if not isinstance(one, Tick)][:2] == [Planned, Started]
    ticks = [one.progress for one in news if isinstance(one, Tick)]
    assert [tick.done for tick in ticks] == sorted(tick.done for tick in ticks)
    assert ticks[-1].percent == 100
    assert all(tick.percent < 100 for tick in ticks[:-1])
    assert {tick.phase for tick in ticks} >= {"look", "layout", "partition", "verify", "publish"}
