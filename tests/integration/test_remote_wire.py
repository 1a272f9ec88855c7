"""One connection against servers that say what no server should: each costs a limited time and ends in one sentence."""

import itertools
import socket
import time

import pytest

from litho.library.sources import place
from litho_agent.remote.answers import SourceError
from litho_agent.remote.wire import Connection, Limits
from support.webs import free_port, scripted

QUICK = Limits(connect_s=2.0, head_s=1.0, silent_s=1.0, drip_s=1.5, drip_rate=1000)
HEAD = b"HTTP/1.1 206 OK\r\ncontent-length: 8\r\ncontent-range: bytes 0-7/8\r\n\r\n"


def ask(url: str, *, limits: Limits = QUICK) -> bytes:
    connection = Connection(place(url), limits=limits)
    data = bytearray(8)
    try:
        assert connection.span("x", 0, memoryview(data)) == 8
    finally:
        connection.close()
    return bytes(data)


def drips(head: bytes, one: bytes, every_s: float):
    def script(made: socket.socket, request: str) -> None:
        made.sendall(head)
        while True:
            made.sendall(one)
            time.sleep(every_s)

    return script


def says(*parts: bytes, then_closes: bool = False):
    def script(made: socket.socket, request: str) -> None:
        for part in parts:
            made.sendall(part)
        if then_closes:
            made.shutdown(socket.SHUT_RDWR)

    return script


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (drips(b"HTTP/1.1 206 OK\r\n", b"a", 0.1), "did not answer"),
        (drips(b"HTTP/1.1 206 OK\r\n", b"x: " + b"y" * 4000 + b"\r\n", 0), "more than 16384 bytes of fields"),
        (drips(HEAD, b"a", 0.6), r"sent \d bytes in"),
        (says(HEAD, b"abc", then_closes=True), "closed the connection after 3 of 8 bytes"),
        (says(HEAD, b"abc"), "fell silent in the middle"),
        (says(HEAD + b"abcdefgh!"), "more than it announced"),
        (says(b"", then_closes=True), "closed the connection without an answer"),
        (says(), "did not answer"),
        (says(HEAD.replace(b"OK\r\n", b"OK\r\ncontent-encoding: gzip\r\n") + b"12345678"), "content-encoding: gzip"),
        (drips(b"HTTP/1.1 200 OK\r\n\r\n", b"endless" * 1000, 0), "content-length"),
    ],
)
def test_a_server_that_does_not_do_its_work_costs_seconds(script, why):
    begun = time.monotonic()
    with scripted(script) as server, pytest.raises(SourceError, match=why):
        ask(server.url)
    assert time.monotonic() - begun < 30


def test_nobody_there_is_told_in_words():
    with pytest.raises(SourceError, match=r"cannot be reached \(Connection refused\)") as caught:
        ask(f"http://127.0.0.1:{free_port()}")
    assert not caught.value.lasting


def test_a_connection_is_kept_and_made_anew_when_the_server_has_closed_it():
    counts = itertools.count(1)

    def script(made: socket.socket, request: str) -> None:
        made.sendall(HEAD + b"abcdefgh")
        if next(counts) == 2:
            made.shutdown(socket.SHUT_RDWR)

    with scripted(script) as server:
        connection = Connection(place(server.url), token="t-1.proof", limits=QUICK)
        data = bytearray(8)
        for _ in range(4):
            connection.span("a+b", 0, memoryview(data))
            assert bytes(data) == b"abcdefgh"
        connection.close()
        # The third may reach the old connection before its end does; then it is sent once more.
        assert len(server.requests) in (4, 5)
        assert server.connections == 2
        assert "GET /a%2Bb HTTP/1.1" in server.requests[0]
        assert "Authorization: Bearer t-1.proof" in server.requests[0]
        assert "Range: bytes=0-7" in server.requests[0]
        assert "Accept-Encoding: identity" in server.requests[0]


def test_a_server_that_says_it_closes_gets_a_new_connection_each_time():
    def script(made: socket.socket, request: str) -> None:
        made.sendall(HEAD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n") + b"abcdefgh")
        made.shutdown(socket.SHUT_RDWR)

    with scripted(script) as server:
        connection = Connection(place(server.url), limits=QUICK)
        data = bytearray(8)
        for _ in range(3):
            connection.span("x", 0, memoryview(data))
        assert server.connections == 3
