"""The client against a canned daemon on a real socket: what it asks, and what it makes of every kind of answer."""

import socket
import threading

import pytest
from aiohttp import web

from litho.errors import (
    CancelledError,
    ConfigError,
    DiskError,
    EngineError,
    IntegrityError,
    LibraryError,
    LithoError,
    MissingProgramError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
    WireError,
)
from litho_controller import api
from litho_controller.client import Client
from support.canned import CannedDaemon, Lines


@pytest.fixture
def daemon(tmp_path):
    with CannedDaemon(tmp_path / "litho.sock") as running:
        yield running


@pytest.fixture
def client(daemon):
    return Client(daemon.socket, timeout=60)


def test_a_range_and_a_name_travel_unharmed_whatever_is_in_them(daemon, client):
    daemon["GET /v1/nodes"] = api.NodeList(nodes=(api.NodeView(node="n01"),))
    daemon["GET /v1/nodes/a%2Fb%3Fc%23%20d"] = api.NodeView(node="n01")
    assert client.nodes("n[01-03],-n02@/x.*&all+1 ").nodes[0].node == "n01"
    assert client.node("a/b?c# d").node == "n01"
    assert daemon.requests[0].query == {"range": "n[01-03],-n02@/x.*&all+1 "}


def test_only_what_was_chosen_of_a_job_is_sent(daemon, client):
    daemon["POST /v1/nodeset"] = api.NodesetAnswer()
    client.nodeset(
        api.NodesetRequest(range="n01", state="image", image="g", job=api.JobOptions(level=3, labels={"a": "b"}))
    )
    assert daemon.requests[0].body == {
        "range": "n01",
        "state": "image",
        "image": "g",
        "job": {"level": 3, "labels": {"a": "b"}},
        "when": {},
    }


def test_filters_that_were_not_chosen_are_not_sent(daemon, client):
    daemon["GET /v1/tasks"] = api.TaskList()
    client.tasks()
    client.tasks(node="n01", active=True, limit=7)
    assert [request.query for request in daemon.requests] == [{}, {"node": "n01", "active": "1", "limit": "7"}]


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [
        (one, one)
        for one in (LithoError, UsageError, NotFoundError, RefusedError, DiskError, LibraryError, IntegrityError)
    ]
    + [(one, one) for one in (EngineError, UnreachableError, WireError, CancelledError)]
    + [(ConfigError, UsageError), (MissingProgramError, EngineError)],
)
def test_an_error_arrives_as_the_class_it_was_so_the_exit_code_holds(daemon, client, kind, arrives):
    daemon["GET /v1/nodestat"] = kind("the thing broke", hint="mend it", code="broken")
    with pytest.raises(arrives) as caught:
        client.nodestat("n01")
    assert type(caught.value) is arrives
    assert (caught.value.message, caught.value.hint, caught.value.code) == ("the thing broke", "mend it", "broken")
    assert caught.value.exit_code == kind.exit_code


def test_a_refusal_that_is_no_problem_of_ours_is_told_with_its_status(client):
    with pytest.raises(WireError, match=r"answered 404 Not Found to GET /v1/tables"):
        client.tables()


@pytest.mark.parametrize("body", [b"", b"[", b'{"nodes": 7}', b"\xff", b"[" * 100_000])
def test_an_answer_that_does_not_parse_is_a_sentence(daemon, client, body):
    daemon["GET /v1/nodestat"] = web.Response(body=body)
    with pytest.raises(WireError, match="no NodestatAnswer"):
        client.nodestat("all")


def test_a_socket_that_is_not_there_or_that_nobody_listens_on_is_unreachable(tmp_path):
    with pytest.raises(UnreachableError, match=r"no controller answers on .*litho serve"):
        Client(tmp_path / "none.sock").images()
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    with pytest.raises(UnreachableError, match="no controller answers"):
        Client(dead).images()


def test_a_daemon_that_stays_silent_is_unreachable(tmp_path):
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        with pytest.raises(UnreachableError, match="did not answer in time"):
            Client(path, timeout=0.1).images()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"220 smtp ready\r\n"])
def test_a_daemon_that_breaks_off_or_is_none_is_told_in_a_sentence(tmp_path, said):
    path = tmp_path / "brief.sock"

    def answer():
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises((UnreachableError, WireError)) as caught:
            Client(path, timeout=60).images()
        thread.join(60)
    assert "controller" in str(caught.value)


def test_a_verification_is_read_line_by_line_to_its_verdict(daemon, client):
    daemon["POST /v1/images/golden%3A2/verify"] = Lines(
        [{"done": 1, "total": 2}, {"done": 2, "total": 2}, {"problems": [{"file": "f", "sentence": "f is damaged"}]}]
    )
    lines = list(client.verify("golden:2", deep=True))
    assert [line.done for line in lines] == [1, 2, 0]
    assert lines[-1].problems == [api.VerifyProblem("f", "f is damaged")]
    assert daemon.requests[0].query == {"deep": "1"}


def test_a_verification_without_a_verdict_is_no_success(daemon, client):
    daemon["POST /v1/images/golden/verify"] = Lines([{"done": 1, "total": 2}])
    with pytest.raises(UnreachableError, match="in the middle of the check"):
        list(client.verify("golden", deep=False))


def test_a_verification_that_cannot_go_on_raises_what_happened(daemon, client):
    problem = {"code": "library-missing", "message": "the library went away"}
    daemon["POST /v1/images/golden/verify"] = Lines([{"done": 1, "total": 2}, {"error": problem, "status": 507}])
    with pytest.raises(LibraryError, match="went away"):
        list(client.verify("golden", deep=False))
