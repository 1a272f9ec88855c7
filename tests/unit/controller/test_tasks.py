"""The task service: asking, claiming, hearing, and what each leaves in the database. Real database, real library, fake clock."""

import itertools
import random
import re

import msgspec
import pytest

from litho import nodestat
from litho.errors import IntegrityError, LibraryError, NotFoundError, RefusedError, UsageError, WireError
from litho.job import EDITION
from litho.library import ImageRef
from litho.messages import Ack, Cancel, Finish, Stop
from litho.task import State
from litho_controller.api import JobOptions
from litho_controller.store import tasks as rows_of
from litho_controller.tables import rows
from litho_controller.tasks import rules
from support.desk import DONE, FAILED, PLANNED, STARTED, STOPPED, Node, lab, publish


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        await made.define("n01", "n02", "n03")
        yield made


# ---------------------------------------------------------------- asking


async def test_a_capture_is_queued_and_the_node_is_set_to_it(desk):
    [line] = await desk.requests.create(["n01"], "capture", ImageRef("golden"), JobOptions(level=3))
    assert (line.text, line.task, line.error) == ("image image-x86-golden", "t-000001", "")
    assert await desk.boot_state("n01") == "image image-x86-golden"
    assert (await desk.row("t-000001")).job.level == 3
    assert {"node": "n01", "os": "image", "profile": "golden"} in await desk.table("nodetype")


async def test_a_restore_is_pinned_to_the_version_that_is_current_now(desk):
    publish(desk.library, "golden")
    [line] = await desk.requests.create(["n01"], "restore", ImageRef("golden"), JobOptions())
    publish(desk.library, "golden")
    row = await desk.row(line.task)
    assert (row.version, row.job.version, line.text) == (1, 1, "install image-x86-golden")


async def test_the_arch_of_the_node_stands_in_its_state(desk):
    async with desk.store.write() as conn:
        await rows.put(conn, "nodetype", "n01", {"arch": "x86_64"})
    [line] = await desk.requests.create(["n01"], "capture", ImageRef("golden"), JobOptions())
    assert line.text == "image image-x86_64-golden"


async def test_without_a_name_the_nodes_own_profile_is_taken(desk):
    async with desk.store.write() as conn:
        await rows.put(conn, "nodetype", "n01", {"os": "image", "profile": "mine"})
        await rows.put(conn, "nodetype", "n02", {"os": "rhels8", "profile": "compute"})
    first, second = await desk.requests.create(["n01", "n02"], "capture", None, JobOptions())
    assert first.text == "image image-x86-mine"
    assert (second.code, second.task) == ("no-image", "")
    [third] = await desk.requests.create(["n01"], "restore", None, JobOptions())
    assert third.code in ("image-missing", "node-busy")


async def test_a_second_task_for_a_node_is_refused_and_the_others_are_not(desk):
    await desk.capture("n01")
    first, second, third = await desk.requests.create(["n01", "n02", "n99"], "capture", ImageRef("other"), JobOptions())
    assert first.code == "node-busy"
    assert "n01 has a task already: t-000001, capture of golden, queued" in first.error
    assert second.task == "t-000002"
    assert third.code == "node-missing"
    assert await desk.boot_state("n01") == "image image-x86-golden"


async def test_a_node_named_twice_gets_one_task(desk):
    [line] = await desk.requests.create(["n01", "n01"], "capture", ImageRef("golden"), JobOptions())
    assert line.task == "t-000001"


async def test_a_restore_of_an_image_that_is_not_there_is_refused_whole(desk):
    with pytest.raises(NotFoundError, match="there is no image silver"):
        await desk.requests.create(["n01"], "restore", ImageRef("silver"), JobOptions())
    publish(desk.library, "golden")
    with pytest.raises(NotFoundError, match="has no version 7"):
        await desk.requests.create(["n01"], "restore", ImageRef("golden", 7), JobOptions())
    assert await desk.states() == {}


