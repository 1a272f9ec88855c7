"""An installer's answers for one node: the template of an osimage with xCAT's words in it replaced. Pure but for `include`.

| word | becomes |
|---|---|
| `#HOSTNAME#`, `#NODE#` | the node's name |
| `#XCATVAR:XCATMASTER#` | the controller's host as the node knows it |
| `#XCATVAR:NAME#` | also `XCATHTTPPORT`, `INSTALLDIR`, `OSVERS`, `ARCH`, `PROFILE` |
| `#XCATVAR:LITHODONE#` | the address to which the installed system says that it is done (POST) |
| `#INSTALL_SOURCES#` | the address of the media |
| `#TABLE:T:KEY:COLUMN#` | a cell; KEY may be `THISNODE`; it must have a value. `TABLEBLANKOKAY` takes an empty one |
| `#INCLUDE:FILE#` | another file, relative to the one that names it |

A template comes from whoever made the bundle, and what becomes of it is read by everybody on the installation network. So
tables with passwords are not read, files only come from the template's own directory and xCAT's share, and xCAT's words that
run something on the management node (`#COMMAND:...#`, `#CRYPT:...#`) are refused. So is every other word of xCAT's that is
not filled in: an installer that was told half of its answers would ask a person, or wipe the wrong disk.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping

import msgspec

from litho.errors import RefusedError

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 8
TABLES = ("site", "noderes", "nodetype", "nodehm", "hosts", "mac", "bootparams", "nodelist")
"""What a template may read."""
_WORD = re.compile(r"#(?P<word>[A-Z][A-Z_]{2,39})(?::(?P<rest>[^#\n]{1,400}))?#", re.ASCII)
_XCAT = (
    *("XCATVAR", "TABLE", "TABLEBLANKOKAY", "INCLUDE", "COMMAND", "CRYPT", "ENV", "KICKSTARTNET", "MANAGEMENTNODE"),
    *("XCATPARTITION", "PARTITION", "YAST_RSYSLOG", "MIRRORSPEC", "WINTIMEZONE", "INCLUDEBAD", "KICKSTARTBOOTLOADER"),
)


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What the words of one node's template mean."""

    node: str
    media: str
    variables: Mapping[str, str]
    cell: Callable[[str, str, str], str | None]
    """(table, key, column) -> value; the key is a node's name for `THISNODE`."""
    include: Callable[[str], str]
    """The text of a file by its absolute path; raises RefusedError, NotFoundError."""


def render(text: str, path: str, answers: Answers, *, depth: int = 0) -> str:
    """The template's text, which is in the file `path`, as the node gets it. Raises RefusedError."""

    def put(found: re.Match[str]) -> str:
        word, rest = found["word"], found["rest"] or ""
        if word in ("HOSTNAME", "NODE") and not rest:
            return answers.node
        if word == "INSTALL_SOURCES" and not rest:
            return answers.media
        if word == "XCATVAR" and rest in answers.variables:
            return answers.variables[rest]
        if word in ("TABLE", "TABLEBLANKOKAY"):
            return _cell(found[0], rest, answers, blank=word != "TABLE")
        if word == "INCLUDE" and rest:
            if depth >= MAX_DEPTH:
                raise _refused(path, found[0], f"files include each other more than {MAX_DEPTH} deep")
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(path), rest))
            return render(answers.include(inner), inner, answers, depth=depth + 1)
        if word in _XCAT or word.startswith(("INCLUDE_", "INSTALL_")):
            raise _refused(path, found[0], "which this controller does not fill in")
        # Words between two # are also plain comments.
        return found[0]

    made = _WORD.sub(put, text)
    if len(made) > MAX_BYTES:
        raise _refused(path, "", f"and becomes longer than {MAX_BYTES} bytes")
    return made


def _cell(whole: str, rest: str, answers: Answers, *, blank: bool) -> str:
    words = rest.split(":")
    if len(words) != 3 or words[0] not in TABLES:
        raise _refused(
            "", whole, f"and templates read the tables {', '.join(TABLES)} only, as #TABLE:table:key:column#"
        )
    key = answers.node if words[1].strip("$") in ("THISNODE", "NODE") else words[1].removeprefix("key=")
    value = answers.cell(words[0], key, words[2])
    if not value and not blank:
        raise _refused("", whole, "and there is no value in that place")
    return value or ""


def _refused(path: str, word: str, what: str) -> RefusedError:
    said = f"the template {posixpath.basename(path)}" if path else "the template"
    return RefusedError(
        f"{said} has {word[:120]}, {what}" if word else f"{said} is too long {what}",
        hint="change the template; docs/reference/boot.md has the words that are filled in",
        code="bad-template",
    )
