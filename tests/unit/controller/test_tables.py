"""xCAT's tables: their columns, their rows, nodes and images in them."""

import pytest

from litho.errors import NotFoundError, UsageError
from litho.messages import OsFacts
from litho_controller.store import Store
from litho_controller.tables import nodes, osimages, rows
from litho_controller.tables.schema import NODE_TABLES, TABLES


@pytest.fixture
async def store(tmp_path):
    opened = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/litho.db")
    yield opened
    await opened.close()


def test_every_table_has_its_key_first_and_ends_as_xcat_ends_them():
    assert set(TABLES) == {
        *(
            "bootparams",
            "chain",
            "hosts",
            "ipmi",
            "linuximage",
            "mac",
            "nodegroup",
            "nodehm",
            "nodelist",
            "noderes",
            "nodetype",
        ),
        *("osimage", "site"),
    }
    for spec in TABLES.values():
        assert spec.columns[0] == spec.key
        assert spec.columns[-2:] == ("comments", "disable")
        assert len(set(spec.columns)) == len(spec.columns)


def test_osimage_and_linuximage_have_the_columns_of_xcat_2_19():
    assert len(TABLES["osimage"].columns) == 23
    assert TABLES["osimage"].columns[:6] == ("imagename", "groups", "profile", "imagetype", "description", "provmethod")
    assert len(TABLES["linuximage"].columns) == 24
    assert TABLES["site"].columns == ("key", "value", "comments", "disable")
    assert "osimage" not in NODE_TABLES


async def test_put_keeps_the_columns_that_it_does_not_name(store):
    async with store.write() as conn:
        await rows.put(conn, "osimage", "golden", {"profile": "golden", "description": "mine"})
        await rows.put(conn, "osimage", "golden", {"profile": "other"})
        found = await rows.get(conn, "osimage", "golden")
        assert (found["profile"], found["description"], found["groups"]) == ("other", "mine", None)
        await rows.put(conn, "linuximage", "golden", {})
        await rows.put(conn, "linuximage", "golden", {})
        assert await rows.dump(conn, "linuximage") == [("golden", *[None] * 23)]


async def test_a_dump_tells_no_value_from_the_empty_one(store):
    async with store.write() as conn:
        await rows.put(conn, "site", "b", {"value": ""})
        await rows.put(conn, "site", "a", {"value": 'say "hi", then\nleave'})
        assert await rows.dump(conn, "site") == [
            ("a", 'say "hi", then\nleave', None, None),
            ("b", "", None, None),
        ]
        assert await rows.column(conn, "site", "value") == {"a": 'say "hi", then\nleave', "b": ""}
        assert await rows.column(conn, "site", "comments") == {}


async def test_a_table_that_is_none_is_a_sentence(store):
    async with store.read() as conn:
        with pytest.raises(NotFoundError, match="there is no table 'task'"):
            await rows.dump(conn, "task")


# ---------------------------------------------------------------- nodes


async def test_nodes_are_defined_changed_and_removed(store):
    async with store.write() as conn:
        await nodes.define(conn, ["n01"], mac="52-54-00-AA-BB-01", groups=["rack1"], arch="x86_64")
        await nodes.define(conn, ["n01", "n02"])
        first, second = await nodes.get(conn, ["n01", "n02"])
        assert first == nodes.Node(name="n01", groups=("rack1", "all"), mac="52:54:00:aa:bb:01", arch="x86_64")
        assert second == nodes.Node(name="n02", groups=("all",))
        await nodes.define(conn, ["n01"], groups=["rack2", "all"])
        assert (await nodes.require(conn, "n01")).groups == ("rack2", "all")
        assert (await nodes.require(conn, "n01")).mac == "52:54:00:aa:bb:01"
        await nodes.set_state(conn, {"n01": "image image-x86-golden"})
        assert (await nodes.require(conn, "n01")).state == "image image-x86-golden"
        assert (await rows.get(conn, "chain", "n01"))["currchain"] == "boot"
        assert await nodes.groups(conn) == {"n01": ["rack2", "all"], "n02": ["all"]}
        await nodes.remove(conn, ["n01"])
        for table in NODE_TABLES:
            assert "n01" not in [row[0] for row in await rows.dump(conn, table)]
        with pytest.raises(NotFoundError, match="there is no node 'n01'"):
            await nodes.require(conn, "n01")


