"""What people and nodes ask for: `create` tasks, `set_boot`, `cancel`, and the agent's `claim`. Each is one transaction."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from litho.errors import LithoError, NotFoundError, RefusedError
from litho.library import ImageRef, check_name
from litho.messages import ClaimRequest, Order
from litho.task import Action, CancelRequest, Claim, Outcome, State
from litho_controller.api import JobOptions, NodesetLine
from litho_controller.boot.cmdline import token_hash
from litho_controller.store import tasks as rows_of
from litho_controller.store.tasks import TaskRow
from litho_controller.tables import nodes, rows
from litho_controller.tables.nodes import Node
from litho_controller.tasks import orders, rules
from litho_controller.tasks.core import Tasks

log = logging.getLogger("litho.tasks")


class Requests:
    """The desk at which tasks are asked for."""

    def __init__(self, tasks: Tasks, *, vcl_markers: bool = False) -> None:
        self._tasks = tasks
        self._vcl_markers = vcl_markers

    async def create(
        self, names: Sequence[str], action: Action, ref: ImageRef | None, options: JobOptions
    ) -> list[NodesetLine]:
        """One task for each node, queued. `ref` None is each node's own profile. One node's refusal does not stop the others.

        Raises UsageError, NotFoundError, RefusedError or LibraryError when the image named is at fault, or the options are.
        """
        tasks, names = self._tasks, list(dict.fromkeys(names))
        async with tasks.images:
            async with tasks.store.read() as conn:
                known = {node.name: node for node in await nodes.get(conn, names)}
            if ref is None:
                wanted = {name: await self._profile(action, known[name]) for name in names if name in known}
            else:
                wanted = dict.fromkeys(names, await self._resolved(action, ref))
            # What is wrong with the options is wrong for every node.
            rules.job_of(options, action=action, image="any", version=0, vcl_markers=False)
            lines = []
            async with tasks.store.write() as conn:
                taken = {row.node: row for row in await rows_of.all_active(conn)}
                for name in names:
                    try:
                        node, image = _found(known, name), wanted[name]
                        if isinstance(image, LithoError):
                            raise image
                        lines.append(
                            await self._queue(conn, node, action, image, options=options, other=taken.get(name))
                        )
                    except LithoError as exc:
                        lines.append(NodesetLine(node=name, error=str(exc), code=exc.code))
        tasks.woken.set()
        return lines

    async def _queue(
        self,
        conn: AsyncConnection,
        node: Node,
        action: Action,
        image: ImageRef,
        *,
        options: JobOptions,
        other: TaskRow | None,
    ) -> NodesetLine:
        if other is not None:
            raise RefusedError(
                f"{node.name} has a task already: {other.id}, {other.action} of {other.image}, {other.state}",
                hint=f"wait for its end, or: litho task cancel {other.id}",
                code="node-busy",
            )
        row = await rows_of.insert(
            conn,
            TaskRow(
                node=node.name,
                action=action,
                image=image.name,
                version=image.version,
                job=rules.job_of(
                    options,
                    action=action,
                    image=image.name,
                    version=image.version,
                    vcl_markers=self._vcl_markers,
                ),
                created=self._tasks.clock.now(),
            ),
        )
        text = nodes.state_text(action, arch=node.arch, image=image.name)
        await nodes.set_state(conn, {node.name: text})
        await rows.put(conn, "nodetype", node.name, {"os": "image", "profile": image.name})
        log.info("%s: %s of %s for %s is queued", row.id, action, image, node.name)
        return NodesetLine(node=node.name, text=text, task=row.id)

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
        if action == "restore":
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

    async def set_boot(self, names: Sequence[str]) -> list[NodesetLine]:
        """Let nodes boot their own disk: what waits is cancelled at once, what runs is asked to stop."""
        tasks = self._tasks
        cancelled: list[TaskRow] = []
        async with tasks.store.write() as conn:
            known = [node.name for node in await nodes.get(conn, names)]
            for row in await rows_of.all_active(conn):
                if row.node in known:
                    event = CancelRequest(reason="the node was set to boot its own disk")
                    cancelled.append((await tasks.move(conn, row, event))[0])
            await nodes.set_state(conn, dict.fromkeys(known, nodes.BOOT))
            await rows_of.settle(conn, known)
        for row in cancelled:
            tasks.after(row)
            tasks.forget_boot_file(row)
        missing = {name: str(_missing(name)) for name in names if name not in known}
        return [
            NodesetLine(node=name, error=missing[name], code="node-missing")
            if name in missing
            else NodesetLine(node=name, text=nodes.BOOT)
            for name in names
        ]

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

    async def claim(self, request: ClaimRequest) -> Order:
        """Give a node's agent its task, against the token. Raises NotFoundError, RefusedError."""
        tasks = self._tasks
        number = rows_of.parse_id(request.task)
        async with tasks.store.write() as conn:
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
            was = row.state
            row, step = await tasks.move(conn, row, Claim(session=request.session, seq=1))
            if step.outcome is Outcome.MOVED:
                inventory = msgspec.json.encode(request.inventory).decode()
                await rows_of.save(conn, msgspec.structs.replace(row, inventory=inventory))
            elif step.outcome is not Outcome.DUPLICATE or was.ended:
                raise _not_claimable(row)
            site_keys = await rows.column(conn, "site", "value")
        tasks.after(row)
        await tasks.renew_accounts()
        log.info("%s: claimed by %s (session %s)", row.id, row.node, request.session)
        return orders.order(tasks.installation, row, site_keys)


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"there is no node {name}", hint="define it with: litho node add NAME", code="node-missing")


def _found(known: dict[str, Node], name: str) -> Node:
    if name not in known:
        raise _missing(name)
    return known[name]


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
