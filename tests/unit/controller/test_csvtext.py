"""Tables as CSV and definitions as stanzas: what is written is read back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho.errors import UsageError
from litho_controller.cli import csvtext, stanza
from litho_controller.tables.cells import check

# What `cells.check` lets into a table: printable text, newlines and tabs.
VALUES = st.none() | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: all(char.isprintable() or char in "\n\t" for char in text)
)
NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), min_size=2, max_size=5, unique=True)


@given(st.data())
def test_a_table_that_is_written_and_read_is_the_same_value_for_value(data):
    columns = data.draw(NAMES)
    row = st.tuples(*[VALUES] * len(columns)).filter(lambda row: any(value is not None for value in row))
    rows = tuple(data.draw(st.lists(row, max_size=5)))
    assert all(check("site", "value", value) == value for row in rows for value in row if value is not None)
    text = csvtext.write(columns, rows)
    assert csvtext.read(text) == (tuple(columns), rows)
    assert csvtext.write(*csvtext.read(text)) == text


def test_a_table_is_quoted_as_xcat_quotes_it():
    rows = [("a", None, "", 'say "hi",\nthen \\ leave')]
    text = '#key,value,comments,disable\n"a",,"","say ""hi"",\nthen \\ leave"\n'
    assert csvtext.write(("key", "value", "comments", "disable"), rows) == text


def test_what_a_spreadsheet_makes_of_a_table_is_read_too():
    text = '\ufeff"#key","value","comments"\r\na,two words,x\r\n"b","q"\r\n\r\nc\r\n'
    assert csvtext.read(text) == (
        ("key", "value", "comments"),
        (("a", "two words", "x"), ("b", "q", None), ("c", None, None)),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("key,value\na,b\n", "Data missing header line starting with #"),
        ("", "Data missing header line"),
        ("#key,value\na,b,c\n", "Too many fields on line 2"),
        ('#key,value\na,b\n"a","b\nc\n', 'unmatched " in the record on line 3'),
        ('#key,value\n"a"b,c\n', 'unescaped " in the record on line 2'),
        ('#key,value\na"b,c\n', 'missing opening " on line 2'),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(text, says):
    with pytest.raises(UsageError, match=says):
        csvtext.read(text)


ATTRIBUTES = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(lambda name: name != "objtype"),
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12).filter(
        lambda text: text == text.strip() and not (len(text) > 1 and text[0] == text[-1] == '"')
    ),
    max_size=4,
)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True), ATTRIBUTES, max_size=3))
def test_definitions_that_are_written_and_read_are_the_same(objects):
    objects = {name: one for name, one in objects.items() if not name.startswith("default-")}
    text = stanza.STANZA_HEAD + "".join(stanza.stanza(name, "osimage", one) for name, one in objects.items())
    assert stanza.parse(text) == {("osimage", name): one for name, one in objects.items()}


def test_a_stanza_file_knows_comments_defaults_and_quotes():
    text = (
        '# a note\ndefault-node:\n  groups=all\n  netboot=xnba\n\nn01:\n  objtype=node\n  groups=all,x\n\tmac="a b"\n'
    )
    assert stanza.parse(text) == {("node", "n01"): {"groups": "all,x", "netboot": "xnba", "mac": "a b"}}
    for bad, says in (
        ("groups=all\n", "line 1"),
        ("n01:\n  nonsense\n", "line 2"),
        ("n01:\n  a=b\n", "No objtype value"),
    ):
        with pytest.raises(UsageError, match=says):
            stanza.parse(bad)
