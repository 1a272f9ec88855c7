"""A call that hangs holds nobody: not the caller, not a cancel, not the end of the process."""

import asyncio
import threading
import time

import pytest

from litho.errors import CancelledError, LibraryError
from litho.job import Job
from litho.library import Owner
from litho_agent import hooks, local, mount
from litho_agent.apart import apart
from litho_agent.mover import WorkOrder
from litho_agent.remote.web import Web


def fail():
    raise LibraryError("gone")


async def test_what_the_call_answers_or_raises_comes_back():
    assert await apart(lambda: 7, name="seven", limit_s=60) == 7
    with pytest.raises(LibraryError, match="gone"):
        await apart(fail, name="fail", limit_s=60)


def test_the_end_of_the_loop_does_not_wait_for_a_call_that_hangs():
    hangs = threading.Event()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(apart(lambda: hangs.wait(60), name="hangs", limit_s=0.1))
    assert time.monotonic() - begun < 30
    hangs.set()


async def test_a_library_that_does_not_answer_at_all_is_an_error_and_a_cancel_gets_through(monkeypatch, tmp_path):
    hangs = threading.Event()
    monkeypatch.setattr(mount.Library, "open", lambda _path: hangs.wait(60))
    monkeypatch.setattr(mount, "LOOK_S", 0.1)
    with pytest.raises(LibraryError, match=r"did not answer for 0 s.*file server") as told:
        async with mount.library(str(tmp_path), read_only=True):
            pytest.fail("it never answered")
    assert told.value.code == "library-gone"
    monkeypatch.setattr(mount, "LOOK_S", 60.0)
    entering = asyncio.create_task(mount.library(str(tmp_path), read_only=True).__aenter__())
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(entering, 30)
    hangs.set()


@pytest.fixture
def dead(monkeypatch):
    """A library of which every look hangs."""
    hangs = threading.Event()
    monkeypatch.setattr(mount, "LOOK_S", 0.2)
    monkeypatch.setattr(hooks, "copied", lambda folder, room: hangs.wait(60))
    monkeypatch.setattr(local, "_pinned_version", lambda *_: hangs.wait(60))
    yield
    hangs.set()


async def test_the_hooks_of_a_library_that_does_not_answer_are_given_up(tmp_path, dead):
    job = hooks.Hooks(tmp_path / "none", in_library=True)
    with pytest.raises(LibraryError, match="did not answer") as caught:
        await job.before({}, tmp_path, cancel=asyncio.Event(), say=lambda text: None)
    assert caught.value.code == "library-gone"
    notes = await job.after({}, tmp_path, cancel=asyncio.Event(), say=lambda text: None)
    assert len(notes) == 1 and "did not answer" in notes[0]


async def test_the_version_in_a_library_that_does_not_answer_is_given_up_and_not_waited_for_once_stopped(
    tmp_path, dead
):
    with pytest.raises(LibraryError, match="did not answer"):
        await local._pinned(None, tmp_path, lambda text: None, asyncio.Event())
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(CancelledError):
        await local._pinned(None, tmp_path, lambda text: None, stop)


def test_whoever_stops_a_restore_does_not_wait_for_a_web_server(monkeypatch):
    hangs, asked = threading.Event(), threading.Event()

    def current(*_, **__):
        asked.set()
        hangs.wait(60)
        return 1

    async def stopped():
        terminate = asyncio.Event()
        job = Job(action="restore", image="golden")
        order = WorkOrder(job=job, library="", owner=Owner(session="test"), sources=(Web("http://h"),))
        looking = asyncio.create_task(local._pinned(order, None, print, terminate))
        await asyncio.to_thread(asked.wait, 60)
        terminate.set()
        await looking

    monkeypatch.setattr(local.opened, "current", current)
    begun = time.monotonic()
    with pytest.raises(CancelledError, match="stopped before anything was done"):
        asyncio.run(stopped())
    assert time.monotonic() - begun < 30
    hangs.set()
