"""`litho image mount|cp`: looking into an image without restoring it. On the controller's machine, as root."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from litho.errors import NotFoundError, RefusedError, UsageError
from litho.library import ImageRef, Library, Manifest, parse_ref
from litho.library.manifest import Part
from litho.library.names import check_name
from litho_controller.cli import render
from litho_controller.cli.session import Session, pass_session
from litho_controller.looking import inside, serve
from litho_controller.looking.convert import convert as convert_image

part_option = click.option(
    "--part", "number", type=click.IntRange(0, 1024), help="The partition; default: the one that fits."
)


@click.command()
@click.argument("ref", metavar="IMAGE")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@part_option
@click.option("--raw", is_flag=True, help="Show partitions as files instead of their file systems.")
@pass_session
def mount(session: Session, ref: str, directory: Path, *, number: int | None, raw: bool) -> None:
    """Mount an image's file system read-only on DIR, until Ctrl-C.

    Without --part it is the largest file system. With --raw DIR holds each partition as a file, as a block device would
    be read. For images in chunks; nothing is restored, only what is read is fetched.

    \b
    Example:
      litho image mount golden:2 /mnt --part 5
    """
    library, found, manifest = _opened(session, ref)
    parts = _wanted(manifest, number)
    if any(directory.iterdir()):
        raise RefusedError(f"{directory} is not empty", hint="name an empty directory")
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_until_told())
        if raw:
            for part in parts if number is not None else serve.windows(manifest):
                folder = directory / f"p{part.number}"
                folder.mkdir()
                stack.callback(folder.rmdir)
                click.echo(str(stack.enter_context(serve.served(library.root, found, part, folder))))
        else:
            part = _largest(parts)
            room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="litho-")))
            file = stack.enter_context(serve.served(library.root, found, part, room))
            stack.enter_context(serve.mounted(file, part.fs, directory))
            click.echo(f"partition {part.number} ({part.fs}) of {found} is mounted on {directory}, read-only")
        click.echo("Ctrl-C ends it")
        stop()


@click.command()
@click.argument("source", metavar="IMAGE:/PATH")
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path))
@part_option
@pass_session
def cp(session: Session, source: str, target: Path, *, number: int | None) -> None:
    """Take a file or a directory out of an image.

    Without --part every file system of the image is looked into, and exactly one must have the path.

    \b
    Example:
      litho image cp golden:/etc/fstab .
      litho image cp golden:2:/home/ada ./ada --part 5
    """
    ref, colon, path = source.partition(":/")
    if not colon:
        raise UsageError(f"{source[:120]!r} names no path in an image", hint="such as: golden:/etc/fstab")
    library, found, manifest = _opened(session, ref)
    places: list[tuple[int, Path]] = []
    with contextlib.ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="litho-")))
        for part in [each for each in _wanted(manifest, number) if each.fs]:
            disk, files = room / f"disk{part.number}", room / f"files{part.number}"
            disk.mkdir()
            files.mkdir()
            file = stack.enter_context(serve.served(library.root, found, part, disk))
            stack.enter_context(serve.mounted(file, part.fs, files))
            with contextlib.suppress(NotFoundError):
                places.append((part.number, inside.find(files, f"/{path}")))
        if not places:
            raise NotFoundError(f"no file system of {found} that was looked into has /{path}", code="no-such-file")
        if len(places) > 1:
            names = ", ".join(str(each) for each, _ in places)
            raise RefusedError(
                f"several partitions of {found} have /{path}: {names}", hint="name one with --part", code="ambiguous"
            )
        ((chosen, place),) = places
        size = inside.copy(place, target)
    click.echo(f"{source} is in {target}: {render.size(size)} from partition {chosen}")


@click.command()
@click.argument("ref", metavar="IMAGE")
@click.option(
    "--to",
    "engine",
    type=click.Choice(["chunk", "auto", "partclone", "partimage", "raw"]),
    required=True,
    help="Engine.",
)
@click.option("--name", metavar="NAME", help="Name of the new image; default: a new version of the same.")
@click.option("--compress", type=click.Choice(["zstd", "gzip", "none"]), help="How streams are packed.")
@click.option("--level", type=click.IntRange(1, 19), help="How hard to pack.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/var/tmp"),  # noqa: S108 - a directory of our own is made in it
    show_default=True,
    help="Where the scratch disk lies.",
)
@pass_session
def convert(session: Session, /, ref: str, scratch: Path, *, engine: str, name: str | None, **packing: object) -> None:
    """Save an image anew by another engine, as its next version.

    It is restored onto a scratch disk and captured from there: partclone's or partimage's streams become chunks, or the
    other way round. The scratch disk takes as much room as the image has used bytes. The old version stays.

    \b
    Example:
      litho image convert golden:1 --to chunk
      litho image convert golden --to partimage --compress gzip --name golden-old
    """
    library, found, manifest = _opened(session, ref)
    words = ["--engine", engine]
    for option, value in packing.items():
        if value is not None:
            words += [f"--{option}", str(value)]
    made = convert_image(library, manifest, words, name=check_name(name or found.name), scratch=scratch)
    click.echo(f"{found} is {made} now, by {engine}")


def _opened(session: Session, ref: str) -> tuple[Library, ImageRef, Manifest]:
    if os.geteuid() != 0:
        raise RefusedError("only root may mount file systems", hint="run this as root", code="not-allowed")
    library = Library.open(session.config.library)
    manifest = library.manifest(parse_ref(ref))
    return library, ImageRef(manifest.image, manifest.version), manifest


def _wanted(manifest: Manifest, number: int | None) -> list[Part]:
    parts = serve.windows(manifest)
    if number is None:
        return [part for part in parts if part.fs]
    chosen = [part for part in parts if part.number == number]
    if not chosen:
        known = ", ".join(str(part.number) for part in parts)
        raise NotFoundError(f"the image has no partition {number} that can be looked into (it has: {known})")
    return chosen


def _largest(parts: list[Part]) -> Part:
    if not parts:
        raise NotFoundError("the image has no file system that can be mounted", hint="see its partitions with --raw")
    return max(parts, key=lambda part: part.used)


@contextlib.contextmanager
def _until_told() -> Iterator[Callable[[], object]]:
    """A function that waits for SIGINT or SIGTERM, which end nothing by themselves meanwhile."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told.wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
