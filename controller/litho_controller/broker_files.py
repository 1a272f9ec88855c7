"""The files of the embedded broker, as text: its configuration, who may connect, and who may say what. Pure.

Written for mosquitto 2.0 (mosquitto.conf(5), mosquitto_passwd(1)). Paths in the configuration are relative, because the broker is
started in its directory: so it needs no right to walk the path to it, which may lead through somebody's private directory.

Who may say what:

* `_controller` everything below the site's topics. No node can be called so: names begin with a letter or digit.
* a node, as a user of its own name, writes its own status, progress and events, and reads its own commands. The rule
  is one pattern with the user's name in it, so it holds for every node there will ever be.
* `_probe` may connect, and nothing else: it is how the controller finds out that the broker is ready.

`use_username_as_clientid` makes the user's name the client's identity as well. Without it anybody with an account could take the
controller's place in its own session, and with it the messages that wait there.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping

from litho.errors import ConfigError
from litho.messages import MAX_PAYLOAD, VERSION, is_name

CONTROLLER = "_controller"
PROBE = "_probe"

CONF, PASSWORDS, ACL, STATE = "mosquitto.conf", "passwords", "acl", "broker.db"

MAX_QUEUED_BYTES = 256 * 1024 * 1024
"""Bytes that may wait for one client: what a node can fill of the broker's memory while the controller is away."""
_ITERATIONS = 101
"""mosquitto_passwd's own number. The passwords are 256 random bits, so nobody can try them one by one."""


def conf(*, host: str, port: int) -> str:
    """mosquitto.conf. Raises ConfigError for a host that would break the file's lines."""
    if not host.isprintable() or not host.isascii() or any(char in host for char in " #\t"):
        raise ConfigError(f"broker.host cannot be {host[:80]!r}", hint="use a host name or an IP address")
    return "\n".join(
        [
            "# Written by Lithograph at every start; changes here do not last.",
            f"listener {port} {host}",
            "use_username_as_clientid true",
            "allow_anonymous false",
            f"password_file {PASSWORDS}",
            f"acl_file {ACL}",
            "set_tcp_nodelay true",
            "# Retained statuses, and what waits for a client that is away, outlive a restart.",
            "persistence true",
            "persistence_location ./",
            f"persistence_file {STATE}",
            "autosave_interval 10",
            "persistent_client_expiration 7d",
            "# The default of 1000 drops messages while the controller restarts; 0 would mean no limit at all.",
            "max_queued_messages 100000",
            "# Of the largest messages so many would be 25 GiB; whatever is dropped the agents say again.",
            f"max_queued_bytes {MAX_QUEUED_BYTES}",
            "max_inflight_messages 200",
            f"message_size_limit {MAX_PAYLOAD}",
            "connection_messages false",
            "log_dest stderr",
            "log_timestamp false",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "log_type information",
            "",
        ]
    )


def acl(site: str) -> str:
    """The access rules of one site. Raises ConfigError for a site name that is none."""
    if not is_name(site):
        raise ConfigError(f"site cannot be {site[:80]!r}", hint="use letters, digits, '.', '_' and '-'")
    node = f"litho/v{VERSION}/{site}/node"
    return "\n".join(
        [
            f"user {CONTROLLER}",
            f"topic readwrite {node}/#",
            "",
            f"pattern write {node}/%u/status",
            f"pattern write {node}/%u/progress",
            f"pattern write {node}/%u/event",
            f"pattern read {node}/%u/command",
            "",
        ]
    )


def password_entry(user: str, password: str, *, salt: bytes | None = None) -> str:
    """One line of the password file: `user:$7$101$<salt>$<PBKDF2-HMAC-SHA512>`, as mosquitto_passwd writes it."""
    salt = secrets.token_bytes(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"{user}:$7${_ITERATIONS}${_b64(salt)}${_b64(digest)}"


class PasswordFile:
    """The password file's text for changing accounts; an unchanged account keeps its line."""

    def __init__(self, own: Mapping[str, str]) -> None:
        """`own` are the controller's accounts, which are always there."""
        self._own = [password_entry(user, password) for user, password in own.items()]
        self._lines: dict[tuple[str, str], str] = {}

    def text(self, accounts: Mapping[str, str]) -> str:
        """The file with these nodes' accounts beside the controller's own."""
        self._lines = {
            (user, password): self._lines.get((user, password)) or password_entry(user, password)
            for user, password in accounts.items()
            if is_name(user)
        }
        return "\n".join([*self._own, *self._lines.values(), ""])


def connect_packet(client: str, user: str, password: str) -> bytes:
    """An MQTT 3.1.1 CONNECT with a clean session (OASIS MQTT 3.1.1, section 3.1): what the probe says."""
    body = _field(b"MQTT") + bytes([4, 0b1100_0010, 0, 10])
    body += _field(client.encode()) + _field(user.encode()) + _field(password.encode())
    return bytes([0x10]) + _length(len(body)) + body


CONNACK = b"\x20\x02\x00\x00"
"""The answer to a CONNECT that was accepted, without a session of before."""


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _length(number: int) -> bytes:
    encoded = bytearray()
    while True:
        number, low = divmod(number, 128)
        encoded.append(low | (0x80 if number else 0))
        if not number:
            return bytes(encoded)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
