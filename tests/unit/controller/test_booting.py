"""What a boot loader is answered, in each state of its node's task; and the files that it fetches."""

import os

import pytest
from yarl import URL

from litho.errors import NotFoundError, UsageError
from litho.task import State
from litho_controller.boot import cmdline
from litho_controller.store import discovered
from litho_controller.tables import nodes, rows
from litho_controller.tasks.booting import SILENCES, Booting, Policy
from litho_controller.tasks.discovering import Discovering, deed
from litho_controller.web.app import node_app
from litho_controller.web.boot import BootDoor, find
from litho_controller.web.desk import Desk
from support.desk import FAILED, PLANNED, STARTED, lab, publish

MAC = "52:54:00:00:00:01"
FILES = {
    "vmlinuz": b"kernel",
    "initrd.img": b"initrd",
    "rootimg.squashfs": os.urandom(300_000),
    "agent.tar.gz": b"\x1f\x8b agent",
}


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        async with made.store.write() as conn:
            await nodes.define(conn, ["n01"], mac=MAC)
        yield made


@pytest.fixture
def booting(desk):
    return Booting(desk.tasks, Policy(kcmdline="quiet"))


@pytest.fixture
async def door(desk, booting, tmp_path, aiohttp_client):
    files = tmp_path / "rootimg"
    files.mkdir()
    for name, content in FILES.items():
        (files / name).write_bytes(content)
    parts = Desk(store=desk.store, tasks=desk.tasks, requests=desk.requests)
    return await aiohttp_client(
        node_app(parts, BootDoor(booting, Discovering(desk.tasks, kcmdline="quiet"), files)), auto_decompress=False
    )


async def asked(booting, mac=MAC):
    """What the machine would do: the words after `echo`, and what the script does then."""
    script = await booting.script(mac, peer="10.0.0.9")
    if "\nkernel " in script:
        return "root image", script
    return ("again" if "\nsleep 5\n:ask\n" in script else "local"), script


async def silent(desk):
    desk.clock.advance(SILENCES * 10)


# ---------------------------------------------------------------- a node's task


async def test_a_node_without_a_task_boots_its_own_disk(booting):
    what, script = await asked(booting)
    assert what == "local"
    assert script == "#!ipxe\n# boot\necho lithograph: n01 boots its own disk\nexit 1\n"


async def test_an_armed_node_gets_the_root_image_and_its_token_whatever_the_addresss_form(desk, booting):
    await desk.capture("n01")
    assert (await asked(booting))[0] == "again"
    await desk.upkeep.tick()
    for form in (MAC, MAC.upper(), "52-54-00-00-00-01", "01-52-54-00-00-00-01", "525400000001"):
        what, script = await asked(booting, form)
        assert what == "root image"
        assert script.startswith(
            "#!ipxe\n# image image-x86-golden\necho lithograph: n01 boots for t-000001: capture of golden\n"
        )
        assert (
            "kernel http://c:3080/boot/files/vmlinuz initrd=initrd.img litho.rootimg=http://c:3080/boot/files/rootimg.squashfs "
            in script
        )
        assert f" BOOTIF=01-52-54-00-00-00-01 quiet {desk.boot.read('n01')} || goto failed\n" in script
        assert desk.token("n01") in script


async def test_the_token_is_in_no_script_once_it_is_used_nor_in_anybody_elses(desk, booting):
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n02"], mac="52:54:00:00:00:02")
    (task,) = await desk.capture("n01")
    await desk.upkeep.tick()
    token = desk.token("n01")
    assert token not in await booting.script("52:54:00:00:00:02", peer="x")
    assert token not in await booting.script("52:54:00:00:00:99", peer="x")
    node = await desk.agent(task)
    assert token not in await booting.script(MAC, peer="x")
    await node.run()
    assert await asked(booting) == ("local", "#!ipxe\n# boot\necho lithograph: n01 boots its own disk\nexit 1\n")


async def test_each_arming_has_a_token_of_its_own(desk, booting):
    seen = set()
    for _ in range(3):
        (task,) = await desk.capture("n01")
        await desk.upkeep.tick()
        seen.add(desk.token("n01"))
        assert desk.token("n01") in (await asked(booting))[1]
        await desk.requests.cancel(int(task[2:]))
        assert (await asked(booting))[0] == "local"
    assert len(seen) == 3


