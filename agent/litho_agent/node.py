"""`litho-agent run`: what an agent does on a node, from its kernel command line to the node's end state.

    settings ──> claim (HTTP) ──> MQTT session ┐
                                               ├─ mount the library ─> worker ─> end is acknowledged ─> Finish ─> reboot
                                    commands ──┘

1. The task is claimed with the one-time token. A controller that cannot be reached is waited for; one that refuses ends the
   agent with exit code 4, and the node stays where it is: no reboot, so no loop.
2. The order's job is filled up with what the kernel command line wishes. The order's own words win.
3. The MQTT session starts beside the work. A broker that is away neither stops nor slows the job. Port 3001 tells xCAT and VCL
   one line from before the claim to the agent's end.
4. The library is mounted, the site's hooks run, a worker process moves the bytes, and hooks run again.
5. How it ended is said until the controller acknowledges it (`Limits.acknowledge_s`), because nobody else knows it.
6. `Finish` says that the boot files for what comes after are written. Without it the agent goes on after `Limits.finish_s`.
7. Reboot, power off or stay; see `finish`. A node whose end nobody acknowledged stays.

`Cancel` and SIGTERM stop the worker and the end is said. `Stop` means that this session does not hold the task: the worker is
stopped, nothing more is said, and the node stays.
"""

from __future__ import annotations

import asyncio
import uuid

import msgspec

from litho import __version__
from litho.errors import CancelledError, ConfigError
from litho.job import EDITION, EngineName, Job
from litho.messages import ClaimRequest
from litho_agent import claim, finish, hostfacts, mover
from litho_agent.boot import Settings
from litho_agent.errand import Errand, Limits, Move, Outcome, unless
from litho_agent.finish import Decision, Power, SystemPower
from litho_agent.hooks import Hooks
from litho_agent.joblog import JobLog
from litho_agent.report import Reporter
from litho_agent.report.port import PORT, StatusPort, answering

__all__ = ["FILLED", "Limits", "check", "fill", "run"]

FILLED = (
    "disk",
    "engine",
    "compress",
    "level",
    "then",
    "fit",
    "on_dirty",
    "on_bad_sector",
    "allow",
    "parallel",
    "sources",
)
"""Fields of a job that the kernel command line may fill."""


def check(settings: Settings) -> None:
    """Raise ConfigError unless the kernel command line says all that a claim needs."""
    missing = [name for name in ("controller", "task", "token", "node") if not getattr(settings, name)]
    if missing:
        raise ConfigError(
            f"the kernel command line has no {' and no '.join(f'litho.{name}' for name in missing)}",
            hint="boot the node by `litho nodeset`, or use litho-agent capture and restore without a controller",
            code="bad-parameter",
        )


def fill(job: Job, settings: Settings, site_engine: EngineName = "") -> Job:
    """`job` with the wishes of the kernel command line where the order says nothing of its own (has the default).

    `site_engine` is what the site captures with where neither says. That it be chunks is the agent's own rule, which knows when
    chunks will not do (`engines.choose.settled`).
    """
    default = {field.name: field.default for field in msgspec.structs.fields(Job)}
    changes = {
        name: wish for name in FILLED if (wish := getattr(settings, name)) and getattr(job, name) == default[name]
    }
    filled = msgspec.structs.replace(job, **changes)
    if filled.engine or job.action != "capture" or site_engine == "chunk":
        return filled
    return msgspec.structs.replace(filled, engine=site_engine)


async def run(
    settings: Settings,
    *,
    show: Reporter,
    terminate: asyncio.Event,
    move: Move = mover.run,
    power: Power | None = None,
    in_rootimg: bool | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    hooks: Hooks | None = None,
) -> int:
    """Do the node's task; answers the exit code. `terminate` is set by SIGTERM.

    Raises LithoError when there is no order: ConfigError (2), the claim was refused (4), nobody answered (9), nonsense came (1).
    """
    check(settings)
    port = StatusPort()
    job_log = JobLog()
    number = PORT if settings.port is None else settings.port
    with job_log.listening():
        async with answering(port, number, show):
            ears = (show, port)
            outcome, job = await _errand(settings, ears, job_log, terminate, move=move, limits=limits, hooks=hooks)
            return await _afterwards(outcome, job, show, power or SystemPower(), in_rootimg=in_rootimg)


async def _errand(
    settings: Settings,
    ears: tuple[Reporter, ...],
    job_log: JobLog,
    terminate: asyncio.Event,
    *,
    move: Move,
    limits: Limits,
    hooks: Hooks | None,
) -> tuple[Outcome, Job]:
    """Claim the task and do it. Raises LithoError when there is no order."""
    show = ears[0]
    session = uuid.uuid4().hex
    disks = await asyncio.to_thread(hostfacts.read_disks)
    request = ClaimRequest(
        node=settings.node,
        task=settings.task,
        token=settings.token,
        session=session,
        inventory=hostfacts.inventory(disks=disks),
        edition=EDITION,
        software=__version__,
    )
    show.say(f"claiming task {settings.task} for {settings.node} from {claim.parse_url(settings.controller)}")
    order = await unless(terminate, claim.claim(settings.controller, request, say=show.say, give_up_s=limits.claim_s))
    if order is None:
        raise CancelledError("the agent was ended before it had its order")
    job = fill(order.job, settings, order.engine)
    show.say(f"task {order.task}: {job.action} {job.image} on {order.node}")
    errand = Errand(
        order,
        job,
        order.library or settings.library,
        session,
        ears=ears,
        job_log=job_log,
        move=move,
        limits=limits,
        hooks=hooks or Hooks(in_library=settings.library_hooks),
        controller=settings.controller,
    )
    return await errand.run(terminate), job


async def _afterwards(outcome: Outcome, job: Job, show: Reporter, power: Power, *, in_rootimg: bool | None) -> int:
    """The node's end state; answers the exit code."""
    rootimg = finish.in_rootimg() if in_rootimg is None else in_rootimg
    decision = finish.decide(job.then, in_rootimg=rootimg) if outcome.may_switch else Decision("stay")
    for note in (outcome.note, decision.note):
        if note:
            show.say(note)
    if decision.deed != "stay":
        show.say(f"the node does what comes after the job: {decision.deed}")
    problem = await asyncio.to_thread(finish.finish, decision, power)
    if problem:
        show.say(problem)
    return outcome.exit_code
