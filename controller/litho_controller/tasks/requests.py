"""What people and nodes ask for: `create` tasks, `set_boot`, `cancel`, and the agent's `claim`.

What is asked of a node is one transaction; what is asked of many is done in batches, so that nodes are heard in between.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError, NotFoundError, RefusedError, UsageError
from litho.library import ImageRef, check_name
from litho.messages import Claimant, ClaimRequest, Order
from litho.task import Action, CancelRequest, Claim, Expire, Fail, Outcome, State
from litho_controller.api import JobOptions, NodesetLine
from litho_controller.api_schedule import When
from litho_controller.boot import facts as facts_of
from litho_controller.boot.cmdline import token_hash
from litho_controller.store import tasks as rows_of
from litho_controller.store import waves as waves_of
from litho_controller.store.tasks import TaskRow
from litho_controller.store.waves import WaveRow
from litho_controller.tables import nodes, rows
from litho_controller.tables.nodes import Node
from litho_controller.tasks import again, autoinst, orders, osboot, rules, safety, versions, waves
from litho_controller.tasks.core import Tasks

log = logging.getLogger("litho.tasks")

BATCH = 250
"""Nodes in one transaction of a request for many."""
_ACTIVE = tuple(state for state in State if not state.ended)


class Requests:
    """The desk at which tasks are asked for."""

    def __init__(self, tasks: Tasks, *, vcl_markers: bool = False, require_mac: bool = False) -> None:
        self._tasks = tasks
        self._vcl_markers = vcl_markers
        self._require_mac = require_mac

    async def create(
        self,
        names: Sequence[str],
        action: Action,
        ref: ImageRef | None,
        options: JobOptions,
        when: When = When(),  # noqa: B008 - frozen
    ) -> list[NodesetLine]:
        """One task for each node, queued. `ref` None is each node's own profile. One node's refusal does not stop the others.

        Raises UsageError, NotFoundError, RefusedError or LibraryError when the image named is at fault, or the options are.
        """
        tasks, names = self._tasks, list(dict.fromkeys(names))
        # What is wrong with the options is wrong for every node.
        rules.job_of(options, action=action, image="any", version=0, vcl_markers=False)
        async with tasks.images:
            if ref is not None:
                images: dict[str, ImageRef | LithoError] = dict.fromkeys(names, await self._resolved(action, ref))
            else:
                async with tasks.store.read() as conn:
                    known = await nodes.get(conn, names)
                images = {node.name: await self._profile(action, node) for node in known}
            lines = []
            wave = await self._wave(names, when)
            for some in _batches(names):
                async with tasks.store.write() as conn:
                    made, superseded = await self._queue(conn, some, action, images, options, place=wave)
                lines += made
                for row in superseded:
                    tasks.after(row)
            if wave.number:
                async with tasks.store.write() as conn:
                    await waves_of.begin(conn, wave.number)
        tasks.woken.set()
        return lines

    async def _wave(self, names: Sequence[str], when: When) -> Place:
        """Where and when the tasks of a request stand in the queue. Raises UsageError."""
        if not when.wave:
            if when.stop_after:
                raise UsageError(
                    "there is no wave that could stop after failures",
                    hint="add --wave, such as 2,10,50%",
                    code="bad-wave",
                )
            return Place(when=when)
        steps = waves.steps(names, waves.parse(when.wave))
        row = WaveRow(
            sizes=when.wave,
            stop_after=when.stop_after,
            state=waves.MAKING,
            steps=len(steps),
            created=self._tasks.clock.now(),
        )
        async with self._tasks.store.write() as conn:
            row = await waves_of.insert(conn, row)
        log.info("%s: %d nodes in %d steps", row.id, len(names), row.steps)
        places = {name: at for at, some in enumerate(steps, 1) for name in some}
        return Place(when=when, number=row.number, steps=places)

    async def _queue(
        self,
        conn: AsyncConnection,
        names: Sequence[str],
        action: Action,
        images: Mapping[str, ImageRef | LithoError],
        options: JobOptions,
        *,
        place: Place,
    ) -> tuple[list[NodesetLine], list[TaskRow]]:
        """Queue what can be queued for `names`, in the open transaction; also answers the tasks that make way.

        A task whose agent was asked to stop and has not said that it did makes way: the node comes to the new task only by
        booting, and that ends whatever ran on it. It is LOST until its agent, if it is there still, says how it ended.
        """
        known = {node.name: node for node in await nodes.get(conn, names)}
        busy = {row.node: row for row in await rows_of.find(conn, nodes=names, states=_ACTIVE)}
        refused = await safety.refusals(conn, [*known], url=self._tasks.installation.url, require_mac=self._require_mac)
        made: dict[str, TaskRow] = {}
        states: dict[str, str] = {}
        lines, superseded = [], []
        for name in names:
            try:
                stopping = busy.pop(name) if name in busy and busy[name].task.cancel_requested else None
                image = _image(name, known, busy, images)
                if name in refused:
                    raise refused[name]
                if stopping is not None:
                    superseded.append((await self._tasks.move(conn, stopping, Expire(reason=rules.SUPERSEDED)))[0])
                made[name] = await rows_of.insert(conn, place.put(self._new(name, action, image, options)))
            except LithoError as exc:
                lines.append(NodesetLine(node=name, error=str(exc), code=exc.code))
                continue
            states[name] = nodes.state_text(action, arch=known[name].arch, image=image.name)
            lines.append(NodesetLine(node=name, text=states[name], task=made[name].id, wave=place.id))
            log.info("%s: %s of %s for %s is queued", made[name].id, action, image, name)
        await nodes.set_state(conn, states)
        if action != "verify":
            # To compare a node with an image does not make it that image's.
            profiles = [{"node": name, "os": "image", "profile": row.image} for name, row in made.items()]
            await rows.put_many(conn, "nodetype", profiles)
        return lines, superseded

    def _new(self, node: str, action: Action, image: ImageRef, options: JobOptions) -> TaskRow:
        job = rules.job_of(
            options, action=action, image=image.name, version=image.version, vcl_markers=self._vcl_markers
        )
        return TaskRow(
            node=node,
            action=action,
            image=image.name,
            version=image.version,
            job=job,
            created=self._tasks.clock.now(),
        )

    async def _profile(self, action: Action, node: Node) -> ImageRef | LithoError:
        """The image that a node's own profile names, or why there is none."""
        if node.os != "image" or not node.profile:
            return RefusedError(
                f"no image is named, and {node.name} has none of its own",
                hint="name one (image=NAME), or set nodetype.os=image and nodetype.profile=NAME",
                code="no-image",
            )
        try:
            return await self._resolved(action, ImageRef(node.profile))
        except LithoError as exc:
            return exc

    async def _resolved(self, action: Action, ref: ImageRef) -> ImageRef:
        """`ref` as the task will have it: a restore's with its version, which must exist. Raises LithoError."""
        check_name(ref.name)
        if action != "capture":
            found = await asyncio.to_thread(self._tasks.library.resolve, ref)
            await asyncio.to_thread(self._tasks.library.manifest, found)
            return found
        if ref.version:
            raise RefusedError(
                f"a capture makes a new version by itself, so it cannot be told to make {ref}",
                hint=f"say image={ref.name}",
                code="bad-image-name",
            )
        return ref

    async def set_boot(self, names: Sequence[str], state: str = nodes.BOOT) -> list[NodesetLine]:
        """Let nodes boot their own disk (or another state without a task): what waits is cancelled at once, what runs is asked to
        stop."""
        tasks, lines = self._tasks, []
        for some in _batches(list(dict.fromkeys(names))):
            async with tasks.store.write() as conn:
                known = {node.name for node in await nodes.get(conn, some)}
                why = "boot its own disk" if state == nodes.BOOT else state
                event = CancelRequest(reason=f"the node was set to {why}")
                busy = await rows_of.find(conn, nodes=some, states=_ACTIVE)
                cancelled = [(await tasks.move(conn, row, event))[0] for row in busy]
                await nodes.set_state(conn, dict.fromkeys(known, state))
                await rows_of.settle(conn, [*known])
            for row in cancelled:
                tasks.after(row)
                tasks.forget_boot_file(row)
            # Also those without a task: they may have been set to boot an osimage.
            tasks.to_turn.update(known)
            tasks.turned.set()
            for name in some:
                if name in known:
                    lines.append(NodesetLine(node=name, text=state))
                else:
                    lines.append(NodesetLine(node=name, error=str(_missing(name)), code="node-missing"))
        return lines

    async def set_osimage(self, names: Sequence[str], name: str) -> list[NodesetLine]:
        """Let nodes boot an osimage whose method is netboot, statelite or install by an installer. Raises NotFoundError,
        RefusedError when the image is at fault."""
        if names:
            await autoinst.check(self._tasks, names[0], name)
        return await osboot.set_osimage(self._tasks, names, name, require_mac=self._require_mac)

    async def cancel(self, number: int) -> TaskRow:
        """Cancel a task: at once while no agent holds it, else its agent is asked to stop. Raises NotFoundError, RefusedError."""
        tasks = self._tasks
        async with tasks.store.write() as conn:
            row = await rows_of.get(conn, number)
            if row is None:
                raise NotFoundError(f"there is no task t-{number:06d}", hint="see: litho task ls", code="task-missing")
            if row.state.ended:
                raise RefusedError(f"the task {row.id} has ended already ({row.state})", code="task-ended")
            row, _ = await tasks.move(conn, row, CancelRequest())
        tasks.after(row)
        return row

    async def retry(self, number: int) -> TaskRow:
        """Queue a task like one that has ended without success. Raises NotFoundError, RefusedError, LibraryError."""
        tasks = self._tasks
        async with tasks.images:
            async with tasks.store.read() as conn:
                row = await rows_of.get(conn, number)
            if row is None:
                raise NotFoundError(f"there is no task t-{number:06d}", hint="see: litho task ls", code="task-missing")
            if not row.state.ended or row.state is State.SUCCEEDED:
                raise RefusedError(
                    f"the task {row.id} is {row.state}, so there is nothing to repeat", code="task-not-over"
                )
            if row.action != "capture":
                await self._resolved(row.action, ImageRef(row.image, row.version))
            async with tasks.store.write() as conn:
                known = {node.name: node for node in await nodes.get(conn, [row.node])}
                busy = {one.node: one for one in await rows_of.find(conn, nodes=[row.node], states=_ACTIVE)}
                _image(row.node, known, busy, {row.node: ImageRef(row.image)})
                refused = await safety.refusals(
                    conn, [row.node], url=tasks.installation.url, require_mac=self._require_mac
                )
                if refused:
                    raise refused[row.node]
                made = await again.queue(conn, again.next_attempt(row, now=tasks.clock.now(), counted=False))
        tasks.woken.set()
        log.info("%s: %s of %s for %s is queued, as %s was", made.id, made.action, made.image, made.node, row.id)
        return made

    async def claim(self, request: ClaimRequest) -> Order:
        """Give a node's agent its task, against the token. Raises NotFoundError, RefusedError."""
        if (refused := versions.refusal(request)) is not None:
            raise await self.decline(request, refused)
        tasks = self._tasks
        async with tasks.store.write() as conn:
            row = await _opened(conn, request)
            was = row.state
            row, step = await tasks.move(conn, row, Claim(session=request.session, seq=1))
            if step.outcome is Outcome.MOVED:
                inventory = msgspec.json.encode(request.inventory).decode()
                await rows_of.save(conn, msgspec.structs.replace(row, inventory=inventory))
            elif step.outcome is not Outcome.DUPLICATE or was.ended:
                raise _not_claimable(row)
            site_keys = await rows.column(conn, "site", "value")
            nfsserver = await facts_of.nfsserver(conn, row.node, tasks.installation.url)
        tasks.after(row)
        await tasks.renew_accounts()
        log.info("%s: claimed by %s (session %s)", row.id, row.node, request.session)
        return orders.order(tasks.installation, row, site_keys, nfsserver)

    async def decline(self, request: ClaimRequest | Claimant, refused: RefusedError) -> RefusedError:
        """Fail the task that an agent claims and cannot do, as if it had said so itself. Answers what the agent is told, which is
        the same when it asks again. Raises NotFoundError, RefusedError."""
        tasks = self._tasks
        async with tasks.store.write() as conn:
            row = await _opened(conn, request)
            claimed, step = await tasks.move(conn, row, Claim(session=request.session, seq=1))
            if row.state.ended or step.outcome not in (Outcome.MOVED, Outcome.DUPLICATE):
                return refused if row.task.code == refused.code else _not_claimable(row)
            failed = Fail(
                session=request.session, seq=claimed.task.last_seq + 1, code=refused.code, reason=str(refused)
            )
            row, _ = await tasks.move(conn, claimed, failed)
        tasks.after(row)
        log.warning("%s: failed at its claim: %s", row.id, refused)
        return refused


