"""The two doors over HTTP: every request of the API, and every kind of refusal."""

import io

import msgspec
import pytest
from aiohttp import web

from litho import messages
from litho.errors import IntegrityError, LibraryError
from litho.library.manifest import Manifest
from litho.messages import Order, Problem
from litho.task import State
from litho_controller import api
from litho_controller.store import tasks as rows_of
from litho_controller.tables import rows
from litho_controller.web import images, inventory, nodes, objects, power, tables, tasklog, tasks
from litho_controller.web.app import admin_app, node_app
from litho_controller.web.desk import Desk
from support.desk import FAILED, PLANNED, STARTED, Node, lab, publish


class Door:
    """An app behind a test client, spoken to in the API's types."""

    def __init__(self, client) -> None:
        self.client = client

    async def ask(self, method, path, shape, body=None, **query):
        payload = msgspec.json.encode(body) if isinstance(body, msgspec.Struct) else body
        answer = await self.client.request(method, path, params=query, data=payload)
        data = await answer.read()
        assert answer.status == 200, data
        assert answer.content_type == "application/json"
        return msgspec.json.decode(data, type=shape)

    async def refused(self, method, path, body=None, **query):
        payload = msgspec.json.encode(body) if isinstance(body, msgspec.Struct) else body
        answer = await self.client.request(method, path, params=query, data=io.BytesIO(payload or b""))
        assert answer.content_type == "application/json"
        return answer.status, msgspec.json.decode(await answer.read(), type=Problem)


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        yield made


@pytest.fixture
async def admin(desk, aiohttp_client):
    parts = Desk(store=desk.store, tasks=desk.tasks, requests=desk.requests)
    return Door(await aiohttp_client(admin_app(parts)))


@pytest.fixture
async def door(desk, aiohttp_client):
    parts = Desk(store=desk.store, tasks=desk.tasks, requests=desk.requests)
    return Door(await aiohttp_client(node_app(parts)))


async def define(admin, text="n01-n03", **more):
    return await admin.ask("POST", "/v1/nodes", api.NodeList, api.NodeAdd(range=text, **more))


# ---------------------------------------------------------------- nodes


async def test_nodes_are_defined_shown_and_removed(admin):
    made = await define(admin, "n[01-03],x1", groups=("rack1",), arch="x86_64")
    assert [node.node for node in made.nodes] == ["n01", "n02", "n03", "x1"]
    await define(admin, "n01", mac="52:54:00:00:00:01")
    assert await admin.ask("GET", "/v1/nodes/n01", api.NodeView) == api.NodeView(
        node="n01", groups=("rack1", "all"), mac="52:54:00:00:00:01", arch="x86_64", state="boot", status="boot"
    )
    shown = await admin.ask("GET", "/v1/nodes", api.NodeList, range="rack1,-x1")
    assert [node.node for node in shown.nodes] == ["n01", "n02", "n03"]
    gone = await admin.ask("DELETE", "/v1/nodes", api.NodeList, range="n01-n02")
    assert [node.node for node in gone.nodes] == ["n01", "n02"]
    assert [node.node for node in (await admin.ask("GET", "/v1/nodes", api.NodeList)).nodes] == ["n03", "x1"]


async def test_a_range_selects_by_a_tables_column_and_leaves_out_what_the_site_excludes(admin, desk):
    await define(admin)
    async with desk.store.write() as conn:
        await rows.put(conn, "nodehm", "n02", {"mgt": "ipmi"})
        await rows.put(conn, "nodetype", "n03", {"arch": "ppc64"})
        await rows.put(conn, "site", "excludenodes", {"value": "n01"})

    async def nodes(text):
        return [node.node for node in (await admin.ask("GET", "/v1/nodes", api.NodeList, range=text)).nodes]

    assert await nodes("mgt==ipmi") == ["n02"]
    assert await nodes("nodetype.arch=~ppc.*") == ["n03"]
    assert await nodes("all") == ["n02", "n03"]


