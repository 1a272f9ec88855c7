"""docs/reference/matrix.md shows every case of the full matrix, and nothing else."""

import re
from pathlib import Path

from support import matrix, matrix_report

PAGE = Path(__file__).parents[3] / matrix_report.PAGE


def test_the_page_of_the_matrix_has_a_row_for_each_case_and_no_other():
    rows = re.findall(r"(?m)^\| (?!table|-).*\|$", PAGE.read_text(encoding="utf-8"))
    wanted = [matrix_report.row(case) for case in matrix.cases(full=True)]
    assert len(set(wanted)) == len(wanted) > 200
    assert sorted(rows) == sorted(wanted), "renew it with `make matrix`"


def test_the_quick_cases_have_each_kind_of_table_and_each_target():
    quick = matrix.cases(full=False)
    assert {case.target for case in quick} == set(matrix.TARGETS)
    kinds = {case.source.kind for case in quick}
    assert kinds >= set(matrix.KINDS) - {"GPT"}, "a GPT without its backup stands for one with it"
    assert {case.source.sector for case in quick} == set(matrix.SECTORS)
    assert {case.engine for case in quick} == {"chunk", "auto"}
