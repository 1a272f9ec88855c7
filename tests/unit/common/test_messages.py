"""Nothing that comes in over the wire gets past `decode` but what the wire is."""

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho import messages as m
from litho.errors import WireError
from litho.job import EDITION, Job
from litho.progress import Progress

SHAPES: list[type[m.Message]] = [
    m.Status,
    m.ProgressReport,
    m.EventReport,
    m.Command,
    m.ClaimRequest,
    m.Order,
    m.Problem,
]
DISK = m.DiskFacts(path="/dev/sda", size=10**9, serial="S1", sector_size=4096)
BODIES: list[m.EventBody] = [
    m.Planned(disk=DISK, steps=("layout", "sda1 by partclone"), total=5),
    m.Started(),
    m.Succeeded(image="golden", version=2, used=5, stored=3, seconds=1.5, disk=DISK, os=m.OsFacts(name="Linux")),
    m.Failed(code="disk-missing", reason="no disk sda", touched=True),
    m.Stopped(),
]
ORDERS: list[Any] = [m.Ack(seq=3), m.Cancel(), m.Stop(reason="the task is another's"), m.Finish()]


def report(body: m.EventBody, **changes: Any) -> m.EventReport:
    return m.EventReport(**{"node": "n01", "session": "s-1", "task": "t1", "seq": 2, "body": body, **changes})


