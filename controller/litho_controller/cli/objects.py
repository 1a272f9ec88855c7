"""xCAT's definitions: lsdef, mkdef, chdef, rmdef over nodes, osimages, groups and the site.

What xCAT prints is printed here; where its commands would do half of what was asked and complain of the rest, these do all or
nothing, but for two cases in which the half is wanted: names that are not there (lsdef, rmdef) and those that are
already (mkdef). Standard input is read with -z only.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args

import click

from litho.errors import UsageError
from litho_controller import api
from litho_controller.cli import stanza
from litho_controller.cli.session import Session, json_option, noderange, pass_session, print_json
from litho_controller.tables import conditions
from litho_controller.tables.attributes import ATTRIBUTES, SITE

KINDS = get_args(api.ObjectKind)
MAX_STDIN = 64 * 1024 * 1024
"""Characters of a stanza file."""

_kind = click.option(
    "-t", "--type", "kind", type=click.Choice(KINDS), default=None, help="Kind of definition; else node."
)
_named = click.option("-o", "named", default="", metavar="NAMES", help="Names, or for nodes a noderange.")
_where = click.option(
    "-w", "where", multiple=True, metavar="ATTR==VALUE", help="Only those for which it holds; also !=, =~, !~."
)


def complain(text: str) -> None:
    """One error, where xCAT's client puts it."""
    sys.stdout.flush()
    click.echo(f"Error: {text}", err=True)


def not_found(name: str, kind: str) -> str:
    """xCAT's words."""
    return f"Could not find an object named '{name}' of type '{kind}'."


# ------------------------------------------------------------ lsdef


@click.command()
@_kind
@_named
@click.option("-i", "only", default="", metavar="ATTRIBUTES", help="Only these attributes, separated by commas.")
@_where
@click.option("-z", "as_stanza", is_flag=True, help="As a stanza file that mkdef -z reads.")
@click.option("-c", "compressed", is_flag=True, help="The name before every line.")
@click.option("-l", "long", is_flag=True, help="Every definition in full.")
@click.option("-s", "short", is_flag=True, help="Names only.")
@click.argument("names", metavar="[NAMES]", default="")
@json_option
@pass_session
def lsdef(session: Session, /, *, kind: str | None, named: str, names: str, as_json: bool, **options: Any) -> int:
    """Show definitions as xCAT's stanzas; without NAMES, list them.

    \b
    Example:
      litho lsdef n01
      litho lsdef -t osimage -z golden
      litho lsdef -t node -w mgt==ipmi -i mac,ip
    """
    kind = kind or "node"
    text = _one_of(names, named)
    only = [word for word in options["only"].split(",") if word]
    tests = conditions.parse_all(options["where"])
    if kind != "site":
        for name in (*only, *(one.name for one in tests)):
            if name not in ATTRIBUTES[kind]:
                raise UsageError(f"'{name[:80]}' is not a valid attribute name for an object type of '{kind}'.")
    detailed = bool(text or only or options["long"] or options["as_stanza"] or options["compressed"])
    brief = options["short"] or not detailed
    needed = [*only, *(one.name for one in tests)] if only or brief else []
    answer = session.client.objects(
        kind, noderange(text) if kind == "node" else text, only=",".join(needed), brief=brief and not tests
    )
    chosen = {name: one for name, one in answer.objects.items() if conditions.holds(tests, one)}
    if only:
        # What was asked for by name is shown also where there is nothing.
        chosen = {name: {key: one.get(key, "") for key in only} for name, one in chosen.items()}
    if as_json:
        print_json(chosen)
    else:
        sys.stdout.write(_shown(chosen, kind, brief=brief, options=options))
    for name in answer.missing:
        complain(not_found(name, kind))
    return int(bool(answer.missing))


def _shown(chosen: dict[str, dict[str, str]], kind: str, *, brief: bool, options: dict[str, Any]) -> str:
    if not chosen:
        return ""
    if brief:
        return stanza.listing(chosen, kind)
    if options["as_stanza"]:
        return stanza.STANZA_HEAD + "".join(stanza.stanza(name, kind, one) for name, one in chosen.items())
    show = stanza.compressed if options["compressed"] else stanza.definition
    return "".join(show(name, one) for name, one in chosen.items())


def _one_of(names: str, named: str) -> str:
    if names and named and names != named:
        raise UsageError("names are given twice, as an argument and with -o", hint="give them once")
    return names or named


# ------------------------------------------------------------ mkdef, chdef


@click.command()
@_kind
@_named
@_where
@click.option("-z", "from_stanza", is_flag=True, help="Read a stanza file from standard input.")
@click.option("-f", "force", is_flag=True, help="Replace definitions that are there.")
@click.option("-d", "dynamic", is_flag=True, help="A group whose members are all nodes for which -w holds.")
@click.argument("words", metavar="[NAMES] [ATTRIBUTE=VALUE]...", nargs=-1)
@pass_session
def mkdef(session: Session, /, **options: Any) -> int:
    """Make definitions.

    \b
    Example:
      litho mkdef n01 groups=all,compute mac=52:54:00:00:00:01 ip=10.0.0.11
      litho mkdef -t group rack1 members=n01-n10
      litho mkdef -z -f < golden.stanza
    """
    return _define(session, "mkdef", options)


