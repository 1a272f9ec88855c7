"""Machines that have shown themselves, on the command line."""

import shlex

import pytest

from litho.errors import NotFoundError, UsageError
from litho_controller import api
from litho_controller.api_schedule import DiscoveredList, DiscoveredView
from litho_controller.cli import discovery
from litho_controller.cli.app import run
from support.canned import CannedDaemon

MACHINE = DiscoveredView(
    mac="52:54:00:00:00:99",
    macs=("52:54:00:00:00:99", "52:54:00:00:00:98"),
    address="10.0.0.77",
    first=100.0,
    last=940.0,
    inventory={
        "board": "Dell Inc. PowerEdge R650",
        "arch": "x86_64",
        "cpu": {"model": "AMD", "count": 64},
        "memory": 256 * 1024**3,
        "disks": [{"name": "sda", "size": 480 * 10**9}, {"name": "nvme0n1", "size": 3840 * 10**9}],
    },
)
HOSTILE = DiscoveredView(
    mac="52:54:00:00:00:97",
    macs=("52:54:00:00:00:97",),
    first=1.0,
    last=1.0,
    inventory={
        "board": "\x1b[31mred\nline",
        "cpu": 7,
        "memory": "lots",
        "disks": [1, {"name": {}, "size": -1}, {"size": "x"}],
    },
)


def test_a_machine_is_a_row_that_a_person_can_find_in_the_rack():
    assert discovery.table([MACHINE], now=1000.0).rows == [
        (
            "52:54:00:00:00:99",
            "10.0.0.77",
            "1m 00s ago",
            "Dell Inc. PowerEdge R650",
            "64",
            "275 GB",
            "sda 480 GB, nvme0n1 3.8 TB",
        )
    ]


def test_what_a_machine_says_of_itself_is_a_strangers_word():
    assert discovery.table([HOSTILE], now=1.0).rows == [("52:54:00:00:00:97", "", "0s ago", "[31mred line", "", "", "")]


@pytest.mark.parametrize("text", ["52:54:00:00:00:99", "52-54-00-00-00-99", "525400000098"])
def test_a_machine_is_found_by_any_of_its_cards_and_known_by_the_one_that_booted(text):
    assert discovery.pick(DiscoveredList(machines=(HOSTILE, MACHINE)), text) == ("52:54:00:00:00:99", "x86_64")


def test_a_machine_that_is_not_there_or_no_address_is_a_sentence():
    with pytest.raises(NotFoundError, match="no machine with the address 52:54:00:00:00:01 has shown itself"):
        discovery.pick(DiscoveredList(machines=(MACHINE,)), "52:54:00:00:00:01")
    with pytest.raises(UsageError, match="'n01' is not a MAC address"):
        discovery.pick(DiscoveredList(machines=(MACHINE,)), "n01")


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("LITHO_SOCKET", str(tmp_path / "litho.sock"))
    with CannedDaemon(tmp_path / "litho.sock") as running:
        running["GET /v1/discovered"] = DiscoveredList(machines=(MACHINE,))
        yield running


def test_a_node_is_made_of_a_machine(daemon, capfd):
    daemon["POST /v1/nodes"] = api.NodeList(nodes=(api.NodeView(node="n09"),))
    assert run(shlex.split("node add n09 --from-discovered 525400000099 --group lab")) == 0
    assert daemon.requests[-1].body == {"range": "n09", "mac": MACHINE.mac, "groups": ["lab"], "arch": "x86_64"}
    assert run(shlex.split("node add n09 --from-discovered 525400000099 --arch x86")) == 0
    assert daemon.requests[-1].body["arch"] == "x86"
    assert capfd.readouterr().out == "defined n09\ndefined n09\n"


@pytest.mark.parametrize(
    "line", ["node add n09 --from-discovered 525400000099 --mac 525400000099", "node ls n01 --discovered"]
)
def test_options_that_contradict_each_other_are_refused(daemon, line):
    assert run(shlex.split(line)) == 2
    assert daemon.requests == []
