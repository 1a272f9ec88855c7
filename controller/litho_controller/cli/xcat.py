"""The commands that an xCAT administrator, and programs written for xCAT, know by name: nodeset, nodestat, tabdump, lsdef.

Their output is xCAT's: `node: text`, one line a node; errors of one node as `node: [host]: Error: text` and errors of the whole
command as `Error: text` on standard error, both with exit code 1. Apache VCL looks for exactly these.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, get_args

import click
from click.core import ParameterSource

from litho.errors import NotFoundError, RefusedError, UsageError
from litho.job import Compression, EngineName, Fit, OnBadSector, OnDirty, Then
from litho.library.names import parse_ref
from litho_controller import api
from litho_controller.cli import render, stanza
from litho_controller.cli.session import Session, json_option, noderange, pass_session, print_json

# What only one kind of job understands; said with the other it is a mistake, not a wish to be ignored.
_CAPTURE_ONLY = ("engine", "compress", "level", "on_dirty", "on_bad_sector", "skip_unknown", "labels")
_RESTORE_ONLY = ("fit",)


def parse_state(text: str) -> tuple[api.NodesetState, str]:
    """The state that a word of nodeset asks for, and the image it names. Pure. Raises UsageError."""
    word, equals, name = text.partition("=")
    if word == "image" and bool(equals) == bool(name):
        return "image", name
    if word == "osimage" and name:
        parse_ref(name)
        return "osimage", name
    if text == "boot":
        return "boot", ""
    if text == "stat":
        return "stat", ""
    raise UsageError(f"Invalid argument: '{text}'", hint="use image[=NAME], osimage=NAME[:VERSION], boot or stat")


def _choice(kind: Any) -> click.Choice[str]:
    return click.Choice([word for word in get_args(kind) if word])


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"the label {text!r} is not KEY=VALUE", hint="write it as in --label owner=physics")
    return key, value


@click.command()
@click.argument("range_", metavar="NODERANGE")
@click.argument("state", metavar="STATE")
@click.option(
    "--disk", default="", help="Which disk: sda, /dev/disk/by-path/..., serial=..., wwn=...; else the rule chooses."
)
@click.option(
    "--engine", type=_choice(EngineName), default=None, help="Capture: what copies the partitions; else by file system."
)
@click.option(
    "--compress", type=_choice(Compression), default="zstd", show_default=True, help="Capture: how streams are packed."
)
@click.option(
    "--level", type=click.IntRange(1, 19), default=1, show_default=True, help="Capture: how hard to pack; gzip to 9."
)
@click.option("--then", type=_choice(Then), default=None, help="What the node does afterwards; else reboot.")
@click.option(
    "--fit", type=_choice(Fit), default="keep", show_default=True, help="Restore to a larger disk: grow the last one."
)
@click.option(
    "--on-dirty",
    type=_choice(OnDirty),
    default="refuse",
    show_default=True,
    help="Capture: a file system in use or broken.",
)
@click.option(
    "--on-bad-sector",
    type=_choice(OnBadSector),
    default="stop",
    show_default=True,
    help="Capture: a sector that cannot be read.",
)
@click.option("--skip-unknown", is_flag=True, help="Capture: leave out partitions without a known file system.")
@click.option(
    "--allow", multiple=True, metavar="GUARD", help="Lift a guard, by the name that its refusal gave; may be repeated."
)
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Capture: words kept with the image; may be repeated."
)
@click.option("--watch", is_flag=True, help="Follow the tasks to their end; 1 when one does not succeed.")
@json_option
@click.pass_context
def nodeset(ctx: click.Context, /, range_: str, state: str, watch: bool, as_json: bool, **options: Any) -> int:
    """Set nodes to capture an image, to be restored from one, or to boot.

    STATE is one of: image[=NAME] (capture the node's disk), osimage=NAME[:VERSION] (print the image onto it), boot (its
    own disk), stat (only say what it is set to). A node that is told to capture or restore does so at its next network boot.

    \b
    Example:
      litho nodeset n01 image=golden --label owner=physics --watch
      litho nodeset compute,-n01 osimage=golden:2 --fit grow
      litho nodeset all stat
    """
    session = ctx.find_object(Session)
    assert session is not None  # noqa: S101 - the root command always makes one
    kind, name = parse_state(state)
    _refuse_strangers(ctx, kind)
    job = api.JobOptions(
        disk=options["disk"],
        engine=options["engine"] or "",
        compress=options["compress"],
        level=options["level"],
        then=options["then"] or "",
        fit=options["fit"],
        on_dirty=options["on_dirty"],
        on_bad_sector=options["on_bad_sector"],
        skip_unknown=options["skip_unknown"],
        allow=tuple(options["allow"]),
        labels=dict(_label(text) for text in options["labels"]),
    )
    if job.compress == "gzip" and job.level > 9:
        raise UsageError(f"--level {job.level} is more than gzip knows", hint="use 1 to 9")
    answer = session.client.nodeset(api.NodesetRequest(range=noderange(range_), state=kind, image=name, job=job))
    failed = any(line.error for line in answer.nodes)
    if as_json and not watch:
        print_json(answer.nodes)
    else:
        _print_lines(answer, quiet=as_json)
    if watch:
        failed = not _watched(session, answer, as_json=as_json) or failed
    return int(failed)


def _refuse_strangers(ctx: click.Context, kind: api.NodesetState) -> None:
    """Options that the state has no use for."""
    given = {param.name for param in ctx.command.params if param.name and _said(ctx, param.name)}
    strange: set[str] = given & {*_CAPTURE_ONLY, *_RESTORE_ONLY, "disk", "then", "allow", "watch"}
    if kind == "image":
        strange &= set(_RESTORE_ONLY)
    elif kind == "osimage":
        strange &= set(_CAPTURE_ONLY)
    if strange:
        words = ", ".join(sorted("--" + name.replace("_", "-").replace("labels", "label") for name in strange))
        raise UsageError(f"{words} has no meaning with {kind}", hint="leave it out", code="usage")


def _said(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _print_lines(answer: api.NodesetAnswer, *, quiet: bool) -> None:
    host = socket.gethostname()
    for line in answer.nodes:
        if line.error:
            sys.stdout.flush()
            click.echo(f"{line.node}: [{host}]: Error: {render.clean(line.error)}", err=True)
        elif not quiet:
            click.echo(f"{line.node}: {render.clean(line.text)}")


def _watched(session: Session, answer: api.NodesetAnswer, *, as_json: bool) -> bool:
    from litho_controller.cli import live  # noqa: PLC0415 - nodeset alone shows no bars

    ended = live.watch(session, [line.task for line in answer.nodes if line.task], quiet=as_json)
    if as_json:
        print_json(ended)
    return live.exit_code(ended) == 0


@click.command()
@click.argument("range_", metavar="NODERANGE")
@click.argument("stat", metavar="", required=False, default="")
@json_option
@pass_session
def nodestat(session: Session, range_: str, stat: str, as_json: bool) -> None:
    """Say what nodes do, one line each.

    \b
    Example:
      litho nodestat n01-n10
    """
    if stat not in ("", "stat"):
        raise UsageError(f"Invalid argument: '{stat}'", hint="nodestat takes a noderange")
    answer = session.client.nodestat(noderange(range_))
    if as_json:
        print_json(answer.nodes)
        return
    click.echo("".join(f"{line.node}: {render.clean(line.text)}\n" for line in answer.nodes), nl=False)


@click.command()
@click.argument("table", metavar="[TABLE]", required=False)
@json_option
@pass_session
def tabdump(session: Session, table: str | None, as_json: bool) -> None:
    """Print one of xCAT's tables as CSV; without TABLE, the names of all.

    \b
    Example:
      litho tabdump osimage
    """
    if table is None:
        names = session.client.tables()
        if as_json:
            print_json(names.tables)
        else:
            click.echo("\n".join(names.tables))
        return
    dump = session.client.table(table)
    if as_json:
        print_json(dump)
    else:
        click.echo(stanza.csv(dump), nl=False)


@click.command()
@click.option(
    "-t",
    "--type",
    "kind",
    type=click.Choice(["osimage"]),
    default="osimage",
    show_default=True,
    help="Kind of definition.",
)
@click.option("-o", "named", default="", metavar="NAMES", help="Names, separated by commas; the same as the argument.")
@click.option("-i", "only", default="", metavar="ATTRIBUTES", help="Only these attributes, separated by commas.")
@click.option("-z", "as_stanza", is_flag=True, help="As a stanza file that mkdef -z reads.")
@click.option("-c", "compressed", is_flag=True, help="The name before every line.")
@click.option("-l", "long", is_flag=True, help="Every definition in full.")
@click.argument("names", metavar="[NAMES]", default="")
@json_option
@pass_session
def lsdef(
    session: Session,
    *,
    kind: str,
    named: str,
    only: str,
    as_stanza: bool,
    compressed: bool,
    long: bool,
    names: str,
    as_json: bool,
) -> None:
    """Show definitions as xCAT's stanzas; without NAMES, list them.

    \b
    Example:
      litho lsdef -t osimage golden
      litho lsdef -t osimage -z golden
    """
    if names and named and names != named:
        raise RefusedError("names are given twice, as an argument and with -o", hint="give them once")
    objects = stanza.osimages(session.client.table("osimage"), session.client.table("linuximage"))
    wanted = [name for name in (names or named).split(",") if name]
    missing = [name for name in wanted if name not in objects]
    if missing:
        raise NotFoundError(f"Could not find an object named '{missing[0]}' of type '{kind}'.")
    listed = not wanted and not (long or as_stanza or compressed or only)
    chosen = {name: objects[name] for name in (wanted or sorted(objects))}
    if only:
        keep = set(only.split(","))
        chosen = {name: {key: value for key, value in one.items() if key in keep} for name, one in chosen.items()}
    if as_json:
        print_json(chosen)
    elif listed:
        click.echo(stanza.listing(chosen, kind), nl=False)
    elif as_stanza:
        click.echo(
            stanza.STANZA_HEAD + "".join(stanza.stanza(name, kind, one) for name, one in chosen.items()), nl=False
        )
    else:
        show = stanza.compressed if compressed else stanza.definition
        click.echo("".join(show(name, one) for name, one in chosen.items()), nl=False)
