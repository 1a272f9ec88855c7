"""SIGKILL around the ends that are not good: a failure, a cancel, a silence. The states on the way and the good end are in
test_controller.py, the steps of a wave in test_controller_wave.py."""

import pytest

from litho.messages import Cancel, Finish
from support.controller import Agent, Controller
from support.desk import FAILED, PLANNED, STARTED, STOPPED

QUICK = {"timeouts": {"lease_s": 4.0, "heartbeat_s": 0.5, "boot_s": 60.0, "progress_s": 0.5}, "slots": {"library": 1}}


@pytest.mark.parametrize("end", ["failed", "cancelled", "lost"])
async def test_an_end_that_is_not_good_comes_and_stays_although_the_controller_is_killed(tmp_path, end):
    controller = Controller(tmp_path, **QUICK)
    await controller.start()
    agent, other = Agent(controller, "n01"), Agent(controller, "n02")
    try:
        await controller.define("n01,n02")
        [line] = await controller.nodeset("n01", "image", "golden")
        await agent.claim()
        agent.connect()
        await agent.say(PLANNED, STARTED)
        # n02 waits for the only slot: it must be free afterwards.
        [waiting] = await controller.nodeset("n02", "image", "silver")
        if end == "failed":
            agent.put(FAILED)
        elif end == "cancelled":
            await controller.ask("cancel", line.task)
        else:
            await agent.vanish()
        await controller.kill()
        await controller.start()
        if end == "cancelled":
            await agent.hears(Cancel)
            agent.put(STOPPED)
        ended = await controller.reaches(line.task, end, within_s=60)
        assert ended.ended is not None
        if end != "lost":
            await agent.hears(Finish)
        # The end is as it was after one more kill, and was told once.
        told = await controller.nodestat("n01")
        assert told.startswith("partimage-ng: failed: ")
        await controller.kill()
        await controller.start()
        assert await controller.task(line.task) == ended
        assert await controller.nodestat("n01") == told
        assert not (controller.state / "boot" / "n01.cmdline").exists()
        await controller.reaches(waiting.task, "armed", within_s=60)
        await other.claim()
        assert (await controller.task(waiting.task)).state == "claimed"
    finally:
        await agent.vanish()
        await controller.end()
    assert "Traceback" not in controller.log.read_text()
