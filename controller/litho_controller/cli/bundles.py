"""`litho export`, `litho import`, and the same under the names xcatexport and xcatimport: images as tarballs.

The daemon does the work, because it owns the tables and the library; paths are made absolute here, in the directory where
the command was called. `xcatexport NAME` alone writes NAME.tgz into it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from litho.errors import UnreachableError
from litho_controller.bundle.requests import BundleLine, Exported, ExportRequest, Imported, ImportRequest
from litho_controller.cli import render
from litho_controller.cli.session import Session, json_option, pass_session, print_json

_BASE_ENDING = ".tgz"


def absolute(path: str) -> str:
    """A path as the daemon gets it."""
    return os.path.abspath(path)  # noqa: PTH100 - without following links: the daemon refuses what is not what it seems


def extra_of(text: str) -> str:
    """`SRC:DEST` with the source made absolute."""
    source, colon, place = text.rpartition(":")
    return f"{absolute(source)}:{place}" if colon and source else text


def target_of(name: str, tarball: str) -> str:
    """Where the tarball goes: as named, into the directory that is named, or NAME.tgz here."""
    base = name.replace(":", ".v") + _BASE_ENDING
    if not tarball:
        return absolute(base)
    return absolute(str(Path(tarball) / base) if Path(tarball).is_dir() else tarball)


@click.command("export")
@click.argument("name", metavar="NAME")
@click.argument("tarball", metavar="[TARBALL]", required=False, default="")
@click.option(
    "--extra", "extra", multiple=True, metavar="SRC:DEST", help="One more file, and the directory it goes to; repeat."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["litho", "xcat"]),
    default="litho",
    show_default=True,
    help="xcat: for xCAT's imgimport.",
)
@click.option("--sign", default="", metavar="KEY", help="Sign with this Ed25519 private key (PEM).")
@click.option("--replace", is_flag=True, help="Write over a tarball that is there.")
@json_option
@pass_session
def export_(
    session: Session,
    *,
    name: str,
    tarball: str,
    extra: tuple[str, ...],
    form: str,
    sign: str,
    replace: bool,
    as_json: bool,
) -> None:
    """Write an image into a tarball that another site can import.

    NAME is an osimage; NAME:VERSION is one version of a captured disk. The tarball's ending says how it is packed: .tgz,
    .tar.zst, .tar.xz or .tar. Without TARBALL it is NAME.tgz in the current directory.

    \b
    Example:
      litho export Foo_Image
      litho export golden:2 /mnt/usb/golden.tar.zst --sign ~/site.key
      litho export Foo_Image --extra /install/postscripts/motd:/install/postscripts
    """
    request = ExportRequest(
        name=name,
        tarball=target_of(name, tarball),
        extra=tuple(extra_of(text) for text in extra),
        form="xcat" if form == "xcat" else "litho",
        sign=absolute(sign) if sign else "",
        replace=replace,
    )
    done = _followed(session.client.export_bundle(request), f"export {name}", quiet=as_json).exported
    if done is None:
        raise UnreachableError("the controller went away in the middle of the export", hint="start it again")
    if as_json:
        print_json(done)
    else:
        click.echo(told_export(done))


@click.command("import")
@click.argument("tarball", metavar="TARBALL")
@click.option("--replace", is_flag=True, help="Keep what is there under the same names aside, and import.")
@click.option("--rename", default="", metavar="NEW", help="Import the image under another name and profile.")
@click.option("--dry-run", is_flag=True, help="Check the bundle and print what would be done.")
@click.option(
    "--verify",
    multiple=True,
    metavar="KEY",
    help="Only if signed by this public key, or one in this directory; repeat.",
)
@click.option("--setuid", is_flag=True, help="Keep set-uid bits in the expanded root image.")
@click.option(
    "--all-columns", is_flag=True, help="Take columns that make this machine run or read files, without a signature."
)
@json_option
@pass_session
def import_(
    session: Session,
    *,
    tarball: str,
    replace: bool,
    rename: str,
    dry_run: bool,
    verify: tuple[str, ...],
    setuid: bool,
    all_columns: bool,
    as_json: bool,
) -> None:
    """Take an image from a tarball: its files to their places, its rows into the tables. All of it, or nothing.

    Bundles of xcatexport's form and of xCAT's imgexport are read alike.

    \b
    Example:
      litho import Foo_Image.tgz --dry-run
      litho import golden.tar.zst --verify /etc/lithograph/trust --rename golden-2026
    """
    request = ImportRequest(
        tarball=absolute(tarball),
        replace=replace,
        rename=rename,
        dry_run=dry_run,
        verify=tuple(absolute(key) for key in verify),
        set_uid=setuid,
        all_columns=all_columns,
    )
    done = _followed(session.client.import_bundle(request), f"import {Path(tarball).name}", quiet=as_json).imported
    if done is None:
        raise UnreachableError("the controller went away in the middle of the import", hint="start it again")
    if as_json:
        print_json(done)
    else:
        click.echo(told_import(done))


def _under(command: click.Command, name: str, example: str) -> click.Command:
    """`command` under another name, with an example of its own."""
    told = inspect.cleandoc((command.help or "").partition("\b")[0]) + "\n\n"
    return click.Command(
        name, params=command.params, callback=command.callback, help=f"{told}\b\nExample:\n  {example}\n"
    )


xcatexport = _under(export_, "xcatexport", "litho xcatexport Foo_Image")
xcatimport = _under(import_, "xcatimport", "litho xcatimport Foo_Image.tgz")


def told_export(done: Exported) -> str:
    """What an export says at its end. Pure."""
    signed = ", signed" if done.signed else ""
    lines = [f"{done.name}: {done.tarball} ({render.size(done.bytes)}, {len(done.files)} files{signed})"]
    lines += [f"note: {render.clean(note)}" for note in done.notes]
    return "\n".join(lines)


def told_import(done: Imported) -> str:
    """What an import says at its end, or would do. Pure."""
    would = "would be " if done.dry_run else ""
    lines = [f"{would}placed {path}" for path in done.placed]
    lines += [f"the same already: {path}" for path in done.same]
    lines += [f"{would}kept aside: {path}" for path in done.aside]
    if done.dry_run:
        for table, cells in (("osimage", done.osimage), ("linuximage", done.linuximage)):
            lines += [f"{table}.{column} = {render.clean(value)}" for column, value in sorted(cells.items())]
    if done.signed_by:
        lines.append(f"signed by {done.signed_by}")
    lines += [f"note: {render.clean(note)}" for note in done.notes]
    if done.media:
        os_, arch = done.media.split("/")[-2:]
        lines.append(
            f"the media of {os_} {arch} are in {done.media}"
            if done.media_there
            else f"run copycds with the media of {os_} {arch} before nodes install from this image"
        )
    version = f" as version {done.version}" if done.version else ""
    if done.dry_run:
        lines.append(f"{done.name}: nothing was changed")
    else:
        lines.append(f"{done.name}: imported{version}; now: nodeset NODERANGE osimage={done.name}")
    return "\n".join(lines)


def _followed(lines: Iterator[BundleLine], what: str, *, quiet: bool) -> BundleLine:
    """The last line; on a terminal the others move a figure."""
    last = BundleLine()
    live = not quiet and sys.stderr.isatty()
    try:
        for line in lines:
            last = line
            if live and line.total:
                click.echo(
                    f"\r{what}: {line.done * 100 // line.total} % of {render.size(line.total)} ", nl=False, err=True
                )
    finally:
        if live:
            click.echo("\r\x1b[K", nl=False, err=True)
    return last
