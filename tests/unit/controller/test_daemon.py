"""The daemon's small rules. (The running daemon: tests/integration.)"""

import os
import socket
import stat

import msgspec
import pytest

from litho.errors import LibraryError, LithoError, RefusedError
from litho.library import Library
from litho_controller import broker_other, daemon
from litho_controller.broker_other import Login
from litho_controller.config import Broker, Config, Http
from litho_controller.web import doors


def test_only_one_controller_works_with_a_state_directory(tmp_path):
    state = tmp_path / "state"
    with (
        daemon.only_one(state),
        pytest.raises(RefusedError, match=rf"another controller works with .* \(process {os.getpid()}\)"),
        daemon.only_one(state),
    ):
        pass
    with daemon.only_one(state):
        pass


def test_a_state_directory_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LithoError, match=r"state directory .* cannot be used"),
        daemon.only_one(tmp_path / "file" / "state"),
    ):
        pass


def test_our_own_library_is_made_and_a_mounted_one_must_be_there(tmp_path):
    ours = Config(state_dir=tmp_path, library=tmp_path / "library")
    assert daemon.open_library(ours).root == tmp_path / "library"
    mounted = tmp_path.parent / (tmp_path.name + "-mounted")
    mounted.mkdir()
    theirs = Config(state_dir=tmp_path, library=mounted)
    with pytest.raises(LibraryError, match="is not an image library"):
        daemon.open_library(theirs)
    Library.create(mounted)
    assert daemon.open_library(theirs).root == mounted


def test_nodes_are_told_an_address_that_leads_here():
    with doors.open_tcp("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        plain = Config(http=Http(host="127.0.0.1"))
        assert daemon._url(plain, door) == f"http://127.0.0.1:{port}"
        everywhere = Config(http=Http(host="::"))
        assert daemon._url(everywhere, door) == f"http://{socket.gethostname()}:{port}"
        assert daemon._url(Config(http=Http(host="::1")), door) == f"http://[::1]:{port}"
        assert daemon._url(Config(http=Http(url="https://litho.example/x/")), door) == "https://litho.example/x"


def test_a_broker_that_is_not_ours_is_used_as_it_is():
    config = Config(broker=Broker(embedded=False, host="mq.example", port=8883), site="lab")
    entry = broker_other.Entry(controller=Login("litho", "s:cret"), ca="-----BEGIN")
    endpoint = daemon._endpoint(config, None, entry)
    assert msgspec.structs.asdict(endpoint) == {
        "host": "mq.example",
        "port": 8883,
        "username": "litho",
        "password": "s:cret",
        "client": "litho-controller-lab",
        "ca": "-----BEGIN",
    }
    assert "cret" not in repr(endpoint) and "cret" not in repr(entry)


# ---------------------------------------------------------------- doors


def test_a_port_that_is_taken_is_a_sentence():
    with (
        doors.open_tcp("127.0.0.1", 0) as door,
        pytest.raises(RefusedError, match=r"cannot listen on 127\.0\.0\.1 port"),
    ):
        doors.open_tcp("127.0.0.1", door.getsockname()[1])


def test_the_unix_socket_is_for_its_owner_alone_and_replaces_a_dead_one(tmp_path):
    path = tmp_path / "run" / "litho.sock"
    before = os.umask(0o022)
    os.umask(before)
    doors.open_unix(path).close()
    with doors.open_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(RefusedError, match="another controller answers"):
            doors.open_unix(path)
    assert os.umask(before) == before


def test_a_socket_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LithoError, match="cannot listen on the socket"):
        doors.open_unix(tmp_path / "file" / "litho.sock")
