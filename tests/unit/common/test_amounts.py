"""Bytes for people, in one way everywhere."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho import amounts

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (-5, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (8192, "8.2 kB"),
        (99_949, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (500_107_862_016, "500 GB"),
        (1.4e9, "1.4 GB"),
        (7e21, "7000 EB"),
    ],
)
def test_bytes_are_told_in_decimal_units(count, text):
    assert amounts.size(count) == text


def test_a_rate_and_a_part_of_a_whole():
    assert amounts.rate(112e6) == "112 MB/s"
    assert amounts.of(9.1e9, 10e9) == "9.1 of 10.0 GB"
    assert amounts.of(40e6, 10e9) == "0.0 of 10.0 GB"
    assert amounts.of(120e6, 400e6) == "120 of 400 MB"
    assert amounts.of(0, 0) == "0 of 0 B"


@given(st.integers(0, 10**21))
def test_what_is_told_is_within_a_twentieth_of_a_tenth(count):
    number, unit = amounts.size(count).split()
    told = float(number) * 1000 ** (("B", *amounts.UNITS).index(unit))
    assert abs(told - count) <= max(0.5, count * 0.051)
    assert len(number) <= 4


def test_no_line_for_people_is_in_binary_units():
    """A text that is put together (an f-string) with such a unit behind a value should have asked `litho.amounts`."""
    unit = re.compile(r"^ ?[KMGTP]iB\b")
    found = []
    for folder in ("common", "agent", "controller", "rootimg-build"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    after = [
                        right.value
                        for left, right in zip(node.values, node.values[1:], strict=False)
                        if isinstance(left, ast.FormattedValue) and isinstance(right, ast.Constant)
                    ]
                    found += [f"{path.name}:{node.lineno}" for text in after if unit.match(str(text))]
    assert found == []