async def test_what_the_tables_say_stands_in_the_script(desk, booting):
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n01"], groups=("rack1",))
        await rows.put(conn, "bootparams", "rack1", {"addkcmdline": "nomodeset litho.debug"})
        await rows.put(conn, "noderes", "rack1", {"installnic": "eth1", "xcatmaster": "mn1"})
        await rows.put(conn, "nodehm", "n01", {"serialport": "1", "serialspeed": "9600"})
    await desk.capture("n01")
    await desk.upkeep.tick()
    script = (await asked(booting))[1]
    assert (
        "litho.rootimg=http://mn1:3080/boot/files/rootimg.squashfs netdev=eth1 console=tty0 console=ttyS1,9600 quiet "
        in script
    )
    assert "litho.controller=http://mn1:3080 " in script
    assert script.count(" nomodeset litho.debug ||") == 1
    assert "chain --replace http://mn1:3080/boot/52-54-00-00-00-01.ipxe" in script


# ---------------------------------------------------------------- a node that boots in the middle


async def test_a_question_alone_does_not_end_a_task_whose_agent_is_heard(desk, booting):
    (task,) = await desk.capture("n01")
    node = await desk.agent(task)
    await node.say(PLANNED, STARTED)
    for _ in range(20):
        desk.clock.advance(9)
        await node.beat()
        assert (await asked(booting))[0] == "again"
    assert await desk.states() == {task: "running"}


async def test_a_question_while_nobody_can_be_heard_ends_nothing(desk, booting):
    (task,) = await desk.capture("n01")
    await desk.agent(task)
    await silent(desk)
    desk.bus.connected = False
    assert (await asked(booting))[0] == "again"
    assert await desk.states() == {task: "claimed"}


@pytest.mark.parametrize("said", [(), (PLANNED,), (PLANNED, STARTED)])
async def test_a_node_that_boots_again_in_the_middle_tries_once_more_and_then_boots_its_disk(desk, booting, said):
    publish(desk.library, "golden")
    (task,) = await desk.capture("n01")
    node = await desk.agent(task, "session-1")
    await node.say(*said)
    await silent(desk)
    assert (await asked(booting))[0] == "again"
    assert await desk.states() == {"t-000002": "queued", task: "lost"}
    assert "booted again" in (await desk.row(task)).task.reason
    assert (await desk.row("t-000002")).retry_of == 1
    assert await desk.boot_state("n01") == "image image-x86-golden"
    await desk.upkeep.tick()
    assert (await asked(booting))[0] == "root image"
    second = await desk.agent("t-000002", "session-2")
    await second.say(*said)
    await silent(desk)
    what, script = await asked(booting)
    assert what == "local"
    assert "n01 lost its task and boots its own disk" in script
    assert await desk.states() == {"t-000002": "lost", task: "lost"}
    assert await desk.boot_state("n01") == "boot"
    for _ in range(3):
        await desk.upkeep.tick()
        assert (await asked(booting))[0] == "local"


async def test_a_node_whose_task_failed_does_not_boot_into_the_same_failure(desk, booting):
    (task,) = await desk.capture("n01")
    node = await desk.agent(task)
    await node.say(PLANNED, FAILED)
    for _ in range(3):
        await silent(desk)
        await desk.upkeep.tick()
        assert (await asked(booting))[0] == "local"
    assert await desk.states() == {task: "failed"}


async def test_a_task_that_was_to_stop_is_not_tried_again(desk, booting):
    (task,) = await desk.capture("n01")
    await desk.agent(task)
    await desk.requests.cancel(1)
    await silent(desk)
    assert (await asked(booting))[0] == "local"
    assert await desk.states() == {task: "lost"}


async def test_the_old_session_is_told_to_stop_when_it_comes_back_after_all(desk, booting):
    (task,) = await desk.capture("n01")
    node = await desk.agent(task, "session-1")
    await silent(desk)
    await asked(booting)
    await desk.agent("t-000002", "session-2")
    node.heard()
    await node.beat()
    assert [type(body).__name__ for body in node.heard()] == ["Stop"]


# ---------------------------------------------------------------- who nobody knows


@pytest.mark.parametrize(
    ("unknown", "what"), [("local", "exit 1\n"), ("discover", "litho.discover"), ("menu", "choose --default local")]
)
async def test_a_machine_that_no_node_is(desk, unknown, what):
    booting = Booting(desk.tasks, Policy(unknown=unknown))
    script = await booting.script("52:54:00:00:00:99", peer="x")
    assert what in script
    assert ("kernel " in script) is (unknown != "local")
    assert "litho.token" not in script


async def test_two_nodes_with_one_address_both_keep_their_disks(desk, booting):
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n02"])
        await rows.put(conn, "mac", "n02", {"mac": "aa:bb:cc:dd:ee:ff!x|52-54-00-00-00-01"})
    what, script = await asked(booting)
    assert what == "local"
    assert "belongs to n01 and n02" in script
    assert (await asked(booting, "aa:bb:cc:dd:ee:ff"))[1].startswith("#!ipxe\n# boot\necho lithograph: n02 ")