async def test_a_restore_of_an_image_with_a_damaged_manifest_is_refused(desk):
    publish(desk.library, "golden")
    path = desk.library.root / "golden.v1.json"
    path.write_bytes(path.read_bytes().replace(b"n01", b"n02"))
    with pytest.raises(IntegrityError):
        await desk.requests.create(["n01"], "restore", ImageRef("golden"), JobOptions())


@pytest.mark.parametrize("name", ["../etc", "a b", "", "-x", "x.json"])
async def test_a_bad_image_name_is_refused(desk, name):
    with pytest.raises(UsageError, match="cannot be the name of an image"):
        await desk.requests.create(["n01"], "capture", ImageRef(name), JobOptions())


async def test_options_that_make_no_sense_are_refused(desk):
    with pytest.raises(RefusedError, match="cannot be told to make golden:3"):
        await desk.requests.create(["n01"], "capture", ImageRef("golden", 3), JobOptions())
    with pytest.raises(UsageError, match="gzip has no level 12"):
        await desk.requests.create(["n01"], "capture", ImageRef("golden"), JobOptions(compress="gzip", level=12))
    with pytest.raises(UsageError, match="cannot be a job"):
        await desk.requests.create(["n01"], "capture", ImageRef("golden"), JobOptions(level=99))


# ---------------------------------------------------------------- slots


async def test_slots_go_to_those_who_wait_longest_and_come_back_with_any_end(tmp_path):
    async with lab(tmp_path, slots=2) as desk:
        names = [f"n{number}" for number in range(5)]
        await desk.define(*names)
        tasks = await desk.capture(*names)
        await desk.upkeep.tick()
        assert list((await desk.states()).values()).count("armed") == 2
        assert desk.boot.nodes() == ["n0", "n1"]
        await desk.requests.cancel(1)
        await desk.upkeep.tick()
        assert desk.boot.nodes() == ["n1", "n2"]
        agent = await desk.agent(tasks[1])
        await agent.say(FAILED)
        await desk.upkeep.tick()
        assert (await desk.row(tasks[3])).state is State.ARMED
        assert (await desk.row(tasks[4])).state is State.QUEUED


async def test_a_boot_file_that_cannot_be_written_leaves_the_task_in_the_queue(desk):
    await desk.capture("n01")
    desk.boot.path("n01").parent.rmdir()
    await desk.upkeep.tick()
    assert (await desk.row("t-000001")).state is State.QUEUED
    desk.boot.prepare()
    await desk.upkeep.tick()
    assert (await desk.row("t-000001")).state is State.ARMED


async def test_an_armed_node_has_a_file_with_the_only_copy_of_its_token(desk):
    await desk.capture("n01")
    async with desk.store.write() as conn:
        await rows.put(conn, "bootparams", "n01", {"addkcmdline": "console=ttyS0,115200"})
    await desk.upkeep.tick()
    line = desk.boot.read("n01")
    assert line.startswith("litho.controller=http://c:3080 litho.node=n01 litho.task=t-000001 litho.token=")
    assert line.endswith(" console=ttyS0,115200")
    token = desk.token("n01").encode()
    assert all(token not in path.read_bytes() for path in desk.folder.glob("litho.db*"))


# ---------------------------------------------------------------- claiming


