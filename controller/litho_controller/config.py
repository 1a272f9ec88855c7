"""Settings of the controller: one TOML file, environment variables over it, defaults under it.

    /etc/lithograph/lithograph.toml        or `--config FILE`, or LITHO_CONFIG=FILE
    LITHO_HTTP_PORT=8080                   one variable per key: LITHO_<SECTION>_<KEY>, top-level keys LITHO_<KEY>

Every key is a field of a struct in `litho_controller.keys`. Nothing is guessed: an unknown key,
a value of the wrong type or outside its limits is a `ConfigError` that names the file, the key and what is allowed.
`load` reads the world (file and environment); `parse` and `override` are pure.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from litho.errors import ConfigError
from litho.job import EngineName
from litho.messages import is_name
from litho_controller.keys import Boot, Broker, Capture, Chunks, Config, Http, Power, SlotLimits, TaskRules, Timeouts
from litho_controller.tasks import queue

__all__ = [
    "Boot",
    "Broker",
    "Capture",
    "Chunks",
    "Config",
    "Http",
    "Key",
    "Power",
    "SlotLimits",
    "TaskRules",
    "Timeouts",
    "load",
]

DEFAULT_PATH = Path("/etc/lithograph/lithograph.toml")
PREFIX = "LITHO_"
MAX_FILE = 1024 * 1024
"""Bytes; a settings file that is larger is something else."""

_PLURAL: dict[Any, str] = {tuple[str, ...]: "a list of texts", dict[str, int]: "a table of whole numbers"}


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, as the documentation and `litho config show` name it."""

    name: str
    """`port` in a section is `http.port`."""
    variable: str
    """Its environment variable."""
    type: Any
    default: Any
    description: str


def every_key() -> list[Key]:
    """Every setting, sections after the top-level keys, in the order of the structs."""
    found = []
    for field in msgspec.structs.fields(Config):
        section = _section(field.name)
        if section is None:
            found.append(_key(Config, field, ""))
        else:
            found.extend(_key(section, inner, f"{field.name}.") for inner in msgspec.structs.fields(section))
    return found


def reference_row(key: Key) -> str:
    """The key's row in docs/reference/configuration.md."""
    default = msgspec.json.encode(key.default, enc_hook=str).decode()
    return f"| `{key.name}` | {allowed(key.type)} | `{default}` | `{key.variable}` | {key.description} |"


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the settings that hold here.

    `path` names the file; without it LITHO_CONFIG does, then the default path, which alone may be missing.
    Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    file, named = which(path, environ)
    text = read(file, may_be_missing=not named)
    values = parse(text, str(file))
    return build(override(values, environ), str(file))


