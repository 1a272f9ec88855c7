"""`litho rootimg`: the build's command line, and how its results get to where nodes fetch them."""

import sys
from hashlib import sha256
from pathlib import Path

import pytest

from litho.errors import ConfigError, IntegrityError, NotFoundError
from litho_controller.cli import rootimg
from litho_controller.cli.app import run
from litho_rootimg.main import parser


@pytest.fixture
def built(tmp_path):
    """What a build leaves."""
    (tmp_path / "out/http").mkdir(parents=True)
    lines = []
    for name in rootimg.FILES:
        (tmp_path / "out/http" / name).write_bytes(name.encode() * 1000)
        lines.append(f"{sha256(name.encode() * 1000).hexdigest()}  http/{name}\n")
    (tmp_path / "out/SHA256SUMS").write_text("".join(lines))
    return tmp_path / "out"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A settings file whose boot.dir is in a directory of the test's."""
    file = tmp_path / "lithograph.toml"
    file.write_text(f'state_dir = "{tmp_path}/state"\n[boot]\ndir = "{tmp_path}/boot"\n')
    monkeypatch.setenv("LITHO_CONFIG", str(file))
    return tmp_path / "boot"


def test_the_build_is_told_what_was_asked_for_and_knows_every_word_of_it():
    words = {
        "work": None,
        "sources": Path("/etc/other"),
        "include": ("lldpd", "mc"),
        "with_firmware": True,
        "no_xcat": False,
    }
    made = rootimg.argv(Path("/out"), words)
    assert made == [
        sys.executable,
        *("-m", "litho_rootimg", "--out", "/out", "--sources=/etc/other", "--include=lldpd", "--include=mc"),
        "--with-firmware",
    ]
    known = {name for action in parser()._actions for name in action.option_strings}
    ours = {name for parameter in rootimg.build.params for name in parameter.opts} - {"--no-install"}
    assert ours <= known
    assert known - ours <= {"-h", "--help"}


def test_what_was_built_is_checked_and_put_where_nodes_fetch_it(built, settings, capsys):
    settings.mkdir()
    (settings / "vmlinuz").write_text("the old one")
    with (settings / "vmlinuz").open() as being_fetched:
        assert run(["rootimg", "install", str(built)]) == 0
        assert being_fetched.read() == "the old one"
    assert {file.name for file in settings.iterdir()} == set(rootimg.FILES)
    for name in rootimg.FILES:
        assert (settings / name).read_bytes() == (built / "http" / name).read_bytes()
        assert (settings / name).stat().st_mode & 0o777 == 0o644
    assert "nodes boot this root image" in capsys.readouterr().out


def test_a_damaged_or_missing_root_image_is_not_given_to_any_node(built, settings):
    (built / "http/initrd.img").write_bytes(b"cut")
    with pytest.raises(IntegrityError, match=r"initrd.img is not what SHA256SUMS says"):
        rootimg.place(built, settings)
    assert not settings.exists()
    with pytest.raises(NotFoundError, match="no whole root image"):
        rootimg.place(built / "http", settings)
    assert run(["rootimg", "install", str(built / "http")]) == 3


def test_a_place_that_cannot_be_is_said(built, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be put into"):
        rootimg.place(built, tmp_path / "file/boot")


def test_the_end_of_the_build_is_the_end_of_the_command(settings, tmp_path, capfd):
    assert run(["rootimg", "build", "--sources", str(tmp_path / "nothing")]) == 2
    told = capfd.readouterr()
    assert "litho_rootimg: " in told.err
    assert str(tmp_path / "nothing") in told.err
    assert not settings.exists()
