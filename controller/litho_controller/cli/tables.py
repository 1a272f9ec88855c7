"""xCAT's table commands: tabdump, tabch, tabrestore, gettab, and nodels and nodech, which work on rows of nodes.

They print what xCAT 2.19's print. What a change asks for is taken apart here and checked by the daemon, which does all of
it or nothing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Literal

import click

from litho.errors import UsageError
from litho_controller import api
from litho_controller.cli import csvtext, stanza
from litho_controller.cli.session import Session, json_option, noderange, pass_session, print_json
from litho_controller.tables import conditions
from litho_controller.tables.schema import TABLES

SHORT = {"groups": "nodelist.groups", "tags": "nodelist.groups", "mgt": "nodehm.mgt"}
MAX_FILE = 64 * 1024 * 1024
"""Bytes of a file that tabrestore reads."""
_OPS: dict[str | None, Literal["=", "+=", ",=", "^="]] = {None: "=", "+": "+=", ",": ",=", "^": "^="}
_ASSIGNMENT = re.compile(r"(?P<column>[^=]+?)(?P<op>\+|,|\^)?=(?P<value>.*)", re.DOTALL)
_CONDITION = re.compile(r"[^=!~]+(==|!=|=~|!~)", re.DOTALL)


def column(text: str) -> str:
    """`table.column`, also for xCAT's short names."""
    return SHORT.get(text, text)


def assignment(text: str) -> api.Assign:
    """`table.column=value` and its kin, taken apart. Raises UsageError."""
    match = _ASSIGNMENT.fullmatch(text)
    if match is None:
        raise UsageError(f"Malformed argument {text[:80]}", hint="write TABLE.COLUMN=VALUE")
    # `=@` is xCAT's way to set a value that begins like a comparison.
    return api.Assign(
        column=column(match["column"]),
        op=_OPS[match["op"]],
        value=match["value"].removeprefix("@"),
    )


def condition(text: str) -> str:
    """A condition with its column's full name."""
    match = _CONDITION.match(text)
    assert match is not None  # noqa: S101 - callers ask only with conditions
    name = text[: match.end() - 2]
    return column(name) + text[match.end() - 2 :]


def is_condition(text: str) -> bool:
    """True for `table.column==value` and its kin."""
    return _CONDITION.match(text) is not None


# ------------------------------------------------------------ tabdump, gettab


@click.command()
@click.option("-w", "where", multiple=True, metavar="COL==VALUE", help="Only rows for which it holds; also !=, =~, !~.")
@click.argument("table", metavar="[TABLE]", required=False)
@json_option
@pass_session
def tabdump(session: Session, table: str | None, where: tuple[str, ...], as_json: bool) -> None:
    """Print one of xCAT's tables as CSV; without TABLE, the names of all.

    \b
    Example:
      litho tabdump osimage
      litho tabdump -w mgt==ipmi nodehm
    """
    if table is None:
        names = session.client.tables()
        if as_json:
            print_json(names.tables)
        else:
            click.echo("\n".join(names.tables))
        return
    dump = session.client.table(table)
    if where:
        tests = conditions.parse_all(where)
        for one in tests:
            if one.name not in dump.columns:
                raise UsageError(
                    f"{one.name[:80]} is no column of {table}", hint=f"there are: {','.join(dump.columns)}"
                )
        kept = [
            row
            for row in dump.rows
            if conditions.holds(tests, {k: v or "" for k, v in zip(dump.columns, row, strict=True)})
        ]
        dump = api.TableView(columns=dump.columns, rows=tuple(kept))
    if as_json:
        print_json(dump)
    else:
        click.echo(csvtext.write(dump.columns, dump.rows), nl=False)


@click.command()
@click.option("-H", "--with-fieldname", "named", is_flag=True, help="Say the column before the value, also for one.")
@click.argument("keys", metavar="KEY=VALUE[,...]")
@click.argument("columns", metavar="TABLE.COLUMN...", nargs=-1, required=True)
@pass_session
def gettab(session: Session, keys: str, columns: tuple[str, ...], named: bool) -> None:
    """Print columns of the row that KEY=VALUE names.

    \b
    Example:
      litho gettab key=IMAGELIBSERVER site.value
      litho gettab node=n01 mac.mac nodetype.os
    """
    wanted = _keys(keys)
    lines = []
    for text in columns:
        table, _, name = text.partition(".")
        spec = TABLES.get(table)
        for key in (*wanted, name):
            if spec is not None and key not in spec.columns:
                raise UsageError(f"Unkown key {key[:80]} to {table}")
        dump = session.client.table(table)
        rows = (dict(zip(dump.columns, row, strict=True)) for row in dump.rows)
        row = next((row for row in rows if all(row[key] == value for key, value in wanted.items())), {})
        value = row.get(name) or ""
        lines.append(value if len(columns) == 1 and not named else f"{table}.{name}: {value}")
    click.echo("\n".join(lines))


def _keys(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not equals or not key for key, equals, _ in pairs):
        raise UsageError(f"{text[:80]!r} is not KEY=VALUE[,KEY=VALUE...]")
    return {key: value for key, _, value in pairs}


# ------------------------------------------------------------ tabch, tabrestore


