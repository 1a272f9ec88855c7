"""The whole controller as a process: a task's way, crashes at every point of it, and what becomes of silence and cancels."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest

from litho import process
from litho.library import Owner, Stage
from litho.messages import Cancel, Finish, Stop
from support.controller import Agent, Controller, RefusedClaimError, until
from support.desk import DONE, FAILED, PLANNED, STARTED, STOPPED, publish
from support.pace import Moment

QUICK = {"timeouts": {"lease_s": 5.0, "heartbeat_s": 0.5, "boot_s": 60.0, "progress_s": 0.5}}


@pytest.fixture
async def controller(tmp_path):
    async with Controller(tmp_path, **QUICK) as running:
        await running.define("n01-n05")
        yield running


async def captured(controller, task):
    """What must be true, once each, after a capture of golden went well."""
    done = await controller.reaches(task, "succeeded")
    assert (done.version, done.percent, done.reason) == (1, 100, "")
    table = await controller.ask("table", "osimage")
    assert [row[table.columns.index("osvers")] for row in table.rows] == ["debian12"]
    assert len((await controller.ask("table", "linuximage")).rows) == 1
    assert [line.text for line in await controller.nodeset("n01", "stat")] == ["boot"]
    assert not (controller.state / "boot" / "n01.cmdline").exists()
    assert await controller.nodestat("n01") == "boot"


# ---------------------------------------------------------------- the way of a task


async def test_a_capture_from_nodeset_to_the_osimage_row(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    assert line.text == "image image-x86-golden"
    agent = Agent(controller, "n01")
    await controller.reaches(line.task, "armed")
    assert await controller.nodestat("n01") == "armed, waiting for the node"
    async with agent.online():
        await agent.say(PLANNED, STARTED)
        await agent.progress(420)
        await until(lambda: says(controller, "n01", "partimage-ng: partition 1 of 1, 42% complete"))
        shown = await controller.ask("node", "n01")
        assert shown.online
        assert shown.task == line.task
        await agent.say(DONE)
        await agent.hears(Finish)
    await captured(controller, line.task)


async def says(controller, node, text):
    return await controller.nodestat(node) == text


async def test_a_failure_is_told_and_the_next_task_may_come(controller):
    publish(controller.library, "golden")
    [line] = await controller.nodeset("n01", "osimage", "golden")
    assert line.text == "install image-x86-golden"
    async with Agent(controller, "n01").online() as agent:
        await agent.say(FAILED)
        await agent.hears(Finish)
    assert await controller.nodestat("n01") == "partimage-ng: failed: there is no disk sdb"
    [again] = await controller.nodeset("n01", "osimage", "golden")
    assert again.task == "t-000002"


async def test_many_nodes_at_once_share_the_slots(tmp_path):
    async with Controller(tmp_path, slots={"library": 3}, **QUICK) as controller:
        await controller.define("n01-n12")
        lines = await controller.nodeset("n01-n12", "image", "golden")

        async def work(line):
            agent = Agent(controller, line.node)
            async with agent.online():
                await agent.say(PLANNED, STARTED)
                for done in (250, 500, 750):
                    await agent.progress(done)
                await agent.say(DONE)
                await agent.hears(Finish)

        most = 0

        async def watch():
            nonlocal most
            while True:
                active = (await controller.ask("tasks", active=True)).tasks
                most = max(most, sum(task.state not in ("queued",) for task in active))
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(work(line) for line in lines))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        tasks = (await controller.ask("tasks")).tasks
        assert {task.state.value for task in tasks} == {"succeeded"}
        assert len(tasks) == 12
        assert 1 <= most <= 3


# ---------------------------------------------------------------- claims


async def test_a_token_opens_its_task_once_and_for_its_node_alone(controller):
    await controller.nodeset("n01,n02", "image", "golden")
    other = await controller.words("n02")
    agent = Agent(controller, "n01")
    for wrong in (other["token"], "x" * 43):
        with pytest.raises(RefusedClaimError) as caught:
            await agent.claim(token=wrong)
        assert (caught.value.status, caught.value.problem.code) == (403, "bad-token")
    with pytest.raises(RefusedClaimError) as caught:
        await agent.claim(task="t-000099")
    assert caught.value.status == 404
    order = await agent.claim()
    assert await agent.claim() == order
    with pytest.raises(RefusedClaimError) as caught:
        await Agent(controller, "n01").claim()
    assert (caught.value.status, caught.value.problem.code) == (409, "already-claimed")


async def test_a_second_boot_of_a_node_does_not_disturb_the_first(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    async with Agent(controller, "n01").online() as agent:
        await agent.say(PLANNED)
        with pytest.raises(RefusedClaimError):
            await Agent(controller, "n01").claim()
        await agent.say(STARTED, DONE)
    await captured(controller, line.task)


# ---------------------------------------------------------------- crashes


STEPS = ("queued", "armed", "claimed", "planned", "running", "ended")


@pytest.mark.parametrize("step", STEPS)
async def test_a_controller_that_is_killed_goes_on_where_it_was(tmp_path, step):
    """SIGKILL in each state of a task; the agent lives on and is heard again."""
    controller = Controller(tmp_path, slots={"library": 1}, **QUICK)
    await controller.start()
    await controller.define("n01,n02")
    agent = Agent(controller, "n01")
    try:
        if step == "queued":
            [first] = await controller.nodeset("n02", "image", "other")
            await controller.reaches(first.task, "armed")
        [line] = await controller.nodeset("n01", "image", "golden")
        said = [PLANNED, STARTED, DONE]
        if step != "queued":
            await controller.reaches(line.task, "armed")
        if step not in ("queued", "armed"):
            await agent.claim()
            agent.connect()
            for _ in range(STEPS.index(step) - 2):
                await agent.say(said.pop(0))
        # What is said while nobody is there must not get lost either.
        meanwhile = 0
        await controller.kill()
        if said and agent.order is not None:
            meanwhile = agent.put(said.pop(0))
            await asyncio.sleep(0.5)
        await controller.start()
        if step == "queued":
            await controller.ask("cancel", first.task)
        if agent.order is None:
            await agent.claim()
            agent.connect()
        if meanwhile:
            await until(lambda: agent._acked >= meanwhile)
        await agent.say(*said)
        await agent.hears(Finish)
        await captured(controller, line.task)
    finally:
        await agent.vanish()
        await controller.end()


async def test_a_controller_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path):
    controller = Controller(tmp_path, slots={"library": 10}, **QUICK)
    await controller.start()
    await controller.define("n01-n05")
    lines = await controller.nodeset("n01-n05", "image", "golden")
    agents = [Agent(controller, line.node) for line in lines]
    try:
        for agent in agents:
            await agent.claim()
            agent.connect()
        for body in (PLANNED, STARTED, DONE):
            for agent in agents:
                agent.put(body)
            await asyncio.sleep(0.25)
            await controller.kill()
            await controller.start()
        for line, agent in zip(lines, agents, strict=True):
            await controller.reaches(line.task, "succeeded")
            await agent.hears(Finish)
        assert len((await controller.ask("table", "osimage")).rows) == 1
        assert len((await controller.ask("tasks")).tasks) == 5
    finally:
        for agent in agents:
            await agent.vanish()
        await controller.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_broker_that_goes_away_in_the_middle_costs_nothing(controller, number):
    [line] = await controller.nodeset("n01", "image", "golden")
    async with Agent(controller, "n01").online() as agent:
        await agent.say(PLANNED)
        before = controller.broker_pid()
        os.kill(before, number)
        agent.put(STARTED)
        await until(lambda: controller.broker_pid() not in (0, before))
        await agent.say(DONE)
        await agent.hears(Finish)
        assert agent.connections >= 2
    await captured(controller, line.task)


async def test_a_broker_that_forgets_everything_costs_nothing(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    async with Agent(controller, "n01").online() as agent:
        await agent.say(PLANNED)
        before = controller.broker_pid()
        os.kill(before, signal.SIGKILL)
        (controller.state / "broker" / "broker.db").unlink(missing_ok=True)
        await until(lambda: controller.broker_pid() not in (0, before))
        await agent.say(STARTED, DONE)
    await captured(controller, line.task)


async def test_the_broker_dies_with_a_controller_that_is_killed(controller):
    broker = controller.broker_pid()
    assert broker
    await controller.kill()
    await until(lambda: controller.broker_pid() == 0)


async def test_a_stop_takes_less_than_five_seconds_and_loses_nothing(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    async with Agent(controller, "n01").online() as agent:
        await agent.say(PLANNED, STARTED)
        await agent.progress(420)
        await until(lambda: says(controller, "n01", "partimage-ng: partition 1 of 1, 42% complete"))
        begun = Moment()
        await controller.end()
        assert begun.took() < 5.0
        assert controller.exit_code == 0
        assert controller.broker_pid() == 0
        await controller.start()
        assert (await controller.task(line.task)).percent == 42
        await agent.say(DONE)
    await captured(controller, line.task)


async def test_a_second_controller_on_the_same_state_is_refused(controller):
    code = (
        "import sys; from pathlib import Path; from litho_controller import config, daemon\n"
        "from litho.errors import RefusedError\n"
        "try:\n daemon.run(config.load(Path(sys.argv[1]), {}))\n"
        "except RefusedError as exc:\n print(exc); sys.exit(exc.exit_code)\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, controller.folder / "lithograph.toml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 4
    assert "another controller works with" in done.stdout
    assert (await controller.health())["broker"] is True


async def test_a_second_controller_on_the_same_library_is_refused_until_the_first_is_dead(controller, tmp_path):
    settings = tmp_path / "second.toml"
    text = (controller.folder / "lithograph.toml").read_text()
    for name, path in (("state_dir", tmp_path / "second"), ("socket", tmp_path / "second.sock")):
        text = re.sub(rf"(?m)^{name} = .*$", f'{name} = "{path}"', text)
    settings.write_text(text)
    litho = [sys.executable, "-m", "litho_controller.main", "--config", settings, "serve"]
    done = await asyncio.to_thread(subprocess.run, litho, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert "another controller works with the library" in done.stderr
    assert "litho serve --take-over" in done.stderr
    await controller.kill()
    second = await process.start_async(litho, stderr=subprocess.PIPE)
    assert second.stderr is not None
    while b"serves nodes" not in (line := await asyncio.wait_for(second.stderr.readline(), 60)):
        assert line, "the second controller ended"
    second.terminate()
    await second.communicate()
    assert second.returncode == 0


# ---------------------------------------------------------------- silence, cancels


async def test_an_agent_that_is_gone_loses_its_task_its_slot_and_its_remains(tmp_path):
    async with Controller(tmp_path, slots={"library": 1}, **QUICK) as controller:
        await controller.define("n01,n02")
        first, second = await controller.nodeset("n01,n02", "image", "golden")
        agent = Agent(controller, "n01")
        async with agent.online():
            await agent.say(PLANNED, STARTED)
            stage = Stage.open(controller.library, "golden", Owner(session=agent.session, node="n01", task=first.task))
            with stage.create("sda1.partclone.zst") as file:
                file.write(b"half an image")
        lost = await controller.reaches(first.task, "lost")
        assert "has not been heard of for 5 s" in lost.reason
        assert (await controller.nodestat("n01")).startswith("partimage-ng: failed: the node has not been heard of")
        await controller.reaches(second.task, "armed")
        await until(lambda: not [path for path in controller.library.root.iterdir() if path.suffix == ".part"])


async def test_a_lost_agent_that_comes_back_says_how_it_ended(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    agent = Agent(controller, "n01")
    async with agent.online():
        await agent.say(PLANNED, STARTED)
    await controller.reaches(line.task, "lost")
    agent.connect()
    try:
        await agent.say(DONE)
        await agent.hears(Finish)
    finally:
        await agent.vanish()
    await captured(controller, line.task)


async def test_a_node_that_never_boots_loses_its_task(tmp_path):
    async with Controller(tmp_path, timeouts={"boot_s": 1.0}) as controller:
        await controller.define("n01")
        [line] = await controller.nodeset("n01", "image", "golden")
        lost = await controller.reaches(line.task, "lost")
        assert "never booted" in lost.reason
        assert not (controller.state / "boot" / "n01.cmdline").exists()


async def test_a_cancel_reaches_the_agent_even_if_it_was_away(controller):
    [line] = await controller.nodeset("n01", "image", "golden")
    agent = Agent(controller, "n01")
    async with agent.online():
        await agent.say(PLANNED, STARTED)
    await controller.ask("cancel", line.task)
    agent.connect()
    try:
        await agent.hears(Cancel)
        await agent.say(STOPPED)
        await agent.hears(Finish)
    finally:
        await agent.vanish()
    assert (await controller.task(line.task)).state == "cancelled"


async def test_a_session_that_holds_nothing_is_told_to_stop(controller):
    """A lost agent comes back when its node has another task already."""
    await controller.nodeset("n01", "image", "golden")
    agent = Agent(controller, "n01")
    async with agent.online():
        await agent.say(PLANNED, STARTED)
    await controller.reaches("t-000001", "lost")
    [line] = await controller.nodeset("n01", "image", "silver")
    await controller.reaches(line.task, "armed")
    agent.connect()
    try:
        await agent.hears(Stop)
    finally:
        await agent.vanish()
    with contextlib.suppress(RefusedClaimError):
        await Agent(controller, "n01").claim()
    await controller.reaches(line.task, "claimed")
