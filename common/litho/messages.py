"""The wire: every topic and every payload that crosses between node and controller, in one place.

Two roads lead from a node to the controller:

* **HTTP, once**: the agent POSTs a `ClaimRequest` with the one-time token of its kernel command line to
  `<controller>/v1/claim`. The answer is an `Order`: the job, where the library is, and the broker with credentials that are
  good for this claim. A refusal is an `HTTP 4xx` with a `Problem`.
* **MQTT, from then on**: `litho/v1/<site>/node/<node>/<kind>` with four kinds

  | kind       | direction  | QoS, retained   | payload            | when |
  |------------|------------|-----------------|--------------------|------|
  | `status`   | from node  | 1, retained     | `Status`           | at connect, at each change, each heartbeat; the last will |
  | `progress` | from node  | 0               | `ProgressReport`   | at most once in 2 s while bytes move |
  | `event`    | from node  | 1               | `EventReport`      | what moves a task; numbered, repeated until acknowledged |
  | `command`  | to node    | 1               | `Command`          | `Ack`, `Cancel`, `Stop`, `Finish` |

Payloads are JSON, so a person can read along with `mosquitto_sub`. Each carries the wire's version in `v`; another version is
refused whole. Fields that a receiver does not know are ignored, so a newer sender may add some with a default.
Nothing longer than `MAX_PAYLOAD` bytes is looked at, and every string has a limit: what comes in is hostile until `decode` has
returned it. MQTT 3.1.1 is enough for all of it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from litho.errors import WireError
from litho.job import EDITION, EngineName, Job, Short
from litho.progress import Progress

VERSION: Literal[1] = 1
MAX_PAYLOAD = 256 * 1024
"""Bytes; an inventory of a large node is about 20 KiB."""

MAX_LOG = 16 * 1024
"""Characters of the job's log that travel with its end; as JSON at most six times as many bytes."""

Kind = Literal["status", "progress", "event", "command"]
_KINDS: tuple[Kind, ...] = ("status", "progress", "event", "command")

Name = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
"""A node or site name: fits into a topic level, a file name and a table cell. (`\\Z`, because `$` lets a newline follow.)"""
Id = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z0-9-]*\Z")]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def is_name(text: str) -> bool:
    """True when `text` may be a node's or site's name."""
    return _NAME.fullmatch(text) is not None


def topic(site: str, node: str, kind: Kind) -> str:
    """The topic of one node's channel. `node` may be `+` in a subscription. Raises ValueError for a name that is none."""
    if not is_name(site) or not (node == "+" or is_name(node)):
        raise ValueError(f"not a name that fits into a topic: {site!r} / {node!r}")
    return f"litho/v{VERSION}/{site}/node/{node}/{kind}"


def parse_topic(text: str) -> tuple[str, str, Kind]:
    """Site, node and kind of a topic. Raises WireError for anything else."""
    levels = text.split("/") if len(text) <= 300 else []
    if len(levels) == 6 and levels[0] == "litho" and levels[1] == f"v{VERSION}" and levels[3] == "node":
        site, node, kind = levels[2], levels[4], levels[5]
        for known in _KINDS:
            if kind == known and is_name(site) and is_name(node):
                return site, node, known
    raise WireError(f"not one of our topics: {text[:100]!r}")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What every payload carries."""

    v: Literal[1] = VERSION


# ---------------------------------------------------------------- status, progress


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the node is while the job runs; a figure that cannot be had is 0, a verdict empty."""

    cpu: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """Percent of all processors' time since the last status that was not idle."""
    load: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """The load average of the last minute."""
    memory: Count = 0
    """Bytes of memory."""
    available: Count = 0
    """Bytes of it that programs may still have."""
    agent: Count = 0
    """Bytes that the agent, its worker and the engines hold."""
    disk: Literal["", "passed", "failed"] = ""
    """The verdict of the disk's own SMART; empty where there is none."""
    disk_note: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """What a person should know of it: temperature, sectors that wait to be replaced."""


class Status(Message, frozen=True, kw_only=True):
    """Whether a node's agent is there, and what it works on. Retained; with `online` false it is the last will."""

    node: Name
    session: Id
    online: bool
    task: Id = ""
    at: float = 0.0
    """Seconds since 1970 by the node's clock, which may be wrong by years: for people, never for rules."""
    health: Health | None = None