@pytest.mark.parametrize("bad", ["", "n01", "../n01", "52:54:00", "%"])
async def test_what_is_no_address_is_refused(booting, bad):
    with pytest.raises(UsageError, match="is not a MAC address"):
        await booting.script(bad, peer="x")


def test_settings_that_cannot_be_written_are_refused_at_the_start(desk):
    with pytest.raises(UsageError, match=r"of boot\.kcmdline"):
        Booting(desk.tasks, Policy(kcmdline="a || b"))


# ---------------------------------------------------------------- over HTTP


async def test_scripts_over_http(desk, door):
    first = await door.get("/boot/ipxe")
    assert "/boot/${netX/mac:hexhyp}.ipxe" in await first.text()
    by_query = await door.get("/boot/ipxe", params={"mac": MAC})
    by_path = await door.get("/boot/52-54-00-00-00-01.ipxe")
    assert await by_query.text() == await by_path.text() == await Booting(desk.tasks, Policy()).script(MAC, peer="x")
    assert by_path.headers["Cache-Control"] == "no-store"
    assert by_path.content_type == "text/plain"
    assert (await door.get("/boot/n01.ipxe")).status == 400
    assert (await door.get("/boot/ipxe", params={"mac": "x"})).status == 400


@pytest.mark.parametrize("name", FILES)
async def test_files_come_whole_as_they_are(door, name):
    for headers in ({}, {"Accept-Encoding": "gzip, br"}):
        answer = await door.get(f"/boot/files/{name}", headers=headers)
        assert (answer.status, await answer.read()) == (200, FILES[name])
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["ETag"]
    head = await door.head(f"/boot/files/{name}")
    assert (head.status, int(head.headers["Content-Length"])) == (200, len(FILES[name]))


async def test_files_come_in_ranges_and_only_when_they_have_changed(door):
    path, whole = "/boot/files/rootimg.squashfs", FILES["rootimg.squashfs"]
    part = await door.get(path, headers={"Range": "bytes=1000-1999"})
    assert (part.status, await part.read()) == (206, whole[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(whole)}"
    assert (await (await door.get(path, headers={"Range": "bytes=-10"})).read()) == whole[-10:]
    assert (await door.get(path, headers={"Range": f"bytes={len(whole)}-"})).status == 416
    same = await door.get(path, headers={"If-None-Match": part.headers["ETag"]})
    assert (same.status, await same.read()) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "../secret",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        ".hidden",
        "a%00b",
        "%2fetc%2fpasswd",
        "link",
        "folder",
    ],
)
async def test_no_name_leads_out_of_the_folder(door, tmp_path, name):
    (tmp_path / "secret").write_text("what nobody may read")
    (tmp_path / "rootimg/.hidden").write_text("what nobody may read")
    (tmp_path / "rootimg/folder").mkdir()
    (tmp_path / "rootimg/link").symlink_to(tmp_path / "secret")
    answer = await door.get(URL(f"/boot/files/{name}", encoded=True))
    assert answer.status in (400, 404)
    assert b"nobody" not in await answer.read()


async def test_a_file_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(NotFoundError, match="there is no boot file vmlinuz") as caught:
        find(tmp_path / "nothing", "vmlinuz")
    assert "rootimg build" in caught.value.hint


async def test_the_words_of_the_script_are_those_that_the_agent_is_given(desk, booting):
    await desk.capture("n01")
    await desk.upkeep.tick()
    script = (await asked(booting))[1]
    kernel = next(line for line in script.splitlines() if line.startswith("kernel "))
    assert {**cmdline.parse(kernel.removesuffix(" || goto failed")), "rootimg": ""} == {
        **cmdline.parse(desk.boot.read("n01")),
        "rootimg": "",
    }


# ---------------------------------------------------------------- machines that show themselves


WAITS = {"v": 1, "node": "", "cmdline": "", "reboot": False}


async def shows_itself(door, *addresses, inventory=None):
    body = {"v": 1, "macs": addresses, "inventory": inventory or {}}
    answer = await door.post("/v1/discover", json=body)
    return answer.status, await answer.json()


async def test_a_machine_that_shows_itself_is_listed_until_it_is_a_node(desk, door):
    assert await shows_itself(door, "52-54-00-00-00-99", "52:54:00:00:00:98", inventory={"cpus": 8}) == (200, WAITS)
    desk.clock.advance(5)
    await shows_itself(door, "52:54:00:00:00:99", "52:54:00:00:00:98", inventory={"cpus": 16})
    async with desk.store.read() as conn:
        (found,) = await discovered.find(conn)
    assert (found["mac"], found["macs"]) == ("52:54:00:00:00:99", ("52:54:00:00:00:99", "52:54:00:00:00:98"))
    assert (found["inventory"], found["last"] - found["first"]) == ({"cpus": 16}, 5)
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n09"], mac="52:54:00:00:00:99")
    assert (await shows_itself(door, "52:54:00:00:00:99"))[1]["node"] == "n09"
    async with desk.store.read() as conn:
        assert await discovered.find(conn) == []


