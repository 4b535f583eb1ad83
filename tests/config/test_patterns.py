"""Model names with `*`."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.patterns import fill, match, most_specific_first


@pytest.mark.parametrize(
    ("pattern", "name", "texts"),
    [
        ("gpt-4o", "gpt-4o", ()),
        ("gpt-4o", "gpt-4", None),
        ("gpt-4o*", "gpt-4o", ("",)),
        ("gpt-4o*", "gpt-4o-mini", ("-mini",)),
        ("openai/*", "openai/org/model", ("org/model",)),
        ("*", "anything/at:all", ("anything/at:all",)),
        ("*-latest", "claude-latest", ("claude",)),
        ("*-latest", "claude-latest-1", None),
        ("a*b*c", "a1b2b3c", ("1", "2b3")),
        ("ab*ba", "aba", None),
        ("a*b*c", "ac", None),
    ],
)
def test_a_star_stands_for_any_text(pattern: str, name: str, texts: tuple[str, ...] | None) -> None:
    assert match(pattern, name) == texts


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_it_matches_what_the_regular_expression_matches(pattern: str, name: str) -> None:
    regular = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    texts = match(pattern, name)
    assert (texts is not None) == (regular.fullmatch(name) is not None)
    if texts is not None:
        assert fill(pattern, texts) == name


@pytest.mark.parametrize(
    ("pattern", "texts", "name"),
    [
        ("gpt", ("x",), "gpt"),
        ("openai/*", ("gpt",), "openai/gpt"),
        ("*-*", ("a", "b"), "a-b"),
        ("*-*", ("a",), "a-*"),
        ("*", ("a*b",), "a*b"),
    ],
)
def test_texts_take_the_place_of_stars(pattern: str, texts: tuple[str, ...], name: str) -> None:
    assert fill(pattern, texts) == name


def test_the_pattern_with_the_most_text_is_tried_first() -> None:
    assert most_specific_first(["*", "gpt-*", "gpt-4o*", "*-mini"]) == ["gpt-4o*", "*-mini", "gpt-*", "*"]
