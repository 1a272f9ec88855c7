"""Settings: the file, the environment over it, what is refused; and the reference held against the structs."""

import tomllib
from pathlib import Path

import pytest

from litho.errors import ConfigError
from litho_controller import config
from litho_controller.cli.settings import toml

REFERENCE = Path(__file__).parents[3] / "docs/reference/configuration.md"


def written(tmp_path, text):
    file = tmp_path / "lithograph.toml"
    file.write_text(text)
    return file


def test_without_a_file_the_defaults_hold():
    found = config.build({}, "nothing")
    assert found == config.Config()
    assert found.database_url == "sqlite+aiosqlite:////var/lib/lithograph/lithograph.db"


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path):
    file = written(
        tmp_path,
        'site = "lab"\nlibrary = "/srv/images"\n[http]\nport = 0\n[timeouts]\nlease_s = 30\nheartbeat_s = 1.5\n',
    )
    found = config.load(file, {})
    assert (found.site, found.library, found.http.port) == ("lab", Path("/srv/images"), 0)
    assert (found.timeouts.lease_s, found.timeouts.heartbeat_s, found.timeouts.boot_s) == (30.0, 1.5, 1800.0)


def test_the_environment_wins_over_the_file(tmp_path):
    file = written(tmp_path, "vcl_markers = false\n[http]\nport = 1\n")
    environ = {
        "LITHO_CONFIG": str(file),
        "LITHO_HTTP_PORT": "8080",
        "LITHO_VCL_MARKERS": "true",
        "LITHO_STATE_DIR": "/s",
        "HOME": "/",
    }
    found = config.load(None, environ)
    assert (found.http.port, found.vcl_markers, found.state_dir) == (8080, True, Path("/s"))


def test_every_key_can_be_set_by_its_variable():
    samples = {bool: "true", int: "7", float: "7.5", str: "x-1", Path: "/a/b"}
    special = {
        "database": "postgresql+asyncpg:///d",
        "http.url": "http://h:1",
        "timeouts.lease_s": "20",
        "broker.embedded": "false",
        "broker.login": "/etc/litho/login",
        "broker.node_login": "/etc/litho/nodes",
        "broker.ca": "/etc/litho/ca.pem",
        "capture.engine": "partimage",
        "boot.unknown": "local",
        "boot.local": "sanboot",
        "boot.require_mac": "false",
        "boot.tftpdir": "/srv/tftp",
        "slots.groups": "{rack1 = 4}",
        "tasks.windows": '["22:00-06:00"]',
        "power.command": '["/bin/power", "{node}", "{action}"]',
        "power.on_arm": "reset",
    }
    environ = {}
    for key in config.every_key():
        base = key.type
        while hasattr(base, "__metadata__"):
            base = base.__origin__
        environ[key.variable] = special[key.name] if key.name in special else samples[base]
    found = config.plain(config.build(config.override({}, environ), "environment"))
    default = config.plain(config.Config())
    unchanged = [key.name for key in config.every_key() if _at(found, key.name) == _at(default, key.name)]
    assert unchanged == []


