"""Each failure of the catalogue is shown by a test, or has an owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalogue import ROWS, Row
from tests.support.catalogue import WIDTH, numbers_in, table
from tests.support.upstream_cases import CASES


@pytest.fixture(scope="module")
def shown() -> set[int]:
    return numbers_in(Path(__file__).parent.rglob("test_*.py")) | {case.row for case in CASES}


def test_the_rows_are_numbered_without_gaps() -> None:
    assert [row.number for row in ROWS] == list(range(1, 86))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number}")
def test_a_row_is_shown_or_owned(row: Row, shown: set[int]) -> None:
    assert row.number in shown or row.owner


def test_no_test_names_an_unknown_row(shown: set[int]) -> None:
    assert {row.number for row in ROWS} >= shown


def test_the_table_names_the_test_and_marks_failures() -> None:
    nodes = {8: ["tests/test_a.py::test_b_c[1]", "tests/test_a.py::test_b_c[2]", "tests/test_d.py::test_e"]}
    lines = table(nodes, {"tests/test_d.py::test_e"})
    assert lines[7].split("  ")[-1].strip() == "FAILED a: b c +1"
    assert lines[67].endswith("the operator, for logs")
    assert lines[0].endswith("not in this run")
    assert max(map(len, lines)) <= WIDTH
