"""Durations of LiteLLM's scripts."""

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.governance.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("24h", 86_400), ("30d", 2_592_000), ("2w", 1_209_600), ("1mo", 2_592_000)],
)
def test_a_duration_has_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "1y", "1h30m", "999999999mo"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="Expected a duration such as 30s"):
        seconds_of(text)
