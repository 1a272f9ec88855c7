"""A node boots over the network and asks for its script.

Who asks is known by the MAC address alone, which is in the request and can be written there by anybody on the installation
network (docs/reference/boot.md says what follows from that). So a question by itself changes nothing: the token is given out
while the task is armed, any number of times, and opens the task once; and a task under way is not ended by a question, but by
the silence of its agent that goes with it. A machine in its firmware is silent; an agent that works is heard every
`timeouts.heartbeat_s`.

| the node's task | what it boots |
|---|---|
| none, or ended | its own disk |
| queued, and only a slot is missing | nothing yet: it asks again |
| queued for later (a time, a window, a wave) | its own disk |
| armed | the root image |
| under way, its agent heard of lately | nothing yet: it asks again |
| under way, its agent silent | the task is LOST; nothing yet when another attempt is queued, else its own disk |

A node without a task that is set to an osimage (netboot, statelite, an installer) boots that, every time; when its files are
missing it asks again.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from litho.errors import LithoError, UsageError
from litho.task import Expire, State
from litho_controller.boot import facts as facts_of
from litho_controller.boot import ipxe, macs, netboot, plan, words
from litho_controller.boot.plan import Facts
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tables import nodes
from litho_controller.tasks import again, osboot
from litho_controller.tasks.core import Tasks
from litho_controller.tasks.osboot import Known

log = logging.getLogger("litho.boot")

SILENCES = 2.5
"""Heartbeats that an agent misses before its node is believed to have booted."""
OSIMAGE_PAUSE_S = 30
"""Seconds after which a node asks again whose osimage cannot be booted: a person has to do something first."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say of booting."""

    kcmdline: str = ""
    unknown: str = "menu"
    """What a machine boots that no node is: `local`, `menu` or `discover`."""
    sanboot: bool = False
    attempts: int = 2