async def test_all_is_nobody_while_there_is_no_node(admin):
    assert await admin.ask("GET", "/v1/nodestat", api.NodestatAnswer, range="all") == api.NodestatAnswer()


async def test_unknown_names_fail_the_whole_range_in_xcats_words(admin):
    await define(admin)
    status, problem = await admin.refused("GET", "/v1/nodes", range="n01,nope")
    assert status == 404
    assert "Invalid nodes and/or groups in noderange: nope" in problem.message
    status, problem = await admin.refused("GET", "/v1/nodes/nope")
    assert (status, problem.code) == (404, "node-missing")


async def test_a_file_of_this_machine_is_never_read_for_a_range(admin):
    await define(admin)
    status, problem = await admin.refused("GET", "/v1/nodestat", range="^/etc/hostname")
    assert (status, problem.code) == (400, "bad-noderange")


async def test_a_node_with_a_task_is_not_removed(admin, desk):
    await define(admin)
    await desk.capture("n02")
    status, problem = await admin.refused("DELETE", "/v1/nodes", range="n01-n03")
    assert (status, problem.code) == (409, "node-busy")
    assert len((await admin.ask("GET", "/v1/nodes", api.NodeList)).nodes) == 3
    assert (await admin.refused("DELETE", "/v1/nodes"))[0] == 400


# ---------------------------------------------------------------- nodeset, nodestat


async def test_nodeset_captures_restores_boots_and_tells(admin, desk):
    await define(admin)

    async def nodeset(text, state, image=""):
        wanted = api.NodesetRequest(range=text, state=state, image=image)
        return (await admin.ask("POST", "/v1/nodeset", api.NodesetAnswer, wanted)).nodes

    assert await nodeset("n01", "image", "golden") == (
        api.NodesetLine(node="n01", text="image image-x86-golden", task="t-000001"),
    )
    publish(desk.library, "golden")
    lines = await nodeset("n01,n02", "osimage", "golden:1")
    assert [(line.code, line.text) for line in lines] == [("node-busy", ""), ("", "install image-x86-golden")]
    assert [line.text for line in await nodeset("all", "stat")] == [
        "image image-x86-golden",
        "install image-x86-golden",
        "boot",
    ]
    assert [line.text for line in await nodeset("all", "boot")] == ["boot"] * 3
    assert set((await desk.states()).values()) == {"cancelled"}


async def test_nodestat_tells_what_each_node_does(admin, desk):
    await define(admin)
    await desk.capture("n01", "n02")
    agent = await desk.agent("t-000001")
    await agent.say(FAILED)
    found = await admin.ask("GET", "/v1/nodestat", api.NodestatAnswer, range="all")
    assert [line.text for line in found.nodes] == [
        "partimage-ng: failed: there is no disk sdb",
        "armed, waiting for the node",
        "boot",
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"range": "n01"}', 400),
        (b'{"range": "n01", "state": "netboot"}', 400),
        (b'{"range": "n01", "state": "image", "image": "../x"}', 400),
        (b'{"range": "n01", "state": "image", "image": "golden", "job": {"engine": "dd"}}', 400),
        (b'{"range": "n01", "state": "image", "image": "golden", "job": {"level": 99}}', 400),
        (b'{"range": "n01", "state": "image", "image": "golden", "mood": "good"}', 400),
        (b'{"range": "", "state": "image", "image": "golden"}', 400),
        (b'{"range": "n01", "state": "osimage", "image": "golden"}', 404),
        (b'{"range": "n99", "state": "boot"}', 404),
        (b"\xff" * 100, 400),
        (b"x" * (5 * 1024 * 1024), 413),
    ],
)
async def test_a_nodeset_that_makes_no_sense_is_refused(admin, desk, body, status):
    await define(admin)
    assert (await admin.refused("POST", "/v1/nodeset", body))[0] == status
    assert await desk.states() == {}