def _at(values, name):
    for level in name.split("."):
        values = values[level]
    return values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('sitee = "x"', "unknown key sitee: did you mean site?"),
        ("[http]\nprot = 1", "unknown key http.prot: did you mean http.port?"),
        ("port = 3", "unknown key port: did you mean http.port?"),
        ("[htpt]\nport = 1", "unknown key htpt: did you mean http?"),
        ("zzzzzz = 1", "unknown key zzzzzz: known here: boot, broker, capture, chunks"),
        ("http = 3", "http is a single value: it is a section: write [http]"),
        ('[http]\nport = "80"', "http.port is '80': allowed is a whole number from 0 to 65535"),
        ("[http]\nport = 70000", "http.port is 70000: allowed is a whole number from 0 to 65535"),
        ("[http]\nport = true", "http.port is True: allowed is a whole number"),
        ("[http]\nport = [1]", "http.port has a value of the wrong kind: allowed is a whole number"),
        ("[timeouts]\nboot_s = nan", "timeouts.boot_s is nan: allowed is a number from 0.05 to 604800"),
        ("[timeouts]\nboot_s = inf", "timeouts.boot_s is inf"),
        ("[timeouts]\nlease_s = 15", "timeouts.heartbeat_s is 10: at most half of timeouts.lease_s (15)"),
        ("vcl_markers = 1", "vcl_markers is 1: allowed is true or false"),
        ('library = "images"', "library is 'images': an absolute path"),
        ('library = ""', "library is '': allowed is a path"),
        ("socket = '/" + "x" * 120 + "'", "socket is too long"),
        ('site = "a/b"', "site is 'a/b': 1 to 128 letters"),
        ('database = "mysql://x"', "database has an unknown scheme"),
        ('[http]\nurl = "ftp://x"', "http.url is 'ftp://x'"),
        ('[http]\nhost = "a b"', "http.host is 'a b'"),
        ("[broker]\nembedded = false\nport = 0", "broker.port is 0 for a broker that is not embedded"),
        ('[broker]\nadvertise = "a b"', "broker.advertise is 'a b'"),
        ('[boot]\nunknown = "ask"', "boot.unknown is 'ask': one of local, menu, discover"),
        ('[boot]\nlocal = "hd0"', "boot.local is 'hd0': one of exit, sanboot"),
        ('[boot]\ndir = "rootimg"', "boot.dir is 'rootimg': an absolute path"),
        ("[slots]\ngroups = 3", "slots.groups is 3: allowed is a table of whole numbers"),
        ("[slots.groups]\nrack1 = -1", "slots.groups has -1 for 'rack1': 0 to 10000 slots"),
        ('[slots.groups]\nrack1 = "x"', "slots.groups has a value of the wrong kind"),
        ("[tasks]\nwindows = ['always']", "tasks.windows: 'always' is no maintenance window"),
        ("[power]\ncommand = 'x'", "power.command is 'x': allowed is a list of texts"),
        ("[power]\ncommand = ['power', '{action}']", "power.command is no command: the absolute path"),
        ("[power]\non_arm = 'reset'", "power.on_arm is 'reset' without a power.command"),
        ("[power]\non_arm = 'off'", "power.on_arm is 'off': one of nothing, on, boot, reset"),
        ("[boot]\ntftpdir = 'tftp'", "boot.tftpdir is 'tftp': an absolute path"),
        ("[tasks]\nattempts = 0", "tasks.attempts is 0: allowed is a whole number from 1 to 100"),
        ("x =", "is not valid TOML"),
        ("a" + ".a" * 5000 + " = 1", ""),
    ],
)
def test_what_is_wrong_is_told_with_the_file_the_key_and_what_is_allowed(tmp_path, text, says):
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, {})
    assert str(file) in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (
            {"LITHO_HTTP_PORT": "x"},
            "environment variable LITHO_HTTP_PORT is 'x': allowed is a whole number from 0 to 65535",
        ),
        ({"LITHO_HTTP_PROT": "1"}, "LITHO_HTTP_PROT sets no key: did you mean LITHO_HTTP_PORT?"),
        ({"LITHO_SLOTS_GROUPS": "rack1=4"}, "LITHO_SLOTS_GROUPS is 'rack1=4': allowed is a table of whole numbers"),
        ({"LITHO_VCL_MARKERS": "perhaps"}, "allowed is true or false"),
        ({"LITHO_CONFIG": "/no/such/file"}, "settings file /no/such/file does not exist"),
    ],
)
def test_a_bad_variable_is_named(environ, says):
    with pytest.raises(ConfigError) as caught:
        config.load(None, environ)
    assert says in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (config.MAX_FILE + 1))
    for file, says in ((tmp_path, "cannot read"), (binary, "not UTF-8"), (huge, "larger than")):
        with pytest.raises(ConfigError, match=says):
            config.load(file, {})


def test_what_is_shown_is_a_file_that_means_the_same():
    odd = config.build(
        {"database": 'sqlite+aiosqlite:////a\\ "q" é\x7f', "slots": {"library": 9, "groups": {"a b": 1, "c": 2}}},
        "here",
    )
    text = toml(config.plain(odd))
    assert config.build(config.parse(text, "shown"), "shown") == odd
    assert tomllib.loads(text)["slots"] == {"library": 9, "groups": {"a b": 1, "c": 2}}


def test_a_password_in_the_database_address_is_never_shown():
    found = config.build({"database": "postgresql+asyncpg://litho:se:cret@db/litho"}, "here")
    assert config.plain(found)["database"] == "postgresql+asyncpg://litho:***@db/litho"
    assert "cret" in found.database_url
    for bare in ("litho:s@cret@db/litho", "db/litho?user=a&password=cret&x=1"):
        shown = config.plain(config.build({"database": f"postgresql+asyncpg://{bare}"}, "here"))["database"]
        assert "cret" not in shown
        assert "db/litho" in shown


def test_the_reference_names_every_key_with_its_default_and_its_variable():
    """The table rows of docs/reference/configuration.md are exactly those that the structs would make."""
    lines = REFERENCE.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert rows == [config.reference_row(key) for key in config.every_key()]
