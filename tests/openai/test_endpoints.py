"""The rows of the endpoints that pass through."""

from __future__ import annotations

import pytest

from sanic_proxy.openai.endpoints import ROWS, Row


def test_no_two_rows_are_the_same() -> None:
    assert len({row.name for row in ROWS}) == len({(row.method, row.path) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_below_the_base_url(row: Row) -> None:
    assert row.path.startswith("/")
    assert row.path.count("<id>") <= 1
    assert row.path_for(None if "<id>" not in row.path else "file-1") == row.path.replace("<id>", "file-1")


@pytest.mark.parametrize(
    "resource", ["..", ".", "...", "", "a/b", "a b", "a%2f", "ä", "a\n", "x" * 257, "a?b", "a#b"]
)
def test_an_invalid_id_has_no_path(resource: str) -> None:
    assert Row("GET", "/files/<id>").path_for(resource) is None