# ---------------------------------------------------------------- tasks


async def test_tasks_are_listed_newest_first_and_filtered(admin, desk):
    await define(admin)
    await desk.capture("n01", "n02", "n03")
    await desk.requests.cancel(2)

    async def tasks(**query):
        return [task.id for task in (await admin.ask("GET", "/v1/tasks", api.TaskList, **query)).tasks]

    assert await tasks() == ["t-000003", "t-000002", "t-000001"]
    assert await tasks(limit="1") == ["t-000003"]
    assert await tasks(node="n01-n02") == ["t-000002", "t-000001"]
    assert await tasks(state="cancelled") == ["t-000002"]
    assert await tasks(state="cancelled,queued", active="1") == ["t-000003", "t-000001"]
    for bad in ({"limit": "0"}, {"limit": "x"}, {"state": "asleep"}, {"active": "yes"}):
        assert (await admin.refused("GET", "/v1/tasks", **bad))[0] == 400


async def test_a_task_is_shown_with_plan_figures_and_result(admin, desk):
    await define(admin)
    await desk.capture("n01")
    agent = await desk.agent("t-000001")
    await agent.say(PLANNED, STARTED)
    agent.progress(420)
    await desk.upkeep.flush()
    shown = await admin.ask("GET", "/v1/tasks/t-000001", api.TaskView)
    assert (shown.state, shown.percent, shown.done, shown.total) == ("running", 42, 420, 1000)
    assert shown.plan["disk"]["serial"] == "S1"
    assert shown.created <= shown.armed <= shown.claimed <= shown.started
    await agent.say(FAILED)
    shown = await admin.ask("GET", "/v1/tasks/t-000001", api.TaskView)
    assert {"type": "failed", "code": "disk-missing", "reason": "there is no disk sdb"}.items() <= shown.result.items()
    assert (shown.code, shown.reason) == ("disk-missing", "there is no disk sdb")


async def test_a_task_is_cancelled(admin, desk):
    await define(admin)
    await desk.capture("n01")
    assert (await admin.ask("POST", "/v1/tasks/t-000001/cancel", api.TaskView)).state == "cancelled"
    assert (await admin.refused("POST", "/v1/tasks/t-000001/cancel"))[0] == 409
    for missing in ("t-000009", "nonsense", "t-99999999999999999"):
        assert (await admin.refused("POST", f"/v1/tasks/{missing}/cancel"))[0] == 404
        assert (await admin.refused("GET", f"/v1/tasks/{missing}"))[0] == 404


# ---------------------------------------------------------------- images


async def test_images_are_listed_shown_and_deleted(admin, desk):
    publish(desk.library, "golden")
    publish(desk.library, "golden")
    publish(desk.library, "silver")
    listed = (await admin.ask("GET", "/v1/images", api.ImageList)).images
    assert [(image.image, image.version, image.current) for image in listed] == [
        ("golden", 1, False),
        ("golden", 2, True),
        ("silver", 1, True),
    ]
    assert (listed[0].stored, listed[0].node, listed[0].os) == (1000, "n01", "debian12 x86_64")
    assert (await admin.ask("GET", "/v1/images/golden:1", Manifest)).version == 1
    assert (await admin.ask("GET", "/v1/images/golden", Manifest)).version == 2
    gone = await admin.ask("DELETE", "/v1/images/golden:2", api.ImageList)
    assert [(image.image, image.version, image.current) for image in gone.images] == [("golden", 2, True)]
    assert (await admin.ask("GET", "/v1/images/golden", Manifest)).version == 1
    assert (await admin.refused("GET", "/v1/images/golden:2"))[0] == 404
    assert (await admin.refused("DELETE", "/v1/images/bronze"))[0] == 404
    assert (await admin.refused("DELETE", "/v1/images/..%2Fx"))[0] == 400