async def test_ten_thousand_nodes_are_defined_and_read_in_one_go(store):
    names = [f"n{number:05d}" for number in range(10_000)]
    async with store.write() as conn:
        await nodes.define(conn, names, groups=["big"])
        await nodes.set_state(conn, dict.fromkeys(names, "boot"))
    async with store.read() as conn:
        found = await nodes.get(conn, names)
    assert [node.name for node in found] == names
    assert {node.groups for node in found} == {("big", "all")}


@pytest.mark.parametrize("name", ["", "-n", "a b", "n/1", "n\n", "x" * 129, "ä"])
async def test_a_bad_node_name_is_refused(store, name):
    async with store.write() as conn:
        with pytest.raises(UsageError, match="cannot be the name of a node"):
            await nodes.define(conn, [name])


@pytest.mark.parametrize("group", ["", "a b", "a,b", "-x", "x" * 65, "a@b"])
async def test_a_bad_group_name_is_refused(store, group):
    async with store.write() as conn:
        with pytest.raises(UsageError, match="cannot be the name of a group"):
            await nodes.define(conn, ["n01"], groups=[group])


@pytest.mark.parametrize("mac", ["52:54", "52:54:00:aa:bb:zz", "52:54:00:aa:bb:01:02", "52:54:00:aa:bb:01\nx"])
def test_a_bad_mac_is_refused(mac):
    with pytest.raises(UsageError, match="is not a MAC address"):
        nodes.parse_mac(mac)


async def test_one_mac_is_not_given_to_two_nodes(store):
    async with store.write() as conn:
        with pytest.raises(UsageError, match="cannot be given to several nodes"):
            await nodes.define(conn, ["n01", "n02"], mac="52:54:00:aa:bb:01")


def test_states_are_told_in_xcats_words():
    assert nodes.state_text("capture", arch="", image="golden") == "image image-x86-golden"
    assert nodes.state_text("restore", arch="x86_64", image="golden") == "install image-x86_64-golden"


# ---------------------------------------------------------------- images


async def test_a_capture_leaves_its_rows_and_spares_what_an_administrator_has_written(store):
    facts = OsFacts(name="Linux", vers="debian12", distro="debian12-x86_64", arch="x86_64")
    async with store.write() as conn:
        await rows.put(conn, "osimage", "golden", {"description": "ours"})
        await osimages.captured(conn, "golden", facts)
        found = await rows.get(conn, "osimage", "golden")
        assert {name: value for name, value in found.items() if value is not None} == {
            "imagename": "golden",
            "profile": "golden",
            "imagetype": "linux",
            "provmethod": "install",
            "osname": "Linux",
            "osvers": "debian12",
            "osdistroname": "debian12-x86_64",
            "osarch": "x86_64",
            "description": "ours",
        }
        assert await rows.get(conn, "linuximage", "golden") != {}
        await osimages.forget(conn, "golden")
        assert await rows.dump(conn, "osimage") == await rows.dump(conn, "linuximage") == []


def test_windows_is_windows_and_unknown_is_linux():
    assert osimages.osimage_values("w", OsFacts(name="Windows", vers="win2022"))["imagetype"] == "windows"
    assert osimages.osimage_values("u", OsFacts())["imagetype"] == "linux"
    assert osimages.osimage_values("u", OsFacts())["osname"] is None


def test_what_an_agent_found_fits_into_a_table_cell():
    assert osimages.ascii_cell("Debian\n\x1b[31m ä") == "Debian  [31m"
    assert osimages.ascii_cell("x" * 4096) == "x" * 128
    assert osimages.ascii_cell(" \n ") is None
