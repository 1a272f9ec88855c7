"""The tables of faults tell the truth: every test that they name exists, every row names one, and the words are the program's.

Holds for each `docs/reference/faults*.md`: a row's last column names tests as `integration/test_x.py::test_y`. In tables
whose header says so, what "the user reads" is looked up in the sources piece by piece (`…` stands for names and numbers),
and so is the `code`.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "docs/reference").glob("faults*.md"))
NAMED = re.compile(r"`(?:tests/)?((?:unit|integration|e2e)/[\w/]+\.py)::(test_\w+)`")
SOURCES = ("common", "agent", "controller")


def rows(page):
    """(header, cells) of every row of every table of a page."""
    header = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if all(re.fullmatch(r"-+", cell) for cell in cells):
            continue
        if header is None:
            header = cells
        else:
            yield header, cells


ROWS = [
    pytest.param(header, cells, id=f"{page.stem}-{cells[0][:60]}") for page in PAGES for header, cells in rows(page)
]


@functools.cache
def declared_in(path):
    """Names of the tests in a file of tests."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@functools.cache
def words():
    """Every text of the program, with the pieces of one text joined and what is filled in made `…`."""
    found = []
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_there_are_tables_of_faults():
    assert len(ROWS) > 60
    assert {header[0] for header, _ in (row.values for row in ROWS)} >= {"fault"}


@pytest.mark.parametrize(("header", "cells"), ROWS)
def test_every_row_names_tests_that_exist(header, cells):
    assert len(cells) == len(header), f"a row of {len(cells)} cells under {header}"
    named = NAMED.findall(cells[-1])
    assert named, "a row without a test"
    for path, name in named:
        assert (ROOT / "tests" / path).is_file(), path
        assert name in declared_in(path), f"{path} has no test {name}"


@pytest.mark.parametrize(("header", "cells"), ROWS)
def test_what_the_user_reads_is_what_the_program_says(header, cells):
    said = dict(zip(header, cells, strict=True))
    for text in re.findall(r"`([^`]+)`", said.get("the user reads", "")):
        for piece in re.split(r"…|: ", text):
            if len(piece.strip()) > 3:
                assert piece.strip() in words(), f"nothing says {piece.strip()!r}"
    for code in re.findall(r"`([^`]+)`", said.get("code", "")):
        assert re.search(rf"(?m)^{re.escape(code)}$", words()), f"no error has the code {code!r}"
