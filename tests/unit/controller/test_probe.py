"""Looking at nodes over real sockets, and what is said of a node of all that is known."""

import asyncio
import contextlib
import time

import pytest

from litho.task import State
from litho_controller.probe import Seen, TcpProber, is_address
from litho_controller.web import status
from support.pace import Moment
from support.tasks import row


@contextlib.asynccontextmanager
async def serving(answer):
    """A server on a free port of this machine; answers the port."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def closed_port():
    async with serving(lambda _r, w: w.close()) as port:
        return port


def says(data):
    async def answer(reader, writer):
        assert await reader.readexactly(6) == b"stat \n"
        writer.write(data)
        writer.close()

    return answer


async def test_an_agent_is_asked_as_nodestat_asks_and_its_first_line_taken():
    async with serving(says(b"partimage-ng: partition 1 of 3, 42% complete\nmore\n")) as port:
        prober = TcpProber(agent_port=port, services={})
        assert await prober.look({"n01": "127.0.0.1"}) == {
            "n01": Seen(alive=True, agent="partimage-ng: partition 1 of 3, 42% complete")
        }


@pytest.mark.parametrize("data", [b"\x1b[2Jfoo\xff\tbar" + b"x" * 100_000, b"\x00" * 10, b""])
async def test_what_a_stranger_says_is_cut_and_cleaned(data):
    async with serving(says(data)) as port:
        (seen,) = (await TcpProber(agent_port=port, services={}).look({"n01": "127.0.0.1"})).values()
    assert (
        seen.alive
        and len(seen.agent) <= 300
        and seen.agent.isascii()
        and (seen.agent == "" or seen.agent.isprintable())
    )


async def test_services_are_named_sorted_and_a_refusal_is_a_sign_of_life():
    refused = await closed_port()
    async with serving(lambda _r, w: w.close()) as ssh, serving(lambda _r, w: w.close()) as web:
        services = {ssh: "sshd", web: "https", refused: "pbs"}
        seen = await TcpProber(agent_port=refused, services=services).look({"n01": "127.0.0.1"})
    assert seen == {"n01": Seen(alive=True, services=("https", "sshd"))}
    seen = await TcpProber(agent_port=refused, services={refused: "pbs"}).look({"n01": "127.0.0.1"})
    assert seen == {"n01": Seen(alive=True)}


async def test_one_that_accepts_and_stays_silent_costs_its_time_and_no_more():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async with serving(silent) as port:
        begun = Moment()
        seen = await TcpProber(agent_port=port, services={}, answer_s=0.2).look({"n01": "127.0.0.1"})
    assert seen == {"n01": Seen(alive=True)} and begun.took() < 5


async def test_all_of_it_ends_at_the_deadline_and_what_is_not_known_is_left_out():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async with serving(silent) as port:
        prober = TcpProber(agent_port=port, services={}, answer_s=0.2, deadline_s=0.5, at_once=1)
        seen = await prober.look({f"n{number:02}": "127.0.0.1" for number in range(20)})
    assert 1 <= len(seen) < 20


def test_only_addresses_that_a_node_can_have_are_looked_at():
    assert [is_address(text) for text in ("10.0.0.1", "fd00::1", "n01", "224.0.0.1", "::", "", "10.0.0.1; rm")] == [
        True,
        True,
        *[False] * 5,
    ]


# ---------------------------------------------------------------- what is said


RUNNING = row(state=State.RUNNING, line="partimage-ng: partition 1 of 3, 42% complete")
FAILED = row(state=State.FAILED, reason="no disk", action="restore")
HERE = Seen(alive=True)


@pytest.mark.parametrize(
    ("latest", "gone", "seen", "text", "word"),
    [
        (None, False, None, "boot", ""),
        (RUNNING, False, None, RUNNING.line, "ping"),
        (RUNNING, True, None, RUNNING.line + ", connection lost", "ping"),
        (row(state=State.RUNNING, line="x", action="restore"), False, None, "x", "installing"),
        (row(state=State.ARMED), False, None, "armed, waiting for the node", ""),
        (FAILED, True, Seen(alive=False), "partimage-ng: failed: no disk", "failed"),
        (row(state=State.SUCCEEDED), True, None, "boot", ""),
        (None, False, Seen(alive=True, agent="hello", services=("sshd",)), "hello", "ping"),
        (None, False, Seen(alive=True, services=("https", "sshd")), "https,sshd", "ping"),
        (None, False, HERE, "boot", "ping"),
        (None, False, Seen(alive=False), "noping", "noping"),
    ],
)
def test_the_best_that_is_known_of_a_node_is_said(latest, gone, seen, text, word):
    told = status.told("boot", latest, gone=gone, seen=seen)
    assert (told.text, told.status) == (text, word)
    assert told.appstatus in ("", text)


def test_a_moment_is_written_as_xcat_writes_it(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        assert status.stamp(1_800_000_000) == "01-15-2027 08:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()
