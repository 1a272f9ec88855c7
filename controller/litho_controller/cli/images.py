"""`litho image ...` and `litho library ...`: what lies in the library."""

from __future__ import annotations

from pathlib import Path

import click

from litho.errors import IntegrityError, UsageError
from litho.library import Library, Manifest, parse_ref
from litho_controller import api
from litho_controller.cli import care, look, render
from litho_controller.cli.adopt import adopt
from litho_controller.cli.meter import meter
from litho_controller.cli.session import Session, each, fail, json_option, pass_session, print_json


@click.group()
def image() -> None:
    """Images in the library.

    An image is named NAME, which means its current version, or NAME:VERSION.

    \b
    Example:
      litho image ls
      litho image verify golden:2
    """


@image.command()
@json_option
@pass_session
def ls(session: Session, as_json: bool) -> None:
    """List every version of every image; * marks what the name alone means. Of a damaged one it is said what a scrub found.

    \b
    Example:
      litho image ls
    """
    answer = session.client.images()
    if as_json:
        print_json(answer.images)
        return
    rows = []
    for one in answer.images:
        labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
        counts = (render.size(one.used), render.size(one.stored), str(one.parts))
        if one.error:
            rows.append((one.image, f"{one.version}", "", "", "", "", "", "", f"unreadable: {one.error}"))
        else:
            mark = f"{one.version}{'*' if one.current else ' '}"
            rest = f"damaged: {one.damage}" if one.damage else labels
            rows.append((one.image, mark, one.created, *counts, one.node, one.os, rest))
    numbers = ("USED", "STORED", "PARTS")
    headers = ("IMAGE", "VERSION", "CREATED", *numbers, "NODE", "OS", "LABELS")
    session.print_table(render.Grid(headers=headers, rows=rows, right=numbers))


@image.command()
@click.argument("ref", metavar="IMAGE")
@json_option
@pass_session
def show(session: Session, ref: str, as_json: bool) -> None:
    """Show what a version holds: its disk, its partitions, its files.

    \b
    Example:
      litho image show golden
    """
    parse_ref(ref)
    manifest = session.client.image(ref, Manifest)
    if as_json:
        print_json(manifest)
        return
    disk = manifest.disk
    pairs = [
        ("image", f"{manifest.image}:{manifest.version}"),
        ("created", f"{manifest.created} by {manifest.software}"),
        ("node", manifest.node),
        (
            "disk",
            ", ".join(word for word in (manifest.disk_name, render.size(disk.size), disk.model, disk.serial) if word),
        ),
        ("table", manifest.table),
        ("system", f"{manifest.os.distro} {manifest.os.arch}".strip()),
        ("used", render.size(manifest.used)),
        ("stored", render.size(manifest.stored)),
        ("parent", _parent(manifest)),
        ("lost", f"{render.size(manifest.lost)} of the source could not be read" if manifest.lost else ""),
        ("damaged", session.client.library_health().of(manifest.image, manifest.version)),
        *((f"label {key}", value) for key, value in sorted(manifest.labels.items())),
        *(("note", note) for note in manifest.notes),
    ]
    click.echo(render.facts(pairs) + "\n")
    rows = [
        (
            str(part.number),
            part.kind,
            part.fs,
            part.label,
            part.engine,
            render.size(part.size),
            render.size(part.used),
            render.size(part.data.bytes + part.chunk_stored) if part.data else "",
            part.data.file if part.data else "",
        )
        for part in manifest.parts
    ]
    numbers = ("PART", "SIZE", "USED", "STORED")
    headers = ("PART", "KIND", "FS", "LABEL", "ENGINE", "SIZE", "USED", "STORED", "FILE")
    session.print_table(render.Grid(headers=headers, rows=rows, right=numbers))
    if manifest.lost:
        click.echo()
        session.print_table(_lost_places(manifest))


def _parent(manifest: Manifest) -> str:
    """Where it came from, as far as chunks tell."""
    if not manifest.parent:
        return ""
    counts = f"{render.size(manifest.shared)} of {render.size(manifest.used)}"
    return f"{manifest.parent_image}:{manifest.parent}, which had {counts} as well"


def _lost_places(manifest: Manifest) -> render.Grid:
    """Where the source could not be read; the last row counts what the manifest does not list."""
    rows = []
    for part in manifest.parts:
        rows += [(str(part.number), str(one.start), str(one.size)) for one in part.bad]
        count, places = part.lost
        if places > len(part.bad):
            left = count - sum(one.size for one in part.bad)
            rows.append((str(part.number), f"and {places - len(part.bad)} more", str(left)))
    headers = ("PART", "LOST AT BYTE", "BYTES")
    return render.Grid(headers=headers, rows=rows, right=headers)


@image.command()
@click.argument("ref", metavar="IMAGE")
@click.option("--deep", is_flag=True, help="Also unpack every part and check the stream inside.")
@json_option
@pass_session
def verify(session: Session, ref: str, deep: bool, as_json: bool) -> None:
    """Read every byte of a version and check every hash. Ends with 7 when something is damaged.

    \b
    Example:
      litho image verify golden --deep
    """
    parse_ref(ref)
    problems: list[api.VerifyProblem] = []
    with meter(session, f"verify {ref}", quiet=as_json) as moved:
        for line in session.client.verify(ref, deep=deep):
            moved(line.done, line.total)
            problems = line.problems or []
    if as_json:
        print_json(problems)
    else:
        for problem in problems:
            click.echo(render.clean(problem.sentence))
    if problems:
        again = "capture it again"
        if any(problem.file.endswith(".chunks") for problem in problems):
            # A capture relies on the chunks that are there, until a scrub has taken the damaged ones out.
            again += " after litho image scrub --mend"
        raise IntegrityError(
            f"{ref} is damaged ({len(problems)} of its files)", hint=f"use another version, or {again}"
        )
    if not as_json:
        click.echo(f"{ref} is whole")


@image.command()
@click.argument("refs", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--all-versions", is_flag=True, help="A NAME without a version means all of its versions.")
@json_option
@pass_session
def rm(session: Session, refs: tuple[str, ...], all_versions: bool, as_json: bool) -> None:
    """Delete versions of images. One that a task uses is refused.

    \b
    Example:
      litho image rm golden:1
      litho image rm --all-versions scratch
    """
    for ref in refs:
        if not parse_ref(ref).version and not all_versions:
            raise UsageError(
                f"{ref} names no version", hint=f"name one, as in {ref}:1, or say --all-versions to delete them all"
            )
    answers, errors = each(refs, session.client.remove_image)
    gone = [one for found in answers for one in found.images]
    if as_json:
        print_json(gone)
    else:
        for one in gone:
            click.echo(f"deleted {one.image}:{one.version}")
    fail(errors)


@click.group()
def library() -> None:
    """The image library itself.

    \b
    Example:
      litho library init /srv/images
    """


@library.command()
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--here", is_flag=True, help="Also in a directory that is not empty; what lies there is left alone.")
@pass_session
def init(session: Session, directory: Path | None, here: bool) -> None:
    """Make DIR, empty or new, an image library; without DIR, the one of the settings. An existing library stays as it is.

    \b
    Example:
      litho library init /srv/images
      litho library init --here /install/image
    """
    made = Library.create(directory or session.config.library, here=here)
    made.check_writable()
    click.echo(f"{made.root} is an image library with {render.size(made.free())} free")


for _command in (adopt, care.diff, care.prune, care.gc, care.stats, care.scrub, look.mount, look.cp, look.convert):
    image.add_command(_command)