@click.command()
@_kind
@_named
@_where
@click.option("-z", "from_stanza", is_flag=True, help="Read a stanza file from standard input.")
@click.option("-p", "add", is_flag=True, help="Add to lists instead of replacing them.")
@click.option("-m", "take", is_flag=True, help="Take out of lists.")
@click.option("-d", "dynamic", is_flag=True, help="A group whose members are all nodes for which -w holds.")
@click.argument("words", metavar="[NAMES] [ATTRIBUTE=VALUE]...", nargs=-1)
@pass_session
def chdef(session: Session, /, **options: Any) -> int:
    """Change definitions; those that are not there are made.

    `ATTRIBUTE=` takes an attribute away.

    \b
    Example:
      litho chdef n01-n10 netboot=xnba installnic=eth0
      litho chdef -p n01 groups=rack1
      litho chdef -t site clustersite IMAGELIBSERVER=10.0.0.5 IMAGELIBINSTALLDIR=/srv/images
    """
    return _define(session, "chdef", options)


def _define(session: Session, verb: Any, options: dict[str, Any]) -> int:
    edits = _edits(options)
    mode: Literal["set", "add", "take"] = "add" if options.get("add") else "take" if options.get("take") else "set"
    if options.get("add") and options.get("take"):
        raise UsageError("-p and -m do not go together")
    done: list[str] = []
    created: list[str] = []
    existed: list[str] = []
    for kind in sorted({kind for kind, _ in edits}):
        objects = {name: pairs for (one, name), pairs in edits.items() if one == kind}
        edited = session.client.edit_objects(
            api.ObjectEdit(
                verb=verb,
                kind=kind,
                objects=objects,
                mode=mode,
                force=bool(options.get("force")),
            )
        )
        done += edited.done
        created += edited.created
        existed += edited.existed
    for name in existed:
        complain(
            f"A definition for '{name}' already exists.\n"
            "To remove the old definition and replace it with \na new definition use the force '-f' option.\n"
            "To change the existing definition use the 'chdef' command."
        )
    if existed:
        complain("One or more errors occured when attempting to create or modify xCAT \nobject definitions.")
        return 1
    click.echo(f"{len(done)} object definitions have been created or modified.")
    if verb == "chdef" and created:
        click.echo(f"New object definitions '{','.join(created)}' have been created.")
    return 0


def _edits(options: dict[str, Any]) -> dict[tuple[Any, str], dict[str, str]]:
    """(kind, name) -> attributes, from the words or from standard input. Raises UsageError."""
    words = list(options["words"])
    names = words.pop(0) if words and "=" not in words[0] else ""
    text = _one_of(names, options["named"])
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"Incorrect attr=val pair - {word[:80]}")
        pairs[key] = value
    if options["from_stanza"]:
        if text or options["kind"]:
            raise UsageError("Cannot use '-z' with '-o' or a noderange.")
        found = stanza.parse(sys.stdin.read(MAX_STDIN))
        for kind, _ in found:
            if kind not in KINDS:
                raise UsageError(f"there is no object type {kind[:40]!r}", hint=f"there are: {', '.join(KINDS)}")
        return {key: {**attributes, **pairs} for key, attributes in found.items()}
    kind = options["kind"] or "node"
    if not text and kind == "site":
        text = SITE
    if not text:
        raise UsageError("No object names were provided.")
    if kind == "group":
        _group_words(options, pairs)
    if kind == "node":
        return {(kind, noderange(text)): pairs}
    return {(kind, name): dict(pairs) for name in text.split(",") if name}


def _group_words(options: dict[str, Any], pairs: dict[str, str]) -> None:
    if options["where"]:
        pairs["wherevals"] = "::".join(options["where"])
    if options["dynamic"]:
        if "wherevals" not in pairs:
            raise UsageError("The 'where' attributes and values were not provided for the dynamic group.")
        for one in conditions.wherevals(pairs["wherevals"]):
            if one.name not in ATTRIBUTES["node"]:
                raise UsageError(f"Incorrect attribute '{one.name}' in the selection string specified with -w flag.")
        pairs["grouptype"] = "dynamic"
    elif "wherevals" in pairs:
        # As in xCAT, the nodes for which it holds now; a noderange of conditions says the same.
        terms = [f"{_column(one)}" for one in options["where"]]
        pairs["members"] = "@".join(terms)
        del pairs["wherevals"]


def _column(text: str) -> str:
    """A condition on an attribute as one on the column that holds it."""
    one = conditions.parse_all([text])[0]
    spec = ATTRIBUTES["node"].get(one.name)
    if spec is None:
        raise UsageError(f"Incorrect attribute '{one.name}' in the selection string specified with -w flag.")
    return f"{spec.table}.{spec.column}{text[len(one.name) :]}"


# ------------------------------------------------------------ rmdef


@click.command()
@_kind
@_named
@click.option("-f", "force", is_flag=True, help="Taken for xCAT's sake.")
@click.argument("names", metavar="[NAMES]", default="")
@pass_session
def rmdef(session: Session, *, kind: api.ObjectKind | None, named: str, names: str, force: bool) -> int:
    """Take definitions away. A node with a task that has not ended is refused.

    \b
    Example:
      litho rmdef n09-n10
      litho rmdef -t osimage golden
    """
    kind = kind or "node"
    text = _one_of(names, named)
    if not text:
        raise UsageError("No object names were provided.")
    objects: dict[str, dict[str, str]] = (
        {noderange(text): {}} if kind == "node" else {name: {} for name in text.split(",") if name}
    )
    edited = session.client.edit_objects(api.ObjectEdit(verb="rmdef", kind=kind, objects=objects))
    for name in edited.missing:
        complain(not_found(name, kind))
    if edited.done:
        click.echo(f"{len(edited.done)} object definitions have been removed.")
    return int(bool(edited.missing))
