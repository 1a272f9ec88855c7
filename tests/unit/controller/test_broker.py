"""The files of the embedded broker, and what is said when it cannot start. (The running broker: tests/integration.)"""

import base64
import pwd
import socket
import subprocess
from pathlib import Path

import pytest

from litho import process
from litho.errors import ConfigError, EngineError, LithoError, MissingProgramError
from litho_controller import broker, broker_files
from litho_controller.broker import EmbeddedBroker


def embedded(tmp_path, **changes):
    return EmbeddedBroker(tmp_path / "broker", **{"site": "default", "host": "127.0.0.1", "port": 0, **changes})


def test_a_password_line_is_what_mosquittos_own_tool_would_accept(tmp_path):
    """mosquitto_passwd writes the same format; with its salt our line is its line."""
    theirs = tmp_path / "theirs"
    subprocess.run(["mosquitto_passwd", "-c", "-b", theirs, "n01", "geheim"], check=True, capture_output=True)
    line = theirs.read_text().strip()
    salt = base64.b64decode(line.split("$")[3])
    assert broker_files.password_entry("n01", "geheim", salt=salt) == line


def test_two_lines_of_one_password_differ():
    assert broker_files.password_entry("n01", "x") != broker_files.password_entry("n01", "x")


def test_an_unchanged_account_keeps_its_line_and_no_node_takes_the_controllers():
    file = broker_files.PasswordFile({"_controller": "own"})
    first = file.text({"n01": "a", "n02": "b"}).splitlines()
    second = file.text({"n02": "b", "n03": "c", "_controller": "stolen", "x:y": "d", "x\ny": "e"}).splitlines()
    assert [line.partition(":")[0] for line in first] == ["_controller", "n01", "n02"]
    assert [line.partition(":")[0] for line in second] == ["_controller", "n02", "n03"]
    assert first[0] == second[0]
    assert first[2] == second[1]


def test_the_rules_name_the_site_and_let_a_node_write_its_own_topics_only():
    rules = broker_files.acl("lab").splitlines()
    assert rules == [
        "user _controller",
        "topic readwrite litho/v1/lab/node/#",
        "",
        "pattern write litho/v1/lab/node/%u/status",
        "pattern write litho/v1/lab/node/%u/progress",
        "pattern write litho/v1/lab/node/%u/event",
        "pattern read litho/v1/lab/node/%u/command",
    ]


@pytest.mark.parametrize("site", ["", "#", "a/b", "+", "a\nuser x"])
def test_a_site_that_would_widen_the_rules_is_refused(site):
    with pytest.raises(ConfigError):
        broker_files.acl(site)


@pytest.mark.parametrize("host", ["a b", "x\nallow_anonymous true", "h#", "ä"])
def test_a_host_that_would_break_the_configuration_is_refused(host):
    with pytest.raises(ConfigError):
        broker_files.conf(host=host, port=1883)


def test_nobody_is_anonymous_and_names_are_identities():
    lines = broker_files.conf(host="127.0.0.1", port=1883).splitlines()
    for line in (
        "listener 1883 127.0.0.1",
        "allow_anonymous false",
        "use_username_as_clientid true",
        "persistence true",
    ):
        assert line in lines


def test_the_probes_packet_is_mqtt_3_1_1():
    packet = broker_files.connect_packet("_probe", "_probe", "x" * 200)
    assert packet[0] == 0x10
    assert packet[1] & 0x80
    assert (packet[1] & 0x7F) + (packet[2] << 7) == len(packet) - 3
    assert packet[3:10] == b"\x00\x04MQTT\x04"
    assert packet.endswith(b"\x00\xc8" + b"x" * 200)


async def test_a_missing_mosquitto_is_told_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "which", lambda _: None)
    with pytest.raises(MissingProgramError, match="install the package mosquitto"):
        await embedded(tmp_path).start()


async def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "broker").write_text("a file")
    with pytest.raises(LithoError, match="cannot be written"):
        await embedded(tmp_path).start()


async def test_a_port_that_is_taken_is_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "READY_S", 3.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LithoError, match=rf"port {port} .* taken by another program") as caught:
            await embedded(tmp_path, port=port).start()
    assert caught.value.code == "port-taken"


async def test_a_state_that_cannot_be_read_is_put_aside(tmp_path):
    first = embedded(tmp_path)
    await first.start()
    await first.stop()
    state = tmp_path / "broker" / "broker.db"
    state.write_bytes(b"\0" * 100 + b"this is no mosquitto db")
    second = embedded(tmp_path)
    await second.start()
    await second.stop()
    assert second.port == first.port
    assert (tmp_path / "broker" / "broker.db.bad").exists()


def users_of(process_id):
    """Real, effective, saved and file system user of a process."""
    status = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return set(next(line for line in status if line.startswith("Uid:")).split()[1:])


async def test_the_broker_runs_as_its_own_user_and_its_files_are_closed_to_others(tmp_path):
    running = embedded(tmp_path)
    await running.start()
    try:
        owner = pwd.getpwnam("mosquitto").pw_uid
        assert users_of(running.pid) == {str(owner)}
        for name in ("passwords", "acl", "mosquitto.conf"):
            found = (tmp_path / "broker" / name).stat()
            assert (found.st_uid, found.st_mode & 0o777) == (owner, 0o600)
    finally:
        await running.stop()
    assert running.pid == 0


async def test_a_configuration_that_mosquitto_refuses_is_told_in_its_words(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "READY_S", 3.0)
    monkeypatch.setattr(broker_files, "conf", lambda **_: "no_such_word true\n")
    with pytest.raises(EngineError, match="no_such_word"):
        await embedded(tmp_path).start()
