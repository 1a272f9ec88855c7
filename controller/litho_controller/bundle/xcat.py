"""`manifest.xml`, the form of xCAT's imgexport: read for bundles that come from there, written for sites that run it.

The root `<xcatimage>` holds `<osimage>` and `<linuximage>` with one element a column, then `<kernel>`, `<ramdisk>`,
`<rootimg>`, `<rootimgtree>`, `<litefile>`, `<media>` and any number of `<extra>` with `<src>` and `<dest>`; paths are
absolute, and the files lie flat beside the manifest, extras below `extra/`. Up to xCAT 2.7 the columns stood right below
the root. (Measured with xcat-core 2.19.)

XML from a stranger is read by expat with everything switched off that is not needed: a document type, and with it every
entity, is refused where it begins; depth, count and size are bounded. Kits and raw s390x images are refused by name.
"""

from __future__ import annotations

from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

import msgspec

from litho.errors import RefusedError
from litho_controller.bundle.faults import bad, shown
from litho_controller.bundle.manifest import is_place
from litho_controller.bundle.rows import KEY, Cells
from litho_controller.tables.schema import TABLES

FILE = "manifest.xml"
MAX_BYTES = 1024 * 1024
MAX_DEPTH = 6
MAX_ELEMENTS = 5000
_SINGLE = ("kernel", "ramdisk", "rootimg", "rootimgtree", "litefile", "media", "postscripts", "postbootscripts")
_REFUSED = ("kit", "kitrepo", "kitcomp", "rawimagefiles")


class XcatExtra(msgspec.Struct, frozen=True):
    """A file or directory of the exporting site, and the directory that it goes to."""

    src: str
    dest: str


class XcatManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What manifest.xml says."""

    osimage: Cells
    """With imagename."""
    linuximage: Cells
    files: Cells
    """`kernel`, `ramdisk`, ... -> absolute path on the exporting site."""
    media: bool
    extra: tuple[XcatExtra, ...]


class _Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[_Node] = []


def parse(data: bytes) -> XcatManifest:
    """The manifest in `data`, in either of its two forms. Raises RefusedError."""
    root = _tree(data)
    if root.name != "xcatimage":
        raise _wrong(f"its root is {shown(root.name)} and not xcatimage")
    tables: dict[str, Cells] = {"osimage": {}, "linuximage": {}}
    files: Cells = {}
    extras: list[XcatExtra] = []
    nested = any(child.name in tables for child in root.children)
    for child in root.children:
        if child.name in tables and nested:
            for cell in child.children:
                _put(tables[child.name], cell, child.name)
        elif child.name == "extra":
            extras.append(_extra(child))
        elif child.name in _REFUSED:
            raise _wrong(f"it has a {child.name}, which cannot be imported here", "import it with xCAT's imgimport")
        elif child.name in _SINGLE:
            if child.name in files:
                raise _wrong(f"{child.name} stands twice")
            files[child.name] = _text(child)
        elif not nested and any(child.name in TABLES[table].columns for table in tables):
            # As xCAT's own adapter for the old form does: what both tables have goes to both.
            for table, cells in tables.items():
                if child.name in TABLES[table].columns:
                    _put(cells, child, table)
        else:
            raise _wrong(f"it has an unknown element {shown(child.name)}")
    for name, value in files.items():
        if name in ("kernel", "ramdisk", "rootimg", "rootimgtree", "litefile") and not is_place(value):
            raise _wrong(f"{name} is {shown(value)}, which is no absolute path")
    media = files.pop("media", "")
    for column in ("postscripts", "postbootscripts"):
        # The names of a table that is not ours; osimage has columns for the same.
        if value := files.pop(column, ""):
            tables["osimage"].setdefault(column, value)
    return XcatManifest(
        osimage=tables["osimage"],
        linuximage=tables["linuximage"],
        files=files,
        media=media == "required",
        extra=tuple(extras),
    )


def dump(manifest: XcatManifest) -> bytes:
    """The manifest's file, elements in order, as XML::Simple writes and reads it."""
    lines = ["<xcatimage>"]
    lines += [
        f"  <extra>\n{_element('dest', e.dest, 4)}\n{_element('src', e.src, 4)}\n  </extra>" for e in manifest.extra
    ]
    plain = {**manifest.files, **({"media": "required"} if manifest.media else {})}
    for name in sorted([*plain, "osimage", "linuximage"]):
        if name in plain:
            lines.append(_element(name, plain[name], 2))
        else:
            cells = manifest.osimage if name == "osimage" else manifest.linuximage
            inner = "\n".join(_element(column, value, 4) for column, value in sorted(cells.items()))
            lines.append(f"  <{name}>\n{inner}\n  </{name}>")
    return ("\n".join(lines) + "\n</xcatimage>\n").encode()


def _element(name: str, value: str, indent: int) -> str:
    return f"{' ' * indent}<{name}>{escape(value)}</{name}>"


def _put(cells: Cells, node: _Node, table: str) -> None:
    if node.name not in TABLES[table].columns:
        raise _wrong(f"it has an unknown column {table}.{shown(node.name)}")
    if node.name in cells:
        raise _wrong(f"{table}.{node.name} stands twice")
    value = _text(node)
    if value or node.name == KEY:
        cells[node.name] = value


def _extra(node: _Node) -> XcatExtra:
    values: Cells = {}
    for child in node.children:
        if child.name not in ("src", "dest") or child.name in values:
            raise _wrong(f"an extra has {shown(child.name)} besides one src and one dest")
        values[child.name] = _text(child).rstrip("/")
    if set(values) != {"src", "dest"} or not is_place(values["dest"]) or not is_place("/" + values["src"].lstrip("/")):
        raise _wrong("an extra has no src and dest that are paths")
    return XcatExtra(values["src"], values["dest"])


def _text(node: _Node) -> str:
    if node.children:
        raise _wrong(f"{shown(node.name)} holds elements where a text belongs")
    return node.text.strip()


def _tree(data: bytes) -> _Node:
    if len(data) > MAX_BYTES:
        raise _wrong(f"it has {len(data)} bytes, more than any manifest has")
    top = _Node("")
    stack = [top]
    count = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1 + len(attributes)
        if count > MAX_ELEMENTS or len(stack) > MAX_DEPTH:
            raise _wrong("it has more elements, or deeper ones, than any manifest has")
        node = _Node(name)
        # XML::Simple writes either, and reads both alike.
        for key, value in attributes.items():
            inner = _Node(key)
            inner.text = value
            node.children.append(inner)
        stack[-1].children.append(node)
        stack.append(node)

    def end(_name: str) -> None:
        stack.pop()

    def text(piece: str) -> None:
        stack[-1].text += piece

    def refuse(*_: Any) -> Any:
        raise _wrong("it has a document type, which no manifest needs")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise _wrong(f"it is no well-formed XML ({exc})") from exc
    except (ValueError, LookupError) as exc:
        raise _wrong("it is in an encoding that is not known") from exc
    return top.children[0]


def _wrong(problem: str, hint: str = "") -> RefusedError:
    return bad(f"{FILE}: {problem}", hint=hint, code="bad-manifest")
