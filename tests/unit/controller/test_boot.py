"""The words of a node's kernel command line, and the file that holds them."""

import os
import stat

import pytest

from litho.errors import LithoError, UsageError
from litho_controller.boot import cmdline
from litho_controller.boot.cmdline import BootFiles

LINE = cmdline.words(controller="http://10.0.0.1:3080", node="n01", task="t-000007", token="abc-DEF_123")


@pytest.fixture
def files(tmp_path):
    made = BootFiles(tmp_path / "boot")
    made.prepare()
    return made


def test_the_words_stand_in_order_and_can_be_read_back():
    assert LINE == "litho.controller=http://10.0.0.1:3080 litho.node=n01 litho.task=t-000007 litho.token=abc-DEF_123"
    assert cmdline.parse(LINE) == {
        "controller": "http://10.0.0.1:3080",
        "node": "n01",
        "task": "t-000007",
        "token": "abc-DEF_123",
    }


def test_the_administrators_own_words_come_last_on_the_same_line():
    line = cmdline.words(controller="u", node="n", task="t", token="k", extra="  console=ttyS0\n quiet ")
    assert line.endswith("litho.token=k console=ttyS0 quiet")
    assert cmdline.parse("quiet litho.node=n01 nothing litho.x") == {"node": "n01", "x": ""}


@pytest.mark.parametrize("bad", ["", "a b", "a\nb", 'a"b', "ä", "a\0b", "a\tb"])
def test_a_value_that_would_be_more_than_one_word_is_refused(bad):
    with pytest.raises(UsageError, match=r"litho\.controller cannot be"):
        cmdline.words(controller=bad, node="n01", task="t-1", token="x")


def test_tokens_are_long_and_never_the_same():
    tokens = {cmdline.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {43}
    assert len({cmdline.token_hash(token) for token in tokens}) == 100


def test_the_file_is_for_its_owner_alone(files):
    files.write("n01", LINE)
    assert stat.S_IMODE(files.path("n01").stat().st_mode) == 0o600
    assert stat.S_IMODE(files.path("n01").parent.stat().st_mode) == 0o700
    assert files.read("n01") == LINE
    assert files.read("n02") == ""
    assert files.nodes() == ["n01"]


def test_writing_replaces_and_leaves_nothing_beside(files):
    files.write("n01", "old")
    (files.path("n01").parent / ".n01.cmdline.new").write_text("left by a crash")
    files.write("n01", LINE)
    assert files.read("n01") == LINE
    assert os.listdir(files.path("n01").parent) == ["n01.cmdline"]  # noqa: PTH208 - hidden files count too


def test_a_file_is_removed_only_by_the_task_that_it_belongs_to(files):
    files.write("n01", LINE)
    files.remove("n01", task="t-000006")
    assert files.read("n01") == LINE
    files.remove("n01", task="t-000007")
    assert files.read("n01") == ""
    files.remove("n01", task="t-000007")
    files.remove("n01")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "-n", "n\n", "n01\0"])
def test_a_name_that_is_none_never_becomes_a_path(files, name):
    with pytest.raises(UsageError):
        files.write(name, LINE)
    with pytest.raises(UsageError):
        files.read(name)


def test_a_directory_that_cannot_be_used_is_a_sentence(tmp_path):
    (tmp_path / "boot").write_text("a file")
    with pytest.raises(LithoError, match=r"boot file .* cannot be used"):
        BootFiles(tmp_path / "boot").prepare()
    with pytest.raises(LithoError, match="cannot be used"):
        BootFiles(tmp_path / "nothing").write("n01", LINE)
    with pytest.raises(LithoError, match="cannot be used"):
        BootFiles(tmp_path / "nothing").nodes()