class Booting:
    """Answers boot loaders."""

    def __init__(self, tasks: Tasks, policy: Policy) -> None:
        """Raises UsageError when boot.kcmdline cannot be written into a boot file."""
        self._tasks = tasks
        self._policy = policy
        self._common = words.parse(policy.kcmdline, of="boot.kcmdline")

    def first(self) -> str:
        """The script that DHCP points to."""
        return ipxe.first(self._url)

    async def script(self, text: str, *, peer: str) -> str:
        """The script for the card with the address `text`. `peer` is who asks, for the log. Raises UsageError, LithoError."""
        mac = macs.normal(text)
        if not mac:
            raise UsageError(f"{text[:64]!r} is not a MAC address", code="bad-mac")
        async with self._tasks.store.read() as conn:
            names = await facts_of.nodes_of(conn, mac)
        if not names:
            return self._unknown(mac, peer)
        if len(names) > 1:
            log.warning("%s boots from %s, and %s claim it", mac, peer, " and ".join(names))
            return self._local(nodes.BOOT, f"{mac} belongs to {' and '.join(names)}, so it boots its own disk")
        return await self._known(names[0], mac, peer)

    @property
    def _url(self) -> str:
        return self._tasks.installation.url

    # ------------------------------------------------------------ who nobody knows

    def _unknown(self, mac: str, peer: str) -> str:
        policy = self._policy
        log.info("%s, which no node has, boots from %s (%s)", mac, peer, policy.unknown)
        if policy.unknown == "local":
            return self._local(nodes.BOOT, f"{mac} is unknown and boots its own disk")
        made = plan.boot(
            Facts(node=mac),
            title="discover",
            url=self._url,
            common=self._common,
            own=(f"litho.controller={self._url}", "litho.discover"),
        )
        if policy.unknown == "discover":
            return ipxe.discover(made, mac=mac, base=self._url)
        return ipxe.menu(made, mac=mac, base=self._url, sanboot=policy.sanboot)

    def _local(self, title: str, tell: str) -> str:
        return ipxe.local(title=title, tell=tell, sanboot=self._policy.sanboot)

    # ------------------------------------------------------------ a node

    async def _known(self, name: str, mac: str, peer: str) -> str:
        tasks = self._tasks
        async with tasks.store.read() as conn:
            node = await nodes.require(conn, name)
            row = await rows_of.active(conn, name)
            facts = (await facts_of.of_nodes(conn, [name]))[name]
            known = await osboot.read(conn, [facts.provmethod]) if osboot.is_set(facts, node.state) else None
        if row is None and known is not None:
            return await self._osimage(known, facts, node.state, mac, peer)
        if row is None:
            return self._local(node.state, f"{name} boots its own disk")
        base = plan.for_host(self._url, facts.xcatmaster)
        if row.state.on_node:
            row = await self._boots_again(row)
            if row is None:
                return self._local(nodes.BOOT, f"{name} lost its task and boots its own disk")
        if row.state is State.QUEUED and not tasks.due(row):
            return self._local(node.state, f"{row.id} is for later: {name} boots its own disk")
        line = tasks.boot.read(name) if row.state is State.ARMED else ""
        if not line:
            tell = f"{name} waits: {row.id} ({row.action} of {row.image}) is {row.state}"
            return ipxe.again(title=node.state, mac=mac, base=base, tell=tell)
        made = plan.boot(facts, title=node.state, url=self._url, common=self._common, own=tuple(line.split()))
        log.info("%s: %s boots the root image, asked for from %s", row.id, name, peer)
        return ipxe.armed(made, mac=mac, base=base, tell=f"{name} boots for {row.id}: {row.action} of {row.image}")

    async def _osimage(self, known: Known, facts: Facts, state: str, mac: str, peer: str) -> str:
        """A node that is set to an osimage. When that cannot be booted now the node asks again: it may have no disk, or one
        with something else on it."""
        tasks, name = self._tasks, facts.node
        base = plan.for_host(self._url, facts.xcatmaster)
        try:
            made = await asyncio.to_thread(osboot.boot_of, known, facts, state, url=self._url)
        except LithoError as exc:
            log.error("%s cannot boot: %s", name, exc)
            return ipxe.again(title=state, mac=mac, base=base, tell=exc.message, pause_s=OSIMAGE_PAUSE_S)
        async with tasks.store.write() as conn:
            await nodes.set_status(conn, name, netboot.STATUS[state.partition(" ")[0]], now=tasks.clock.now())
        log.info("%s boots the osimage %s (%s), asked for from %s", name, facts.provmethod, state, peer)
        return ipxe.armed(made, mac=mac, base=base, tell=f"{name} boots {facts.provmethod}: {state}")

    async def _boots_again(self, row: TaskRow) -> TaskRow | None:
        """A node asks to boot while an agent holds its task; answers the task that it has then, if any."""
        tasks = self._tasks
        silence = tasks.leases.silent_for(row.number, now=tasks.clock.monotonic())
        if not tasks.bus.connected or silence < SILENCES * tasks.installation.heartbeat_s:
            return row
        made: TaskRow | None = None
        async with tasks.store.write() as conn:
            found = await rows_of.get(conn, row.number)
            if found is None or not found.state.on_node:
                return await rows_of.active(conn, row.node)
            row, _ = await tasks.move(conn, found, Expire(reason=again.REBOOTED))
            if again.may_try(found, attempts=self._policy.attempts):
                made = await again.queue(conn, again.next_attempt(found, now=tasks.clock.now(), counted=True))
        tasks.after(row)
        log.warning(
            "%s: lost: %s%s",
            row.id,
            again.REBOOTED,
            f"; tried again as {made.id}" if made else "; it is not tried again",
        )
        return made

    async def check(self, facts: Facts) -> None:
        """Raise UsageError when the node's tables hold what cannot stand on its command line."""
        own = words.parse(facts.addkcmdline, of=f"bootparams.addkcmdline of {facts.node}")
        plan.boot(facts, title="", url=self._url, common=self._common, own=own)