MESSAGES: list[m.Message] = [
    m.Status(node="n01", session="s-1", online=True, task="t1", at=1.5),
    m.ProgressReport(node="n01", session="s-1", task="t1", n=1, progress=Progress(fraction=0.5, eta_s=None), line="x"),
    *(report(body) for body in BODIES),
    *(m.Command(session="s-1", task="t1", body=body) for body in ORDERS),
    m.ClaimRequest(
        node="n01", task="t1", token="t" * 16, session="12345678", inventory={"cpus": 2, "nics": [{"mac": "x"}]}
    ),
    m.Order(
        task="t1",
        node="n01",
        site="default",
        job=Job(action="restore", image="golden", labels={"a": "b"}),
        library="nfs://s/x",
        brokers=(m.Broker(host="h"),),
        password="secret",
    ),
    m.Problem(code="refused", message="no"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(getattr(message, "body", message)).__name__)
def test_a_message_arrives_as_it_was_sent(message: m.Message) -> None:
    payload = m.encode(message)
    assert m.decode(payload, type(message)) == message
    assert msgspec.json.decode(payload)["v"] == 1
    assert m.decode(bytearray(payload), type(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(getattr(message, "body", message)).__name__)
@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, True])
def test_another_version_is_refused_whole(message: m.Message, version: object) -> None:
    loose = {**msgspec.json.decode(m.encode(message)), "v": version}
    with pytest.raises(WireError):
        m.decode(msgspec.json.encode(loose), type(message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(getattr(message, "body", message)).__name__)
def test_a_newer_sender_may_add_a_field(message: m.Message) -> None:
    loose = {**msgspec.json.decode(m.encode(message)), "new_field": {"of": [1, 2]}}
    assert m.decode(msgspec.json.encode(loose), type(message)) == message


def test_a_job_with_a_field_that_this_program_does_not_know_is_refused() -> None:
    # A job says what to do with a disk: half of it must not be done.
    order = msgspec.json.decode(m.encode(MESSAGES[-2]))
    order["job"]["shred"] = True
    with pytest.raises(WireError, match="shred"):
        m.decode(msgspec.json.encode(order), m.Order)


def bare(schema: object) -> object:
    """A schema without the words that only people read."""
    if isinstance(schema, dict):
        return {name: bare(value) for name, value in schema.items() if name not in ("description", "title")}
    return [bare(one) for one in schema] if isinstance(schema, list) else schema


def test_whoever_changes_what_an_order_may_hold_raises_its_edition() -> None:
    shape = json.dumps(bare(msgspec.json.schema(m.Order)), sort_keys=True)
    found = (EDITION, hashlib.sha256(shape.encode()).hexdigest()[:16])
    # After a change: raise `litho.job.EDITION` and put the new pair here, so that older agents are told at their claim.
    assert found == (4, "08afdf344e5ee217")


def test_the_head_of_a_claim_or_an_order_is_read_in_any_version() -> None:
    claim = {"v": 7, "node": "n01", "task": "t1", "token": "t" * 16, "session": "12345678", "horns": [1]}
    found = m.head(msgspec.json.encode(claim), m.Claimant)
    assert found is not None
    assert (found.v, found.edition, found.node, found.task, found.session) == (7, 1, "n01", "t1", "12345678")
    order = m.head(b'{"v":3,"edition":9,"task":"t1","node":"n01","job":7}', m.OrderHead)
    assert order == m.OrderHead(v=3, edition=9, task="t1", node="n01")
    for bad in (b"", b"[]", b'{"v":2}', b"\xff", b"[" * 5000, b" " * (m.MAX_PAYLOAD + 1)):
        assert m.head(bad, m.OrderHead) is None


def test_what_is_too_large_is_not_even_looked_at() -> None:
    with pytest.raises(WireError, match="over the limit"):
        m.decode(b" " * (m.MAX_PAYLOAD + 1), m.Status)
    at_the_limit = m.encode(MESSAGES[0])
    assert m.decode(at_the_limit + b" " * (m.MAX_PAYLOAD - len(at_the_limit)), m.Status) == MESSAGES[0]


def test_what_no_receiver_would_take_is_not_sent() -> None:
    with pytest.raises(WireError, match="over the limit"):
        m.encode(report(m.Planned(disk=DISK, steps=("x" * 4000,) * 100, total=1)))
    with pytest.raises(WireError, match="cannot be sent"):
        m.encode(report(m.Failed(code="x", reason="a file called \udcff")))


@given(st.text(st.characters(), max_size=50).map(lambda text: text * 200), st.integers(2, 5000))
def test_clipped_text_always_fits(text: str, limit: int) -> None:
    clipped = m.clip(text, limit)
    assert len(clipped) <= limit
    assert m.clip("what \udcff said", 100) == "what ? said"
    event = report(m.Failed(code="engine", reason=m.clip(text)))
    assert m.decode(m.encode(event), m.EventReport) == event


@given(st.binary(max_size=400), st.sampled_from(SHAPES))
def test_junk_bytes_are_a_wire_error(junk: bytes, shape: type[m.Message]) -> None:
    with pytest.raises(WireError):
        m.decode(junk, shape)


json_st = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
fields_st = st.sampled_from(
    [
        "v",
        "node",
        "session",
        "task",
        "seq",
        "n",
        "online",
        "body",
        "type",
        "at",
        "progress",
        "line",
        "job",
        "token",
        "disk",
    ]
)


@given(st.dictionaries(fields_st, json_st, max_size=8), st.sampled_from(SHAPES))
def test_json_of_another_shape_is_a_wire_error_or_a_message(loose: dict[str, Any], shape: type[m.Message]) -> None:
    try:
        message = m.decode(msgspec.json.encode(loose), shape)
    except WireError as exc:
        assert len(str(exc)) < 2000  # goes into a log
    else:
        assert m.decode(m.encode(message), shape) == message


@given(st.sampled_from(MESSAGES), st.data())
def test_a_damaged_message_is_a_wire_error_or_a_message(message: m.Message, data: st.DataObject) -> None:
    payload = bytearray(m.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        m.decode(payload, type(message))
    except WireError:
        return


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"{",
        b"[" * 200_000,
        b'{"a":' * 40_000,
        b'{"v":1,"node":"n","session":"s","online":true,"at":1e999}',
        b'{"v":1,"node":"\\ud800","session":"s","online":true}',
    ],
    ids=range(10),
)
def test_hostile_payloads_are_a_wire_error(shape: type[m.Message], payload: bytes) -> None:
    with pytest.raises(WireError):
        m.decode(payload, shape)


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "n01\n"},
        {"node": "../x"},
        {"node": ""},
        {"node": "+"},
        {"node": "#"},
        {"node": "n" * 129},
        {"node": "n 1"},
        {"node": "nö"},
        {"session": "s\n"},
        {"session": "s/1"},
        {"session": "s" * 65},
        {"task": "t'"},
        {"seq": 1},
        {"seq": -1},
        {"seq": 2**31 + 1},
        {"seq": 2.5},
        {"body": {"type": "exec"}},
        {"body": {"type": "failed", "code": "c" * 65, "reason": "r"}},
        {"body": {"type": "failed", "code": "c", "reason": "r" * 4097}},
        {"body": {"type": "planned", "disk": {"path": "/dev/sda", "size": -1}, "steps": [], "total": 0}},
        {"body": {"type": "planned", "disk": {"path": "/dev/sda", "size": 1}, "steps": ["x"] * 257, "total": 0}},
    ],
    ids=str,
)
def test_a_field_out_of_its_bounds_is_refused(changes: dict[str, Any]) -> None:
    loose = {**msgspec.json.decode(m.encode(report(m.Started()))), **changes}
    with pytest.raises(WireError):
        m.decode(msgspec.json.encode(loose), m.EventReport)


