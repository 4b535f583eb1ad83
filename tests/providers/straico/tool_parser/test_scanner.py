"""Code fences, thinking and searches in a text. The parser on top of them has its own tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.providers.straico.tool_parser.grammar import MARKER
from sanic_proxy.providers.straico.tool_parser.scanner import Scanner


@given(
    st.text("ab<", max_size=30), st.lists(st.tuples(st.sampled_from(["a", "b<", "aa"]), st.integers(0, 30)))
)
def test_a_search_equals_find_after_any_earlier_search(text: str, searches: list[tuple[str, int]]) -> None:
    scanner = Scanner(text)
    for mark, start in searches:
        assert scanner.find(mark, start) == text.find(mark, start)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("```py\na\n```\nb", "\nb"),
        ("``` a ``` b", " b"),
        ("````md\n```\na\n```\n````\nb", "\nb"),
        ("```py\na", ""),
        ("```\n", "\n"),
        ("~~~\na\n~~~", ""),
    ],
)
def test_code_ends_at_its_own_fence(text: str, rest: str) -> None:
    opening = MARKER.match(text)
    assert opening is not None
    after = Scanner(text).after_fence(opening)
    assert text[after:] == rest


@pytest.mark.parametrize(
    ("text", "rest", "thinking"),
    [
        ("<think> a </think>b", "b", "a"),
        ("<thinking>a</think>b", "b", "a"),
        ("<think>a", "", "a"),
        ("</think>\nb", "\nb", ""),
        ("`code`", None, None),
    ],
)
def test_the_content_of_thinking_tags_is_kept(text: str, rest: str | None, thinking: str | None) -> None:
    scanner = Scanner(text)
    match = MARKER.match(text)
    assert match is not None
    after = scanner.skip_thinking(match)
    assert (None if after is None else text[after:]) == rest
    assert scanner.thinking == ([] if thinking is None else [thinking])
