"""Waves, retries, times and safety, over the task service with its real database."""

import pytest

from litho.errors import NotFoundError, RefusedError, UsageError
from litho.library import ImageRef
from litho_controller.api import JobOptions
from litho_controller.api_schedule import When
from litho_controller.store import waves as waves_of
from litho_controller.tables import nodes, rows
from litho_controller.tasks import queue, rules
from litho_controller.tasks.requests import Requests
from litho_controller.tasks.upkeep import Limits, Upkeep
from support.desk import DONE, FAILED, PLANNED, STARTED, lab, publish

NAMES = [f"n{at:02d}" for at in range(1, 8)]


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path, slots=10) as made:
        await made.define(*NAMES)
        publish(made.library, "golden")
        yield made


async def restore(desk, names=NAMES, **when):
    lines = await desk.requests.create(names, "restore", ImageRef("golden"), JobOptions(), When(**when))
    await desk.upkeep.tick()
    return lines


async def wave(desk):
    async with desk.store.read() as conn:
        (found,) = await waves_of.find(conn)
    return found


async def states(desk):
    """`3 armed, 4 queued`, by node's order."""
    found = await desk.states()
    return " ".join(found[f"t-{at:06d}"] for at in range(1, len(found) + 1))


async def works(desk, task, *, well=True):
    node = await desk.agent(task, f"session-{task}")
    await node.say(PLANNED, STARTED, DONE if well else FAILED)
    await desk.upkeep.tick()


# ---------------------------------------------------------------- waves


async def test_a_step_begins_when_the_one_before_it_has_ended(desk):
    lines = await restore(desk, wave="1,2")
    assert {line.wave for line in lines} == {"w-000001"}
    assert await states(desk) == "armed queued queued queued queued queued queued"
    await works(desk, "t-000001")
    assert await states(desk) == "succeeded armed armed queued queued queued queued"
    await works(desk, "t-000002", well=False)
    assert (await wave(desk)).step == 2
    await works(desk, "t-000003")
    assert await states(desk) == "succeeded failed succeeded armed armed armed armed"
    for number in (4, 5, 6, 7):
        assert (await wave(desk)).state == "running"
        await works(desk, f"t-{number:06d}")
    found = await wave(desk)
    assert (found.state, found.step, found.steps) == ("done", 3, 3)
    assert found.ended == desk.clock.now()


async def test_a_wave_stops_by_itself_and_lets_what_runs_come_to_its_end(desk):
    await restore(desk, wave="3", stop_after=2)
    running = await desk.agent("t-000001")
    await running.say(PLANNED, STARTED)
    await works(desk, "t-000002", well=False)
    assert (await wave(desk)).state == "running"
    await works(desk, "t-000003", well=False)
    found = await wave(desk)
    assert (found.state, found.reason) == ("stopped", "2 tasks have failed, and it was to stop after 2")
    assert await states(desk) == "running failed failed cancelled cancelled cancelled cancelled"
    assert "the wave w-000001 stopped" in (await desk.row("t-000005")).task.reason
    assert desk.boot.nodes() == ["n01"]
    await running.say(DONE)
    assert (await desk.row("t-000001")).state == "succeeded"


async def test_a_stop_takes_back_what_is_armed_and_not_begun(desk):
    await restore(desk, wave="3", stop_after=1)
    await works(desk, "t-000001", well=False)
    assert await states(desk) == "failed cancelled cancelled cancelled cancelled cancelled cancelled"
    assert desk.boot.nodes() == []


async def test_a_restart_goes_on_at_the_step_that_was_reached(desk, tmp_path):
    await restore(desk, wave="1,1")
    await works(desk, "t-000001")
    async with lab(tmp_path, slots=10) as again:
        await again.upkeep.tick()
        assert await states(again) == "succeeded armed queued queued queued queued queued"
        await works(again, "t-000002", well=False)
        assert (await wave(again)).step == 3


async def test_a_wave_whose_making_was_cut_off_runs_with_what_it_has(desk, tmp_path):
    await restore(desk, wave="1")
    async with desk.store.write() as conn:
        found = (await waves_of.find(conn))[0]
        await waves_of.save(
            conn, waves_of.WaveRow(**{**{f: getattr(found, f) for f in found.__struct_fields__}, "state": "making"})
        )
    async with lab(tmp_path, slots=10) as again:
        assert (await wave(again)).state == "running"


async def test_an_attempt_that_is_made_again_keeps_its_step_waiting(desk):
    from litho_controller.tasks.booting import Booting, Policy

    async with desk.store.write() as conn:
        await nodes.define(conn, ["n01"], mac="52:54:00:00:00:01")
    await restore(desk, wave="1", stop_after=1)
    await desk.agent("t-000001")
    desk.clock.advance(60)
    await Booting(desk.tasks, Policy(attempts=2)).script("52:54:00:00:00:01", peer="x")
    await desk.upkeep.tick()
    assert (await desk.row("t-000001")).state == "lost"
    again = await desk.row("t-000008")
    assert (again.state, again.attempt, again.wave, again.step) == ("armed", 2, 1, 1)
    assert (await wave(desk)).state == "running"
    await works(desk, "t-000008")
    assert (await wave(desk)).step == 2


@pytest.mark.parametrize("when", [{"wave": "0"}, {"wave": "x"}, {"stop_after": 3}])
async def test_a_wave_that_makes_no_sense_queues_nothing(desk, when):
    with pytest.raises(UsageError):
        await restore(desk, **when)
    assert await desk.states() == {}


