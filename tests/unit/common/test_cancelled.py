"""A cancel that was swallowed on its way is heard all the same."""

import asyncio
import contextlib

import pytest

from litho.cancelled import asked, ended, heed


async def deaf(times: int) -> None:
    """Loses as many cancels as it is told, as a library may."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


async def test_those_that_lose_a_cancel_are_asked_again_until_all_have_ended():
    tasks = [asyncio.create_task(deaf(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await ended(tasks, again_s=0.01)
    assert all(task.cancelled() for task in tasks)


async def test_nobody_to_end_is_ended_at_once():
    await ended([])


async def test_a_task_hears_what_its_library_swallowed():
    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):  # a library's doing
            await asyncio.Event().wait()
        heed()
        pytest.fail("it went on")

    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=60)
    assert running.cancelled()


async def test_what_a_task_was_asked_before_is_no_end():
    """A task group whose member fails while it waits leaves a count behind."""

    async def fails() -> None:
        raise ValueError

    async def work() -> bool:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
        before = asked()
        heed(before)
        return True

    assert await asyncio.create_task(work())
