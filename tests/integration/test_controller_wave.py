"""A wave while its controller is killed, as processes: every step goes on where it was, and the wave still stops by itself."""

from litho.messages import Finish
from litho_controller import api
from litho_controller.api_schedule import When
from support.controller import Agent, Controller, until
from support.desk import DONE, FAILED, PLANNED, STARTED, publish

QUICK = {"timeouts": {"lease_s": 20.0, "heartbeat_s": 0.5, "boot_s": 60.0, "progress_s": 0.5}}


async def wave_of(controller):
    [found] = (await controller.ask("waves")).waves
    return found


async def reaches(controller, **wanted):
    """The wave, as soon as it is so."""

    async def there():
        found = await wave_of(controller)
        return found if all(getattr(found, name) == value for name, value in wanted.items()) else None

    return await until(there, within_s=60)


async def test_a_wave_whose_controller_is_killed_in_each_step_goes_on_and_stops_by_itself(tmp_path):
    controller = Controller(tmp_path, slots={"library": 10}, **QUICK)
    publish(controller.library, "golden")
    await controller.start()
    agents = {}
    try:
        await controller.define("n01-n10")
        request = api.NodesetRequest(
            range="n01-n10", state="install", image="golden", when=When(wave="2,50%", stop_after=2)
        )
        lines = (await controller.ask("nodeset", request)).nodes
        tasks = {line.node: line.task for line in lines}
        agents = {node: Agent(controller, node) for node in tasks}

        async def begin(*names):
            for name in names:
                await controller.reaches(tasks[name], "armed", within_s=60)
                await agents[name].claim()
                agents[name].connect()
                await agents[name].say(PLANNED, STARTED)

        async def again(*spoken):
            """SIGKILL; what agents say meanwhile is taken in afterwards."""
            await controller.kill()
            waiting = [(agents[name], agents[name].put(body)) for name, body in spoken]
            await controller.start()
            for agent, seq in waiting:
                await until(lambda agent=agent, seq=seq: agent._acked >= seq, within_s=60)

        # Step 1 of 3: one node works, the other one's agent fails while nobody hears it.
        await begin("n01", "n02")
        await agents["n01"].say(DONE)
        assert (await wave_of(controller)).step == 1
        await again(("n02", FAILED))
        # Step 2 begins though the controller that made the wave is dead: five of ten nodes.
        found = await reaches(controller, step=2, waiting=8)
        assert (found.state, found.steps, found.succeeded, found.failed) == ("running", 3, 1, 1)
        await begin("n03", "n04")
        await controller.reaches(tasks["n07"], "armed", within_s=60)
        assert (await controller.task(tasks["n08"])).state == "queued"
        # The second failure comes while the controller is dead; the wave stops when it is back, and n04 goes on to its end.
        await again(("n03", FAILED))
        found = await reaches(controller, state="stopped", running=1)
        assert (found.step, found.failed, found.cancelled) == (2, 2, 6)
        assert found.reason == "2 tasks have failed, and it was to stop after 2"
        for node in ("n05", "n06", "n07", "n08", "n09", "n10"):
            task = await controller.task(tasks[node])
            assert (task.state, "the wave w-000001 stopped" in task.reason) == ("cancelled", True)
            assert not (controller.state / "boot" / f"{node}.cmdline").exists()
        await again(("n04", DONE))
        await agents["n04"].hears(Finish)
        found = await wave_of(controller)
        assert (found.state, found.succeeded, found.running, found.waiting) == ("stopped", 2, 0, 0)
        assert len((await controller.ask("tasks")).tasks) == 10
    finally:
        for agent in agents.values():
            await agent.vanish()
        await controller.end()
    assert "Traceback" not in controller.log.read_text()
