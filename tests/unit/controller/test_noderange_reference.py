"""docs/reference/noderange.md is a table of tests: each of its rows is expanded here."""

import re
from pathlib import Path

import pytest

from litho.errors import LithoError, NotFoundError
from litho_controller.noderange import Universe, expand, literal

PAGE = (Path(__file__).parents[3] / "docs/reference/noderange.md").read_text()
LIST = "n01\n# n02\n^/etc/passwd\nn03 the third\nn04:comment\n\nrack2,-n10\n"
COLUMNS = {
    ("nodetype", "os"): {"n01": "image", "n02": "image", "n03": "rhels9"},
    ("nodetype", "profile"): {"n01": "golden-1", "n02": "golden-2"},
    ("nodehm", "mgt"): {"n01": "ipmi"},
}


def tables():
    """The page's rows by the first word of their table's head, without it."""
    found = {"nodes": [], "range": [], "error": []}
    kind = ""
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            kind = ""
        elif not kind:
            kind = "error" if cells[:2] == ["range", "error"] else cells[0]
        elif not cells[0].startswith("---"):
            name = cells[0].replace("\\|", "|")
            assert name.startswith("`") and name.endswith("`"), line
            found[kind].append((name[1:-1], cells[1]))
    return found


TABLES = tables()


class Files:
    def read(self, path):
        return LIST if path == "/srv/list" else None


def site():
    nodes = {name: tuple(re.findall(r"`(\w+)`", groups)) for text, groups in TABLES["nodes"] for name in names(text)}
    return Universe(
        nodes,
        dynamic={"images": ["n01", "n02"]}.get,
        column=lambda table, column: COLUMNS.get((table, column)),
        files=Files(),
    )


def names(text):
    # A name with dashes is spelled out as a sequence otherwise.
    return [text] if text == "a-b-c" else literal(text)


@pytest.mark.parametrize(("text", "nodes"), TABLES["range"], ids=[text for text, _ in TABLES["range"]])
def test_a_row_of_the_reference(text, nodes):
    if nodes == "*error*":
        with pytest.raises(LithoError):
            expand(text, site())
    else:
        assert expand(text, site()) == ([] if nodes == "*nothing*" else nodes.split())


@pytest.mark.parametrize(("text", "sentence"), TABLES["error"])
def test_a_row_of_errors(text, sentence):
    with pytest.raises(NotFoundError) as caught:
        expand(text, site())
    assert str(caught.value) == sentence


def test_the_page_has_every_rule():
    assert len(TABLES["range"]) >= 59
    assert len(TABLES["error"]) == 3
    assert len(TABLES["nodes"]) == 7
    for what in ("'", '"', ",", "-", ":", "[", "+", "(", "@", "/", "^", "==", "!=", "=~", "!~"):
        assert any(what in text for text, _ in TABLES["range"]), what
