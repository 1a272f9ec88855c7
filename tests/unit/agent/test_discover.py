"""What a machine that no node is does with the controller's answers."""

import msgspec
import pytest

from litho import messages
from litho.discovery import Discovered, Discovery
from litho.errors import RefusedError, UnreachableError, WireError
from litho_agent import boot, discover
from litho_agent.discover import addresses, merged, read_answer

MAC = "52:54:00:00:00:99"
TOKEN = "x" * 32
WORDS = f"quiet litho.controller=http://c:3080 litho.node=n09 litho.task=t-000001 litho.token={TOKEN} litho.engine=raw"


class Controller:
    """A scripted controller, and the time that passes between its answers: the fake behind `Ask` and `Pause`."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.pauses = []
        self.said = []

    async def ask(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds):
        self.pauses.append(seconds)

    async def waited(self):
        return await discover.wait(MAC, self.ask, say=self.said.append, sleep=self.sleep)


async def test_it_waits_until_there_is_a_task_and_says_only_what_changes():
    nobody, waits = Discovered(), Discovered(node="n09")
    found = Controller(nobody, nobody, nobody, waits, waits, Discovered(node="n09", cmdline=WORDS))
    settings = await found.waited()
    assert (settings.node, settings.task, settings.token, settings.engine) == ("n09", "t-000001", TOKEN, "raw")
    assert found.said == [
        f"no node has {MAC} yet; waiting for: litho node add NAME --from-discovered {MAC}",
        "this machine is n09 and waits for a task: litho nodeset n09 ...",
    ]
    assert len(found.pauses) == 5
    assert all(5 <= seconds <= 10 for seconds in found.pauses)
    assert len(set(found.pauses)) > 1


async def test_it_reboots_when_it_is_told_to():
    found = Controller(Discovered(node="n09"), Discovered(node="n09", reboot=True))
    assert await found.waited() is None


async def test_a_controller_that_is_away_is_asked_again_after_growing_pauses():
    away = UnreachableError("nobody there")
    found = Controller(*[away] * 12, Discovered(), away, Discovered(node="n09", reboot=True))
    assert await found.waited() is None
    assert found.pauses[0] <= 0.5
    assert 15 <= found.pauses[11] <= 30
    assert found.pauses[13] <= 0.5
    assert found.said[0] == "nobody there; trying again"
    assert len(found.said) == 3


@pytest.mark.parametrize(
    "words",
    [
        "litho.controller=http://c litho.task=t-1",
        WORDS.replace("n09", "n08"),
        "quiet",
        WORDS.replace("litho.engine=raw", "litho.engine=dd"),
        WORDS + " litho.node=n09",
    ],
)
async def test_words_that_make_no_sense_are_asked_for_again(words):
    found = Controller(Discovered(node="n09", cmdline=words), Discovered(node="n09", cmdline=WORDS))
    assert (await found.waited()).node == "n09"
    assert found.said[0].endswith("; trying again")


async def test_a_refusal_ends_the_waiting():
    with pytest.raises(RefusedError):
        await Controller(RefusedError("no")).waited()


def test_the_card_that_booted_comes_first_and_each_address_once():
    cards = [{"mac": "52:54:00:00:00:98"}, {"mac": ""}, {"name": "odd"}, {"mac": MAC.upper()}]
    assert addresses(MAC, cards) == (MAC, "52:54:00:00:00:98")
    assert addresses("", cards) == ("52:54:00:00:00:98", MAC)
    assert len(addresses("", [{"mac": f"02:00:00:00:{n // 256:02x}:{n % 256:02x}"} for n in range(300)])) == 64


def test_a_machine_without_a_card_says_so():
    with pytest.raises(RefusedError, match="no network card with an address"):
        addresses("", [{"mac": ""}])


def test_the_controllers_words_win_over_the_machines_own():
    own = boot.read("litho.discover litho.controller=http://c:1 litho.port=0 litho.engine=partclone litho.debug")
    found = merged(own, boot.read(WORDS))
    assert (found.controller, found.node, found.engine) == ("http://c:3080", "n09", "raw")
    assert (found.port, found.debug, found.discover) == (0, True, False)


def test_an_answer_is_read_strictly():
    assert read_answer(200, b'{"v":1,"node":""}') == Discovered()
    for status, body in ((200, b"<html>"), (200, b'{"v":2}'), (200, b'{"v":1,"node":"a b"}'), (204, b""), (302, b"")):
        with pytest.raises(WireError):
            read_answer(status, body)
    for status in (500, 503, 429, 408):
        with pytest.raises(UnreachableError):
            read_answer(status, b"")
    problem = messages.encode(messages.Problem(code="bad-mac", message="no address", hint="give one"))
    with pytest.raises(RefusedError, match="no address") as caught:
        read_answer(400, problem)
    assert (caught.value.code, caught.value.hint) == ("bad-mac", "give one")
    with pytest.raises(RefusedError, match="HTTP 404"):
        read_answer(404, b"not found")


def test_what_crosses_arrives_as_it_was_sent_and_the_token_never_shows():
    for message in (Discovery(macs=(MAC,), inventory={"cpu": {"count": 2}}), Discovered(node="n09", cmdline=WORDS)):
        assert messages.decode(messages.encode(message), type(message)) == message
        assert msgspec.json.decode(messages.encode(message))["v"] == 1
        assert TOKEN not in repr(Discovered(node="n09", cmdline=WORDS))
    for hostile in (b'{"v":1,"macs":[]}', b'{"v":1,"macs":"x"}', b'{"v":1,"macs":["' + b"x" * 33 + b'"]}'):
        with pytest.raises(WireError):
            messages.decode(hostile, Discovery)
