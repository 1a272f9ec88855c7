"""The root command, and the one place where an error becomes a sentence and an exit code.

Commands raise `LithoError`, or click's own errors for what was typed wrongly. Here each becomes one line on standard error,
`litho: <message>: <hint>`, and the exit code of docs/reference/exit-codes.md. Commands with an xCAT name keep to xCAT's ways
instead, because programs read them: `Error: <message>` and 1. What nobody expected is told in a sentence, too; the
traceback goes to a file that the sentence names, and to the screen only with `--debug`.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from litho import streams
from litho.errors import LithoError
from litho_controller.cli.session import Session

XCAT_NAMES = (
    *("nodeset", "nodestat", "nodels", "nodech", "lsdef", "mkdef", "chdef", "rmdef"),
    *("tabdump", "tabch", "tabrestore", "gettab", "rpower", "rinv"),
    *("xcatexport", "xcatimport"),
)
"""Commands that a program may know from xCAT; also what `litho` answers to when it is called by such a name."""

INTERRUPTED = 130
BROKEN_PIPE = 141

# Name -> (module of litho_controller.cli, its attribute, first line of its help). Held against the commands by a test.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "chdef": ("objects", "chdef", "Change definitions; those that are not there are made."),
    "config": ("settings", "config", "Check or show the settings."),
    "export": ("bundles", "export_", "Write an image into a tarball that another site can import."),
    "gettab": ("tables", "gettab", "Print columns of the row that KEY=VALUE names."),
    "image": ("images", "image", "Images in the library."),
    "import": (
        "bundles",
        "import_",
        "Take an image from a tarball: its files to their places, its rows into the tables. All of it, or nothing.",
    ),
    "library": ("images", "library", "The image library itself."),
    "lsdef": ("objects", "lsdef", "Show definitions as xCAT's stanzas; without NAMES, list them."),
    "mkdef": ("objects", "mkdef", "Make definitions."),
    "node": ("nodes", "node", "Nodes that the controller knows."),
    "nodech": (
        "tables",
        "nodech",
        "Set columns of nodes: `=`, `,=` to add to a list, `^=` to take out of it. Conditions choose among the nodes.",
    ),
    "nodels": (
        "tables",
        "nodels",
        "List nodes, and columns of theirs; conditions (==, !=, =~, !~) choose among them.",
    ),
    "nodeset": ("xcat", "nodeset", "Set nodes to capture an image, to be restored from one, or to boot."),
    "rpower": ("power", "rpower", "Switch nodes on and off, or say whether they are on."),
    "nodestat": ("xcat", "nodestat", "Say what nodes do, one line each."),
    "rinv": (
        "power",
        "rinv",
        "Say what machines are made of: what each said of itself when it last ran a task.",
    ),
    "rmdef": ("objects", "rmdef", "Take definitions away. A node with a task that has not ended is refused."),
    "rootimg": ("rootimg", "rootimg", "The root image that nodes boot for a task."),
    "serve": ("serve", "serve", "Run the controller."),
    "tabch": (
        "tables",
        "tabch",
        "Change columns of one row, or make it; `+=` adds to a list. With -d, delete the row from tables.",
    ),
    "tabdump": ("tables", "tabdump", "Print one of xCAT's tables as CSV; without TABLE, the names of all."),
    "tabrestore": (
        "tables",
        "tabrestore",
        "Fill a table from a file as tabdump prints it; the file is called like the table.",
    ),
    "wave": ("schedule", "wave", "Waves: many nodes in steps, a few first."),
    "task": ("tasks", "task", "Captures and restores: waiting, running, ended."),
    "xcatexport": ("bundles", "xcatexport", "Write an image into a tarball that another site can import."),
    "xcatimport": (
        "bundles",
        "xcatimport",
        "Take an image from a tarball: its files to their places, its rows into the tables. All of it, or nothing.",
    ),
    "xcat-links": (
        "links",
        "xcat_links",
        "Make a directory of xCAT's command names, each a link to this program.",
    ),
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"litho_controller.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `litho --help`, without importing what it lists."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a name that is nearly right."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            suggestion = f"did you mean {near[0]}?" if near else "see: litho --help"
            raise click.UsageError(f"there is no command {args[0]!r}: {suggestion}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file; else LITHO_CONFIG, else /etc/lithograph/lithograph.toml.",
)
@click.option("--debug", is_flag=True, help="Show where an unexpected error came from.")
@click.version_option(importlib.metadata.version("lithograph"), prog_name="litho", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Capture a node's disk once and print it onto any number of others.

    \b
    Example:
      litho nodeset n01 image=golden --watch
      litho nodeset n02-n10 osimage=golden --watch
    """
    ctx.obj = Session(config, debug=debug)


def run(arguments: Sequence[str], *, called: str = "litho") -> int:
    """Run a command line and answer its exit code. `called` is the name by which the program was called."""
    args = [called, *arguments] if called in XCAT_NAMES else list(arguments)
    debug = "--debug" in args
    try:
        code = root.main(args, prog_name="litho", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return exc.exit_code
    except click.ClickException as exc:
        return _complain(exc.format_message().rstrip("."), 2, _help_hint(exc), xcat=_is_xcat(args))
    except LithoError as exc:
        return _complain(exc.message, exc.exit_code, exc.hint, xcat=_is_xcat(args))
    except (BrokenPipeError, SystemExit):
        # Whoever read along has seen enough (click turns that into SystemExit when it is the first to notice).
        streams.forsake()
        return BROKEN_PIPE
    except Exception as exc:  # noqa: BLE001, RUF100 - the last border: a person gets a sentence, never a traceback
        failed = streams.unwritable() if isinstance(exc, OSError) else None
        if failed is not None:
            streams.forsake()
            return _complain(f"cannot write the output ({failed.strerror or failed})", 1, "", xcat=_is_xcat(args))
        return _complain(*_unexpected(exc, debug=debug), xcat=_is_xcat(args))


def _complain(message: str, code: int, hint: str, *, xcat: bool) -> int:
    sentence = f"{message}: {hint}" if hint else message
    sentence = " ".join("".join(char if char.isprintable() else " " for char in sentence).split())
    if streams.unwritable() is not None:
        streams.forsake()
    with contextlib.suppress(OSError):
        click.echo(f"Error: {sentence}" if xcat else f"litho: {sentence}", err=True)
    return 1 if xcat else code


def _is_xcat(args: Sequence[str]) -> bool:
    """True when the first word that is no option (nor the value of one) is a command with an xCAT name."""
    words = iter(args)
    for word in words:
        if word == "--config":
            next(words, None)
        elif not word.startswith("-"):
            return word in XCAT_NAMES
    return False


def _help_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    if context is None or "did you mean" in error.format_message() or "see: " in error.format_message():
        return ""
    return f"see: {context.command_path} --help"


def _unexpected(error: Exception, *, debug: bool) -> tuple[str, int, str]:
    text = "".join(traceback.format_exception(error))
    if debug:
        click.echo(text, err=True)
    message = f"an error that should not happen ({type(error).__name__}: {str(error)[:200]})"
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "lithograph"
    file = folder / "errors.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            log.write(f"{datetime.datetime.now(datetime.UTC).isoformat()} {error!r}\n{text}\n")
    except OSError:
        return message, 1, "run it again with: litho --debug"
    return message, 1, f"the details are in {file}"
