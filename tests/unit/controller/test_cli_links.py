"""The tree of links that looks like an XCATROOT, and nodestat --watch."""

import sys

import click
import pytest

from litho.errors import UnreachableError
from litho_controller.api import NodestatLine
from litho_controller.cli import app, links, statwatch


def test_every_link_is_a_command_that_answers_to_its_name_and_all_of_them_are_made():
    assert sorted((*links.BIN, *links.SBIN)) == sorted(app.XCAT_NAMES)
    assert set(app.XCAT_NAMES) <= set(app.COMMANDS)


@pytest.fixture
def program(tmp_path, monkeypatch):
    path = tmp_path / "usr/bin/litho"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(path)])
    return path


def test_links_are_made_and_made_anew(tmp_path, program, capsys):
    root = tmp_path / "xcat"
    for _ in range(2):
        assert app.run(["xcat-links", str(root)]) == 0
    assert (root / "bin/lsdef").readlink() == (root / "sbin/nodeset").readlink() == program
    assert (root / links.TEMPLATE).read_text() == links.TEMPLATE_TEXT
    (root / links.TEMPLATE).write_text("a site's own\n")
    assert app.run(["xcat-links", str(root)]) == 0
    assert (root / links.TEMPLATE).read_text() == "a site's own\n"
    assert capsys.readouterr().err == ""


def test_the_commands_of_a_real_xcat_are_left_alone(tmp_path, program, capsys):
    real = tmp_path / "xcat/bin/nodestat"
    real.parent.mkdir(parents=True)
    real.write_text("#!/usr/bin/perl\n")
    assert app.run(["xcat-links", str(tmp_path / "xcat")]) == 4
    assert "is there already and is not ours" in capsys.readouterr().err
    assert real.read_text() == "#!/usr/bin/perl\n"


def test_watching_prints_what_changes_and_waits_for_a_controller_that_is_away(capsys):
    def line(node, text):
        return NodestatLine(node=node, text=text)

    answers = iter(
        [
            [line("n01", "boot"), line("n02", "sshd")],
            [line("n01", "armed"), line("n02", "sshd")],
            UnreachableError("no controller answers"),
            [line("n01", "armed"), line("n02", "noping")],
        ]
    )

    def ask():
        answer = next(answers, KeyboardInterrupt())
        if isinstance(answer, BaseException):
            raise answer
        return answer

    with pytest.raises(click.Abort):
        statwatch.watch(None, ask, sleep=lambda _: None)
    assert capsys.readouterr().out.splitlines() == ["n01: boot", "n02: sshd", "n01: armed", "n02: noping"]