async def test_the_token_opens_the_task_and_the_order_says_all(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    order = agent.order
    assert (order.task, order.node, order.site, order.username) == ("t-000001", "n01", "default", "n01")
    assert order.job.image == "golden"
    assert order.library == f"file://{desk.library.root}"
    assert desk.access.accounts == {"n01": order.password}
    assert len(order.password) >= 40
    row = await desk.row("t-000001")
    assert (row.state, row.task.session, row.inventory) == (State.CLAIMED, "session-1", '{"memory":1073741824}')


async def test_the_site_table_says_where_the_library_is(desk):
    async with desk.store.write() as conn:
        await rows.put(conn, "site", "IMAGELIBSERVER", {"value": "10.0.0.9"})
        await rows.put(conn, "site", "IMAGELIBINSTALLDIR", {"value": "/install/image"})
    await desk.capture("n01")
    assert (await desk.agent("t-000001")).order.library == "nfs://10.0.0.9/install/image"


@pytest.mark.parametrize(
    ("site", "noderes", "found"),
    [
        ({}, {}, "file://{own}"),
        ({}, {"n01": "10.0.0.7"}, "nfs://10.0.0.7/{own}"),
        ({}, {"all": "10.0.0.8"}, "nfs://10.0.0.8/{own}"),
        ({}, {"n01": "10.0.0.7", "all": "10.0.0.8"}, "nfs://10.0.0.7/{own}"),
        ({}, {"n02": "10.0.0.7"}, "file://{own}"),
        ({"IMAGELIBINSTALLDIR": "/install/image"}, {"n01": " 10.0.0.7 "}, "nfs://10.0.0.7/install/image"),
        ({"IMAGELIBINSTALLDIR": "/install/image"}, {}, "file://{own}"),
        ({"IMAGELIBSERVER": "10.0.0.9"}, {"n01": "10.0.0.7"}, "nfs://10.0.0.9/{own}"),
        ({"IMAGELIBSERVER": ""}, {"n01": "10.0.0.7"}, "nfs://10.0.0.7/{own}"),
        ({}, {"n01": "<xcatmaster>"}, "nfs://c/{own}"),
        ({}, {"all": "<xcatmaster>", "xcatmaster": "10.0.0.5"}, "nfs://10.0.0.5/{own}"),
    ],
)
async def test_the_librarys_server_is_the_sites_else_the_nodes_own(desk, site, noderes, found):
    async with desk.store.write() as conn:
        for key, value in site.items():
            await rows.put(conn, "site", key, {"value": value})
        for name, server in noderes.items():
            cells = {"xcatmaster": server} if name == "xcatmaster" else {"nfsserver": server}
            await rows.put(conn, "noderes", "n01" if name == "xcatmaster" else name, cells)
    await desk.capture("n01")
    own = str(desk.library.root)
    expected = found.format(own=own if found.startswith("file") else own.lstrip("/"))
    assert (await desk.agent("t-000001")).order.library == expected


async def test_the_same_session_gets_the_same_order_again(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    assert await desk.requests.claim(agent.claim(desk.token("n01"))) == agent.order
    await agent.say(PLANNED)
    assert await desk.requests.claim(agent.claim(desk.token("n01"))) == agent.order
    assert (await desk.row("t-000001")).state is State.PLANNED


async def test_another_session_is_refused(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    with pytest.raises(RefusedError, match="held by another session") as caught:
        await desk.requests.claim(agent.claim(desk.token("n01"), session="session-2"))
    assert caught.value.code == "already-claimed"


async def test_a_wrong_token_another_nodes_token_and_no_task_are_refused(desk):
    await desk.capture("n01", "n02")
    await desk.upkeep.tick()
    first = Node(desk, "n01", "t-000001", "session-1")
    for wrong in ("x" * 43, desk.token("n02")):
        with pytest.raises(RefusedError, match="token does not open") as caught:
            await desk.requests.claim(first.claim(wrong))
        assert caught.value.code == "bad-token"
    with pytest.raises(RefusedError) as caught:
        await desk.requests.claim(first.claim(desk.token("n01"), node="n02"))
    assert caught.value.code == "bad-token"
    for missing in ("t-000099", "x", ""):
        with pytest.raises(NotFoundError):
            await desk.requests.claim(first.claim(desk.token("n01"), task=missing))
    assert (await desk.row("t-000001")).state is State.ARMED


async def test_a_task_that_waits_or_has_ended_is_not_given_out(desk):
    await desk.capture("n01", "n02")
    with pytest.raises(RefusedError) as caught:
        await desk.requests.claim(Node(desk, "n01", "t-000001", "session-1").claim("x" * 43))
    assert caught.value.code == "bad-token"
    await desk.upkeep.tick()
    token = desk.token("n01")
    await desk.requests.cancel(1)
    with pytest.raises(RefusedError, match="has ended") as caught:
        await desk.requests.claim(Node(desk, "n01", "t-000001", "session-1").claim(token))
    assert caught.value.code == "task-ended"
    agent = await desk.agent("t-000002")
    again = agent.claim(desk.token("n02"))
    await agent.run()
    with pytest.raises(RefusedError, match="has ended"):
        await desk.requests.claim(again)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"edition": 0, "software": "0.0.9"},
            f"edition {EDITION}, and the agent on n01 (lithograph 0.0.9) reads up to 0",
        ),
        ({"declined": "it has horns"}, "the agent on n01 cannot read its order (it has horns)"),
    ],
)
async def test_an_agent_that_cannot_read_our_orders_fails_its_task_at_the_claim_with_the_reason(desk, changes, words):
    await desk.capture("n01")
    await desk.upkeep.tick()
    request = Node(desk, "n01", "t-000001", "session-1").claim(desk.token("n01"), **changes)
    for _ in range(2):
        with pytest.raises(RefusedError, match=re.escape(words)) as caught:
            await desk.requests.claim(request)
        assert caught.value.code == "order-version"
    row = await desk.row("t-000001")
    assert (row.state, row.task.code, row.task.reason) == (State.FAILED, "order-version", str(caught.value))
    assert row.task.reason.endswith("litho rootimg build")
    assert await told(desk) == nodestat.failed(row.task.reason)


