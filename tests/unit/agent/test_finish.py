import pytest

from litho.errors import EngineError
from litho.messages import DiskFacts, Failed, Stopped, Succeeded
from litho_agent import finish
from litho_agent.finish import Decision, NoPower, decide


@pytest.mark.parametrize(
    ("then", "deed"), [("", "reboot"), ("reboot", "reboot"), ("poweroff", "poweroff"), ("stay", "stay")]
)
def test_in_the_root_image_the_wish_is_followed_and_no_wish_means_reboot(then, deed):
    assert decide(then, in_rootimg=True) == Decision(deed)


@pytest.mark.parametrize("then", ["", "reboot", "poweroff", "stay"])
def test_a_machine_that_does_not_run_the_root_image_always_stays(then):
    assert decide(then, in_rootimg=False).deed == "stay"


@pytest.mark.parametrize("then", ["reboot", "poweroff"])
def test_a_wish_that_is_not_followed_is_told(then):
    assert f"then={then} is not followed" in decide(then, in_rootimg=False).note
    assert "/etc/lithograph-rootimg" in decide(then, in_rootimg=False).note


def test_the_marker_file_tells_the_root_image(tmp_path):
    assert not finish.in_rootimg(tmp_path / "lithograph-rootimg")
    (tmp_path / "lithograph-rootimg").touch()
    assert finish.in_rootimg(tmp_path / "lithograph-rootimg")
    (tmp_path / "directory").mkdir()
    assert not finish.in_rootimg(tmp_path / "directory")


@pytest.mark.parametrize(("deed", "done"), [("reboot", ["reboot"]), ("poweroff", ["poweroff"]), ("stay", [])])
def test_only_what_was_decided_is_done(deed, done):
    power = NoPower()
    assert finish.finish(Decision(deed), power) == ""
    assert power.deeds == done


def test_a_switch_that_fails_is_told_in_a_sentence():
    class Stuck(NoPower):
        def reboot(self) -> None:
            raise EngineError("rebooting the node: reboot ended with exit code 1")

    assert finish.finish(Decision("reboot"), Stuck()) == "rebooting the node: reboot ended with exit code 1"


def test_the_agent_ends_with_nought_with_the_errors_own_code_or_with_ten_when_stopped():
    disk = DiskFacts(path="/dev/sda", size=1)
    assert finish.exit_code(Succeeded(image="g", version=1, used=1, stored=1, seconds=1.0, disk=disk)) == 0
    assert finish.exit_code(Failed(code="disk-missing", reason="x", exit_code=5)) == 5
    assert finish.exit_code(Stopped()) == 10
