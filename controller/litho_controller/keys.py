"""Every setting of the controller: one field, with its type, its limits, its default and a sentence that says what it does.

`litho_controller.config` reads them from file and environment; docs/reference/configuration.md is held against them by a test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=1, le=65535)]
PortOrFree = Annotated[int, Meta(ge=0, le=65535)]
Slots = Annotated[int, Meta(ge=1, le=10_000)]
Seconds = Annotated[float, Meta(ge=0.05, le=7 * 86400)]
Attempts = Annotated[int, Meta(ge=1, le=100)]
Heartbeat = Annotated[float, Meta(ge=0.05, le=3600)]


class Http(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[http]`: where nodes and browsers reach the controller."""

    host: Annotated[str, Meta(description="Address to listen on; `0.0.0.0` for every interface.")] = "127.0.0.1"
    port: Annotated[PortOrFree, Meta(description="TCP port; 0 takes a free one.")] = 3080
    url: Annotated[
        str,
        Meta(
            description="Base address that nodes are given, such as `http://10.0.0.1:3080`; empty: made of host and port."
        ),
    ] = ""


class Broker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[broker]`: the MQTT broker between nodes and controller."""

    embedded: Annotated[
        bool, Meta(description="Start a mosquitto as a child; false: use the broker that runs at host and port.")
    ] = True
    host: Annotated[str, Meta(description="Address the embedded broker listens on, or name of the other broker.")] = (
        "127.0.0.1"
    )
    port: Annotated[PortOrFree, Meta(description="TCP port; 0 takes a free one (embedded only).")] = 1883
    advertise: Annotated[
        str, Meta(description="Name or address of the broker that nodes are given; empty: the same as host.")
    ] = ""
    login: Annotated[
        str,
        Meta(
            description="File with `USER:PASSWORD` in one line, by which the controller enters a broker that is not embedded."
        ),
    ] = ""
    node_login: Annotated[
        str, Meta(description="The same for nodes, which are given it with their order; empty: they enter without.")
    ] = ""
    ca: Annotated[
        str,
        Meta(
            description="File with the certificates (PEM) that vouch for a broker that is not embedded; with it the controller "
            "and nodes speak TLS."
        ),
    ] = ""


class SlotLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[slots]`: how many tasks move bytes at the same time."""

    library: Annotated[Slots, Meta(description="Tasks that use the library at once; the others wait in the queue.")] = 4
    groups: Annotated[
        dict[str, int],
        Meta(description="Slots of groups of nodes that have a limit of their own, such as `{rack1 = 8, old = 2}`."),
    ] = {}


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[timeouts]`: how long to wait for a node, in seconds."""

    boot_s: Annotated[Seconds, Meta(description="From armed to the agent's claim; after that the task is lost.")] = (
        1800.0
    )
    lease_s: Annotated[
        Seconds, Meta(description="Silence of a node that holds a task; after that the task is lost and its slot free.")
    ] = 120.0
    heartbeat_s: Annotated[
        Heartbeat, Meta(description="How often a node says that it is there; at most half of lease_s.")
    ] = 10.0
    progress_s: Annotated[
        Heartbeat, Meta(description="How often a node reports its progress while bytes move, at most.")
    ] = 2.0


class TaskRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tasks]`: how tasks are treated."""

    attempts: Annotated[
        Attempts,
        Meta(description="How often a task is begun in all when its node boots again in the middle; then it is lost."),
    ] = 2
    windows: Annotated[
        tuple[str, ...],
        Meta(
            description='Maintenance windows in local time, `["22:00-06:00", "Sat-Sun 00:00-24:00"]`, outside which only tasks '
            "with a time of their own start; empty: always."
        ),
    ] = ()


class Capture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[capture]`: how images are made."""

    engine: Annotated[
        str,
        Meta(
            description="What saves partitions where neither the task nor the node's command line says: `chunk`, `auto` (a "
            "stream by the program that knows the file system), `partclone`, `partimage`, `partimage-ng`, `raw`. With "
            "`vcl_markers`, or packed by gzip, `chunk` becomes `auto`."
        ),
    ] = "chunk"


class Chunks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[chunks]`: the care of what images in chunks share."""

    gc_every_h: Annotated[
        Annotated[float, Meta(ge=0, le=8760)],
        Meta(
            description="Hours between two collections of chunks that no image needs (`litho image gc`); 0: only by hand."
        ),
    ] = 24.0
    scrub_every_h: Annotated[
        Annotated[float, Meta(ge=0, le=8760)],
        Meta(
            description="Hours within which the controller reads every pack once, slowly, and tells what is damaged"
            " (as `litho image scrub` does at once); 0: only by hand."
        ),
    ] = 168.0
    trust_h: Annotated[
        Annotated[float, Meta(ge=0, le=8760)],
        Meta(
            description="Hours for which a capture relies on a pack that was read whole; of others it reads what it relies on."
            " 0: of all. Choose more than `scrub_every_h`."
        ),
    ] = 240.0