async def test_strangers_cannot_fill_the_database(desk, door, monkeypatch):
    monkeypatch.setattr(discovered, "MOST", 3)
    for at in range(6):
        desk.clock.advance(1)
        await shows_itself(door, f"52:54:00:00:01:{at:02x}")
    async with desk.store.read() as conn:
        assert [one["mac"][-2:] for one in await discovered.find(conn)] == ["05", "04", "03"]


@pytest.mark.parametrize("addresses", [[], ["x"], ["x" * 99], ["52:54:00:00:01:00"] * 65])
async def test_what_is_no_machine_is_refused(door, addresses):
    assert (await shows_itself(door, *addresses))[0] in (400, 415)


STRANGER = "52:54:00:00:00:99"


async def test_a_machine_that_shows_itself_is_given_the_task_of_the_node_that_it_becomes(desk, door):
    assert (await shows_itself(door, STRANGER))[1] == WAITS
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n09"], mac=STRANGER)
        await rows.put(conn, "bootparams", "n09", {"addkcmdline": "litho.disk=sdb"})
    # Nobody has said yet what it shall do.
    assert (await shows_itself(door, STRANGER))[1] == WAITS | {"node": "n09"}
    (task,) = await desk.capture("n09")
    assert (await shows_itself(door, STRANGER))[1] == WAITS | {"node": "n09"}
    await desk.upkeep.tick()
    told = (await shows_itself(door, STRANGER))[1]
    assert told == WAITS | {"node": "n09", "cmdline": f"quiet {desk.boot.read('n09')}"}
    assert desk.token("n09") in told["cmdline"]
    assert "litho.disk=sdb" in told["cmdline"]
    node = await desk.agent(task)
    assert (await shows_itself(door, STRANGER))[1] == WAITS | {"node": "n09"}
    await node.run()
    assert (await shows_itself(door, STRANGER))[1] == WAITS | {"node": "n09", "reboot": True}


async def test_a_machine_is_told_to_reboot_by_nodeset_boot(desk, door):
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n09"], mac=STRANGER)
    await desk.requests.set_boot(["n09"], "offline")
    assert (await shows_itself(door, STRANGER))[1] == WAITS | {"node": "n09"}
    await desk.requests.set_boot(["n09"])
    assert (await shows_itself(door, STRANGER))[1] == WAITS | {"node": "n09", "reboot": True}


async def test_only_the_card_that_booted_says_who_a_machine_is(desk, door):
    # n01 has MAC: a machine that boots by another card would be unknown again after each reboot.
    assert (await shows_itself(door, STRANGER, MAC))[1] == WAITS
    async with desk.store.read() as conn:
        assert [one["mac"] for one in await discovered.find(conn)] == [STRANGER]


async def test_a_machine_whose_address_two_nodes_claim_waits_and_gets_no_token(desk, door):
    await desk.capture("n01")
    await desk.upkeep.tick()
    async with desk.store.write() as conn:
        await nodes.define(conn, ["n02"])
        await rows.put(conn, "mac", "n02", {"mac": MAC})
    assert (await shows_itself(door, MAC))[1] == WAITS


@pytest.mark.parametrize(
    ("task", "currstate", "switched", "what"),
    [
        (None, None, False, "wait"),
        (None, "", False, "wait"),
        (None, " ", False, "wait"),
        (None, "boot", False, "reboot"),
        (None, "boot", True, "reboot"),
        (None, "netboot debian12-x86_64-compute", False, "reboot"),
        (None, "offline", False, "wait"),
        (None, "install image-x86-golden", False, "wait"),
        (None, "image image-x86-golden", False, "wait"),
        (State.QUEUED, "boot", False, "wait"),
        (State.ARMED, "install image-x86-golden", False, "claim"),
        (State.ARMED, "install image-x86-golden", True, "reboot"),
        (State.CLAIMED, "install image-x86-golden", False, "wait"),
        (State.RUNNING, "install image-x86-golden", True, "wait"),
    ],
)
def test_what_a_machine_that_shows_itself_does(task, currstate, switched, what):
    assert deed(task, currstate, switched=switched) == what


async def test_what_a_machine_says_again_and_again_is_written_once_in_a_while(desk, door):
    async def last():
        async with desk.store.read() as conn:
            return (await discovered.find(conn))[0]["last"]

    await shows_itself(door, STRANGER)
    first = await last()
    desk.clock.advance(10)
    await shows_itself(door, STRANGER)
    assert await last() == first
    desk.clock.advance(discovered.FRESH_S)
    await shows_itself(door, STRANGER)
    assert await last() == first + 10 + discovered.FRESH_S
