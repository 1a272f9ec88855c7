"""The inbox takes in whatever arrives: only what is well formed and comes from whom it says gets through."""

import asyncio
import json
import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho import messages
from litho.errors import LithoError, WireError
from litho.messages import Ack, Command, EventReport, Failed, ProgressReport, Status
from litho.progress import Progress
from litho_controller import inbox as module
from litho_controller.inbox import Endpoint, Inbox

STATUS = Status(node="n01", session="session-1", online=True, task="t-000001")
EVENT = EventReport(node="n01", session="session-1", task="t-000001", seq=2, body=Failed(code="c", reason="r"))
PROGRESS = ProgressReport(node="n01", session="session-1", task="t-000001", n=1, progress=Progress(), line="x")


class Recorder:
    """An ear that keeps what it hears."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.heard = []
        self.useful = True
        self.fails = fails

    async def event(self, report):
        if self.fails:
            raise self.fails
        self.heard.append(report)

    async def status(self, status):
        self.heard.append(status)

    def progress(self, report):
        self.heard.append(report)
        return self.useful

    def connected(self):
        self.heard.append("connected")


@pytest.fixture
def inbox():
    return Inbox("default", Endpoint(host="127.0.0.1", port=1, client="c"))


def topic(kind, node="n01", site="default"):
    return f"litho/v1/{site}/node/{node}/{kind}"


async def test_well_formed_words_get_through(inbox):
    ear = Recorder()
    for kind, message in (("status", STATUS), ("event", EVENT), ("progress", PROGRESS)):
        await inbox.take(topic(kind), messages.encode(message), ear)
    assert ear.heard == [STATUS, EVENT, PROGRESS]
    assert not inbox.dropped


@pytest.mark.parametrize("kind", ["status", "event", "progress"])
@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{}" * 200_000,
        b"[" * 100_000,
        b'{"v":2,"node":"n01","session":"s","online":true}',
        b'{"v":1,"node":"n01\\n","session":"s","online":true}',
        b'{"v":1,"node":"n01","session":"../x","online":true,"task":"' + b"x" * 100 + b'"}',
        json.dumps(
            {"v": 1, "node": "n01", "session": "s", "task": "t", "seq": 2, "body": {"type": "planned"}}
        ).encode(),
        json.dumps(
            {"v": 1, "node": "n01", "session": "s", "task": "t", "seq": -1, "body": {"type": "started"}}
        ).encode(),
        json.dumps({"v": 1, "node": "n01", "session": "s", "task": "t", "n": 1, "progress": {"fraction": 9}}).encode(),
    ],
)
async def test_hostile_payloads_are_counted_and_go_no_further(inbox, kind, payload):
    ear = Recorder()
    await inbox.take(topic(kind), payload, ear)
    assert ear.heard == []
    assert inbox.dropped == {"payload": 1}


@pytest.mark.parametrize(
    "name",
    [
        "litho/v1/other/node/n01/status",
        "litho/v2/default/node/n01/status",
        "litho/v1/default/node/n01/status/x",
        "litho/v1/default/node//status",
        "litho/v1/default/node/n 01/status",
        "litho/v1/default/node/n01/other",
        "litho/v1/default/node/n01/command",
        "x" * 70_000,
        "",
    ],
)
async def test_topics_that_are_not_ours_are_counted_and_go_no_further(inbox, name):
    ear = Recorder()
    await inbox.take(name, messages.encode(STATUS), ear)
    assert ear.heard == []
    assert inbox.dropped == {"topic": 1}


@pytest.mark.parametrize(("kind", "message"), [("status", STATUS), ("event", EVENT), ("progress", PROGRESS)])
async def test_a_node_that_speaks_for_another_is_not_heard(inbox, kind, message):
    ear = Recorder()
    await inbox.take(topic(kind, node="n02"), messages.encode(message), ear)
    assert ear.heard == []
    assert inbox.dropped == {"node": 1}


async def test_a_cleared_status_is_nothing(inbox):
    ear = Recorder()
    await inbox.take(topic("status"), b"", ear)
    assert ear.heard == []
    assert not inbox.dropped


async def test_useless_progress_is_counted_as_stale(inbox):
    ear = Recorder()
    ear.useful = False
    await inbox.take(topic("progress"), messages.encode(PROGRESS), ear)
    assert inbox.dropped == {"stale": 1}


@pytest.mark.parametrize(
    ("failure", "counted"),
    [(LithoError("the disk is full"), "unstored"), (WireError("no"), "payload"), (ZeroDivisionError(), "unstored")],
)
async def test_a_failure_while_taking_in_does_not_end_the_inbox(inbox, failure, counted):
    await inbox.take(topic("event"), messages.encode(EVENT), Recorder(failure))
    assert inbox.dropped == {counted: 1}


async def test_a_flood_of_junk_is_logged_once(inbox, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    ear = Recorder()
    for _ in range(1000):
        await inbox.take(topic("event", node="n02"), b"\x1b[31mred\nnext", ear)
    assert len(caplog.records) == 1
    assert inbox.dropped["payload"] == 1000
    monkeypatch.setattr(module, "LOG_EVERY_S", 0.0)
    await inbox.take(topic("event"), b"\x1b[31mred\nnext", ear)
    assert "1001 so far" in caplog.text
    assert "\x1b" not in caplog.text


@given(st.text(max_size=60), st.binary(max_size=200))
async def test_no_bytes_on_any_topic_raise(name, payload):
    inbox = Inbox("default", Endpoint(host="127.0.0.1", port=1, client="c"))
    ear = Recorder()
    for where in (name, topic("event"), topic("status"), topic("progress")):
        await inbox.take(where, payload, ear)
    assert ear.heard == []


async def test_what_is_sent_while_nobody_is_connected_is_dropped(inbox):
    inbox.send("n01", Command(session="session-1", task="t-000001", body=Ack(seq=2)))
    assert not inbox.connected
    assert inbox.dropped == {"unsent": 1}


def test_an_event_with_unknown_fields_is_understood():
    """A newer agent may say more than this controller knows."""
    plain = msgspec.json.decode(messages.encode(EVENT))
    plain["mood"] = "good"
    assert messages.decode(msgspec.json.encode(plain), EventReport) == EVENT


class _Swallowing:
    """A client of the broker whose connecting loses the cancel that comes in its last moment, as `asyncio.wait_for` does."""

    def __init__(self, *_, **__):
        self.messages = self

    async def __aenter__(self):
        self.connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return self

    async def __aexit__(self, *_):
        return None

    async def subscribe(self, topic, qos):
        return [qos]

    async def publish(self, *_, **__):
        return None

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.Event().wait()


async def test_an_end_that_comes_as_the_broker_is_reached_is_heard(inbox, monkeypatch):
    monkeypatch.setattr(_Swallowing, "connecting", asyncio.Event(), raising=False)
    monkeypatch.setattr(module.aiomqtt, "Client", _Swallowing)
    running = asyncio.create_task(inbox.run(Recorder()))
    await _Swallowing.connecting.wait()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=60)
    assert done == {running} and running.cancelled()
