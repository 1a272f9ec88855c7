import pytest

from litho.errors import ConfigError, UsageError
from litho.job import Job
from litho_agent import boot, main


def job(*words):
    return main.job_from(main.parser().parse_args(list(words)))


def test_a_capture_without_options_is_the_default_job():
    assert job("capture", "--library", "/srv", "--image", "golden") == Job(action="capture", image="golden")


def test_every_option_of_a_capture_reaches_the_job():
    words = "capture --disk sdb --library /srv --image g --engine raw --compress gzip --level 9 --allow lvm --allow removable"
    more = "--on-dirty raw --on-bad-sector continue --skip-unknown --label a=b --label c=d=e --vcl-markers"
    assert job(*words.split(), *more.split()) == Job(
        action="capture",
        image="g",
        disk="sdb",
        engine="raw",
        compress="gzip",
        level=9,
        allow=("lvm", "removable"),
        on_dirty="raw",
        on_bad_sector="continue",
        skip_unknown=True,
        labels={"a": "b", "c": "d=e"},
        vcl_markers=True,
    )


def test_a_restore_may_name_a_version():
    found = job("restore", "--disk", "sda", "--library", "/srv", "--image", "golden:3", "--fit", "grow")
    assert found == Job(action="restore", image="golden", version=3, disk="sda", fit="grow")
    assert job("restore", "--library", "/srv", "--image", "golden", "--on-dirty", "raw").on_dirty == "raw"


@pytest.mark.parametrize(
    "words",
    [
        "capture --library /srv --image golden:2",
        "capture --library /srv --image ../golden",
        "capture --library /srv --image g --compress gzip --level 10",
        "capture --library /srv --image g --label x",
        "capture --library /srv --image g --label =x",
        "restore --library /srv --image g:0",
    ],
)
def test_what_makes_no_sense_is_a_usage_error_in_words(words):
    with pytest.raises(UsageError):
        job(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        "",
        "print",
        "capture --image g",
        "capture --library /srv",
        "capture --library /srv --image g --level 0",
        "capture --library /srv --image g --level 20",
        "capture --library /srv --image g --level ²",
        "capture --library /srv --image g --engine dd",
        "restore --library /srv --image g --fit shrink",
    ],
)
def test_what_the_command_line_does_not_know_ends_with_two(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main.parser().parse_args(words.split())
    assert caught.value.code == 2
    assert "usage: litho-agent" in capsys.readouterr().err


def test_debug_is_understood_before_and_after_the_command():
    assert main.parser().parse_args(["--debug", "disks"]).debug
    assert main.parser().parse_args(["disks", "--debug"]).debug
    assert not main.parser().parse_args(["disks"]).debug


def test_a_kernel_command_line_is_read_whatever_bytes_it_holds(tmp_path):
    (tmp_path / "cmdline").write_bytes(b"quiet litho.node=n01 \xff\n")
    assert main.read_cmdline(tmp_path / "cmdline") == "quiet litho.node=n01 \ufffd\n"


def test_a_kernel_command_line_that_cannot_be_read_or_is_too_long_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        main.read_cmdline(tmp_path / "missing")
    (tmp_path / "long").write_bytes(b"x" * 10_000_000)
    with pytest.raises(ConfigError):
        boot.read(main.read_cmdline(tmp_path / "long"))
