"""The kernel command line: how a boot loader tells the agent what it is and what to do.

`/proc/cmdline` is what somebody typed into a boot file, or what a DHCP server sent. It is cut into words as the
kernel does it (double quotes hold blanks together and are dropped; there is no escape; `-` and `_` in a name are the
same), everything that does not begin with `litho.` is ignored, and so is a `litho.` word that this version does not
know, because boot files outlive programs. A parameter that it does know must be right: a bad value, an empty one or
one given twice is an error that names the parameter, the value and what is allowed. Guessing here could end on the
wrong disk.

`PARAMETERS` is the one list; docs/reference/kernel-parameters.md tells the same, and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args
from urllib.parse import urlsplit

import msgspec

from litho.errors import ConfigError, UsageError
from litho.job import Compression, EngineName, Fit, OnBadSector, OnDirty, Then
from litho.library import sources
from litho.messages import is_name
from litho_agent.disks import guard, selector

MAX_CHARS = 64 * 1024
"""More than any architecture's limit for a command line."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel command line said; empty or None where it said nothing."""

    controller: str = ""
    task: str = ""
    token: str = ""
    node: str = ""
    library: str = ""
    disk: str = ""
    engine: EngineName = ""
    compress: Compression | None = None
    level: int | None = None
    then: Then = ""
    allow: tuple[str, ...] = ()
    fit: Fit | None = None
    on_dirty: OnDirty | None = None
    on_bad_sector: OnBadSector | None = None
    parallel: int | None = None
    sources: tuple[str, ...] = ()
    port: int | None = None
    """Where `nodestat` is answered; 0 is nowhere, None the usual port."""
    library_hooks: bool = False
    discover: bool = False
    """Show the machine to the controller and wait until it is told what to do."""
    debug: bool = False

    def __repr__(self) -> str:
        """Without the token, so that it can be logged."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich, which would look into the fields by itself."""
        given = [
            pair
            for pair in msgspec.structs.asdict(self).items()
            # A port of 0 was given, though it equals False.
            if (pair[0] == "port" and pair[1] is not None) or pair[1] not in ("", None, (), False)
        ]
        return [(name, "(not shown)" if name == "token" else value) for name, value in given]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter that the agent knows."""

    name: str
    """As it is written: `litho.on-dirty`."""
    allowed: str
    """What its value may be, for people."""
    parse: Callable[[str], object]
    """The value, or ValueError (UsageError for one with a better sentence)."""

    @property
    def field(self) -> str:
        """The field of Settings that it sets."""
        return self.name.removeprefix("litho.").replace("-", "_")


def _matching(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern, re.ASCII)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(text)
        return text

    return parse


def _one_of(literal: object) -> tuple[str, Callable[[str], str]]:
    words = tuple(word for word in get_args(literal) if word)

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return f"one of {', '.join(words)}", parse


def _controller(text: str) -> str:
    url = urlsplit(text)
    host = url.hostname or ""
    plain = re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", host, re.ASCII)
    if url.scheme not in ("http", "https") or not plain or url.username is not None or url.query or url.fragment:
        raise ValueError(text)
    if url.path not in ("", "/") or url.port == 0 or not text.isascii():
        raise ValueError(text)
    return text.rstrip("/")


def _library(text: str) -> str:
    match = re.fullmatch(
        r"file://(?P<path>/.*)|nfs://(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:]+\])(?P<export>/.*)", text
    )
    path = (match["path"] or match["export"]) if match else ""
    if not path or len(text) > 1024 or not text.isprintable() or ".." in path.split("/"):
        raise ValueError(text)
    return text


def _node(text: str) -> str:
    if not is_name(text):
        raise ValueError(text)
    return text


def _disk(text: str) -> str:
    if not selector.parse(text):
        raise ValueError(text)
    return text


def _level(text: str) -> int:
    if not re.fullmatch(r"[1-9]|1[0-9]", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def _allow(text: str) -> tuple[str, ...]:
    return guard.check_allow(dict.fromkeys(text.split(",")))


def _parallel(text: str) -> int:
    if not re.fullmatch(r"[1-8]", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def _port(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,4}", text, re.ASCII) or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def _flag(text: str) -> bool:
    values = {"": True, "1": True, "yes": True, "on": True, "0": False, "no": False, "off": False}
    if text not in values:
        raise ValueError(text)
    return values[text]


def _parameter(name: str, allowed: str, parse: Callable[[str], object]) -> Parameter:
    return Parameter(name=name, allowed=allowed, parse=parse)


PARAMETERS = (
    _parameter("litho.controller", "http://host:port or https://host:port", _controller),
    _parameter("litho.task", "the task's identifier: letters, digits and -", _matching(r"[A-Za-z0-9-]{1,64}")),
    _parameter(
        "litho.token", "the task's one-time token, 16 to 128 characters", _matching(r"[A-Za-z0-9._~+/=-]{16,128}")
    ),
    _parameter("litho.node", "the node's name: letters, digits and . _ -", _node),
    _parameter("litho.library", "file:///path or nfs://server/export", _library),
    _parameter("litho.disk", selector.ALLOWED, _disk),
    _parameter("litho.engine", *_one_of(EngineName)),
    _parameter("litho.compress", *_one_of(Compression)),
    _parameter("litho.level", "a number from 1 to 19", _level),
    _parameter("litho.then", *_one_of(Then)),
    _parameter("litho.allow", f"any of {', '.join(guard.LIFTABLE)}, joined by commas", _allow),
    _parameter("litho.fit", *_one_of(Fit)),
    _parameter("litho.on-dirty", *_one_of(OnDirty)),
    _parameter("litho.on-bad-sector", *_one_of(OnBadSector)),
    _parameter("litho.parallel", "a number from 1 to 8", _parallel),
    _parameter(
        "litho.sources", "nfs, controller, http://host/path, https://host/path, joined by commas", sources.parse
    ),
    _parameter("litho.port", "a number from 0 to 65535; 0 is off", _port),
    _parameter("litho.library-hooks", "nothing, 1, yes, on, 0, no or off", _flag),
    _parameter("litho.discover", "nothing, 1, yes, on, 0, no or off", _flag),
    _parameter("litho.debug", "nothing, 1, yes, on, 0, no or off", _flag),
)
"""Every parameter, in the order of the reference."""

_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
_BOOTIF = re.compile(r"BOOTIF=01-([0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5})", re.ASCII)
_SECRET = "litho.token"  # noqa: S105 - a name, not a secret


def words(line: str) -> list[str]:
    """The words of a command line, as the kernel's next_arg() cuts it: quotes group and vanish, nothing escapes them."""
    found: list[str] = []
    word: list[str] = []
    quoted = started = False
    for char in line:
        if char == '"':
            quoted = not quoted
            started = True
        elif char in " \t\n\r\v\f" and not quoted:
            if started:
                found.append("".join(word))
            word, started = [], False
        else:
            word.append(char)
            started = True
    if started:
        found.append("".join(word))
    return found