async def _opened(conn: AsyncConnection, request: ClaimRequest | Claimant) -> TaskRow:
    """The task that the claim's token opens. Raises NotFoundError, RefusedError."""
    number = rows_of.parse_id(request.task)
    row = await rows_of.get(conn, number) if number is not None else None
    if row is None:
        raise NotFoundError(f"there is no task {request.task}", code="task-missing")
    opens = hmac.compare_digest(token_hash(request.token), row.token_hash or "-")
    if not opens or row.node != request.node:
        log.warning("%s: a claim in the name of %s came with a wrong token", row.id, request.node)
        raise RefusedError(
            f"the token does not open the task {row.id}",
            hint="the node must boot with the command line that was made for it",
            code="bad-token",
        )
    return row


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the tasks of one request stand in the queue."""

    when: When
    number: int = 0
    """Of the wave; 0 for none."""
    steps: dict[str, int] = {}

    @property
    def id(self) -> str:
        """The wave's; empty for none."""
        return f"w-{self.number:06d}" if self.number else ""

    def put(self, row: TaskRow) -> TaskRow:
        """`row` at its place."""
        return msgspec.structs.replace(
            row,
            priority=self.when.priority,
            not_before=self.when.at,
            wave=self.number,
            step=self.steps.get(row.node, 0),
        )


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"there is no node {name}", hint="define it with: litho node add NAME", code="node-missing")


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """`names` in pieces, one transaction each: what nodes say is taken in between them."""
    for start in range(0, len(names), BATCH):
        yield names[start : start + BATCH]


def _image(
    name: str,
    known: Mapping[str, Node],
    busy: Mapping[str, TaskRow],
    images: Mapping[str, ImageRef | LithoError],
) -> ImageRef:
    """The image for a node that may get a task; else raise why it may not."""
    if name not in known or name not in images:
        raise _missing(name)
    if name in busy:
        other = busy[name]
        raise RefusedError(
            f"{name} has a task already: {other.id}, {other.action} of {other.image}, {other.state}",
            hint=f"wait for its end, or: litho task cancel {other.id}",
            code="node-busy",
        )
    image = images[name]
    if isinstance(image, LithoError):
        raise image
    return image


def _not_claimable(row: TaskRow) -> RefusedError:
    if row.state is State.QUEUED:
        return RefusedError(
            f"the task {row.id} still waits for a slot", hint="it is given out when it is armed", code="not-armed"
        )
    if row.state.ended:
        return RefusedError(
            f"the task {row.id} has ended ({row.state})", hint="set the node anew for another one", code="task-ended"
        )
    return RefusedError(
        f"the task {row.id} is held by another session of {row.node}",
        hint="a token opens its task once; set the node anew to give it another task",
        code="already-claimed",
    )
