"""The linear-time expressions agree with Python's own wherever both know the language."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litho.errors import UsageError
from litho_controller.noderange.patterns import Pattern

PIECES = st.sampled_from(
    ["a", "b", "0", "1", "-", ".", "[ab]", "[^a]", "[0-9]", "\\d", "\\D", "\\w", "\\W", "\\s", "\\.", "^", "$", "(?:)"]
)


def expressions():
    return st.recursive(
        PIECES,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map("|".join).map("({})".format),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"])).map(
                lambda p: f"(?:{p[0]}){p[1]}"
            ),
        ),
        max_leaves=8,
    )


@settings(max_examples=400, deadline=None)
@given(expressions(), st.text(alphabet="ab01-. ", max_size=10))
def test_it_answers_as_pythons_own_expressions(expression, text):
    ours = Pattern(expression)
    theirs = re.compile(expression.replace("$", "\\Z"), re.ASCII)
    assert ours.fullmatch(text) == bool(theirs.fullmatch(text))
    assert ours.search(text) == bool(theirs.search(text))


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("(", "early end|not closed"),
        ("a)", "nothing opened"),
        ("[a", "early end"),
        ("[b-a]", "backwards"),
        ("\\b", "not known"),
        ("(?=a)", "not \\(\\?:"),
        ("+", "repeat of nothing"),
        ("a{x}", "no repeat"),
        ("a\\", "early end"),
        ("(" * 60 + ")" * 60, "inside each other"),
    ],
)
def test_what_is_not_in_the_language_is_told_with_its_place(expression, says):
    with pytest.raises(UsageError, match=says):
        Pattern(expression)
