"""What time and restarts do to tasks: silence, nodes that never boot, late truths, remains, and starting again."""

import asyncio
import os

import pytest

from litho.errors import LithoError
from litho.library import ImageRef, Owner, Stage
from litho.messages import Ack, Cancel, Finish, Stop
from litho.task import State
from litho_controller.api import JobOptions
from litho_controller.boot import cmdline
from litho_controller.store import waves as waves_of
from litho_controller.tasks import accounts, recovery, upkeep
from litho_controller.tasks.core import LINGER_S
from litho_controller.tasks.leases import Leases
from support.desk import DONE, FAILED, PLANNED, STARTED, Node, lab, publish


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path, boot_s=600, lease_s=60) as made:
        await made.define("n01", "n02", "n03")
        yield made


async def passes(desk, seconds, *agents):
    """Let time pass in steps shorter than a standstill, with heartbeats of `agents`."""
    while seconds > 0:
        step = min(5.0, seconds)
        desk.clock.advance(step)
        seconds -= step
        for agent in agents:
            await agent.beat()
        await desk.upkeep.tick()


# ---------------------------------------------------------------- leases, pure


def test_waits_for_a_node_and_for_a_sign_of_life_are_told_apart():
    leases = Leases()
    leases.boot(1, now=0)
    leases.hold(2, now=0)
    limits = {"boot_s": 100, "lease_s": 10}
    assert leases.over(now=9.9, listening=True, **limits) == []
    assert [wait.number for wait in leases.over(now=10, listening=True, **limits)] == [2]
    assert leases.over(now=10, listening=False, **limits) == []
    assert [wait.number for wait in leases.over(now=100, listening=False, **limits)] == [1]


def test_a_sign_of_life_does_not_prolong_the_wait_for_a_boot():
    leases = Leases()
    leases.boot(1, now=0)
    leases.heard(1, now=99)
    leases.heard(5, now=99)
    leases.begin_anew(now=99)
    assert [wait.number for wait in leases.over(now=100, boot_s=100, lease_s=10, listening=True)] == [1]


def test_after_silence_of_our_own_every_lease_begins_anew():
    leases = Leases()
    leases.hold(1, now=0)
    leases.begin_anew(now=50)
    assert leases.over(now=59, boot_s=100, lease_s=10, listening=True) == []
    leases.drop(1)
    assert leases.over(now=1000, boot_s=100, lease_s=10, listening=True) == []


# ---------------------------------------------------------------- silence


@pytest.mark.parametrize("so_far", [(), (PLANNED,), (PLANNED, STARTED)])
async def test_a_silent_agent_loses_its_task_with_a_reason_and_its_slot(tmp_path, so_far):
    async with lab(tmp_path, slots=1, lease_s=60) as desk:
        await desk.define("n01", "n02")
        await desk.capture("n01", "n02")
        agent = await desk.agent("t-000001")
        await agent.say(*so_far)
        await passes(desk, 55)
        assert not (await desk.row("t-000001")).state.ended
        await passes(desk, 5)
        row = await desk.row("t-000001")
        assert (row.state, row.task.code) == (State.LOST, "lost")
        assert "has not been heard of for 60 s" in row.task.reason
        assert await desk.boot_state("n01") == "boot"
        assert desk.boot.read("n01") == ""
        await desk.upkeep.tick()
        assert (await desk.row("t-000002")).state is State.ARMED


