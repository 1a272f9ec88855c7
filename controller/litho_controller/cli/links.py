"""`litho xcat-links DIR`: a directory that looks like an XCATROOT, so that a program written for xCAT finds its commands.

    DIR/bin/nodestat -> /usr/bin/litho      the program knows by which name it was called
    DIR/sbin/nodeset -> /usr/bin/litho      in sbin what xCAT has there
    DIR/share/xcat/install/image/default.tmpl    the template without which Apache VCL captures nothing

Links that are ours are made anew; anything else under such a name is left alone and named.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from litho.errors import LithoError, RefusedError

BIN = (
    "nodestat",
    "nodels",
    "nodech",
    "lsdef",
    "mkdef",
    "chdef",
    "rmdef",
    "gettab",
    "rpower",
    "rinv",
    "xcatexport",
    "xcatimport",
)
SBIN = ("nodeset", "tabdump", "tabch", "tabrestore")
TEMPLATE = "share/xcat/install/image/default.tmpl"
TEMPLATE_TEXT = "#INCLUDE:../scripts/post.rh#\n"


@click.command("xcat-links")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def xcat_links(directory: Path) -> None:
    """Make a directory of xCAT's command names, each a link to this program.

    \b
    Example:
      litho xcat-links /opt/xcat
      PATH=/opt/xcat/bin:/opt/xcat/sbin:$PATH
    """
    program = program_path()
    try:
        for folder, names in (("bin", BIN), ("sbin", SBIN)):
            (directory / folder).mkdir(parents=True, exist_ok=True)
            for name in names:
                _link(directory / folder / name, program)
        template = directory / TEMPLATE
        if not template.exists():
            template.parent.mkdir(parents=True, exist_ok=True)
            template.write_text(TEMPLATE_TEXT)
    except OSError as exc:
        raise LithoError(
            f"cannot make links in {directory} ({exc.strerror or exc})", hint="check its rights", code="links"
        ) from exc
    click.echo(f"{directory}: {len(BIN)} commands in bin, {len(SBIN)} in sbin, all of them {program}")


def program_path() -> Path:
    """The program that runs, by a path that will still be it tomorrow. Raises RefusedError."""
    called = sys.argv[0] if os.sep in sys.argv[0] else shutil.which(sys.argv[0]) or ""
    path = Path(called).absolute() if called else None
    if path is None or path.name != "litho" or not os.access(path, os.X_OK):
        other = shutil.which("litho")
        if other is None:
            raise RefusedError("cannot tell where the program litho is", hint="call it by its path", code="links")
        path = Path(other).absolute()
    return path


def _link(path: Path, program: Path) -> None:
    if path.is_symlink() and path.readlink().name == program.name:
        path.unlink()
    elif path.is_symlink() or path.exists():
        raise RefusedError(
            f"{path} is there already and is not ours", hint="is this the directory of a real xCAT?", code="links"
        )
    path.symlink_to(program)
