"""The node's port 3001: the dialogues that xCAT and VCL lead, and peers that mean no good. Real sockets on loopback."""

import asyncio
import contextlib
import socket
import struct

import pytest

from litho import nodestat
from litho.messages import Failed, Stopped
from litho.progress import Progress
from litho_agent.mover import Note, Tick
from litho_agent.report import port as report_port
from litho_agent.report.port import LONGEST, MOST, StatusPort, answering
from support.nodebench import DONE, free_port, until

RUNNING = Tick(progress=Progress(phase="partition", part=1, parts=3, done=42, total=100, fraction=0.42))
LINE = b"partimage-ng: partition 1 of 3, 42% complete\n"


@contextlib.asynccontextmanager
async def opened(**options):
    port = StatusPort(**options)
    assert await port.open(0, "127.0.0.1") == ""
    try:
        yield port, port.ports[0]
    finally:
        await port.close()


async def asked(number: int, *words: bytes, eof: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    for word in words:
        writer.write(word)
        await writer.drain()
        await asyncio.sleep(0.01)
    if eof:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_the_dialogue_of_nodestat_and_vcl_byte_by_byte():
    async with opened() as (port, number):
        port.hear(RUNNING)
        # Both send exactly these six bytes, and read to the end of the connection.
        assert await asked(number, b"stat \n") == LINE
        assert await asked(number, *(bytes([byte]) for byte in b"stat \n")) == LINE
        assert LINE.count(b"\n") == 1 and b"\r" not in LINE


@pytest.mark.parametrize("words", [b"stat\n", b"stat \r\n", b"  stat\n", b"stat \nstat \n"])
async def test_a_person_who_types_it_gets_the_same_line(words):
    async with opened() as (port, number):
        port.hear(RUNNING)
        assert await asked(number, words) == LINE


async def test_a_word_without_a_newline_counts_when_the_peer_says_no_more():
    async with opened() as (port, number):
        port.hear(RUNNING)
        assert await asked(number, b"stat", eof=True) == LINE


@pytest.mark.parametrize(
    "words", [b"processing\n", b"\n", b"status\n", b"screendump 1\n", b"\xff\x00\n", b"x" * 10_000]
)
async def test_other_words_get_no_answer_and_do_no_harm(words):
    async with opened() as (port, number):
        port.hear(RUNNING)
        with contextlib.suppress(ConnectionError):
            assert await asked(number, words) == b""
        assert await asked(number, b"stat \n") == LINE


async def test_the_line_follows_the_job_from_its_start_to_its_end():
    port = StatusPort()
    assert port.line == "partimage-ng: starting, 0% complete"
    port.hear(RUNNING)
    port.hear(Note(text="a note is not the line"))
    assert port.line == LINE.decode().strip()
    port.hear(DONE)
    assert port.line == nodestat.COMPLETE == "partimage-ng: complete"


@pytest.mark.parametrize("end", [Failed(code="x", reason="no\r\nboot sector\n" * 80), Stopped(reason="asked\nto")])
async def test_a_job_that_stopped_says_so_on_one_line(end):
    async with opened() as (port, number):
        port.hear(end)
        said = await asked(number, b"stat \n")
        assert said.startswith(b"partimage-ng: failed: ")
        assert said.count(b"\n") == 1 and said.endswith(b"\n") and len(said) <= 301
        assert b"boot" not in said and b"\r" not in said


async def test_nmap_opens_and_resets_before_each_query():
    async with opened() as (port, number):
        port.hear(RUNNING)
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", number)) as scan:
                # Linger of zero seconds: the close is a RST.
                scan.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert await asked(number, b"stat \n") == LINE
        await until(lambda: port.open_connections == 0)


async def test_silent_and_half_open_peers_are_let_go():
    async with opened(deadline_s=2.0) as (port, number):
        port.hear(RUNNING)
        peers = [await asyncio.open_connection("127.0.0.1", number) for _ in range(20)]
        for _, writer in peers[:10]:
            writer.write(b"sta")
        await until(lambda: port.open_connections == 20)
        assert await asked(number, b"stat \n") == LINE
        await until(lambda: port.open_connections == 0)
        for reader, writer in peers:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()


async def test_a_peer_that_sends_its_word_byte_by_byte_has_no_more_time_than_others():
    async with opened(deadline_s=0.4) as (port, number):
        _, writer = await asyncio.open_connection("127.0.0.1", number)
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        assert port.open_connections == 0
        writer.close()


async def test_a_peer_that_never_reads_gets_its_line_and_holds_nothing():
    async with opened(deadline_s=0.5) as (port, number):
        port.hear(RUNNING)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", number))
            await asyncio.get_running_loop().sock_sendall(deaf, b"stat \n")
            await until(lambda: port.open_connections == 0)


async def connected(number, count):
    """`count` connections that have not said their word."""
    loop = asyncio.get_running_loop()
    peers = []
    for _ in range(count):
        peer = socket.socket()
        peer.setblocking(False)
        await loop.sock_connect(peer, ("127.0.0.1", number))
        peers.append(peer)
    return peers


async def test_a_thousand_queries_at_once_are_all_answered():
    loop = asyncio.get_running_loop()
    async with opened() as (port, number):
        assert port.most == MOST
        port.hear(RUNNING)
        # All of them are there before the first of them says its word.
        peers = await connected(number, 1000)
        await until(lambda: port.open_connections == 1000)
        for peer in peers:
            await loop.sock_sendall(peer, b"stat \n")
        assert [await asyncio.wait_for(loop.sock_recv(peer, 1000), 60) for peer in peers] == [LINE] * 1000
        for peer in peers:
            peer.close()
        await until(lambda: port.open_connections == 0)


async def test_of_more_than_there_is_room_for_the_oldest_goes_and_the_newest_is_answered():
    loop = asyncio.get_running_loop()
    async with opened(most=100) as (port, number):
        port.hear(RUNNING)
        silent = await connected(number, 300)
        await until(lambda: port.open_connections == 100)
        assert await asked(number, b"stat \n") == LINE
        assert port.open_connections <= 100
        await loop.sock_sendall(silent[-1], b"stat \n")
        assert await asyncio.wait_for(loop.sock_recv(silent[-1], 1000), 60) == LINE
        for peer in silent:
            peer.close()
        await until(lambda: port.open_connections == 0)


def test_where_descriptors_are_few_connections_are_fewer(monkeypatch):
    monkeypatch.setattr(report_port.resource, "getrlimit", lambda _what: (1024, 1024))
    monkeypatch.setattr(report_port.resource, "setrlimit", lambda *_: None)
    assert report_port._room(MOST) == 256


async def test_what_a_peer_may_send_is_bounded():
    async with opened() as (port, number):
        loop = asyncio.get_running_loop()
        with socket.socket() as loud:
            loud.setblocking(False)
            await loop.sock_connect(loud, ("127.0.0.1", number))
            await loop.sock_sendall(loud, b"y" * (LONGEST - 1))
            await until(lambda: port.open_connections == 1)
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(loud, b"y" * 1_000_000)
                await loop.sock_recv(loud, 10)
        await until(lambda: port.open_connections == 0)


async def test_a_port_that_is_taken_is_told_and_is_no_error():
    said: list[str] = []

    class Console(StatusPort):
        def say(self, text: str) -> None:
            said.append(text)

    number = free_port()
    first, second = StatusPort(), StatusPort()
    async with answering(first, number, Console()), answering(second, number, Console()):
        assert await asked(number, b"stat \n") == b"partimage-ng: starting, 0% complete\n"
    assert len(said) == 1
    assert f"nothing answers on port {number}" in said[0]


async def test_zero_switches_the_port_off():
    port = StatusPort()
    async with answering(port, 0, port):
        assert port.ports == []