async def test_the_last_version_takes_the_rows_with_it(admin, desk):
    await define(admin)
    await desk.capture("n01")
    await (await desk.agent("t-000001")).run()
    publish(desk.library, "golden")
    publish(desk.library, "golden")
    await admin.ask("DELETE", "/v1/images/golden:1", api.ImageList)
    assert len(await desk.table("osimage")) == 1
    await admin.ask("DELETE", "/v1/images/golden", api.ImageList)
    assert await desk.table("osimage") == await desk.table("linuximage") == []


async def test_an_image_in_use_is_not_deleted(admin, desk):
    await define(admin)
    publish(desk.library, "golden")
    publish(desk.library, "golden")
    wanted = api.NodesetRequest(range="n01", state="osimage", image="golden:1")
    await admin.ask("POST", "/v1/nodeset", api.NodesetAnswer, wanted)
    for ref in ("golden:1", "golden"):
        status, problem = await admin.refused("DELETE", f"/v1/images/{ref}")
        assert (status, problem.code) == (409, "image-in-use")
        assert "t-000001 restores it to n01" in problem.message
    await admin.ask("DELETE", "/v1/images/golden:2", api.ImageList)
    await desk.requests.cancel(1)
    await admin.ask("DELETE", "/v1/images/golden:1", api.ImageList)


async def test_a_damaged_manifest_is_told_in_the_list_and_refused_alone(admin, desk):
    publish(desk.library, "golden")
    path = desk.library.root / "golden.v1.json"
    path.write_bytes(path.read_bytes().replace(b"n01", b"n02"))
    [image] = (await admin.ask("GET", "/v1/images", api.ImageList)).images
    assert "golden.v1.json" in image.error
    status, problem = await admin.refused("GET", "/v1/images/golden:1")
    assert isinstance(api.error_of(status, problem), IntegrityError)


async def verify(admin, ref, **query):
    answer = await admin.client.post(f"/v1/images/{ref}/verify", params=query)
    assert answer.status == 200
    return [msgspec.json.decode(line, type=api.VerifyLine) for line in (await answer.read()).splitlines()]


@pytest.mark.parametrize("deep", ["0", "1"])
async def test_a_verification_tells_how_far_it_is_and_what_is_wrong(admin, desk, deep):
    publish(desk.library, "golden")
    *counts, last = await verify(admin, "golden", deep=deep)
    assert last.problems == []
    assert all(line.total == 1000 and line.problems is None for line in counts)
    (desk.library.root / "golden.v1-sda.head").write_bytes(b"y" * 1000)
    *_, last = await verify(admin, "golden", deep=deep)
    assert [problem.file for problem in last.problems] == ["golden.v1-sda.head"]
    assert (await admin.refused("POST", "/v1/images/bronze/verify"))[0] == 404


async def test_a_library_that_goes_away_ends_a_verification_with_its_error(admin, desk, monkeypatch):
    publish(desk.library, "golden")

    def gone(library, *_):
        raise LibraryError("the library is gone")

    monkeypatch.setattr("litho.library.verify.check_files", gone)
    *_, last = await verify(admin, "golden")
    assert (last.error.message, last.status) == ("the library is gone", 507)


# ---------------------------------------------------------------- tables


async def test_tables_are_listed_and_shown_whole(admin, desk):
    await define(admin, "n01", groups=("rack1",))
    names = (await admin.ask("GET", "/v1/tables", api.TableList)).tables
    assert "osimage" in names
    assert "task" not in names
    shown = await admin.ask("GET", "/v1/tables/nodelist", api.TableView)
    assert shown.columns[:2] == ("node", "groups")
    assert shown.rows == (("n01", "rack1,all", *[None] * 11),)
    assert (await admin.refused("GET", "/v1/tables/task"))[0] == 404


# ---------------------------------------------------------------- the door for nodes


