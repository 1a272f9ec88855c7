"""The command `litho-agent`.

    litho-agent run [--cmdline FILE]        in the root image: do the task that the kernel command line names, or wait for one
    litho-agent capture --disk sda --library DIR --image golden
    litho-agent restore --disk sda --library DIR --image golden:2
    litho-agent disks [--explain]           what disks there are, and which one would be taken

Everything here is arguments, signals and where output goes; the work is in `node` and `local`. A failure is one sentence with a
hint on standard error and an exit code of `litho.errors`; what was not foreseen is told the same way, and its trace goes to
the log. docs/reference/agent.md describes every option.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import get_args

from litho import streams
from litho.errors import ConfigError, LithoError, UsageError
from litho.job import Compression, EngineName, Fit, Job, OnBadSector, OnDirty
from litho.library import parse_ref, sources
from litho.messages import Failed
from litho_agent import boot, discover, finish, local, node, pulse
from litho_agent.disks import choose, inventory, render
from litho_agent.report.console import Console, JsonLines, plain

log = logging.getLogger("litho_agent")

CMDLINE = Path("/proc/cmdline")
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit code."""
    streams.hold()
    args = parser().parse_args(argv)
    show = JsonLines(sys.stdout) if args.json else Console(sys.stdout, live=sys.stdout.isatty())
    _log_to(show, debug=args.debug)
    try:
        code = _COMMANDS[args.command](args, show)
    except LithoError as exc:
        code = exc.exit_code
        _tell(exc, show)
    except BrokenPipeError:
        streams.forsake()
        return BROKEN_PIPE
    except Exception as exc:
        failed = streams.unwritable() if isinstance(exc, OSError) else None
        if failed is not None:
            streams.forsake()
            sys.stderr.write(f"litho-agent: cannot write the output ({failed.strerror or failed})\n")
            return 1
        log.exception("an error that nothing expected")
        code = 1
        _tell(LithoError(f"an unexpected error stopped the agent ({exc!r})", code="internal"), show)
    show.close()
    return code


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    top = argparse.ArgumentParser(prog="litho-agent", description="Captures this machine's disk, or restores onto it.")
    top.add_argument("--debug", action="store_true", help="log every program that is run")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="do the task that the kernel command line names")
    run.add_argument(
        "--cmdline", type=Path, default=CMDLINE, metavar="FILE", help="read the kernel command line from FILE"
    )

    capture = commands.add_parser("capture", help="capture a disk of this machine, without a controller")
    _job_options(capture, "name of the image")
    capture.add_argument(
        "--engine",
        choices=[n for n in get_args(EngineName) if n],
        default="",
        help="what saves partitions; auto: by file system",
    )
    capture.add_argument("--compress", choices=get_args(Compression), default="zstd", help="default: zstd")
    capture.add_argument("--level", type=_level, default=1, help="compression level, 1 to 19; gzip takes at most 9")
    capture.add_argument(
        "--on-dirty", choices=get_args(OnDirty), default="refuse", help="a file system that is not clean"
    )
    capture.add_argument(
        "--on-bad-sector", choices=get_args(OnBadSector), default="stop", help="a sector that cannot be read"
    )
    capture.add_argument("--skip-unknown", action="store_true", help="leave out partitions without a known file system")
    capture.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="free words kept with the image"
    )
    capture.add_argument("--vcl-markers", action="store_true", help="write the end markers that Apache VCL looks for")

    restore = commands.add_parser("restore", help="restore an image onto a disk of this machine, without a controller")
    _job_options(restore, "name of the image, or name:version")
    restore.add_argument(
        "--fit", choices=get_args(Fit), default="keep", help="on a larger disk: keep or grow the last partition"
    )
    restore.add_argument(
        "--on-dirty",
        choices=("refuse", "raw"),
        default="refuse",
        help="a file system that is not sound then; raw keeps it",
    )
    restore.add_argument("--verify-target", action="store_true", help="chunks: read all of it back and compare")
    unused = restore.add_mutually_exclusive_group()
    unused.add_argument(
        "--discard", dest="free", action="store_const", const="discard", help="chunks: discard the unused"
    )
    unused.add_argument("--zero-free", dest="free", action="store_const", const="zero", help="chunks: zero the unused")
    restore.add_argument(
        "--from", dest="sources", default="", metavar="SOURCES", help="chunks: more servers to read from, by commas"
    )
    restore.add_argument("--ca", default="", metavar="FILE", help="with https: certificates to trust, too")
    restore.add_argument("--yes", action="store_true", help="overwrite the disk without asking")

    disks = commands.add_parser("disks", help="list the disks of this machine")
    disks.add_argument("--explain", action="store_true", help="say of each disk why it would be taken or not")
    disks.add_argument("--disk", default="", metavar="SELECTOR", help="with --explain: the disk that is asked for")
    disks.add_argument(
        "--action", choices=("capture", "restore"), default="restore", help="with --explain; default: restore"
    )
    disks.add_argument("--allow", action="append", default=[], metavar="WORD", help="with --explain: a guard to lift")

    for command in (run, capture, restore, disks):
        command.add_argument("--json", action="store_true", help="JSON on standard output")
        # After the command, too; SUPPRESS keeps one that was said before it.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return top


