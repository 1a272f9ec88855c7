"""What measurements print and keep."""

import pytest
from bench import report
from bench.clock import Run
from bench.peers import chosen


def runs(*walls):
    return [Run(name="x", wall_s=wall, cpu_s=1.0, others_s=wall, stolen_s=0.4, size=5_000_000) for wall in walls]


def test_a_row_has_the_median_and_the_run_in_which_others_used_least():
    row = report.run_table({"a|b": runs(4.0, 1.0, 3.0)})[-1]
    assert row == r"| a\|b | 3 | 3.00 | 1.00 | 3.0 | 0.4 | 1.00 (1.0) | 5 |"


def test_a_limit_has_no_cpu_of_its_own():
    assert report.run_table({"limit: read": runs(2.0)})[-1] == "| limit: read | 1 | 2.00 |  |  |  |  |  |"


def test_ratios_of_cpu_seconds_stand_beside_those_of_walls():
    rows = report.ratio_table({"dd / capture": 2.0, "dd / capture" + report.CPU: 0.5, "capture / limit": 1.3})
    assert rows[2:] == ["| dd / capture | 2.00 | 0.50 |  |  |", "| capture / limit | 1.30 |  | at most 1.25 | missed |"]


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("capture / limit", 1.25, True),
        ("capture / limit", 1.26, False),
        ("partclone|zstd / capture", 3.0, True),
        ("partclone|zstd / capture", 2.9, False),
        ("dd / capture", 0.0, True),
    ],
)
def test_a_goal_is_met_from_its_own_side(name, value, good):
    assert report.all_met({name: value, "memory MB": 80.0}) is good


def test_a_new_run_replaces_its_own_part_of_the_page_and_nothing_else():
    page = report.with_part(report.with_part("# Measured\n", "a", "one"), "b", "two")
    again = report.with_part(page, "a", "three")
    assert again == page.replace("one", "three")
    assert again.index("three") < again.index("two")


def test_a_part_that_does_not_end_is_not_guessed_at():
    with pytest.raises(ValueError, match="without"):
        report.with_part("<!-- measured: a -->\nmy own words", "a", "new")


def test_the_page_begins_with_a_title(tmp_path):
    report.keep(tmp_path / "page.md", "a", "one")
    report.keep(tmp_path / "page.md", "a", "two")
    assert (tmp_path / "page.md").read_text() == f"{report.TITLE}\n<!-- measured: a -->\ntwo\n<!-- end: a -->\n"


def test_peers_are_those_that_know_the_file_system():
    assert "partimage -z1" in [peer.name for peer in chosen("", "ext4")]
    assert "partimage -z1" not in [peer.name for peer in chosen("", "xfs")]
    assert [peer.name for peer in chosen("dd, partclone|pigz", "ntfs")] == ["dd", "partclone|pigz"]
    with pytest.raises(ValueError, match="no peer 'ghost'"):
        chosen("ghost", "ext4")
