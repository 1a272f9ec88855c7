"""A broker that is not ours: how the controller and its nodes enter it, as the settings name it in files.

Passwords are in files (`USER:PASSWORD`, one line), never in the settings, on a command line or in a log. They are read once, when
the daemon starts; one that others may open is warned of. The certificates of `broker.ca` go to the nodes with their orders: both
sides hold the broker against the same ones. What each account may do there is the broker's own business:
docs/reference/configuration.md says what is needed.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from pathlib import Path

import msgspec

from litho.errors import ConfigError
from litho_controller.keys import Broker

log = logging.getLogger("litho.daemon")

MAX_LOGIN = 1024
MAX_CA = 64 * 1024


class Login(msgspec.Struct, frozen=True):
    """An account of the broker; both empty for none."""

    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        """Without the password, so that it can be logged."""
        return f"Login({self.username!r})"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings' files say."""

    controller: Login = Login()
    nodes: Login = Login()
    ca: str = ""


def read(settings: Broker) -> Entry:
    """The files that `settings` names. Blocks. Raises ConfigError."""
    return Entry(
        controller=_login(settings.login, "broker.login"),
        nodes=_login(settings.node_login, "broker.node_login"),
        ca=_ca(settings.ca),
    )


def parse_login(text: str) -> Login | None:
    """The account in `USER:PASSWORD`; None when it is none. A password may hold colons. Pure."""
    line = text.removesuffix("\n").removesuffix("\r")
    user, colon, password = line.partition(":")
    return Login(user, password) if user and colon and password and line.isprintable() else None


def context(ca: str) -> ssl.SSLContext | None:
    """TLS that believes in these certificates alone, and in the broker's name in its own; None for none."""
    return ssl.create_default_context(cadata=ca) if ca else None


def _login(file: str, key: str) -> Login:
    if not file:
        return Login()
    found = parse_login(_text(file, key, MAX_LOGIN))
    with contextlib.suppress(OSError):
        if Path(file).stat().st_mode & 0o007:
            log.warning("%s: every user of this machine may open the file %s: chmod o= %s", key, file, file)
    if found is None:
        raise ConfigError(f"{key}: the file {file} holds no account", hint="write USER:PASSWORD, in one line")
    return found


def _ca(file: str) -> str:
    if not file:
        return ""
    text = _text(file, "broker.ca", MAX_CA)
    try:
        if context(text) is None:
            raise ValueError("empty")
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(
            f"broker.ca: the file {file} holds no certificates", hint="write them in PEM, the authority's last"
        ) from exc
    return text


def _text(file: str, key: str, most: int) -> str:
    try:
        with Path(file).open("rb") as handle:
            data = handle.read(most + 1)
        if len(data) > most:
            raise ConfigError(f"{key}: the file {file} has more than {most} bytes", hint="name another one")
        return data.decode("utf-8")
    except OSError as exc:
        raise ConfigError(
            f"{key}: the file {file} cannot be read ({exc.strerror})", hint="check its name and its rights"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{key}: the file {file} is no text", hint="name another one") from exc