def _job_options(command: argparse.ArgumentParser, image: str) -> None:
    command.add_argument(
        "--disk", default="", metavar="SELECTOR", help="sda, /dev/disk/by-path/..., serial=...; see disks --explain"
    )
    command.add_argument(
        "--library",
        required=True,
        metavar="DIR",
        help="a directory, file:///DIR or nfs://SERVER/EXPORT; to restore chunks http://SERVER/PATH, too",
    )
    command.add_argument("--image", required=True, metavar="NAME", help=image)
    command.add_argument(
        "--allow", action="append", default=[], metavar="WORD", help="lift a guard; the refusal names the word"
    )
    command.add_argument(
        "--parallel", type=int, choices=range(1, 9), default=0, metavar="N", help="partitions that move at once, 1 to 8"
    )


def _level(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 19):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 19")
    return int(text)


def _run(args: argparse.Namespace, show: Console | JsonLines) -> int:
    line = read_cmdline(args.cmdline)
    settings = boot.read(line)
    if settings.debug:
        _loud()

    async def go(terminate: asyncio.Event) -> int:
        async with pulse.beating(pulse.FILE if finish.in_rootimg() else None):
            known: boot.Settings | None = settings
            if settings.discover:
                known = await discover.run(settings, boot.bootif(line), show=show, terminate=terminate)
            return 0 if known is None else await node.run(known, show=show, terminate=terminate)

    return asyncio.run(_with_signals(go))


def read_cmdline(path: Path) -> str:
    """The kernel command line in a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            # One more than `boot.read` takes, so that it says when there is too much.
            data = file.read(boot.MAX_CHARS + 1)
    except OSError as exc:
        raise ConfigError(
            f"the kernel command line {path} cannot be read ({exc.strerror})", code="bad-parameter"
        ) from exc
    return data.decode("utf-8", errors="replace")


def _local(args: argparse.Namespace, show: Console | JsonLines) -> int:
    job = job_from(args)
    more = sources.parse(args.sources) if getattr(args, "sources", "") else ()
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not args.json

    def go(terminate: asyncio.Event) -> Awaitable[int]:
        ask = local.asker(sys.stdin, sys.stdout, terminate) if asks else None
        yes, ca = getattr(args, "yes", False), getattr(args, "ca", "")
        return local.run(job, args.library, show=show, terminate=terminate, ask=ask, yes=yes, more=more, ca=ca)

    return asyncio.run(_with_signals(go))


def job_from(args: argparse.Namespace) -> Job:
    """The job that the command line asks for. Raises UsageError."""
    ref = parse_ref(args.image)
    if args.command == "restore":
        return Job(
            action="restore",
            image=ref.name,
            version=ref.version,
            disk=args.disk,
            allow=tuple(args.allow),
            fit=args.fit,
            on_dirty=args.on_dirty,
            verify_target=args.verify_target,
            free=args.free or "keep",
            parallel=args.parallel,
        )
    if ref.version:
        raise UsageError(
            f"a capture of {ref.name} makes a new version by itself", hint="leave the number out", code="bad-image-name"
        )
    if args.compress == "gzip" and args.level > 9:
        raise UsageError("gzip takes a level of at most 9", code="bad-level")
    return Job(
        action="capture",
        image=ref.name,
        disk=args.disk,
        allow=tuple(args.allow),
        parallel=args.parallel,
        engine=args.engine,
        compress=args.compress,
        level=args.level,
        on_dirty=args.on_dirty,
        on_bad_sector=args.on_bad_sector,
        skip_unknown=args.skip_unknown,
        labels=dict(_label(text) for text in args.label),
        vcl_markers=args.vcl_markers,
    )


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and len(text) <= 256 and text.isprintable()):
        raise UsageError(f"{text[:100]!r} is no label", hint="write KEY=VALUE", code="bad-label")
    return key, value


def _disks(args: argparse.Namespace, _show: Console | JsonLines) -> int:
    found = inventory.read()
    choice = choose(found, args.disk, args.action, args.allow) if args.explain else None
    text = render.as_json(found, choice) if args.json else render.as_text(found, choice)
    sys.stdout.write(text)
    sys.stdout.flush()
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace, Console | JsonLines], int]] = {
    "run": _run,
    "capture": _local,
    "restore": _local,
    "disks": _disks,
}


async def _with_signals(go: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """`go` with an event that SIGTERM, SIGINT and SIGHUP set."""
    terminate = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, terminate.set)
    return await go(terminate)


def _tell(exc: LithoError, show: Console | JsonLines) -> None:
    if isinstance(show, JsonLines):
        show.hear(Failed(code=exc.code, reason=str(exc), exit_code=exc.exit_code))
        return
    show.close()
    hint = f"\n  {plain(exc.hint)}" if exc.hint else ""
    sys.stderr.write(f"litho-agent: {plain(exc.message)}{hint}\n")


class _Lines(logging.Handler):
    """Log lines, said so that they do not tear the live line; with JSON they go to standard error."""

    def __init__(self, show: Console | JsonLines) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        try:
            text = self.format(record)
        except (TypeError, ValueError):
            return
        if isinstance(self._show, Console):
            for line in text.splitlines():
                self._show.say(line)
        else:
            sys.stderr.write(text + "\n")


def _log_to(show: Console | JsonLines, *, debug: bool) -> None:
    handler = _Lines(show)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    # The level is the handler's: the job's log, another handler, takes more than a person wants to read.
    handler.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    if debug:
        _loud()
    # The client library tells each lost connection as an error of its own; the session tells it once, in words.
    logging.getLogger("mqtt").setLevel(logging.CRITICAL)


def _loud() -> None:
    """Show every program that is run."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    for handler in root.handlers:
        handler.setLevel(logging.DEBUG)


if __name__ == "__main__":
    sys.exit(main())