class Boot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[boot]`: what nodes boot over the network."""

    dir: Annotated[
        Path, Meta(description="Directory with `vmlinuz`, `initrd.img`, `rootimg.squashfs`, `agent.tar.gz`.")
    ] = Path("/var/lib/lithograph/rootimg")
    kcmdline: Annotated[str, Meta(description="Kernel words for every node that boots the root image.")] = (
        "quiet panic=10"
    )
    unknown: Annotated[
        str, Meta(description="What a machine boots that no node is: `local`, `menu` or `discover`.")
    ] = "menu"
    require_mac: Annotated[
        bool,
        Meta(description="Give tasks only to nodes with a MAC address; false where nodes get their words another way."),
    ] = True
    tftpdir: Annotated[
        str,
        Meta(
            description="Directory of a TFTP server into which boot files for xnba, pxelinux and GRUB are written; empty: none."
        ),
    ] = ""
    local: Annotated[
        str,
        Meta(
            description="How iPXE gives a BIOS machine its own disk: `exit` to the firmware, or `sanboot` the first disk."
        ),
    ] = "exit"


class Power(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[power]`: how nodes are switched on and off."""

    command: Annotated[
        tuple[str, ...],
        Meta(
            description='Program and words, `["/usr/local/sbin/power", "{node}", "{action}"]`; '
            "empty: power is not ours."
        ),
    ] = ()
    timeout_s: Annotated[Heartbeat, Meta(description="Seconds that the program may take for one node.")] = 60.0
    at_once: Annotated[Slots, Meta(description="For how many nodes it runs at the same time.")] = 16
    on_arm: Annotated[
        str, Meta(description="What is done to a node when it is armed: nothing, `on`, `boot` or `reset`.")
    ] = ""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. Equal settings compare equal; nothing here changes while the daemon runs."""

    site: Annotated[
        str, Meta(description="Name of this installation in MQTT topics; letters, digits, `.`, `_`, `-`.")
    ] = "default"
    state_dir: Annotated[
        Path, Meta(description="Directory of what the controller itself keeps: database, broker's files, boot files.")
    ] = Path("/var/lib/lithograph")
    library: Annotated[Path, Meta(description="Directory of the image library; `litho library init` makes one.")] = (
        Path("/var/lib/lithograph/library")
    )
    database: Annotated[
        str,
        Meta(
            description="SQLAlchemy URL, `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`; empty: SQLite in state_dir."
        ),
    ] = ""
    socket: Annotated[Path, Meta(description="Unix socket over which the command line speaks with the daemon.")] = Path(
        "/run/lithograph/litho.sock"
    )
    vcl_markers: Annotated[
        bool,
        Meta(
            description="Captures write `<image>.img.capturedone` or `.capturefailed` beside the image, for Apache VCL."
        ),
    ] = False
    http: Annotated[Http, Meta(description="Where nodes and browsers reach the controller.")] = Http()
    broker: Annotated[Broker, Meta(description="The MQTT broker between nodes and controller.")] = Broker()
    slots: Annotated[SlotLimits, Meta(description="How many tasks move bytes at the same time.")] = SlotLimits()
    timeouts: Annotated[Timeouts, Meta(description="How long to wait for a node, in seconds.")] = Timeouts()

    tasks: Annotated[TaskRules, Meta(description="How tasks are treated.")] = TaskRules()
    capture: Annotated[Capture, Meta(description="How images are made.")] = Capture()
    chunks: Annotated[Chunks, Meta(description="The care of what images in chunks share.")] = Chunks()
    boot: Annotated[Boot, Meta(description="What nodes boot over the network.")] = Boot()

    power: Annotated[Power, Meta(description="How nodes are switched on and off.")] = Power()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL that holds: the configured one, or SQLite in `state_dir`."""
        return self.database or f"sqlite+aiosqlite:///{self.state_dir / 'lithograph.db'}"
