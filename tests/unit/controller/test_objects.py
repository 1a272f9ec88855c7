"""Tables and objects through the API: what nodech, tabch, tabrestore, mkdef, chdef, rmdef, lsdef and nodels ask for."""

import pytest

from litho_controller import api
from litho_controller.probe import FakeProber, Seen
from litho_controller.tables import rows
from litho_controller.web import inventory
from litho_controller.web.app import admin_app
from litho_controller.web.desk import Desk
from support.desk import DONE, PLANNED, STARTED, lab, publish
from support.door import Door


@pytest.fixture
async def desk(tmp_path):
    async with lab(tmp_path) as made:
        yield made


@pytest.fixture
def prober():
    return FakeProber()


@pytest.fixture
async def admin(desk, prober, aiohttp_client):
    parts = Desk(store=desk.store, tasks=desk.tasks, requests=desk.requests, prober=prober)
    return Door(await aiohttp_client(admin_app(parts)))


async def edit(admin, verb, kind, objects, **more):
    body = api.ObjectEdit(verb=verb, kind=kind, objects=objects, **more)
    return await admin.ask("POST", "/v1/objects", api.ObjectEdited, body)


async def show(admin, kind, names="", **query):
    return await admin.ask("GET", f"/v1/objects/{kind}", api.ObjectList, names=names, **query)


async def columns(admin, text, *wanted, where=()):
    body = api.ColumnsRequest(range=text, columns=wanted, where=where)
    return dict((await admin.ask("POST", "/v1/nodels", api.ColumnsAnswer, body)).nodes)


async def nodech(admin, text, *pairs, **more):
    assign = tuple(api.Assign(column=column, value=value, op=op) for column, op, value in pairs)
    return (await admin.ask("POST", "/v1/nodech", api.NodeNames, api.NodeEdit(range=text, assign=assign, **more))).nodes


# ---------------------------------------------------------------- nodes


async def test_a_node_is_made_changed_shown_and_removed(admin):
    made = await edit(admin, "mkdef", "node", {"n[01-03]": {"groups": "all,rack1", "arch": "x86_64"}})
    assert made.done == made.created == ("n01", "n02", "n03")
    await edit(admin, "chdef", "node", {"n01": {"mac": "52-54-00-AA-BB-01", "ip": "10.0.0.1", "installnic": "eth0"}})
    assert (await show(admin, "node", "n01")).objects == {
        "n01": {
            "groups": "all,rack1",
            "arch": "x86_64",
            "mac": "52:54:00:aa:bb:01",
            "ip": "10.0.0.1",
            "installnic": "eth0",
        }
    }
    again = await edit(admin, "mkdef", "node", {"n01,n04": {"os": "image"}})
    assert (again.done, again.existed) == (("n04",), ("n01",))
    await edit(admin, "chdef", "node", {"n01": {"groups": "rack2"}}, mode="add")
    await edit(admin, "chdef", "node", {"n01": {"groups": "rack1"}}, mode="take")
    await edit(admin, "chdef", "node", {"n01": {"ip": ""}})
    shown = (await show(admin, "node", "n01", only="groups,ip")).objects["n01"]
    assert shown == {"groups": "all,rack2"}
    gone = await edit(admin, "rmdef", "node", {"n02-n03,nope": {}})
    assert (gone.done, gone.missing) == (("n02", "n03"), ("nope",))
    listed = await show(admin, "node", brief="1")
    assert listed.objects == {"n01": {}, "n04": {}}
    assert (await show(admin, "node", "n01,n02")).missing == ("n02",)