class ProgressReport(Message, frozen=True, kw_only=True):
    """How far the job is. May be lost; the next one says more."""

    node: Name
    session: Id
    task: Id
    n: Count
    """Grows with each report of a session; an older one that arrives late is dropped."""
    progress: Progress
    line: Annotated[str, msgspec.Meta(max_length=400)]
    """The text for `nodestat`."""


# ---------------------------------------------------------------- events


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which disk was chosen, so that a person can find it in the rack."""

    path: Text
    size: Count
    serial: Text = ""
    wwn: Text = ""
    model: Text = ""
    sector_size: Count = 512
    by_path: Text = ""


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """The disk is chosen and looked at; this is what will happen."""

    disk: DiskFacts
    steps: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)]
    total: Count
    """Bytes to move, of used data."""


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Bytes begin to move."""


class OsFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the image holds, from its /etc/os-release; fields of xCAT's osimage table."""

    name: Text = ""
    """`osname`: Linux, Windows or empty."""
    vers: Text = ""
    """`osvers`, such as `debian12`."""
    distro: Text = ""
    arch: Text = ""
    """`osarch`, such as `x86_64`."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition in chunks now holds, proven by a hash: of the image after a capture, of the disk after a restore."""

    part: Annotated[int, msgspec.Meta(ge=0, le=1024)]
    """The partition's number; 0 is the whole disk."""
    root: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """Root hash, as in the image's manifest."""
    moved: Count = 0
    """Capture: bytes of chunks that the library did not have. Restore: bytes written to the disk."""
    right: Count = 0
    """Bytes of chunks that were there already."""
    read_back: bool = False
    """All of it was read from the disk, and this is the hash of what was read."""


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, tag="succeeded"):
    """The work is done and verified: for a capture the image is published, for a restore the disk is synced and checked."""

    image: Text
    version: Annotated[int, msgspec.Meta(ge=0, le=999_999_999)]
    used: Count
    """Bytes of used data that were moved."""
    stored: Count
    """Bytes that the image takes in the library."""
    seconds: float
    disk: DiskFacts
    os: OsFacts = OsFacts()
    notes: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)] = ()
    """What a person should know although it went well: skipped partitions, bad sectors, a missing backup GPT."""
    receipts: Annotated[tuple[Receipt, ...], msgspec.Meta(max_length=256)] = ()
    """One for each partition in chunks."""
    lost: Count = 0
    """Bytes of the source that could not be read and are not in the image; `notes` and the manifest say where."""
    log: Annotated[str, msgspec.Meta(max_length=MAX_LOG)] = ""
    """The end of the job's log, unless it is a capture, whose log lies beside its image."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The work stopped; nothing was published, and `touched` says whether the target disk was written to."""

    code: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Text
    touched: bool = False
    exit_code: Annotated[int, msgspec.Meta(ge=1, le=255)] = 1
    """The error's exit code in `litho.errors`: what a command that waited for the task ends with."""
    log: Annotated[str, msgspec.Meta(max_length=MAX_LOG)] = ""
    """The end of the job's log."""


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="cancelled"):
    """The agent stopped because it was asked to."""

    reason: Text = "cancelled on request"
    touched: bool = False


EventBody = Planned | Started | Succeeded | Failed | Stopped


class EventReport(Message, frozen=True, kw_only=True):
    """Something that moves a task. Repeated until an `Ack` covers `seq`."""

    node: Name
    session: Id
    task: Id
    seq: Annotated[int, msgspec.Meta(ge=2, le=2**31)]
    """The claim was number 1; these follow it without a gap."""
    at: float = 0.0
    body: EventBody


# ---------------------------------------------------------------- commands


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """Every event of `session` up to and including `seq` is in the store."""

    seq: Count


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Stop the task and say `Stopped` (or how it ended, if it was faster)."""

    reason: Text = "cancelled on request"


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """The session does not hold the task (any more): stop at once, publish nothing, say nothing."""

    reason: Text


class Finish(msgspec.Struct, frozen=True, kw_only=True, tag="finish"):
    """Rows and boot files are written for what comes after the task: the node may go on to its end state."""


class Command(Message, frozen=True, kw_only=True):
    """From the controller to one session of one node's agent."""

    session: Id
    task: Id
    body: Ack | Cancel | Stop | Finish