# ---------------------------------------------------------------- times, priorities, groups


async def test_a_task_with_a_time_waits_for_it(desk):
    await restore(desk, ["n01"], at=desk.clock.now() + 100)
    assert await states(desk) == "queued"
    desk.clock.advance(99)
    await desk.upkeep.tick()
    assert await states(desk) == "queued"
    desk.clock.advance(1)
    await desk.upkeep.tick()
    assert await states(desk) == "armed"


async def test_slots_of_groups_and_priorities_hold(desk):
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n01", "n02", "n03"], groups=("rack1",))
    desk.upkeep = Upkeep(desk.tasks, Limits(slots=3, boot_s=1800, lease_s=120, groups={"rack1": 1}))
    await desk.requests.create(NAMES[:4], "restore", ImageRef("golden"), JobOptions())
    await desk.requests.create(NAMES[4:], "restore", ImageRef("golden"), JobOptions(), When(priority=1))
    await desk.upkeep.tick()
    assert await states(desk) == "queued queued queued queued armed armed armed"
    await desk.requests.cancel(5)
    await desk.requests.cancel(6)
    await desk.upkeep.tick()
    assert await states(desk) == "armed queued queued armed cancelled cancelled armed"


async def test_outside_a_window_nothing_starts_by_itself(desk):
    closed = queue.Window(frozenset(), 0, 1440)
    desk.upkeep = Upkeep(desk.tasks, Limits(slots=3, boot_s=1800, lease_s=120, windows=(closed,)))
    await restore(desk, ["n01"])
    await restore(desk, ["n02"], at=desk.clock.now())
    assert await states(desk) == "queued armed"


# ---------------------------------------------------------------- retries


async def test_a_person_tries_a_failed_task_again(desk):
    await restore(desk, ["n01"], priority=3)
    await works(desk, "t-000001", well=False)
    made = await desk.requests.retry(1)
    assert (made.id, made.retry_of, made.attempt, made.priority, made.version) == ("t-000002", 1, 1, 3, 1)
    assert made.job == (await desk.row("t-000001")).job
    await desk.upkeep.tick()
    assert await states(desk) == "failed armed"
    assert await desk.boot_state("n01") == "install image-x86-golden"
    assert next(text for _, text in rules.course(await desk.row("t-000002"))).endswith("as t-000001 was")
    with pytest.raises(RefusedError, match="n01 has a task already"):
        await desk.requests.retry(1)


async def test_what_is_not_over_or_went_well_is_not_repeated(desk):
    await restore(desk, ["n01"])
    with pytest.raises(RefusedError, match="is armed, so there is nothing to repeat"):
        await desk.requests.retry(1)
    await works(desk, "t-000001")
    with pytest.raises(RefusedError, match="is succeeded, so there is nothing to repeat"):
        await desk.requests.retry(1)
    with pytest.raises(NotFoundError, match="there is no task t-000099"):
        await desk.requests.retry(99)


async def test_an_image_that_has_gone_cannot_be_restored_again(desk):
    await restore(desk, ["n01"])
    await works(desk, "t-000001", well=False)
    for path in desk.library.root.glob("golden*"):
        path.unlink()
    with pytest.raises(NotFoundError):
        await desk.requests.retry(1)
    assert await states(desk) == "failed"


# ---------------------------------------------------------------- safety


async def test_nodes_that_cannot_be_told_apart_get_no_task(desk):
    strict = Requests(desk.tasks, require_mac=True)
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n01"], mac="52:54:00:00:00:01")
        await rows.put(conn, "mac", "n02", {"mac": "rubbish"})
        await rows.put(conn, "mac", "n03", {"mac": "52:54:00:00:00:03!a|52:54:00:00:00:04"})
        await rows.put(conn, "mac", "n04", {"mac": "52-54-00-00-00-04"})
        await rows.put(conn, "mac", "n06", {"mac": "52:54:00:00:00:06"})
        await rows.put(conn, "bootparams", "n06", {"addkcmdline": "quiet; reboot"})
    lines = await strict.create(NAMES[:6], "restore", ImageRef("golden"), JobOptions())
    assert [(line.node, line.code) for line in lines] == [
        ("n01", ""),
        ("n02", "mac-unknown"),
        ("n03", "mac-double"),
        ("n04", "mac-double"),
        ("n05", "mac-unknown"),
        ("n06", "bad-cmdline"),
    ]
    assert await desk.boot_state("n03") == "boot"


async def test_a_table_that_was_changed_after_nodeset_cancels_the_task_instead_of_holding_up_the_queue(desk):
    desk.upkeep = Upkeep(desk.tasks, Limits(slots=1, boot_s=1800, lease_s=120, require_mac=True))
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n01"], mac="52:54:00:00:00:01")
        await nodes.define(conn, ["n02"], mac="52:54:00:00:00:02")
    await desk.requests.create(["n01", "n02"], "restore", ImageRef("golden"), JobOptions())
    async with desk.store.write() as conn:
        await rows.put(conn, "mac", "n01", {"mac": None})
    await desk.upkeep.tick()
    await desk.upkeep.tick()
    assert await states(desk) == "cancelled armed"
    assert "n01 has no MAC address" in (await desk.row("t-000001")).task.reason
    assert await desk.boot_state("n01") == "boot"
