"""xCAT's two text formats: a table as CSV, and a definition as attributes. Pure.

Both are read by programs, so they are kept byte for byte as xCAT 2.19 writes them (P/tabutils.pm and lsdef, seen on a running
xcatd):

* `tabdump`: the header is `#` and the columns; a column without a value (NULL) is nothing between the commas; every other
  value, the empty string too, stands in double quotes with each `"` doubled; a newline inside stays as it is.
* `lsdef NAME`: `Object name: NAME`, then `    attribute=value`, sorted; `-z` writes the stanza file that `mkdef -z` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from litho_controller.api import TableView

# linuximage.comments is the object's `usercomment`; a table's `disable` and osimage's own comments are no attributes.
_RENAMED = {"comments": "usercomment"}


def csv(table: TableView) -> str:
    """The table as `tabdump` prints it."""
    lines = ["#" + ",".join(table.columns)]
    lines.extend(",".join("" if value is None else _quoted(value) for value in row) for row in table.rows)
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def osimages(osimage: TableView, linuximage: TableView) -> dict[str, dict[str, str]]:
    """The osimage objects that two tables hold together: name -> attribute -> value, without attributes that are not set."""
    objects: dict[str, dict[str, str]] = {}
    for row in _records(osimage):
        name = row.pop("imagename", "")
        row.pop("comments", None)
        objects[name] = row
    for row in _records(linuximage):
        name = row.pop("imagename", "")
        if name in objects:
            objects[name].update({_RENAMED.get(key, key): value for key, value in row.items()})
    return objects


def _records(table: TableView) -> Iterable[dict[str, str]]:
    for row in table.rows:
        values = zip(table.columns, row, strict=True)
        yield {name: value for name, value in values if value and name != "disable"}


def listing(names: Iterable[str], kind: str) -> str:
    """What `lsdef -t osimage` prints: each name and what it is."""
    return "".join(f"{name}  ({kind})\n" for name in sorted(names))


def definition(name: str, attributes: Mapping[str, str]) -> str:
    """One object as `lsdef` prints it."""
    return f"Object name: {name}\n" + "".join(f"    {key}={value}\n" for key, value in sorted(attributes.items()))


def stanza(name: str, kind: str, attributes: Mapping[str, str]) -> str:
    """One object as `lsdef -z` prints it."""
    lines = "".join(f"    {key}={value}\n" for key, value in sorted(attributes.items()))
    return f"\n{name}:\n    objtype={kind}\n{lines}"


STANZA_HEAD = "# <xCAT data object stanza file>\n"


def compressed(name: str, attributes: Mapping[str, str]) -> str:
    """One object as `lsdef -c` prints it: every line with the name before it."""
    return "".join(f"{name}: {key}={value}\n" for key, value in sorted(attributes.items()))
