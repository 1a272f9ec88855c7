"""Labs side by side: how many, who takes which scenario, and one table of what they did."""

from pathlib import Path

import pytest

from e2e.lab import figures, shared, side_by_side

GIB = side_by_side.GIB


@pytest.mark.parametrize(
    ("cores", "free", "asked", "labs"),
    [
        (2, 8 * GIB, "", 2),
        (16, 64 * GIB, "", 2),
        (1, 64 * GIB, "", 1),
        (2, 4 * GIB, "", 1),
        (16, 64 * GIB, "1", 1),
        (1, 4 * GIB, "2", 2),
    ],
)
def test_two_labs_run_where_there_are_two_cores_and_the_memory_for_them(cores: int, free: int, asked: str, labs: int):
    assert side_by_side.how_many(cores, free, asked) == labs


def test_a_scenario_is_taken_by_one_lab_and_stays_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(shared.FOLDER, str(tmp_path))

    def take(lab: str, what: str) -> bool:
        monkeypatch.setenv(shared.NUMBER, lab)
        return shared.take(what)

    assert take("1", "tests/e2e/test_many.py::test_one[a/b]")
    assert not take("2", "tests/e2e/test_many.py::test_one[a/b]")
    assert take("2", "tests/e2e/test_many.py::test_two")
    assert take("1", "tests/e2e/test_many.py::test_one[a/b]"), "what belongs together is taken more than once"


def test_the_rows_of_both_labs_come_into_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(shared.FOLDER, str(tmp_path))
    rows = {
        "1": [figures.Row(title="2 restore", outcome="passed", seconds=30)],
        # What a lab that was ended in the middle left behind.
        "2": [
            figures.Row(title="1 capture", outcome="passed", seconds=20, figures={"capture": "7.0 s"}),
            figures.Row(title="3"),
            figures.Row(title="4", reason="TimeoutError: n01 did not say it"),
        ],
    }
    for lab, of_lab in rows.items():
        monkeypatch.setenv(shared.NUMBER, lab)
        figures.write(of_lab[:1])
        figures.write(of_lab)
    found = figures.read(tmp_path)
    assert figures.table(found, 35.4, 2)[2:] == [
        "| 1 capture | passed | 20 | capture 7.0 s |",
        "| 2 restore | passed | 30 |  |",
        "| 3 | failed | 0 |  |",
        "| 4 | failed | 0 |  |",
        "| all in two labs side by side | | 35 | one after the other 50 s |",
    ]
    assert figures.failed(found) == [
        "failed: 3: it was ended in the middle",
        "failed: 4: TimeoutError: n01 did not say it",
    ]