async def test_an_order_that_was_given_and_cannot_be_read_fails_its_task(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    with pytest.raises(RefusedError, match="cannot read its order"):
        await desk.requests.claim(agent.claim(desk.token("n01"), declined="it has horns"))
    assert (await desk.row("t-000001")).state is State.FAILED


async def test_a_task_that_another_session_holds_cannot_be_declined(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    with pytest.raises(RefusedError, match="held by another session"):
        await desk.requests.claim(agent.claim(desk.token("n01"), session="session-2", declined="it has horns"))
    with pytest.raises(RefusedError, match="token does not open"):
        await desk.requests.claim(agent.claim("x" * 43, declined="it has horns"))
    assert (await desk.row("t-000001")).state is State.CLAIMED


async def test_an_agent_of_a_newer_release_is_given_its_order(desk):
    await desk.capture("n01")
    await desk.upkeep.tick()
    request = Node(desk, "n01", "t-000001", "session-1").claim(desk.token("n01"), edition=EDITION + 1)
    assert (await desk.requests.claim(request)).edition == EDITION


# ---------------------------------------------------------------- hearing


async def test_a_capture_goes_its_way_and_leaves_its_rows(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    desk.clock.advance(5)
    await agent.run()
    row = await desk.row("t-000001")
    assert (row.state, row.version, row.line, row.progress.percent) == (
        State.SUCCEEDED,
        1,
        "partimage-ng: complete",
        100,
    )
    assert row.claimed < row.started == row.ended
    assert msgspec.json.decode(row.plan)["total"] == 1000
    assert msgspec.json.decode(row.result)["stored"] == 400
    assert [found["imagename"] for found in await desk.table("osimage")] == ["golden"]
    assert (await desk.table("osimage"))[0]["osvers"] == "debian12"
    assert await desk.table("linuximage") == [{"imagename": "golden"}]
    assert await desk.boot_state("n01") == "boot"
    assert desk.boot.read("n01") == ""
    assert agent.heard() == [Ack(seq=2), Ack(seq=3), Ack(seq=4), Finish()]


async def test_a_restore_leaves_the_images_rows_alone(desk):
    publish(desk.library, "golden")
    [line] = await desk.requests.create(["n01"], "restore", ImageRef("golden"), JobOptions())
    agent = await desk.agent(line.task)
    await agent.run()
    assert await desk.table("osimage") == []
    assert (await desk.row(line.task)).version == 1


async def test_a_failure_keeps_its_reason_and_turns_the_node_to_boot(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(FAILED)
    row = await desk.row("t-000001")
    assert (row.state, row.task.code, row.task.reason) == (State.FAILED, "disk-missing", "there is no disk sdb")
    assert await desk.table("osimage") == []
    assert await desk.boot_state("n01") == "boot"
    assert desk.boot.nodes() == []
    assert agent.heard()[-1] == Finish()
    assert desk.tasks.sweep_wanted.is_set()


async def test_a_doubled_event_is_acknowledged_and_changes_nothing(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED)
    before = await desk.row("t-000001")
    agent.heard()
    desk.clock.advance(7)
    await desk.hearing.event(agent.report(PLANNED, seq=2))
    assert await desk.row("t-000001") == before
    assert agent.heard() == [Ack(seq=2)]


async def test_an_event_that_skips_a_number_waits_for_the_missing_one(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await desk.hearing.event(agent.report(STARTED, seq=3))
    assert agent.heard() == []
    assert (await desk.row("t-000001")).state is State.CLAIMED
    await desk.hearing.event(agent.report(PLANNED, seq=2))
    await desk.hearing.event(agent.report(STARTED, seq=3))
    assert agent.heard() == [Ack(seq=2), Ack(seq=3)]


async def test_another_session_or_node_is_told_to_stop(desk):
    await desk.capture("n01", "n02")
    agent = await desk.agent("t-000001")
    for stranger in (
        Node(desk, "n01", "t-000001", "session-2"),
        Node(desk, "n02", "t-000001", "session-1"),
        Node(desk, "n02", "t-000002", "session-1"),
        Node(desk, "n01", "t-000099", "session-1"),
        Node(desk, "n01", "", "session-1"),
    ):
        await stranger.say(FAILED)
        [stop] = stranger.heard()
        assert isinstance(stop, Stop)
    assert (await desk.row("t-000001")).state is State.CLAIMED
    assert agent.heard() == []


async def test_a_success_that_speaks_of_another_image_is_not_believed(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    with pytest.raises(WireError, match="captures 'golden'"):
        await agent.say(msgspec.structs.replace(DONE, image="silver"))
    assert (await desk.row("t-000001")).state is State.RUNNING
    assert await desk.table("osimage") == []


async def test_whatever_the_network_does_to_events_the_end_is_the_same(tmp_path):
    """Every message may come late, twice, or in any order; what is not acknowledged is said again."""
    dice = random.Random(7)  # noqa: S311 - a test that can be repeated
    async with lab(tmp_path, slots=50) as desk:
        names = [f"n{number}" for number in range(20)]
        await desk.define(*names)
        for node, task in zip(names, await desk.capture(*names), strict=True):
            agent = await desk.agent(task)
            reports = [agent.report(body) for body in (PLANNED, STARTED, DONE)]
            acknowledged = 0
            for _ in itertools.count():
                said = [report for report in reports if report.seq > acknowledged for _ in range(dice.randint(1, 2))]
                dice.shuffle(said)
                for report in said[: dice.randint(1, len(said))]:
                    await desk.hearing.event(report)
                acknowledged = max([acknowledged, *(body.seq for body in agent.heard() if isinstance(body, Ack))])
                if acknowledged == 4:
                    break
            assert (await desk.row(task)).state is State.SUCCEEDED
            assert await desk.boot_state(node) == "boot"
        assert len(await desk.table("osimage")) == 1


async def test_an_event_whose_transaction_fails_is_not_acknowledged_and_leaves_no_trace(desk, monkeypatch):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    agent.heard()

    async def broken(*_):
        raise LibraryError("the disk is full at the very end")

    with monkeypatch.context() as patch:
        patch.setattr("litho_controller.tables.osimages.captured", broken)
        with pytest.raises(LibraryError):
            await desk.hearing.event(agent.report(DONE, seq=4))
    assert agent.heard() == []
    assert (await desk.row("t-000001")).state is State.RUNNING
    assert await desk.boot_state("n01") == "image image-x86-golden"
    await desk.hearing.event(agent.report(DONE, seq=4))
    assert agent.heard() == [Ack(seq=4), Finish()]
    assert len(await desk.table("osimage")) == 1


# ---------------------------------------------------------------- progress


async def test_progress_is_kept_in_memory_and_written_together(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    assert agent.progress(100)
    assert agent.progress(300)
    assert (await desk.row("t-000001")).progress.done == 0
    desk.clock.advance(1)
    await desk.upkeep.tick()
    row = await desk.row("t-000001")
    assert (row.progress.done, row.line) == (300, "at 300")
    assert row.heard is not None


async def test_old_progress_and_that_of_strangers_is_dropped(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    assert agent.progress(500, n=5)
    assert not agent.progress(400, n=4)
    assert not agent.progress(500, n=5)
    assert not Node(desk, "n01", "t-000001", "session-2").progress(900, n=9)
    assert not Node(desk, "n02", "t-000001", "session-1").progress(900, n=9)
    assert not Node(desk, "n01", "t-000009", "session-1").progress(900, n=9)
    await desk.upkeep.flush()
    assert (await desk.row("t-000001")).progress.done == 500


async def test_a_move_does_not_turn_the_progress_back(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    agent.progress(700)
    await agent.say(FAILED)
    row = await desk.row("t-000001")
    assert (row.progress.done, row.line) == (700, "at 700")
    await desk.upkeep.flush()
    assert await desk.row("t-000001") == row


async def test_a_figure_that_is_written_after_the_end_does_not_undo_it(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    agent.progress(700)
    kept = desk.tasks.live[1]
    await agent.say(DONE)
    desk.tasks.live[1] = kept
    await desk.upkeep.flush()
    assert (await desk.row("t-000001")).line == "partimage-ng: complete"


# ---------------------------------------------------------------- cancelling


async def test_what_waits_is_cancelled_at_once(desk):
    await desk.capture("n01", "n02")
    assert (await desk.requests.cancel(1)).state is State.CANCELLED
    await desk.upkeep.tick()
    assert desk.boot.nodes() == ["n02"]
    assert (await desk.requests.cancel(2)).state is State.CANCELLED
    assert desk.boot.nodes() == []
    assert [await desk.boot_state(node) for node in ("n01", "n02")] == ["boot", "boot"]


@pytest.mark.parametrize("so_far", [(), (PLANNED,), (PLANNED, STARTED)])
async def test_what_an_agent_holds_is_asked_to_stop_until_it_does(desk, so_far):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(*so_far)
    agent.heard()
    row = await desk.requests.cancel(1)
    assert not row.state.ended
    assert row.task.cancel_requested
    assert agent.heard() == [Cancel()]
    for _ in range(2):
        desk.clock.advance(6)
        await agent.beat()
        await desk.upkeep.tick()
        assert agent.heard() == [Cancel()]
    await agent.say(STOPPED)
    assert (await desk.row("t-000001")).state is State.CANCELLED
    agent.heard()
    desk.clock.advance(6)
    await desk.upkeep.tick()
    assert agent.heard() == []


async def test_a_cancel_that_comes_too_late_does_not_undo_a_success(desk):
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    await desk.requests.cancel(1)
    await agent.say(DONE)
    assert (await desk.row("t-000001")).state is State.SUCCEEDED


async def test_cancelling_nothing_or_what_has_ended_is_refused(desk):
    with pytest.raises(NotFoundError, match="there is no task t-000009"):
        await desk.requests.cancel(9)
    await desk.capture("n01")
    await desk.requests.cancel(1)
    with pytest.raises(RefusedError, match="has ended already"):
        await desk.requests.cancel(1)


async def test_setting_nodes_to_boot_ends_what_they_have(desk):
    await desk.capture("n01", "n02")
    agent = await desk.agent("t-000001")
    agent.heard()
    lines = await desk.requests.set_boot(["n01", "n02", "n03", "n99"])
    assert [(line.node, line.text, line.code) for line in lines] == [
        ("n01", "boot", ""),
        ("n02", "boot", ""),
        ("n03", "boot", ""),
        ("n99", "", "node-missing"),
    ]
    assert await desk.states() == {"t-000001": "claimed", "t-000002": "cancelled"}
    assert agent.heard() == [Cancel()]
    assert desk.boot.nodes() == []
    assert [await desk.boot_state(node) for node in ("n01", "n02", "n03")] == ["boot"] * 3


# ---------------------------------------------------------------- nodestat


async def told(desk, node="n01"):
    async with desk.store.read() as conn:
        latest = (await rows_of.latest(conn)).get(node)
    return rules.nodestat_text(await desk.boot_state(node), latest)


async def test_nodestat_follows_a_task_from_queue_to_boot(desk):
    assert await told(desk) == "boot"
    await desk.capture("n01")
    assert await told(desk) == "queued, waiting for a slot"
    agent = await desk.agent("t-000001")
    assert await told(desk) == "partimage-ng: starting, 0% complete"
    await agent.say(PLANNED, STARTED)
    agent.progress(420, line="partimage-ng: partition 1 of 1, 42% complete")
    await desk.upkeep.flush()
    assert await told(desk) == "partimage-ng: partition 1 of 1, 42% complete"
    await agent.say(DONE)
    assert await told(desk) == "boot"


async def test_nodestat_tells_a_failure_until_somebody_sets_the_node_to_boot(desk):
    await desk.capture("n01")
    await (await desk.agent("t-000001")).say(FAILED)
    assert await told(desk) == nodestat.failed("there is no disk sdb")
    await desk.requests.set_boot(["n01"])
    assert await told(desk) == "boot"


@pytest.mark.parametrize("text", [rules.QUEUED_TEXT, rules.ARMED_TEXT])
def test_a_task_that_waits_is_not_taken_for_one_that_runs_or_has_ended(text):
    for word in ("boot", "install", "partimage", "complete", "failed"):
        assert word not in text


async def test_a_node_that_is_set_anew_while_its_agent_still_stops_gets_its_new_task(desk):
    await desk.define("n01")
    (first,) = await desk.capture("n01")
    agent = await desk.agent(first)
    await agent.say(PLANNED, STARTED)
    await desk.requests.set_boot(["n01"])
    assert (await desk.row(first)).task.cancel_requested
    (second,) = await desk.capture("n01")
    assert (await desk.states())[first] == "lost"
    assert (await desk.row(first)).task.reason == rules.SUPERSEDED
    assert await desk.boot_state("n01") == "image image-x86-golden"
    await agent.say(STOPPED)
    assert (await desk.states())[first] == "cancelled", "the session that held it may still say how it ended"
    assert await desk.boot_state("n01") == "image image-x86-golden", "and that does not touch the new task"
    await desk.upkeep.tick()
    assert (await desk.states())[second] == "armed"


async def test_a_restore_that_went_wrong_does_not_say_boot_until_the_node_is_set_anew(desk):
    publish(desk.library, "golden")
    for name, body in (("n01", FAILED), ("n02", STOPPED)):
        await desk.define(name)
        (line,) = await desk.requests.create([name], "restore", ImageRef("golden"), JobOptions())
        agent = await desk.agent(line.task)
        await agent.say(PLANNED, STARTED, body)
        row = await desk.row(line.task)
        assert await desk.boot_state(name) == "boot"
        assert rules.nodeset_text("boot", row) == "failed restore of golden"
        assert rules.nodestat_text("boot", row).startswith("partimage-ng: failed: ")
        await desk.requests.set_boot([name])
        row = await desk.row(line.task)
        assert rules.nodeset_text("boot", row) == rules.nodestat_text("boot", row) == "boot"