async def test_heartbeats_progress_and_events_keep_a_task_alive(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await passes(desk, 50)
    await agent.beat()
    await passes(desk, 50)
    await agent.say(PLANNED, STARTED)
    await passes(desk, 50)
    assert agent.progress(10)
    await passes(desk, 50)
    assert (await desk.row("t-000001")).state is State.RUNNING


async def test_the_last_will_is_no_sign_of_life(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.beat()
    assert desk.tasks.online == {"n01": "session-1"}
    await passes(desk, 40)
    await agent.beat(online=False)
    assert desk.tasks.online == {}
    await passes(desk, 20)
    assert (await desk.row("t-000001")).state is State.LOST


async def test_a_strangers_heartbeat_keeps_nothing_alive(desk):
    await desk.capture("n01")
    await desk.agent("t-000001")
    stranger = Node(desk, "n01", "t-000001", "session-2")
    await passes(desk, 60, stranger)
    assert (await desk.row("t-000001")).state is State.LOST
    assert all(isinstance(body, Stop) for body in stranger.heard())


async def test_leases_do_not_run_while_nobody_can_be_heard(desk):
    await desk.capture("n01")
    await desk.agent("t-000001")
    desk.bus.connected = False
    await passes(desk, 600)
    assert (await desk.row("t-000001")).state is State.CLAIMED
    desk.bus.connected = True
    desk.hearing.connected()
    await passes(desk, 55)
    assert (await desk.row("t-000001")).state is State.CLAIMED
    await passes(desk, 5)
    assert (await desk.row("t-000001")).state is State.LOST


async def test_leases_begin_anew_when_the_controller_itself_stood_still(desk):
    await desk.capture("n01")
    await desk.agent("t-000001")
    desk.clock.advance(3600)
    await desk.upkeep.tick()
    assert (await desk.row("t-000001")).state is State.CLAIMED


async def test_a_node_that_never_boots_loses_its_task(desk):
    await desk.capture("n01")
    await desk.upkeep.tick()
    await passes(desk, 595)
    assert (await desk.row("t-000001")).state is State.ARMED
    desk.bus.connected = False
    await passes(desk, 5)
    row = await desk.row("t-000001")
    assert row.state is State.LOST
    assert "n01 never booted into the root image" in row.task.reason
    assert desk.boot.nodes() == []


async def test_a_task_that_waits_for_a_slot_is_never_lost(tmp_path):
    async with lab(tmp_path, slots=1, boot_s=600) as desk:
        await desk.define("n01", "n02")
        await desk.capture("n01", "n02")
        agent = await desk.agent("t-000001")
        await passes(desk, 3000, agent)
        assert (await desk.row("t-000002")).state is State.QUEUED


# ---------------------------------------------------------------- late truths


async def test_a_lost_session_may_still_say_how_it_ended(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    await passes(desk, 60)
    assert (await desk.row("t-000001")).state is State.LOST
    agent.heard()
    await agent.beat()
    assert agent.heard() == []
    await agent.say(DONE)
    row = await desk.row("t-000001")
    assert (row.state, row.task.reason, row.version) == (State.SUCCEEDED, "", 1)
    assert len(await desk.table("osimage")) == 1
    assert agent.heard() == [Ack(seq=4), Finish()]


async def test_a_late_truth_does_not_touch_the_task_that_the_node_has_now(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    await passes(desk, 60)
    await desk.capture("n01", image="silver")
    await desk.upkeep.tick()
    agent.heard()
    await agent.beat()
    [stop] = agent.heard()
    assert isinstance(stop, Stop)
    assert "t-000002" in stop.reason
    await agent.say(DONE)
    assert await desk.states() == {"t-000001": "succeeded", "t-000002": "armed"}
    assert await desk.boot_state("n01") == "image image-x86-silver"
    assert cmdline.parse(desk.boot.read("n01"))["task"] == "t-000002"


async def test_an_agent_that_missed_its_finish_hears_it_at_its_next_heartbeat(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(FAILED)
    agent.heard()
    await agent.beat()
    assert agent.heard() == [Finish()]


async def test_who_is_online_for_a_task_that_was_never_theirs_is_told_to_stop(desk):
    for task in ("t-000042", "nonsense"):
        stranger = Node(desk, "n01", task, "session-9")
        await stranger.beat()
        [stop] = stranger.heard()
        assert isinstance(stop, Stop)
    await Node(desk, "n01", "", "session-9").beat()
    assert desk.bus.sent == []


# ---------------------------------------------------------------- accounts


async def test_an_account_ends_some_time_after_its_task(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(FAILED)
    await passes(desk, LINGER_S - 31)
    assert list(desk.access.accounts) == ["n01"]
    await passes(desk, 65)
    assert desk.access.accounts == {}


async def test_a_lost_session_keeps_its_account_for_a_day(desk):
    await desk.capture("n01")
    await desk.agent("t-000001")
    await passes(desk, 60)
    assert (await desk.row("t-000001")).state is State.LOST
    desk.clock.advance(accounts.AFTER_LOST_S - 120)
    await desk.upkeep.tick()
    assert list(desk.access.accounts) == ["n01"]
    desk.clock.advance(200)
    await desk.upkeep.tick()
    assert desk.access.accounts == {}


async def test_a_new_claim_ends_the_older_account_of_the_node(desk):
    await desk.capture("n01")
    first = await desk.agent("t-000001")
    await first.say(FAILED)
    await desk.capture("n01")
    second = await desk.agent("t-000002", "session-2")
    assert desk.access.accounts == {"n01": second.order.password}
    assert first.order.password != second.order.password


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path):
    secret = accounts.load_secret(tmp_path / "secret")
    assert accounts.load_secret(tmp_path / "secret") == secret
    assert len(secret) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert accounts.password(secret, task="t-1", session="a") != accounts.password(secret, task="t-1", session="b")


# ---------------------------------------------------------------- remains


def staged(desk, name, *, session, task="t-000001"):
    """What a capture leaves that was cut off: a reservation and a file that grew."""
    stage = Stage.open(desk.library, name, Owner(session=session, node="n01", task=task))
    with stage.create("sda1.partclone.zst") as file:
        file.write(b"half")
    return stage


def left(desk):
    return sorted(path.name for path in desk.library.root.iterdir() if path.name.endswith(".part"))


async def test_what_a_dead_capture_left_is_swept_and_nothing_else(desk):
    publish(desk.library, "golden")
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    staged(desk, "golden", session="session-1")
    staged(desk, "other-controllers", session="session-x")
    staged(desk, "local-run", session="session-1", task="")
    await desk.upkeep.sweep()
    assert len(left(desk)) == 6
    await agent.say(FAILED)
    assert desk.tasks.sweep_wanted.is_set()
    await desk.upkeep.sweep()
    assert left(desk) == [
        "local-run.v1-sda1.partclone.zst.part",
        "local-run.v1.json.part",
        "other-controllers.v1-sda1.partclone.zst.part",
        "other-controllers.v1.json.part",
    ]
    assert desk.library.versions("golden") == [1]


async def test_an_interrupted_removal_is_finished_once_it_is_old(desk):
    path = desk.library.root / "golden.v1.json.part"
    path.write_bytes(b"")
    await desk.upkeep.sweep()
    assert path.exists()
    os.utime(path, (1, 1))
    await desk.upkeep.sweep()
    assert not path.exists()


async def test_a_sweep_that_fails_is_tried_again(desk, monkeypatch):
    monkeypatch.setattr(upkeep, "SWEEP_AGAIN_S", 0.01)
    await desk.capture("n01")
    await (await desk.agent("t-000001")).say(FAILED)
    staged(desk, "golden", session="session-1")
    away = desk.library.root.with_name("away")
    desk.library.root.rename(away)
    sweeper = asyncio.create_task(desk.upkeep.sweep_when_wanted())
    await asyncio.sleep(0.1)
    assert not sweeper.done()
    away.rename(desk.library.root)
    async with asyncio.timeout(60):
        while left(desk):  # noqa: ASYNC110 - the other side is a thread
            await asyncio.sleep(0.01)
    sweeper.cancel()
    await asyncio.gather(sweeper, return_exceptions=True)


# ---------------------------------------------------------------- starting again


async def test_a_restart_goes_on_with_every_state(tmp_path):
    async with lab(tmp_path, slots=5) as desk:
        await desk.define("n1", "n2", "n3", "n4", "n5", "n6")
        await desk.capture("n1", "n2", "n3", "n4", "n5", "n6")
        agents = {name: await desk.agent(f"t-00000{name[1]}") for name in ("n2", "n3", "n4")}
        await agents["n3"].say(PLANNED)
        await agents["n4"].say(PLANNED, STARTED)
        files = {node: desk.boot.read(node) for node in desk.boot.nodes()}
        states = await desk.states()
        accounts_before = desk.access.accounts
    async with lab(tmp_path, slots=5, clock=desk.clock) as again:
        assert await again.states() == states
        assert {node: again.boot.read(node) for node in again.boot.nodes()} == files
        assert again.access.accounts == accounts_before
        assert set(again.tasks.live) == {2, 3, 4}
        for agent in agents.values():
            agent.lab = again
        await agents["n2"].say(PLANNED)
        await agents["n3"].say(STARTED)
        await agents["n4"].say(DONE)
        assert await again.states() | {"t-000006": "-"} == {
            "t-000001": "armed",
            "t-000002": "planned",
            "t-000003": "running",
            "t-000004": "succeeded",
            "t-000005": "armed",
            "t-000006": "-",
        }
        fresh = await again.agent("t-000001")
        await fresh.run()
        await again.upkeep.tick()
        assert (await again.row("t-000006")).state is State.ARMED


async def test_leases_and_boot_waits_begin_anew_after_a_restart(tmp_path):
    async with lab(tmp_path, boot_s=600, lease_s=60) as desk:
        await desk.define("n1", "n2")
        await desk.capture("n1", "n2")
        await desk.agent("t-000001")
    desk.clock.advance(86_400)
    async with lab(tmp_path, boot_s=600, lease_s=60, clock=desk.clock) as again:
        await passes(again, 55)
        assert await again.states() == {"t-000001": "claimed", "t-000002": "armed"}
        await passes(again, 5)
        assert await again.states() == {"t-000001": "lost", "t-000002": "armed"}
        await passes(again, 540)
        assert await again.states() == {"t-000001": "lost", "t-000002": "lost"}


async def test_an_armed_task_whose_file_is_gone_gets_a_new_token(tmp_path):
    async with lab(tmp_path) as desk:
        await desk.define("n1", "n2")
        await desk.capture("n1", "n2")
        await desk.upkeep.tick()
        old = desk.token("n1")
        desk.boot.remove("n1")
        desk.boot.write("n2", desk.boot.read("n2").replace("t-000002", "t-000009"))
        desk.boot.write("n7", "litho.node=n7 litho.task=t-000003 litho.token=x")
    async with lab(tmp_path, clock=desk.clock) as again:
        assert again.boot.nodes() == ["n1", "n2"]
        assert again.token("n1") != old
        for task in ("t-000001", "t-000002"):
            await (await again.agent(task)).run()


async def test_a_file_that_was_written_before_a_crash_but_never_armed_opens_nothing(tmp_path):
    async with lab(tmp_path) as desk:
        await desk.define("n1")
        await desk.capture("n1")
        token = cmdline.new_token()
        line = cmdline.words(controller="http://c:3080", node="n1", task="t-000001", token=token)
        desk.boot.write("n1", line)
    async with lab(tmp_path, clock=desk.clock) as again:
        assert again.boot.nodes() == []
        await again.upkeep.tick()
        assert again.token("n1") != token
        await (await again.agent("t-000001")).run()


async def test_an_armed_nodes_file_follows_the_controllers_address_and_keeps_its_token(tmp_path):
    async with lab(tmp_path) as desk:
        await desk.define("n1")
        await desk.capture("n1")
        await desk.upkeep.tick()
        token = desk.token("n1")
        desk.tasks.installation.url = "http://elsewhere:4000"
        await recovery.recover(desk.tasks)
        assert cmdline.parse(desk.boot.read("n1"))["controller"] == "http://elsewhere:4000"
        assert desk.token("n1") == token
        await (await desk.agent("t-000001")).run()


async def test_a_cancel_that_was_asked_for_before_the_restart_is_said_again_after_it(tmp_path):
    async with lab(tmp_path) as desk:
        await desk.define("n1")
        await desk.capture("n1")
        await desk.agent("t-000001")
        await desk.requests.cancel(1)
    async with lab(tmp_path, clock=desk.clock) as again:
        assert again.bus.bodies("n1") == [Cancel()]


async def test_a_file_left_by_a_crash_after_the_end_is_removed(tmp_path):
    async with lab(tmp_path) as desk:
        await desk.define("n1")
        await desk.capture("n1")
        agent = await desk.agent("t-000001")
        line = desk.boot.read("n1")
        await agent.say(FAILED)
        desk.boot.write("n1", line)
    async with lab(tmp_path, clock=desk.clock) as again:
        assert again.boot.nodes() == []


async def test_the_running_upkeep_arms_without_being_asked(desk):
    running = asyncio.create_task(desk.upkeep.run())
    await desk.requests.create(["n01"], "capture", ImageRef("golden"), JobOptions())
    async with asyncio.timeout(60):
        while (await desk.row("t-000001")).state is not State.ARMED:  # noqa: ASYNC110 - what is waited for is a row
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_database_that_fails_does_not_end_the_upkeep(desk, monkeypatch):
    await desk.capture("n01")

    async def broken(*_):
        raise LithoError("the database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(waves_of, "holding", broken)
        await desk.upkeep.tick()
    assert (await desk.row("t-000001")).state is State.QUEUED
    await desk.upkeep.tick()
    assert (await desk.row("t-000001")).state is State.ARMED


async def test_an_end_is_heard_although_something_wakes_the_upkeep_at_the_same_moment(desk):
    running = asyncio.create_task(desk.upkeep.run())
    async with asyncio.timeout(60):
        while not desk.tasks.woken._waiters:  # noqa: ASYNC110 - it is between two ticks
            await asyncio.sleep(0.01)
    desk.tasks.woken.set()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=60)
    assert done == {running}
    assert running.cancelled()
