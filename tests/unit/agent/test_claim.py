import msgspec
import pytest

from litho import messages
from litho.errors import ConfigError, RefusedError, UnreachableError, WireError
from litho.job import EDITION, Job
from litho.messages import Broker, ClaimRequest, Order, Problem
from litho_agent import claim
from litho_agent.claim import Controller, parse_url, read_answer

REQUEST = ClaimRequest(node="n01", task="t1", token="x" * 32, session="s" * 32)
ORDER = Order(
    task="t1",
    node="n01",
    site="lab",
    job=Job(action="capture", image="golden"),
    library="file:///srv",
    brokers=(Broker(host="127.0.0.1"),),
)


@pytest.mark.parametrize(
    ("text", "controller"),
    [
        ("http://mgmt", Controller(False, "mgmt", 80, "/v1/claim")),
        ("http://mgmt:3014", Controller(False, "mgmt", 3014, "/v1/claim")),
        ("http://mgmt:3014/", Controller(False, "mgmt", 3014, "/v1/claim")),
        ("https://mgmt.example.org/litho", Controller(True, "mgmt.example.org", 443, "/litho/v1/claim")),
        ("http://[::1]:80", Controller(False, "::1", 80, "/v1/claim")),
    ],
)
def test_an_address_of_a_controller_is_understood(text, controller):
    assert parse_url(text) == controller


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mgmt",
        "ftp://mgmt",
        "http://",
        "http://-x",
        "http://m gmt",
        "http://user:pw@mgmt",
        "http://mgmt:0x50",
        "http://mgmt:99999",
        "http://mgmt/?a=b",
        "http://mgmt/#x",
        "http://mgmt/a b",
        "http://mgmt/../x\r\nHost: evil",
        "http://[::1",
        "http://[zz:1]",
        "http://mg\nmt",
        "http://mgmt/\tx",
        "http://" + "a" * 2000,
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="write it like http://mgmt:3014"):
        parse_url(text)


def test_a_controller_is_told_as_a_person_would_write_it():
    assert str(parse_url("https://mgmt/litho")) == "https://mgmt:443"
    assert str(parse_url("http://[::1]:80")) == "http://[::1]:80"


def test_an_order_for_the_claim_is_the_answer():
    assert read_answer(200, messages.encode(ORDER), REQUEST) == ORDER


@pytest.mark.parametrize("change", [{"task": "t2"}, {"node": "n02"}])
def test_an_order_for_somebody_else_is_not_carried_out(change):
    other = msgspec.structs.replace(ORDER, **change)
    with pytest.raises(WireError, match="with an order for task") as caught:
        read_answer(200, messages.encode(other), REQUEST)
    assert caught.value.code == "foreign-order"


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b"{}", b"\xff\xfe", messages.encode(ORDER)[:-5]])
def test_an_answer_that_is_no_order_is_a_wire_error(body):
    with pytest.raises(WireError):
        read_answer(200, body, REQUEST)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v": 2}, "it is of version 2 of the wire, and this agent speaks version 1"),
        (
            {"edition": EDITION + 1, "job": {"shred": True}},
            f"it is of edition {EDITION + 1}, and this agent reads up to {EDITION}",
        ),
        ({"job": {"action": "shred", "image": "golden"}}, "Invalid enum value 'shred'"),
    ],
)
def test_an_order_that_this_agent_cannot_read_is_told_from_an_answer_that_is_none(change, words):
    body = msgspec.json.encode(msgspec.json.decode(messages.encode(ORDER)) | change)
    with pytest.raises(WireError, match=words) as caught:
        read_answer(200, body, REQUEST)
    assert caught.value.code == "order-version"
    assert "litho rootimg build" in caught.value.hint


def test_an_unreadable_order_for_somebody_else_is_no_order_of_ours():
    body = msgspec.json.encode(msgspec.json.decode(messages.encode(ORDER)) | {"v": 2, "task": "t2"})
    with pytest.raises(WireError) as caught:
        read_answer(200, body, REQUEST)
    assert caught.value.code == "bad-message"


@pytest.mark.parametrize("answers", [[409], [200], [503, None, 409]])
async def test_what_cannot_be_read_is_declined_until_the_controller_has_heard_it(monkeypatch, answers):
    unreadable = msgspec.json.encode(msgspec.json.decode(messages.encode(ORDER)) | {"v": 2})
    said, left = [], [(200, unreadable), *answers]

    async def exchange(where, body, limit_s):
        said.append(messages.decode(body, ClaimRequest))
        answer = left.pop(0)
        if answer is None:
            raise UnreachableError("nobody there")
        return answer if isinstance(answer, tuple) else (answer, b"")

    async def no_pause(seconds):
        return None

    monkeypatch.setattr(claim, "exchange", exchange)
    with pytest.raises(WireError) as caught:
        await claim.claim("http://mgmt", REQUEST, say=lambda text: None, sleep=no_pause)
    assert caught.value.code == "order-version"
    assert not left
    assert said[0] == REQUEST
    assert all(one == msgspec.structs.replace(REQUEST, declined=caught.value.message) for one in said[1:])


def test_a_refusal_keeps_the_controllers_words_hint_and_code():
    problem = Problem(code="token-used", message="the token was used", hint="say nodeset again")
    with pytest.raises(RefusedError) as caught:
        read_answer(403, messages.encode(problem), REQUEST)
    assert str(caught.value) == "the controller refused the claim: the token was used: say nodeset again"
    assert (caught.value.code, caught.value.exit_code) == ("token-used", 4)


@pytest.mark.parametrize("status", [400, 404, 410, 499])
def test_a_refusal_without_words_still_refuses(status):
    with pytest.raises(RefusedError, match=f"HTTP {status}"):
        read_answer(status, b"<h1>no</h1>", REQUEST)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 100, 204, 999])
def test_an_answer_that_may_change_is_worth_another_try(status):
    with pytest.raises(UnreachableError, match=f"HTTP {status}"):
        read_answer(status, b"", REQUEST)


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_not_followed(status):
    with pytest.raises(WireError, match="redirect"):
        read_answer(status, b"", REQUEST)