async def test_names_that_are_not_there_yet_are_spelled_out_beside_groups_and_without_exclusions(admin):
    await edit(admin, "mkdef", "node", {"n01-n02": {"groups": "rack1"}})
    made = await edit(admin, "chdef", "node", {"rack1,m[1-3],-m2,-n02": {"os": "image"}})
    assert (made.done, made.created) == (("m1", "m3", "n01"), ("m1", "m3"))


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ({"n01": {"nonsense": "1"}}, "'nonsense' is not a valid attribute name for an object type of 'node'."),
        ({"n01": {"mac": "xx"}}, "'xx' is not a MAC address"),
        ({"n01": {"bmc": "10.0.0.2"}}, "Cannot set the attr='bmc' attribute unless mgt value is ipmi"),
        ({"n01": {"os": "a\x1b[2J"}}, "characters that cannot be printed"),
        ({"../../etc": {}}, "etc"),
        ({"n01": {"groups": "a b"}}, "cannot be the name of a group"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_of_it_done(admin, objects, says):
    body = api.ObjectEdit(verb="mkdef", kind="node", objects={"n00": {}, **objects})
    status, problem = await admin.refused("POST", "/v1/objects", body)
    assert status == 400 and says in problem.message
    assert (await show(admin, "node")).objects == {}


async def test_a_node_with_a_task_is_taken_away_by_no_command(admin, desk):
    await desk.define("n01", "n02")
    await desk.capture("n01")
    fill = api.TableFill(columns=("node", "groups"), rows=(("n02", "all"),))
    for method, path, body in (
        ("POST", "/v1/objects", api.ObjectEdit(verb="rmdef", kind="node", objects={"all": {}})),
        ("POST", "/v1/objects", api.ObjectEdit(verb="mkdef", kind="node", objects={"n01": {}}, force=True)),
        ("PUT", "/v1/tables/nodelist", fill),
        ("POST", "/v1/tables", api.TableEdit(keys={"node": "n01"}, delete=("nodelist",))),
        (
            "POST",
            "/v1/tables",
            api.TableEdit(keys={"node": "n01"}, assign=(api.Assign(column="nodelist.disable", value="1"),)),
        ),
        ("POST", "/v1/nodech", api.NodeEdit(range="n01", delete=("nodelist",))),
    ):
        status, problem = await admin.refused(method, path, body)
        assert (status, problem.code) == (409, "node-busy"), path
    assert len(await desk.table("nodelist")) == 2


# ---------------------------------------------------------------- groups


async def test_a_static_group_is_its_members_words_and_a_dynamic_one_a_condition(admin):
    await edit(admin, "mkdef", "node", {"n01-n04": {"groups": "all", "arch": "x86_64"}, "p01": {"arch": "ppc64"}})
    await edit(admin, "mkdef", "group", {"rack1": {"members": "n01-n02"}})
    await edit(admin, "mkdef", "group", {"big": {"grouptype": "dynamic", "wherevals": "arch=~^x86::groups!=all"}})
    assert await columns(admin, "rack1", "nodelist.groups") == {"n01": ("all,rack1",), "n02": ("all,rack1",)}
    assert set(await columns(admin, "big")) == {"n01", "n02"}
    assert set(await columns(admin, "all,-big")) == {"n03", "n04", "p01"}
    assert set(await columns(admin, "big@n01-n03")) == {"n01", "n02"}
    shown = (await show(admin, "group")).objects
    assert shown["rack1"] == {"grouptype": "static", "members": "n01,n02"}
    assert shown["big"]["grouptype"] == "dynamic" and shown["all"]["members"] == "n01,n02,n03,n04,p01"
    await edit(admin, "chdef", "group", {"rack1": {"members": "n02"}}, mode="take")
    await edit(admin, "chdef", "group", {"rack1": {"members": "n04"}}, mode="add")
    assert set(await columns(admin, "rack1")) == {"n01", "n04"}
    await edit(admin, "rmdef", "group", {"rack1": {}, "big": {}})
    assert set((await show(admin, "group")).objects) == {"all"}
    status, problem = await admin.refused("GET", "/v1/nodestat", range="big")
    assert (status, problem.code) == (404, "noderange")


async def test_a_node_inherits_what_it_does_not_say_from_its_groups_in_their_order(admin, desk):
    publish(desk.library, "golden")
    await edit(admin, "mkdef", "node", {"n01": {"groups": "rack1,all"}, "n02": {"groups": "all", "netboot": "pxe"}})
    for group, word in (("all", "xnba"), ("rack1", "grub2")):
        body = api.TableEdit(keys={"node": group}, assign=(api.Assign(column="noderes.netboot", value=word),))
        await admin.ask("POST", "/v1/tables", api.TableList, body)
    values = [api.Assign(column="nodetype.os", value="image"), api.Assign(column="nodetype.profile", value="golden")]
    body = api.TableEdit(keys={"node": "rack1"}, assign=tuple(values))
    await admin.ask("POST", "/v1/tables", api.TableList, body)
    assert await columns(admin, "all", "noderes.netboot") == {"n01": ("grub2",), "n02": ("pxe",)}
    assert set(await columns(admin, "noderes.netboot==grub2")) == {"n01"}
    assert (await show(admin, "node", "n01", only="netboot,profile")).objects["n01"] == {
        "netboot": "grub2",
        "profile": "golden",
    }
    set_ = api.NodesetRequest(range="n01", state="install")
    (line,) = (await admin.ask("POST", "/v1/nodeset", api.NodesetAnswer, set_)).nodes
    assert line.text == "install image-x86-golden"
    await nodech(admin, "n01", ("noderes.netboot", "=", ""))
    assert await columns(admin, "n01", "noderes.netboot") == {"n01": ("",)}, "less than its groups is possible"


# ---------------------------------------------------------------- tables


async def test_nodech_sets_adds_takes_and_chooses(admin):
    await edit(admin, "mkdef", "node", {"n01-n03": {"groups": "all"}, "n03": {"mgt": "ipmi"}})
    assert await nodech(admin, "all", ("nodelist.groups", ",=", "x"), where=("nodehm.mgt!=ipmi",)) == ("n01", "n02")
    await nodech(admin, "n01", ("nodelist.groups", "^=", "all"), ("nodelist.groups", ",=", "y"))
    found = await columns(admin, "n01-n03", "nodelist.groups", "nodehm.mgt")
    assert found == {"n01": ("y,x", ""), "n02": ("x,all", ""), "n03": ("all", "ipmi")}
    for column in ("site.value", "nodetype.node", "nodetype.nonsense", "nonsense.os"):
        body = api.NodeEdit(range="n01", assign=(api.Assign(column=column, value="x"),))
        status, problem = await admin.refused("POST", "/v1/nodech", body)
        assert (status, problem.code) == (400, "bad-column")


async def test_a_table_is_dumped_and_restored_as_it_was_in_every_table(admin, desk):
    for name in (await admin.ask("GET", "/v1/tables", api.TableList)).tables:
        spec = rows.spec(name)
        values = {column: f'say "{column}",\nthen' for column in spec.columns if column != spec.key}
        values |= {"groups": "all"} if name == "nodelist" else {"mac": "52:54:00:00:00:01"} if name == "mac" else {}
        values.pop("disable")
        line = tuple({**values, spec.key: "k1"}.get(column) for column in spec.columns)
        fill = api.TableFill(columns=spec.columns, rows=(line,))
        await admin.ask("PUT", f"/v1/tables/{name}", api.TableView, fill)
        dumped = await admin.ask("GET", f"/v1/tables/{name}", api.TableView)
        assert dumped == api.TableView(columns=spec.columns, rows=(line,)), name
        more = api.TableFill(columns=(spec.key,), rows=(("k2",),), append=True)
        await admin.ask("PUT", f"/v1/tables/{name}", api.TableView, more)
        assert len(await desk.table(name)) == 2
        await admin.ask("PUT", f"/v1/tables/{name}", api.TableView, fill)
        assert (await admin.ask("GET", f"/v1/tables/{name}", api.TableView)).rows == (line,)


@pytest.mark.parametrize(
    ("columns_", "lines", "says"),
    [
        (("node", "x"), (), "column 'x' should exist, which is not defined in the schema for 'mac'"),
        (("mac",), (), "node among them"),
        (("node", "node"), (), "each column once"),
        (("node", "mac"), (("n01", None), ("n01", None)), "which an earlier row has"),
        (("node", "mac"), ((None, "x"),), "no node"),
        (("node", "mac"), (("n01", "x"),), "is not a MAC address"),
        (("node", "mac"), (("n01",),), "1 values for 2 columns"),
    ],
)
async def test_a_restore_that_makes_no_sense_changes_nothing(admin, desk, columns_, lines, says):
    async with desk.store.write() as conn:
        await rows.put(conn, "mac", "old", {"mac": "52:54:00:00:00:09"})
    fill = api.TableFill(columns=columns_, rows=lines)
    status, problem = await admin.refused("PUT", "/v1/tables/mac", fill)
    assert status == 400 and says in problem.message
    assert await desk.table("mac") == [{"node": "old", "mac": "52:54:00:00:00:09"}]


async def test_tabch_makes_changes_and_deletes_rows(admin, desk):
    async def tabch(keys, *pairs, delete=()):
        assign = tuple(api.Assign(column=column, op=op, value=value) for column, op, value in pairs)
        edit_ = api.TableEdit(keys=keys, assign=assign, delete=delete)
        return await admin.ask("POST", "/v1/tables", api.TableList, edit_)

    await tabch({"key": "IMAGELIBSERVER"}, ("site.value", "=", "10.0.0.5"))
    await tabch({"key": "IMAGELIBSERVER"}, ("site.comments", "=", "ours"), ("site.value", "+=", "10.0.0.6"))
    assert await desk.table("site") == [{"key": "IMAGELIBSERVER", "value": "10.0.0.5,10.0.0.6", "comments": "ours"}]
    await tabch({"comments": "ours"}, ("site.value", "=", "x"))
    assert (await desk.table("site"))[0]["value"] == "x"
    status, problem = await admin.refused(
        "POST", "/v1/tables", api.TableEdit(keys={"comments": "no"}, assign=(api.Assign(column="site.value"),))
    )
    assert (status, problem.code) == (400, "row-missing")
    await tabch({"key": "IMAGELIBSERVER"}, delete=("site",))
    assert await desk.table("site") == []
    status, _ = await admin.refused("POST", "/v1/tables", api.TableEdit(delete=("site",)))
    assert status == 400, "no key must not mean every row"


async def test_the_site_is_an_object_and_rules_the_library_that_nodes_are_given(admin, desk):
    pairs = {"IMAGELIBSERVER": "10.0.0.5", "IMAGELIBINSTALLDIR": "/srv/images"}
    await edit(admin, "chdef", "site", {"clustersite": pairs})
    assert (await show(admin, "site")).objects == {"clustersite": pairs}
    await desk.define("n01")
    (task,) = await desk.capture("n01")
    agent = await desk.agent(task)
    assert agent.order.library == "nfs://10.0.0.5/srv/images"
    await edit(admin, "chdef", "site", {"clustersite": {"IMAGELIBSERVER": ""}})
    assert (await show(admin, "site")).objects == {"clustersite": {"IMAGELIBINSTALLDIR": "/srv/images"}}


# ---------------------------------------------------------------- osimages and nodeset


async def test_an_osimage_needs_its_type_before_what_only_that_type_has(admin):
    status, problem = await admin.refused(
        "POST", "/v1/objects", api.ObjectEdit(verb="mkdef", kind="osimage", objects={"o": {"template": "/x"}})
    )
    assert (status, problem.message) == (
        400,
        "Cannot set the attr='template' attribute unless imagetype value is linux or windows.",
    )
    await edit(admin, "mkdef", "osimage", {"o": {"imagetype": "linux", "template": "/x", "usercomment": "note"}})
    assert (await show(admin, "osimage", "o,p")) == api.ObjectList(
        objects={"o": {"imagetype": "linux", "template": "/x", "usercomment": "note"}}, missing=("p",)
    )
    await edit(admin, "rmdef", "osimage", {"o": {}})
    assert (await show(admin, "osimage")).objects == {}


async def test_an_osimage_that_is_no_image_asks_for_what_its_profile_and_method_say(admin, desk):
    publish(desk.library, "golden")
    await desk.define("n01", "n02", "n03", "n04")
    await edit(admin, "mkdef", "osimage", {"take": {"provmethod": "image", "profile": "fresh"}})
    await edit(admin, "mkdef", "osimage", {"put": {"provmethod": "install", "profile": "golden"}})
    await edit(admin, "mkdef", "osimage", {"clone": {"provmethod": "sysclone", "profile": "golden"}})
    await edit(admin, "mkdef", "osimage", {"net": {"provmethod": "netboot", "profile": "golden"}})

    async def nodeset(node, image):
        wanted = api.NodesetRequest(range=node, state="osimage", image=image)
        return (await admin.ask("POST", "/v1/nodeset", api.NodesetAnswer, wanted)).nodes[0].text

    assert await nodeset("n01", "take") == "image image-x86-fresh"
    assert await nodeset("n02", "put") == "install image-x86-golden"
    assert await nodeset("n03", "golden:1") == "install image-x86-golden"
    for name, code in (("clone", "bad-provmethod"), ("net", "bad-osimage"), ("nope", "image-missing")):
        body = api.NodesetRequest(range="n04", state="osimage", image=name)
        assert (await admin.refused("POST", "/v1/nodeset", body))[1].code == code


async def test_offline_cancels_like_boot_and_says_offline(admin, desk):
    await desk.define("n01")
    (task,) = await desk.capture("n01")
    body = api.NodesetRequest(range="n01", state="offline")
    assert (await admin.ask("POST", "/v1/nodeset", api.NodesetAnswer, body)).nodes[0].text == "offline"
    assert (await desk.states())[task] == "cancelled"
    assert await desk.boot_state("n01") == "offline"


# ---------------------------------------------------------------- nodestat


async def test_nodestat_looks_at_nodes_that_have_an_address_and_no_task_and_writes_what_it_saw(admin, desk, prober):
    await edit(admin, "mkdef", "node", {f"n0{at}": {"ip": f"10.0.0.{at}"} for at in range(1, 6)} | {"n06": {}})
    prober.seen = {"n02": Seen(alive=True, services=("sshd",)), "n03": Seen(alive=False), "n04": Seen(alive=True)}
    (task,) = await desk.capture("n01")
    agent = await desk.agent(task)
    await agent.say(PLANNED, STARTED)
    agent.progress(420, line="partimage-ng: partition 1 of 1, 42% complete")
    await agent.beat()
    await desk.upkeep.flush()
    answer = await admin.ask("GET", "/v1/nodestat", api.NodestatAnswer, range="all", probe="1", update="1")
    line = "partimage-ng: partition 1 of 1, 42% complete"
    assert {one.node: one.text for one in answer.nodes} == {
        **{"n01": line, "n02": "sshd", "n03": "noping"},
        **dict.fromkeys(("n04", "n05", "n06"), "boot"),
    }
    assert prober.asked == {f"n0{at}": f"10.0.0.{at}" for at in range(2, 6)}
    written = {row["node"]: (row.get("status"), row.get("appstatus")) for row in await desk.table("nodelist")}
    assert written == {
        "n01": ("ping", line),
        "n02": ("ping", "sshd"),
        "n03": ("noping", ""),
        "n04": ("ping", ""),
        "n05": (None, None),
        "n06": (None, None),
    }
    await agent.beat(online=False)
    prober.asked = {}
    answer = await admin.ask("GET", "/v1/nodestat", api.NodestatAnswer, range="n01")
    assert answer.nodes[0].text == line + ", connection lost" and prober.asked == {}
    await agent.say(DONE)
    answer = await admin.ask("GET", "/v1/nodestat", api.NodestatAnswer, range="n01")
    assert answer.nodes[0].text == "boot"


# ---------------------------------------------------------------- inventory


async def test_a_machine_is_what_its_agent_said_and_no_more(admin, desk):
    await desk.define("n01", "n02")
    (task,) = await desk.capture("n01")
    await desk.agent(task)
    answer = await admin.ask("GET", "/v1/inventory", api.InventoryAnswer, range="all")
    assert answer.nodes == (
        api.InventoryLine(node="n01", facts=(("Memory", "1.1 GB"),)),
        api.InventoryLine(node="n02"),
    )


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        (None, ()),
        ({"board": 7, "cpu": "x", "memory": "lots", "nics": {"a": 1}}, ()),
        (
            {
                "board": "Dell\x1b R650",
                "cpu": {"model": "Xeon", "count": 8},
                "memory": 1 << 36,
                "arch": "x86_64",
                "nics": [{"mac": "52:54:00:00:00:01"}, "?", {"name": "x"}, {"mac": "52:54:00:00:00:02"}],
            },
            (
                ("System Description", "Dell  R650"),
                ("CPU", "8 x Xeon"),
                ("Memory", "68.7 GB"),
                ("Architecture", "x86_64"),
                ("MAC Address 1", "52:54:00:00:00:01"),
                ("MAC Address 2", "52:54:00:00:00:02"),
            ),
        ),
    ],
)
def test_an_inventory_is_read_as_a_strangers_word(said, facts):
    assert [(name, " ".join(value.split())) for name, value in inventory.facts(said)] == [
        (name, " ".join(value.split())) for name, value in facts
    ]
