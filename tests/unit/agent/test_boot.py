"""The kernel command line: cut as the kernel does it, ours strictly, the rest not at all."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import ConfigError, LithoError
from litho_agent import boot
from litho_agent.disks import guard

REFERENCE = Path(__file__).parents[3] / "docs/reference/kernel-parameters.md"
TOKEN = "0123456789abcdefSECRET"
CLAIM = f"litho.controller=http://mgmt:3014 litho.task=t-1 litho.token={TOKEN}"

GOOD = {
    "litho.controller": ["http://mgmt:3014", "https://10.0.0.1", "http://[fd00::1]:80/"],
    "litho.task": ["42", "4f1c-aa"],
    "litho.token": [TOKEN],
    "litho.node": ["n01", "n01.cluster.local"],
    "litho.library": ["file:///srv/images", "nfs://10.0.0.1/srv/images", "nfs://[fd00::1]/x"],
    "litho.disk": ["sda", "serial=S1,size>=100G", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"],
    "litho.engine": ["partimage", "partclone", "raw", "partimage-ng"],
    "litho.compress": ["zstd", "gzip", "none"],
    "litho.level": ["1", "9", "19"],
    "litho.then": ["reboot", "poweroff", "stay"],
    "litho.allow": ["lvm", "removable,raid"],
    "litho.fit": ["keep", "grow"],
    "litho.on-dirty": ["refuse", "repair", "raw"],
    "litho.on-bad-sector": ["stop", "continue"],
    "litho.parallel": ["1", "8"],
    "litho.sources": ["nfs", "controller", "http://10.0.0.5/lib", "nfs,https://[fe80::1]:8443/a/b"],
    "litho.port": ["1", "3001", "65535"],
    "litho.library-hooks": ["", "yes"],
    "litho.discover": ["", "1", "on"],
    "litho.debug": ["", "1", "yes"],
}
BAD = {
    "litho.controller": [
        "mgmt:3014",
        "ftp://mgmt",
        "http://",
        "http://mgmt/path",
        "http://u:p@mgmt",
        "http://a b",
        "http://m:99999",
    ],
    "litho.task": ["a/b", "x" * 65, "ä"],
    "litho.token": ["short", "x" * 129, "with blank 0123456789"],
    "litho.node": ["-n", "a/b", "x" * 200],
    "litho.library": ["/srv/images", "file://srv", "nfs://server", "file:///a/../b", "nfs:///x", "smb://a/b"],
    "litho.disk": [
        "size>100G",
        "serial=",
        "foo=bar",
        "/etc/passwd",
        "/dev/../etc",
        "sda,,sdb",
        "transport=floppy-tape",
    ],
    "litho.engine": ["dd", "Partclone"],
    "litho.compress": ["xz"],
    "litho.level": ["0", "20", "-1", "one", "1.5", "\u0661"],
    "litho.then": ["halt"],
    "litho.allow": ["mounted", "held", "read-only", "everything", "lvm,,raid"],
    "litho.fit": ["shrink"],
    "litho.on-dirty": ["ignore"],
    "litho.on-bad-sector": ["skip"],
    "litho.parallel": ["0", "9", "two", "-1"],
    "litho.sources": ["ftp://x/y", "http://u:p@x/y", "http://x/a b", "http://x/../y", "nfs,,http://x", "http://x/?q"],
    "litho.port": ["65536", "-1", "http", "03001"],
    "litho.library-hooks": ["maybe"],
    "litho.discover": ["maybe"],
    "litho.debug": ["maybe"],
}


FLAGS = ("litho.debug", "litho.library-hooks", "litho.discover")


def with_others(name: str, value: str) -> str:
    words = [f'{name}="{value}"' if name not in FLAGS or value else name]
    if name == "litho.discover":
        words.append("litho.controller=http://mgmt:3014")
    if name in ("litho.controller", "litho.task", "litho.token"):
        words += [word for word in CLAIM.split() if not word.startswith(name)]
    return " ".join(words)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_every_good_value_is_taken(name: str, value: str) -> None:
    settings = boot.read(f"BOOT_IMAGE=/vmlinuz ro {with_others(name, value)} quiet")
    assert getattr(settings, name.removeprefix("litho.").replace("-", "_")) not in ("", None, (), False)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in [*values, ""]])
def test_every_bad_value_is_an_error_that_names_parameter_value_and_what_is_allowed(name: str, value: str) -> None:
    if name in FLAGS and not value:
        return
    with pytest.raises(ConfigError) as caught:
        boot.read(with_others(name, value))
    assert name in caught.value.message
    assert caught.value.hint
    assert caught.value.code == "bad-parameter"
    if name == "litho.token":
        assert not value or value not in str(caught.value)
    else:
        assert repr(value)[1:-1][:110] in caught.value.message


def test_the_error_tells_the_way_out_in_one_sentence() -> None:
    with pytest.raises(ConfigError) as caught:
        boot.read("litho.then=halt")
    assert (
        str(caught.value) == "the kernel parameter litho.then has the value 'halt': write one of reboot, poweroff, stay"
    )


def test_a_guard_that_nothing_lifts_says_what_to_do_instead() -> None:
    with pytest.raises(ConfigError, match="'mounted' cannot be allowed: stop what uses the disk"):
        boot.read("litho.allow=lvm,mounted")


@pytest.mark.parametrize(
    "line", ["litho.node=a litho.node=b", "litho.node=a litho.node=a", "litho.on-dirty=raw litho.on_dirty=raw"]
)
def test_a_parameter_given_twice_is_an_error(line: str) -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        boot.read(line)


def test_what_is_not_ours_or_not_known_is_ignored() -> None:
    line = 'BOOTIF=01-aa ip=dhcp litho.future=x litho. lithograph=1 nolitho.disk=sda root=/dev/sda1 "odd word=" = ""'
    assert boot.read(line) == boot.Settings()


def test_quotes_work_as_in_the_kernel() -> None:
    assert boot.words('a="b c" "d=e f" g"h i"j  k="" l') == ["a=b c", "d=e f", "gh ij", "k=", "l"]
    assert boot.words('open="to the end') == ["open=to the end"]
    assert boot.read('litho.disk="model=Samsung SSD 980"').disk == "model=Samsung SSD 980"
    assert boot.read('"litho.disk=model=Samsung SSD 980"\n').disk == "model=Samsung SSD 980"


def test_a_selector_with_equals_signs_stays_whole() -> None:
    assert boot.read("litho.disk=size>=100G,transport=nvme").disk == "size>=100G,transport=nvme"


@pytest.mark.parametrize("missing", ["controller", "task", "token"])
def test_controller_task_and_token_belong_together(missing: str) -> None:
    line = " ".join(word for word in CLAIM.split() if not word.startswith(f"litho.{missing}"))
    if missing == "token":
        line = line.replace("litho.token", "x")
    with pytest.raises(ConfigError, match=f"litho.{missing} is not"):
        boot.read(line)


@pytest.mark.parametrize(
    ("line", "why"),
    [("litho.discover", "litho.controller is not"), (f"litho.discover {CLAIM}", "litho.task is given, too")],
)
def test_discover_goes_with_the_controller_alone(line: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        boot.read(line)


@pytest.mark.parametrize(
    ("line", "mac"),
    [
        ("quiet BOOTIF=01-52-54-00-12-34-AB ro", "52:54:00:12:34:ab"),
        ("BOOTIF=01-52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("quiet", ""),
        ("BOOTIF=01-52-54-00-12-34", ""),
        ("BOOTIF=20-52-54-00-12-34-56", ""),
        ("XBOOTIF=01-52-54-00-12-34-56", ""),
        ("BOOTIF=01-52-54-00-12-34-5\u0661", ""),
    ],
)
def test_the_card_that_booted_is_read_as_boot_loaders_say_it(line: str, mac: str) -> None:
    assert boot.bootif(line) == mac


def test_gzip_has_no_level_above_nine() -> None:
    with pytest.raises(ConfigError, match="gzip knows 1 to 9"):
        boot.read("litho.compress=gzip litho.level=10")


def test_the_token_never_shows() -> None:
    settings = boot.read(CLAIM)
    assert settings.token == TOKEN
    for shown in (repr(settings), str(settings), f"{settings}", repr(list(settings.__rich_repr__()))):
        assert "SECRET" not in shown
        assert "t-1" in shown


def test_the_reference_lists_every_parameter_and_no_other() -> None:
    text = REFERENCE.read_text()
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `(litho\.[a-z-]+)` \| (.*?) \|", text, re.MULTILINE)}
    assert list(rows) == [parameter.name for parameter in boot.PARAMETERS]
    for name, values in {
        "litho.engine": get_args(boot.EngineName),
        "litho.compress": get_args(boot.Compression),
        "litho.then": get_args(boot.Then),
        "litho.fit": get_args(boot.Fit),
        "litho.on-dirty": get_args(boot.OnDirty),
        "litho.on-bad-sector": get_args(boot.OnBadSector),
        "litho.allow": guard.LIFTABLE,
    }.items():
        assert re.findall(r"`([a-z-]+)`", rows[name]) == [value for value in values if value]
    assert set(GOOD) == set(BAD) == set(rows)
    guards = text.split("## Guards")[1]
    assert re.findall(r"^\| `([a-z]+)` \|", guards, re.MULTILINE) == list(guard.LIFTABLE)


def test_every_parameter_sets_a_field() -> None:
    fields = {field.name for field in msgspec.structs.fields(boot.Settings)}
    assert {parameter.field for parameter in boot.PARAMETERS} == fields


@given(st.text(max_size=300))
def test_any_line_gives_settings_or_one_of_our_errors(line: str) -> None:
    try:
        boot.read(line)
    except LithoError as exc:
        assert exc.hint or exc.message


@given(
    st.sampled_from([parameter.name for parameter in boot.PARAMETERS]),
    st.text(alphabet=st.characters(exclude_characters='"'), max_size=60),
)
def test_any_value_of_a_parameter_gives_settings_or_a_config_error(name: str, value: str) -> None:
    try:
        boot.read(f'{name}="{value}"')
    except ConfigError as exc:
        assert exc.code == "bad-parameter"


def test_a_line_longer_than_any_kernel_takes_is_an_error() -> None:
    with pytest.raises(ConfigError, match="more than 65536 characters"):
        boot.read("x" * 70_000)


def test_a_port_of_zero_is_a_wish_and_no_port_is_none() -> None:
    assert boot.read("litho.port=0").port == 0
    assert "port=0" in repr(boot.read("litho.port=0"))
    assert boot.read("quiet").port is None