def which(path: Path | None, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """The settings file that holds, and whether somebody named it. Pure."""
    variable = environ.get("LITHO_CONFIG")
    named = path or (Path(variable) if variable else None)
    return named or DEFAULT_PATH, named is not None


def read(file: Path, *, may_be_missing: bool = False) -> str:
    """The text of a settings file. Raises ConfigError when it cannot be read."""
    try:
        with file.open("rb") as handle:
            data = handle.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ConfigError(f"{file} is larger than {MAX_FILE} bytes", hint="this is not a settings file")
        return data.decode()
    except FileNotFoundError as exc:
        if may_be_missing:
            return ""
        raise ConfigError(
            f"settings file {file} does not exist", hint="name another with --config or LITHO_CONFIG"
        ) from exc
    except OSError as exc:
        raise ConfigError(f"cannot read {file}", hint=(exc.strerror or str(exc)).lower()) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{file} is not UTF-8 text (byte {exc.start})", hint="save it as UTF-8") from exc


def parse(text: str, source: str) -> dict[str, Any]:
    """The raw values of a settings file, each checked against its key. Raises ConfigError that names `source` and the key."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise ConfigError(f"{source} is not valid TOML", hint=str(exc)) from exc
    _check(raw, Config, source, "")
    return raw


def override(values: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """`values` with what the environment says over them. Raises ConfigError that names the variable."""
    merged = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    known = {key.variable: key for key in every_key()}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX):
            continue
        key = known.get(variable)
        if key is None:
            _refuse_misspelt(variable, known)
            continue
        section, dot, name = key.name.rpartition(".")
        value = _convert(_plural(text, key.type), key.type, f"environment variable {variable}", strict=False)
        (merged.setdefault(section, {}) if dot else merged)[name] = value
    return merged


def build(values: dict[str, Any], source: str) -> Config:
    """The settings made of checked values, after the rules that look at more than one key. Raises ConfigError."""
    config = msgspec.convert(values, Config, dec_hook=_path)
    for problem_key, problem, allowed in _rules(config):
        raise ConfigError(f"{source}: {problem_key} {problem}", hint=allowed)
    try:
        queue.parse_windows(config.tasks.windows)
    except ConfigError as exc:
        raise ConfigError(f"{source}: tasks.windows: {exc.message}", hint=exc.hint) from exc
    return config


def plain(config: Config) -> dict[str, Any]:
    """The settings as JSON values, with a password in the database address blotted out."""
    values: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    shown = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", values["database"])
    values["database"] = re.sub(r"([?&]password=)[^&]*", r"\1***", shown)
    return values


# ---------------------------------------------------------------- checks


def _rules(config: Config) -> list[tuple[str, str, str]]:
    """(key, what is wrong, what is allowed) for every rule that is broken."""
    broken = []
    if not is_name(config.site):
        broken.append(
            ("site", f"is {config.site!r}", "1 to 128 letters, digits, '.', '_', '-', a letter or digit first")
        )
    paths = {name: getattr(config, name) for name in ("state_dir", "library", "socket")} | {"boot.dir": config.boot.dir}
    for name, value in paths.items():
        if not value.is_absolute() or "\0" in str(value):
            broken.append((name, f"is {str(value)!r}", "an absolute path, such as /var/lib/lithograph"))
    if len(str(config.socket).encode()) > 107:
        broken.append(("socket", "is too long for a unix socket", "a path of at most 107 bytes"))
    if config.database and not config.database.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")):
        broken.append(
            ("database", "has an unknown scheme", "sqlite+aiosqlite:///... or postgresql+asyncpg://..., or empty")
        )
    if config.http.url and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", config.http.url):
        broken.append(("http.url", f"is {config.http.url!r}", "http://HOST[:PORT] or https://HOST[:PORT], or empty"))
    for key, host in (("http.host", config.http.host), ("broker.host", config.broker.host)):
        if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", host):
            broken.append((key, f"is {host!r}", "a host name or an IP address"))
    if config.broker.advertise and not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", config.broker.advertise):
        broken.append(("broker.advertise", f"is {config.broker.advertise!r}", "a host name or an IP address, or empty"))
    for key, word, words in (
        ("boot.unknown", config.boot.unknown, ("local", "menu", "discover")),
        ("boot.local", config.boot.local, ("exit", "sanboot")),
        ("power.on_arm", config.power.on_arm, ("", "on", "boot", "reset")),
        ("capture.engine", config.capture.engine, tuple(word for word in get_args(EngineName) if word)),
    ):
        if word not in words:
            broken.append((key, f"is {word!r}", f"one of {', '.join(word or 'nothing' for word in words)}"))
    if config.boot.tftpdir and not config.boot.tftpdir.startswith("/"):
        broken.append(("boot.tftpdir", f"is {config.boot.tftpdir!r}", "an absolute path, such as /srv/tftp, or empty"))
    broken.extend(
        ("slots.groups", f"has {count} for {name!r}", "0 to 10000 slots")
        for name, count in config.slots.groups.items()
        if not 0 <= count <= 10_000
    )
    command = config.power.command
    if command and (not command[0].startswith("/") or not any("{action}" in word for word in command)):
        broken.append(
            (
                "power.command",
                "is no command",
                "the absolute path of a program, and {node} and {action} among its words",
            )
        )
    if config.power.on_arm and not command:
        broken.append(
            (
                "power.on_arm",
                f"is {config.power.on_arm!r} without a power.command",
                "set power.command, or leave it empty",
            )
        )
    for key in ("login", "node_login", "ca"):
        file = getattr(config.broker, key)
        if file and config.broker.embedded:
            broken.append(
                (f"broker.{key}", "is for a broker that is not embedded", "nothing, or broker.embedded = false")
            )
        elif file and not file.startswith("/"):
            broken.append((f"broker.{key}", f"is {file!r}", "the absolute path of a file, or empty"))
    if config.broker.port == 0 and not config.broker.embedded:
        broken.append(("broker.port", "is 0 for a broker that is not embedded", "the port it listens on, 1 to 65535"))
    if config.timeouts.heartbeat_s * 2 > config.timeouts.lease_s:
        broken.append(
            (
                "timeouts.heartbeat_s",
                f"is {config.timeouts.heartbeat_s:g}",
                f"at most half of timeouts.lease_s ({config.timeouts.lease_s:g}), or one lost message loses a task",
            )
        )
    return broken


def _check(raw: dict[str, Any], shape: type[msgspec.Struct], source: str, prefix: str) -> None:
    types = get_type_hints(shape, include_extras=True)
    for name, value in raw.items():
        if name not in types:
            near = _elsewhere(name) or difflib.get_close_matches(name, types, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near and "." not in near[0] else ""
            hint = hint or (f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(types))}")
            raise ConfigError(f"{source}: unknown key {prefix}{name}", hint=hint)
        section = _section(name) if not prefix else None
        if section is None:
            _convert(value, types[name], f"{source}: {prefix}{name}")
        elif isinstance(value, dict):
            _check(value, section, source, f"{name}.")
        else:
            raise ConfigError(
                f"{source}: {name} is a single value", hint=f"it is a section: write [{name}] and its keys below"
            )


def _elsewhere(name: str) -> list[str]:
    """Full names of keys in any section that are called `name`."""
    return [key.name for key in every_key() if key.name.rpartition(".")[2] == name]


def _plural(text: str, shape: Any) -> Any:
    """A list or table in a variable is written as in the file: `["a", "b"]`, `{rack1 = 4}`."""
    if _base(shape) not in _PLURAL:
        return text
    try:
        return tomllib.loads(f"value = {text}").get("value")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _base(shape: Any) -> Any:
    while hasattr(shape, "__metadata__"):
        shape = shape.__origin__
    return shape


def _convert(value: Any, shape: Any, what: str, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(value, shape, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as exc:
        shown = f" is {value!r}" if not isinstance(value, (dict, list)) else " has a value of the wrong kind"
        raise ConfigError(f"{what}{shown[:120]}", hint=f"allowed is {allowed(shape)}") from exc


def allowed(shape: Any) -> str:
    """What a key of this type takes, in words."""
    low: float | None = None
    high: float | None = None
    base = shape
    while hasattr(base, "__metadata__"):
        for meta in base.__metadata__:
            low, high = (meta.ge if meta.ge is not None else low), (meta.le if meta.le is not None else high)
        base = base.__origin__
    if base in _PLURAL:
        return _PLURAL[base]
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}[base]
    return words if low is None else f"{words} from {low:g} to {high:g}"


def _refuse_misspelt(variable: str, known: Mapping[str, Key]) -> None:
    """A variable that begins like a section of ours is a slip of the pen, not somebody else's."""
    sections = tuple(
        f"{PREFIX}{field.name.upper()}_" for field in msgspec.structs.fields(Config) if _section(field.name)
    )
    if variable.startswith(sections):
        near = difflib.get_close_matches(variable, known, n=1, cutoff=0)
        raise ConfigError(f"environment variable {variable} sets no key", hint=f"did you mean {near[0]}?")


def _section(name: str) -> type[msgspec.Struct] | None:
    """The struct of the section `name`, None for a key: sections are the fields whose default is a struct."""
    found = {field.name: field.default for field in msgspec.structs.fields(Config)}.get(name)
    return type(found) if isinstance(found, msgspec.Struct) else None


def _key(shape: type[msgspec.Struct], field: msgspec.structs.FieldInfo, prefix: str) -> Key:
    hint = get_type_hints(shape, include_extras=True)[field.name]
    description = next((meta.description for meta in reversed(hint.__metadata__) if meta.description), "")
    name = prefix + field.name
    variable = PREFIX + name.replace(".", "_").upper()
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return Key(name=name, variable=variable, type=hint, default=default, description=description)


def _path(shape: type, value: Any) -> Any:
    if shape is Path and isinstance(value, Path):
        return value
    if shape is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError("not a path")