@pytest.mark.parametrize(
    "changes",
    [
        {"fraction": 1.01},
        {"fraction": -0.1},
        {"done": -1},
        {"rate": -1},
        {"eta_s": -1},
        {"part": 5000},
        {"phase": "x" * 65},
        {"total": 2**63},
    ],
    ids=str,
)
def test_progress_from_outside_is_never_over_100_percent_nor_absurd(changes: dict[str, Any]) -> None:
    loose = msgspec.json.decode(m.encode(MESSAGES[1]))
    loose["progress"].update(changes)
    with pytest.raises(WireError):
        m.decode(msgspec.json.encode(loose), m.ProgressReport)


@pytest.mark.parametrize("kind", ["status", "progress", "event", "command"])
def test_a_topic_comes_apart_as_it_was_made(kind: m.Kind) -> None:
    assert m.topic("default", "n01", kind) == f"litho/v1/default/node/n01/{kind}"
    assert m.parse_topic(m.topic("a" * 128, "n" * 128, kind)) == ("a" * 128, "n" * 128, kind)
    assert m.topic("default", "+", kind) == f"litho/v1/default/node/+/{kind}"


@pytest.mark.parametrize("site", ["", "+", "#", "a/b", "-a", "a\n", "ä", "a" * 129, "$SYS"])
def test_a_name_that_is_none_makes_no_topic(site: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        m.topic(site, "n01", "status")
    if site != "+":
        with pytest.raises(ValueError, match="not a name"):
            m.topic("default", site, "status")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "litho",
        "litho/v2/s/node/n/status",
        "litho/v1/s/node/n/secret",
        "litho/v1/s/node/n/status/x",
        "litho/v1/s/host/n/status",
        "litho/v1//node/n/status",
        "litho/v1/s/node/../status",
        "litho/v1/s/node/+/status",
        "litho/v1/s/node/n/status\n",
        "/litho/v1/s/node/n/status",
        "$SYS/broker/uptime",
        "litho/v1/s/node/" + "n" * 100_000 + "/status",
        "/" * 60_000,
    ],
    ids=range(14),
)
def test_a_hostile_topic_is_a_wire_error_of_one_short_line(text: str) -> None:
    with pytest.raises(WireError) as refused:
        m.parse_topic(text)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


@given(st.text(max_size=80))
def test_no_topic_breaks_the_parser(text: str) -> None:
    try:
        site, node, kind = m.parse_topic(text)
    except WireError:
        return
    assert m.topic(site, node, kind) == text


def test_an_order_can_be_logged_without_its_password() -> None:
    order = MESSAGES[-2]
    assert "secret" not in repr(order)
    assert "secret" not in f"{order}"
    assert b"secret" in m.encode(order)
