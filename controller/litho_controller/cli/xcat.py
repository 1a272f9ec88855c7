"""The two commands that every program written for xCAT calls: nodeset and nodestat.

Their output is xCAT's: `node: text`, one line a node; errors of one node as `node: [host]: Error: text` and errors of the whole
command as `Error: text` on standard error, both with exit code 1. Apache VCL looks for exactly these.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, get_args

import click
from click.core import ParameterSource

from litho.errors import UsageError
from litho.job import Compression, EngineName, Fit, OnBadSector, OnDirty, Then
from litho.library import sources as sources_of
from litho.library.names import parse_ref
from litho_controller import api
from litho_controller.cli import render, schedule
from litho_controller.cli.session import Session, json_option, noderange, pass_session, print_json

# What only one kind of job understands; said with the other it is a mistake, not a wish to be ignored.
_CAPTURE_ONLY = ("engine", "compress", "level", "on_bad_sector", "skip_unknown", "labels")
_RESTORE_ONLY = ("fit", "verify_target", "free", "sources")
_SAID_AS = {"labels": "--label", "sources": "--from", "free": "--discard or --zero-free"}
NOPING = "noping"


def parse_state(text: str) -> tuple[api.NodesetState, str]:
    """The state that a word of nodeset asks for, and the image it names. Pure. Raises UsageError."""
    word, equals, name = text.partition("=")
    if word == "image" and bool(equals) == bool(name):
        return "image", name
    if word == "osimage" and name:
        parse_ref(name)
        return "osimage", name
    if word == "install" and bool(equals) == bool(name):
        if name:
            parse_ref(name)
        return "install", name
    if text == "boot":
        return "boot", ""
    if text == "offline":
        return "offline", ""
    if text == "stat":
        return "stat", ""
    raise UsageError(
        f"Invalid argument: '{text}'",
        hint="use image[=NAME], install[=NAME], osimage=NAME[:VERSION], boot, offline or stat",
    )


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
    "--engine",
    type=_choice(EngineName),
    default=None,
    help="Capture: what saves the partitions; auto is by file system, else the site's.",
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
    help="Capture: a file system in use or broken. Restore: raw keeps one that its checker calls damaged.",
)
@click.option(
    "--on-bad-sector",
    type=_choice(OnBadSector),
    default="stop",
    show_default=True,
    help="Capture: a sector that cannot be read.",
)
@click.option("--verify-target", is_flag=True, help="Restore of chunks: read all of it back from the disk and compare.")
@click.option("--discard", "free", flag_value="discard", help="Restore of chunks: discard what is unused.")
@click.option("--zero-free", "free", flag_value="zero", help="Restore of chunks: fill what is unused with zeros.")
@click.option(
    "--from",
    "sources",
    default="",
    metavar="SOURCES",
    help="Restore of chunks: nfs, controller, http://HOST/PATH, joined by commas; else the site's, else nfs.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 8),
    default=None,
    help="How many partitions move at the same time; without it 1 on a rotating disk or with two cores, 2 elsewhere.",
)
@click.option("--skip-unknown", is_flag=True, help="Capture: leave out partitions without a known file system.")
@click.option(
    "--allow", multiple=True, metavar="GUARD", help="Lift a guard, by the name that its refusal gave; may be repeated."
)
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Capture: words kept with the image; may be repeated."
)
@schedule.when_options
@click.option("--watch", is_flag=True, help="Follow the tasks to their end; 1 when one does not succeed.")
@json_option
@click.pass_context
def nodeset(ctx: click.Context, /, range_: str, state: str, watch: bool, as_json: bool, **options: Any) -> int:
    """Set nodes to capture an image, to be restored from one, or to boot.

    STATE is one of: image[=NAME] (capture the node's disk), install[=NAME[:VERSION]] (print an image onto it),
    osimage=NAME[:VERSION] (the same, or what the osimage of that name says: one for netboot, statelite or an installer is what
    the node boots from then on), boot (its own disk), offline (nothing), stat (only say what it is set to). Without NAME,
    image and install take it from nodetype.profile, where nodetype.os is image.
    A node that is told to capture or restore does so at its next network boot.

    \b
    Example:
      litho nodeset n01 image=golden --label owner=physics --watch
      litho nodeset compute,-n01 osimage=golden:2 --fit grow
      litho nodeset n02 osimage=golden --from nfs,http://10.0.0.5/lib
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
        verify_target=options["verify_target"],
        free=options["free"] or "keep",
        parallel=options["parallel"] or 0,
        skip_unknown=options["skip_unknown"],
        allow=tuple(options["allow"]),
        sources=sources_of.parse(options["sources"]) if options["sources"] else (),
        labels=dict(_label(text) for text in options["labels"]),
    )
    if job.compress == "gzip" and job.level > 9:
        raise UsageError(f"--level {job.level} is more than gzip knows", hint="use 1 to 9")
    request = api.NodesetRequest(range=noderange(range_), state=kind, image=name, job=job, when=schedule.when(options))
    answer = session.client.nodeset(request)
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
    strange: set[str] = given & {
        *_CAPTURE_ONLY,
        *_RESTORE_ONLY,
        "disk",
        "then",
        "allow",
        "watch",
        "at",
        "priority",
        "wave",
        "stop_after",
    }
    if kind == "image":
        strange &= set(_RESTORE_ONLY)
    elif kind in ("install", "osimage"):
        strange &= set(_CAPTURE_ONLY)
    if strange:
        words = ", ".join(sorted(_SAID_AS.get(name, "--" + name.replace("_", "-")) for name in strange))
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
@click.option("-p", "--powerstat", "power", is_flag=True, help="Say of nodes that do not answer whether they are on.")
@click.option("-u", "--updatedb", "update", is_flag=True, help="Write what is known into nodelist.status.")
@click.option("-m", "monitor", is_flag=True, help="Taken for xCAT's sake.")
@click.option("-f", "fping", is_flag=True, help="Taken for xCAT's sake.")
@click.option("--no-probe", is_flag=True, help="Say what is known; look at no node over the network.")
@click.option("--watch", is_flag=True, help="Go on: a line whenever a node does something else; Ctrl-C ends it.")
@click.argument("range_", metavar="NODERANGE")
@click.argument("stat", metavar="", required=False, default="")
@json_option
@pass_session
def nodestat(session: Session, /, *, range_: str, stat: str, as_json: bool, **options: Any) -> None:
    """Say what nodes do, one line each.

    The line of a node's task, or what its port 3001 says, or which services answer, or what it is set to; noping when
    nothing answers. Nodes are looked at over the network when hosts.ip has their address.

    \b
    Example:
      litho nodestat n01-n10
      litho nodestat all --watch
    """
    if stat not in ("", "stat"):
        raise UsageError(f"Invalid argument: '{stat}'", hint="nodestat takes a noderange")
    text = noderange(range_)

    def ask() -> tuple[api.NodestatLine, ...]:
        answer = session.client.nodestat(text, probe=not options["no_probe"], update=options["update"])
        return _with_power(session, answer.nodes) if options["power"] else answer.nodes

    if options["watch"]:
        from litho_controller.cli import statwatch  # noqa: PLC0415 - only with --watch

        statwatch.watch(session, ask)
        return
    lines = ask()
    if as_json:
        print_json(lines)
        return
    sys.stdout.write("".join(f"{line.node}: {render.clean(line.text)}\n" for line in lines))


def _with_power(session: Session, lines: tuple[api.NodestatLine, ...]) -> tuple[api.NodestatLine, ...]:
    """The lines with the power state behind every noping, in xCAT's words: `noping(off)`."""
    from litho_controller.cli.power import stat_of  # noqa: PLC0415 - only with -p

    silent = [line.node for line in lines if line.text == NOPING]
    if not silent:
        return lines
    known = stat_of(session, ",".join(silent))
    return tuple(
        api.NodestatLine(node=line.node, text=f"{NOPING}({known[line.node]})") if line.node in known else line
        for line in lines
    )
