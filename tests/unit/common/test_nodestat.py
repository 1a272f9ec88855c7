"""The line for `nodestat`, as Apache VCL's two generations read it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litho import nodestat
from litho.progress import Progress

PROGRESSES = st.builds(
    Progress,
    phase=st.text(max_size=64) | st.sampled_from(["", "layout", "boot", "next", "verify\n", "partimage-ng: complete"]),
    part=st.integers(0, 20),
    parts=st.integers(0, 20),
    fraction=st.floats(0, 1),
)


def plain(line: str) -> None:
    assert re.fullmatch(r"[\x20-\x7e]+", line)
    assert "next" not in line.lower()


def test_a_running_job_reads_as_the_protocol_says() -> None:
    assert nodestat.line(Progress(phase="partition", part=1, parts=3, fraction=0.42)) == (
        "partimage-ng: partition 1 of 3, 42% complete"
    )
    assert nodestat.line(Progress()) == "partimage-ng: starting, 0% complete"
    assert nodestat.line(Progress(phase="verify", parts=3, fraction=0.99)) == (
        "partimage-ng: partition 3 of 3, verify, 99% complete"
    )
    assert nodestat.COMPLETE == "partimage-ng: complete"


@given(PROGRESSES)
def test_both_generations_of_vcl_see_a_running_job(progress: Progress) -> None:
    line = nodestat.line(progress)
    plain(line)
    if progress.parts:
        assert re.search(r"partimage-ng: partition", line)  # 2.2 and 2.3, capture
    assert re.search(r"partimage-ng:", line)  # 2.2 and 2.3, load has started
    assert re.search(r"(install|partimage)", line, re.IGNORECASE)  # 2.4 on, load has started
    assert not re.search(r"partimage-ng: complete", line)  # 2.2 and 2.3, done
    assert not re.search(r"^(boot|complete)$", line, re.IGNORECASE)  # 2.4 on, done
    assert not re.search(r"boot", line, re.IGNORECASE)  # 2.4 on: a capture whose nodestat has it is done
    assert re.search(rf"\b{progress.percent}% complete$", line)


@given(st.text(max_size=600) | st.sampled_from(["no boot sector", "partimage-ng: complete", "neNEXTxt", "a\nb"]))
def test_a_reason_never_looks_like_a_good_end_nor_like_a_command(reason: str) -> None:
    line = nodestat.failed(reason)
    plain(line)
    assert line.startswith("partimage-ng: failed:")
    assert len(line) <= 330
    assert not re.search(r"boot", line, re.IGNORECASE)
    assert not re.search(r"partimage-ng: complete", line, re.IGNORECASE)


@given(st.text(max_size=600))
def test_cleaned_text_is_one_short_printable_line_and_stays_as_it_is(text: str) -> None:
    clean = nodestat.clean(text)
    assert re.fullmatch(r"[\x20-\x7e]{0,300}", clean)
    assert "next" not in clean.lower()
    assert nodestat.clean(clean) == clean


def test_the_end_is_seen_by_both_generations() -> None:
    assert re.search(r"partimage-ng: complete", nodestat.COMPLETE)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("the disk is gone", "partimage-ng: failed: the disk is gone"),
        ("no boot sector", "partimage-ng: failed: no start-up sector"),
        ("try the next disk\nplease", "partimage-ng: failed: try the following disk please"),
        ("\x1b[31mred\x1b[0m", "partimage-ng: failed: [31mred [0m"),
    ],
)
def test_a_failure_is_told_in_one_line(reason: str, line: str) -> None:
    assert nodestat.failed(reason) == line