async def test_a_claim_is_answered_with_the_order(door, desk):
    await desk.define("n01")
    await desk.capture("n01")
    await desk.upkeep.tick()
    node = Node(desk, "n01", "t-000001", "session-1")
    body = messages.encode(node.claim(desk.token("n01")))
    order = await door.ask("POST", "/v1/claim", Order, body)
    assert order.job.image == "golden"
    assert await door.ask("POST", "/v1/claim", Order, body) == order


async def test_each_refusal_of_a_claim_has_its_status(door, desk):
    await desk.define("n01")
    await desk.capture("n01")
    await desk.upkeep.tick()
    node = Node(desk, "n01", "t-000001", "session-1")

    async def claim(**changes):
        request = node.claim(desk.token("n01"))
        return await door.refused("POST", "/v1/claim", msgspec.structs.replace(request, **changes))

    assert (await claim(token="x" * 43))[0] == 403
    assert (await claim(node="n02"))[0] == 403
    assert (await claim(task="t-000077"))[0] == 404
    for bad in (b"", b"{", b"[]", b'{"v":1}', b"\xff"):
        assert (await door.refused("POST", "/v1/claim", bad))[0] == 400
    assert (await door.refused("POST", "/v1/claim", b"x" * 300_000))[0] == 413
    assert (await claim(session="short"))[0] == 400
    await door.ask("POST", "/v1/claim", Order, node.claim(desk.token("n01")))
    status, problem = await claim(session="session-2")
    assert (status, problem.code) == (409, "already-claimed")


async def test_a_claim_in_another_version_of_the_wire_fails_its_task_with_the_reason(door, desk):
    await desk.define("n01")
    await desk.capture("n01")
    await desk.upkeep.tick()
    loose = msgspec.to_builtins(Node(desk, "n01", "t-000001", "session-1").claim(desk.token("n01"))) | {"v": 2}
    stranger = msgspec.json.encode(loose | {"token": "x" * 43})
    assert (await door.refused("POST", "/v1/claim", stranger))[0] == 403
    assert (await desk.row("t-000001")).state is State.ARMED
    status, problem = await door.refused("POST", "/v1/claim", msgspec.json.encode(loose))
    assert (status, problem.code) == (409, "order-version")
    row = await desk.row("t-000001")
    assert (row.state, row.task.code) == (State.FAILED, "order-version")
    assert "speaks version 2 of the wire, and this controller version 1" in row.task.reason


async def test_nothing_else_is_behind_the_door_for_nodes(door):
    for method, path in (
        ("GET", "/v1/nodes"),
        ("POST", "/v1/nodeset"),
        ("GET", "/v1/tasks"),
        ("DELETE", "/v1/images/x"),
        ("GET", "/v1/tables/ipmi"),
        ("GET", "/"),
    ):
        assert (await door.refused(method, path))[0] == 404
    assert (await door.refused("GET", "/v1/claim"))[0] == 405


async def test_both_doors_say_that_they_are_alive(door, admin, desk):
    for one in (door, admin):
        assert (await one.ask("GET", "/v1/health", dict))["broker"] is True
    desk.bus.connected = False
    assert (await door.ask("GET", "/v1/health", dict))["broker"] is False


async def test_a_mistake_of_ours_is_answered_without_its_trace(admin, monkeypatch, caplog):
    async def broken(*_, **__):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(rows_of, "find", broken)
    status, problem = await admin.refused("GET", "/v1/tasks")
    assert (status, problem.code) == (500, "internal")
    assert "secret" not in problem.message
    assert "secret detail" in caplog.text


def test_every_route_of_the_api_is_there(tmp_path):
    """The list in the API's docstring is what is served."""
    app = web.Application()
    for module in (nodes, tasks, tasklog, images, tables, objects, inventory, power):
        app.add_routes(module.routes)
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.method != "HEAD"}
    lines = [line for line in (api.__doc__ or "").splitlines() if line.startswith("| ") and "/v1/" in line]
    said = set()
    for line in lines:
        method, path = line.split("|")[1].split()[:2]
        said.add((method, path.partition("?")[0]))
    assert said == served