def bootif(line: str) -> str:
    """The address of the card that booted, as boot loaders say it (`BOOTIF=01-52-54-00-12-34-56`); empty when none does. In
    lower case with colons."""
    for word in words(line):
        match = _BOOTIF.fullmatch(word)
        if match:
            return match[1].lower().replace("-", ":")
    return ""


def read(line: str) -> Settings:
    """The settings in a kernel command line. Raises ConfigError for a parameter of ours that is wrong or given twice."""
    if len(line) > MAX_CHARS:
        raise ConfigError(f"the kernel command line has more than {MAX_CHARS} characters", code="bad-parameter")
    found: dict[str, Any] = {}
    for word in words(line):
        key, _, value = word.partition("=")
        # Only our own names are made alike: another program's value is none of our business.
        parameter = _BY_NAME.get(key.replace("_", "-"))
        if parameter is None:
            continue
        if parameter.field in found:
            raise ConfigError(
                f"the kernel parameter {parameter.name} is given twice",
                hint="give it once; the boot file of this node has it in two places",
                code="bad-parameter",
            )
        found[parameter.field] = _value(parameter, value)
    settings = Settings(**found)
    _check_together(settings)
    return settings


def _value(parameter: Parameter, text: str) -> object:
    # A token that is wrong may still be close to the right one.
    shown = f"of {len(text)} characters" if parameter.name == _SECRET else repr(text[:120])
    told = f"the kernel parameter {parameter.name} has the value {shown}"
    try:
        return parameter.parse(text)
    except UsageError as exc:
        raise ConfigError(f"{told}: {exc.message}", hint=exc.hint, code="bad-parameter") from exc
    except ValueError as exc:
        raise ConfigError(told, hint=f"write {parameter.allowed}", code="bad-parameter") from exc


def _check_together(settings: Settings) -> None:
    if settings.compress == "gzip" and (settings.level or 1) > 9:
        raise ConfigError(
            f"the kernel parameter litho.level has the value '{settings.level}', and gzip knows 1 to 9",
            hint="write a number from 1 to 9, or litho.compress=zstd",
            code="bad-parameter",
        )
    if settings.discover and (settings.task or not settings.controller):
        told = "litho.task is given, too" if settings.task else "litho.controller is not"
        raise ConfigError(
            f"the kernel parameter litho.discover is given and {told}",
            hint="litho.discover goes with litho.controller alone: the controller names the task later",
            code="bad-parameter",
        )
    given = [name for name in ("task", "token") if getattr(settings, name)]
    if given and (len(given) == 1 or not settings.controller):
        missing = next(name for name in ("controller", "task", "token") if not getattr(settings, name))
        raise ConfigError(
            f"the kernel parameter litho.{given[0]} is given and litho.{missing} is not",
            hint="litho.controller, litho.task and litho.token belong together",
            code="bad-parameter",
        )
