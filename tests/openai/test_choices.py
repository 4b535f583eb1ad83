"""How a choice ends, and what counts as content."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.openai.choices import finish_reason_of, has_content

NO_REASONS: list[Any] = [None, "", " ", "null", "NULL", "none", "None", False, 0, [], {}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((value, None) for value in NO_REASONS),
        *((value, value.lower()) for value in ("stop", "STOP", "error", "abort", "tool_calls")),
        (7, "7"),
    ],
)
def test_a_finish_reason_is_a_word(value: Any, reason: str | None) -> None:
    assert finish_reason_of(value) == reason


@pytest.mark.parametrize("name", ["delta", "message"])
@pytest.mark.parametrize(
    ("part", "is_content"),
    [
        ({"content": "a"}, True),
        ({"role": "assistant", "reasoning": "a"}, True),
        ({"tool_calls": [{}]}, True),
        ({"role": "assistant", "content": "", "refusal": None, "tool_calls": []}, False),
        (None, False),
        ("odd", False),
    ],
)
def test_content_is_more_than_a_role(name: str, part: Any, is_content: bool) -> None:
    assert has_content({name: part}) is is_content
    assert has_content({name: part, "finish_reason": "null"}) is is_content
    assert has_content({name: part, "finish_reason": "stop"})


def test_a_text_completion_has_its_content_in_the_choice() -> None:
    assert has_content({"text": "a"})
    assert not has_content({"text": ""})