# ---------------------------------------------------------------- the claim, over HTTP


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker listens."""

    host: Text
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    ca: Annotated[str, msgspec.Meta(max_length=64 * 1024)] = ""
    """Certificates (PEM) of whoever may have signed the broker's; with them the way to it is TLS, without plain TCP."""


class ClaimRequest(Message, frozen=True, kw_only=True):
    """An agent takes its task. Sent again with the same session after a lost answer, it gets the same order again."""

    node: Name
    task: Id
    token: Annotated[str, msgspec.Meta(min_length=16, max_length=128)]
    session: Annotated[str, msgspec.Meta(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9-]+\Z")]
    inventory: dict[str, Any] = {}
    """CPU, memory, NICs, disks, as the agent found them; kept for people."""
    edition: Count = 1
    """The newest edition of an order that this agent reads (`litho.job.EDITION`); agents that do not say read the first."""
    software: Short = ""
    """The agent's release, for people."""
    declined: Text = ""
    """The same claim once more, after an order that the agent cannot read: why. The task has failed then."""


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a claim whatever the version of its wire: enough to say to its task why the agent cannot have it."""

    v: Count = 1
    node: Name
    task: Id
    token: Annotated[str, msgspec.Meta(min_length=16, max_length=128)]
    session: Annotated[str, msgspec.Meta(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9-]+\Z")]
    edition: Count = 1
    software: Short = ""
    declined: Text = ""


class OrderHead(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of an order that cannot be read: whose it is, and which version of the wire and edition it is in."""

    v: Count = 1
    edition: Count = 1
    task: Id
    node: Name


class Order(Message, frozen=True, kw_only=True):
    """The answer to a claim: what to do, and how to talk about it."""

    task: Id
    node: Name
    site: Name
    job: Job
    edition: Count = EDITION
    """Which edition of the order this is."""
    library: Text
    """`file:///path` on this machine, or `nfs://server/export`."""
    sources: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] | msgspec.UnsetType = msgspec.UNSET
    """What the site reads images from when neither the job nor the node's command line says; words of `litho.library.sources`."""
    library_token: Text | msgspec.UnsetType = msgspec.UNSET
    """What the controller wants to see (as a bearer) of who reads its library over HTTP for this task."""
    engine: EngineName = ""
    """What the site captures with when neither the job nor the node's command line says; empty: the agent's own rule."""
    brokers: Annotated[tuple[Broker, ...], msgspec.Meta(min_length=1, max_length=16)]
    username: Text = ""
    password: Text = msgspec.field(default="")
    heartbeat_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    progress_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 2.0

    def __repr__(self) -> str:
        """Without the password and the token, so that it can be logged."""
        return f"Order(task={self.task!r}, node={self.node!r}, job={self.job!r}, library={self.library!r})"


class Problem(Message, frozen=True, kw_only=True):
    """Why an HTTP request was not done."""

    code: Annotated[str, msgspec.Meta(max_length=64)]
    message: Text
    hint: Text = ""


M = TypeVar("M")
H = TypeVar("H", Claimant, OrderHead)


def clip(text: str, limit: int = 4096) -> str:
    """`text` as it fits into a field of `limit` characters: what a program said may be longer, or hold bytes that are no UTF-8.

    An event that the other side refuses is repeated for ever, so free text goes through here when a message is made.
    """
    plain = text.encode("utf-8", "replace").decode("utf-8")
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def encode(message: Message) -> bytes:
    """The payload of a message. Raises WireError for one that no receiver would take: too large, or text that is no Unicode."""
    try:
        payload = msgspec.json.encode(message)
    except (UnicodeEncodeError, msgspec.MsgspecError) as exc:
        raise WireError(f"this {type(message).__name__} cannot be sent: {exc}") from exc
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"a {type(message).__name__} of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}")
    return payload


def decode(payload: bytes | bytearray, shape: type[M]) -> M:
    """The message of type `shape` in `payload`. Raises WireError when it is too large or not exactly such a message."""
    if len(payload) > MAX_PAYLOAD:
        raise WireError(f"a {shape.__name__} of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}")
    try:
        return msgspec.json.decode(payload, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError(f"not a {shape.__name__}: {exc}") from exc


def head(payload: bytes | bytearray, shape: type[H]) -> H | None:
    """What can be read of a claim or an order in another version; None when it is neither."""
    try:
        return msgspec.json.decode(payload, type=shape) if len(payload) <= MAX_PAYLOAD else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
