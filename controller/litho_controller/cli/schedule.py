"""`litho task retry`, `litho task log`, `litho wave ls`, and the options that say when tasks start."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from typing import Any

import click

from litho.errors import UsageError
from litho_controller import api_schedule
from litho_controller.cli import render
from litho_controller.cli.session import Session, each, fail, json_option, pass_session, print_json

_IN = re.compile(r"\+(?P<count>[0-9]{1,6})(?P<unit>[smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def when_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--at`, `--priority`, `--wave` and `--stop-after`."""
    for option in reversed(
        (
            click.option(
                "--at",
                default=None,
                metavar="TIME",
                help="Start then: 22:30, 2026-12-24T22:30, +90m, now; also outside windows.",
            ),
            click.option(
                "--priority", type=click.IntRange(-100, 100), default=0, show_default=True, help="The higher one first."
            ),
            click.option(
                "--wave",
                default=None,
                metavar="SIZES",
                help="In steps of so many nodes: 2,10,50%; then all that are left.",
            ),
            click.option(
                "--stop-after",
                type=click.IntRange(0, 1_000_000),
                default=0,
                metavar="N",
                help="End the wave after N failures.",
            ),
        )
    ):
        command = option(command)
    return command


def when(options: dict[str, Any], *, now: float | None = None) -> api_schedule.When:
    """What the options say. Raises UsageError.

    An option that is there and empty is a mistake, such as a variable of a script that was not set: without the option all
    nodes would start at once.
    """
    wave = options["wave"]
    if wave is not None and not wave.strip():
        raise UsageError("--wave says no sizes", hint="write how many nodes each step has, such as 2,10,50%")
    if options["stop_after"] and wave is None:
        raise UsageError("--stop-after belongs to --wave", hint="add one, such as --wave 2,10,50%")
    at = moment(options["at"], now=time.time() if now is None else now) if options["at"] is not None else None
    return api_schedule.When(at=at, priority=options["priority"], wave=wave or "", stop_after=options["stop_after"])


def moment(text: str, *, now: float) -> float:
    """The time that a word means, in seconds since 1970: `now`, `+90m`, `22:30` (the next one), `2026-12-24T22:30`. Raises
    UsageError, also for a date that is over: what was meant for next year would begin at once, and outside of windows."""
    if text == "now":
        return now
    match = _IN.fullmatch(text)
    if match:
        return now + int(match["count"]) * _UNITS[match["unit"]]
    local = datetime.datetime.fromtimestamp(now)
    try:
        if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}", text, re.ASCII):
            clock = datetime.time.fromisoformat(text.zfill(5))
            found = datetime.datetime.combine(local.date(), clock)
            return (found if found > local else found + datetime.timedelta(days=1)).timestamp()
        at = datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(f"--at {text[:40]!r} is no time", hint="write 22:30, 2026-12-24T22:30, +90m or now") from None
    # The minute that still runs is meant by whoever writes it.
    if at < now - 60:
        raise UsageError(f"--at {text[:40]!r} is over", hint="write a time to come, or now")
    return at


@click.command()
@click.argument("ids", metavar="TASK...", nargs=-1, required=True)
@json_option
@pass_session
def retry(session: Session, ids: tuple[str, ...], as_json: bool) -> None:
    """Queue tasks like ones that ended without success.

    \b
    Example:
      litho task retry t-000017
    """
    made, errors = each(ids, session.client.retry)
    if as_json:
        print_json(made)
    else:
        for one in made:
            click.echo(f"{one.node}: {one.action} {render.image_of(one)} is queued as {one.id}")
    fail(errors)


@click.command()
@click.argument("id_", metavar="TASK")
@json_option
@pass_session
def log(session: Session, id_: str, as_json: bool) -> None:
    """Say what became of a task: its steps with their times, what was planned, what is to be noted, and its job's log.

    Of a capture that went well the log goes with its image; of any other job its end is kept with the task. One that was
    cancelled leaves none.

    \b
    Example:
      litho task log t-000017
    """
    found = session.client.task_log(id_)
    if as_json:
        print_json(found)
        return
    for at, text in found.lines:
        click.echo(f"{render.moment(at)}  {render.clean(text)}")
    for title, texts in (("plan", found.plan), ("notes", found.notes)):
        if texts:
            click.echo("\n".join((f"\n{title}:", *(f"  {render.clean(text)}" for text in texts))))
    if found.log:
        click.echo("\n" + "\n".join(render.clean(line) for line in found.log.splitlines()))


@click.group()
def wave() -> None:
    """Waves: many nodes in steps, a few first.

    \b
    Example:
      litho wave ls
    """


@wave.command()
@json_option
@pass_session
def ls(session: Session, as_json: bool) -> None:
    """List waves, newest first.

    \b
    Example:
      litho wave ls
    """
    answer = session.client.waves()
    if as_json:
        print_json(answer.waves)
        return
    headers = ("WAVE", "SIZES", "STATE", "STEP", "WAITING", "RUNNING", "DONE", "FAILED", "CANCELLED", "REASON")
    rows = [
        (
            one.id,
            one.sizes,
            one.state,
            f"{one.step}/{one.steps}",
            str(one.waiting),
            str(one.running),
            str(one.succeeded),
            str(one.failed),
            str(one.cancelled),
            one.reason,
        )
        for one in answer.waves
    ]
    session.print_table(render.Grid(headers=headers, rows=rows))