@click.command()
@click.option("-d", "delete", is_flag=True, help="Delete the rows from the tables that follow.")
@click.argument("keys", metavar="KEY=VALUE[,...]")
@click.argument("words", metavar="TABLE.COLUMN=VALUE...", nargs=-1, required=True)
@pass_session
def tabch(session: Session, keys: str, words: tuple[str, ...], delete: bool) -> None:
    """Change columns of one row, or make it; `+=` adds to a list. With -d, delete the row from tables.

    \b
    Example:
      litho tabch key=IMAGELIBSERVER site.value=10.0.0.5
      litho tabch -d node=n01 hosts mac
    """
    edit = (
        api.TableEdit(keys=_keys(keys), delete=words)
        if delete
        else api.TableEdit(keys=_keys(keys), assign=tuple(assignment(word) for word in words))
    )
    session.client.edit_tables(edit)


@click.command()
@click.option("-a", "append", is_flag=True, help="Put the rows over those that are there, instead of replacing all.")
@click.argument("file", metavar="TABLE.csv", type=click.Path(path_type=Path))
@pass_session
def tabrestore(session: Session, file: Path, append: bool) -> None:
    """Fill a table from a file as tabdump prints it; the file is called like the table.

    \b
    Example:
      litho tabrestore mac.csv
      litho tabrestore -a osimage.csv
    """
    table = file.name.removesuffix(".csv")
    try:
        with file.open("rb") as handle:
            data = handle.read(MAX_FILE + 1)
    except OSError as exc:
        raise UsageError(f"cannot read {file}", hint=(exc.strerror or str(exc)).lower()) from exc
    if len(data) > MAX_FILE:
        raise UsageError(f"{file} is larger than {MAX_FILE} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(f"{file} is not UTF-8 text (byte {exc.start})", hint="save it as UTF-8") from exc
    columns, rows = csvtext.read(text)
    session.client.fill_table(table, api.TableFill(columns=columns, rows=rows, append=append))


# ------------------------------------------------------------ nodels, nodech


@click.command()
@click.option("-H", "--with-fieldname", "named", is_flag=True, help="Say the column before the value, also for one.")
@click.option("-S", "hidden", is_flag=True, help="Leave out nodes with nodelist.hidden=1, when no NODERANGE is given.")
@click.argument("range_", metavar="[NODERANGE]", required=False)
@click.argument("words", metavar="[TABLE.COLUMN | TABLE | TABLE.COLUMN==VALUE]...", nargs=-1)
@json_option
@pass_session
def nodels(
    session: Session, *, range_: str | None, words: tuple[str, ...], named: bool, hidden: bool, as_json: bool
) -> None:
    """List nodes, and columns of theirs; conditions (==, !=, =~, !~) choose among them.

    \b
    Example:
      litho nodels compute
      litho nodels n01-n10 nodetype.os nodetype.profile
      litho nodels all nodetype.os==image
    """
    where = [condition(word) for word in words if is_condition(word)]
    if hidden and range_ is None:
        where.append("nodelist.hidden!=1")
    columns: list[str] = []
    labels: list[str] = []
    for word in (word for word in words if not is_condition(word)):
        whole = [f"{word}.{name}" for name in TABLES[word].columns] if word in TABLES else [column(word)]
        named = named or word in TABLES
        columns += whole
        labels += whole if word in TABLES else [word]
    request = api.ColumnsRequest(
        range=noderange(range_) if range_ else "", columns=tuple(columns), where=tuple(dict.fromkeys(where))
    )
    found = session.client.columns(request)
    if as_json:
        print_json([{"node": node, **dict(zip(columns, values, strict=True))} for node, values in found.nodes])
        return
    lines = []
    for node, values in found.nodes:
        if not columns:
            lines.append(node)
        for label, value in zip(labels, values, strict=True):
            lines.append(f"{node}: {value}" if len(columns) == 1 and not named else f"{node}: {label}: {value}")
    sys.stdout.write("".join(stanza.one_line(line) + "\n" for line in lines))


@click.command()
@click.option("-d", "--delete", "delete", is_flag=True, help="Delete the nodes' rows from the tables that follow.")
@click.argument("range_", metavar="NODERANGE")
@click.argument("words", metavar="TABLE.COLUMN=VALUE...", nargs=-1, required=True)
@pass_session
def nodech(session: Session, range_: str, words: tuple[str, ...], delete: bool) -> None:
    """Set columns of nodes: `=`, `,=` to add to a list, `^=` to take out of it. Conditions choose among the nodes.

    \b
    Example:
      litho nodech n01 nodetype.os=image nodetype.profile=golden
      litho nodech compute groups,=rack1 nodehm.mgt==ipmi
      litho nodech -d n09 hosts
    """
    text = noderange(range_)
    if delete:
        for word in words:
            if "=" in word or "." in word:
                raise UsageError(". and = not valid in delete mode.")
        session.client.edit_nodes(api.NodeEdit(range=text, delete=words))
        return
    where = tuple(condition(word) for word in words if is_condition(word))
    assign = tuple(assignment(word) for word in words if not is_condition(word))
    if not assign:
        raise UsageError("nothing is set", hint="write TABLE.COLUMN=VALUE")
    for one in assign:
        if one.op == "+=":
            raise UsageError(f"{one.column}+= is tabch's", hint="nodech adds to a list with ,=")
    session.client.edit_nodes(api.NodeEdit(range=text, assign=assign, where=where))
