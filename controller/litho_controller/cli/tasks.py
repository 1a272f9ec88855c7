"""`litho task ...`: captures and restores, waiting, running and ended."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from litho.task import State
from litho_controller.api import TaskView
from litho_controller.cli import live, render, schedule
from litho_controller.cli.session import Session, each, fail, json_option, pass_session, print_json


@click.group()
def task() -> None:
    """Captures and restores: waiting, running, ended.

    \b
    Example:
      litho task ls --active
      litho task watch
    """


@task.command()
@click.option("--node", default="", help="Only tasks of this node.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only tasks in this state.")
@click.option("--active", is_flag=True, help="Only tasks that have not ended.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="The newest so many.")
@json_option
@pass_session
def ls(session: Session, *, node: str, state: str | None, active: bool, limit: int, as_json: bool) -> None:
    """List tasks, newest first.

    \b
    Example:
      litho task ls --node n01 --limit 5
    """
    answer = session.client.tasks(node=node, state=state or "", active=active, limit=limit)
    if as_json:
        print_json(answer.tasks)
    else:
        session.print_table(render.tasks_grid(answer.tasks, time.time()))


@task.command()
@click.argument("id_", metavar="TASK")
@json_option
@pass_session
def show(session: Session, id_: str, as_json: bool) -> None:
    """Show one task: its times, its plan, its result.

    \b
    Example:
      litho task show t-000017
    """
    one = session.client.task(id_)
    if as_json:
        print_json(one)
    else:
        click.echo(render.facts(_facts(one)))


@task.command()
@click.argument("ids", metavar="[TASK]...", nargs=-1)
@json_option
@pass_session
def watch(session: Session, ids: tuple[str, ...], as_json: bool) -> int:
    """Follow tasks to their end; without a TASK, all that have not ended.

    Ends with 0 when all succeeded, else with the code of what went wrong.

    \b
    Example:
      litho task watch t-000017 t-000018
    """
    wanted = ids or tuple(one.id for one in reversed(session.client.tasks(active=True, limit=100_000).tasks))
    if ids:
        # A controller that goes away is waited for, but one that was never there is not: the settings may name another.
        session.client.task(ids[0])
    if not wanted and not as_json:
        click.echo("no task is waiting or running")
    ended = live.watch(session, wanted, quiet=as_json)
    if as_json:
        print_json(ended)
    return live.exit_code(ended)


@task.command()
@click.argument("ids", metavar="TASK...", nargs=-1, required=True)
@json_option
@pass_session
def cancel(session: Session, ids: tuple[str, ...], as_json: bool) -> None:
    """Ask for tasks to stop. One that runs ends when its node says that nothing moves any more.

    \b
    Example:
      litho task cancel t-000017
    """
    asked, errors = each(ids, session.client.cancel)
    if as_json:
        print_json(asked)
    else:
        for one in asked:
            click.echo(f"{one.node}: {one.action} {render.image_of(one)} {render.outcome(one)}")
    fail(errors)


task.add_command(schedule.retry)
task.add_command(schedule.log)


def _facts(one: TaskView) -> list[tuple[str, str]]:
    now = time.time()
    seconds = render.seconds_of(one, now)
    pairs = [
        ("task", one.id),
        ("node", one.node),
        ("action", one.action),
        ("image", render.image_of(one)),
        ("state", render.outcome(one)),
        ("code", one.code),
        ("progress", f"{one.percent}% {render.size(one.done)} of {render.size(one.total)}" if one.total else ""),
        ("stored", render.size(one.stored) if one.stored else ""),
        ("rate", render.rate(render.rate_of(one, now))),
        ("limit", one.limit),
        ("moving", render.moving(one)),
        ("time", render.duration(seconds) if seconds is not None else ""),
        ("left", render.duration(one.eta_s) if one.eta_s is not None and not one.state.ended else ""),
        ("created", render.moment(one.created)),
        ("armed", render.moment(one.armed)),
        ("claimed", render.moment(one.claimed)),
        ("started", render.moment(one.started)),
        ("ended", render.moment(one.ended)),
        ("nodestat", one.line),
        *render.health(one.health),
    ]
    pairs.extend(_nested("plan", one.plan))
    pairs.extend(_nested("result", one.result))
    return pairs


def _nested(name: str, value: Any) -> list[tuple[str, str]]:
    """A JSON value as names with dots; a list of plain values stays on one line."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() if key != "type" for pair in _nested(f"{name}.{key}", inner)]
    if isinstance(value, list):
        words = [one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in value]
        return [(name, "; ".join(words))]
    if value is None or value == "":
        return []
    return [(name, value if isinstance(value, str) else msgspec.json.encode(value).decode())]
