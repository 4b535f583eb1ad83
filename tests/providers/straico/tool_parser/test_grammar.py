"""Tags and names of tool call markup, in linear time."""

from __future__ import annotations

import re

import pytest

from sanic_proxy.providers.straico.tool_parser import grammar
from tests.support.machine import least_cost

PREFIX = "antml" + ":"


@pytest.mark.parametrize(
    ("opening", "closer"),
    [
        ("<tool_calls>", "</tool_calls>"),
        ("<minimax:tool_call>", "</minimax:tool_call>"),
        (f"<{PREFIX}function_calls>", f"</{PREFIX}function_calls>"),
        ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ],
)
def test_each_wrapper_has_its_closing_tag(opening: str, closer: str) -> None:
    found = grammar.MARKER.fullmatch(opening)
    assert found is not None
    assert found.lastgroup == "wrapper"
    assert grammar.closing_tag_of(opening) == closer
    assert grammar.CLOSERS.fullmatch(closer)


@pytest.mark.parametrize(
    ("padded", "bare"),
    [
        ("\na\n", "a"),
        ("\n\na\n\n", "\na\n"),
        ("\na", "\na"),
        ("a\n", "a\n"),
        ("\n", "\n"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_a_value_loses_the_newlines_of_its_markup_only(padded: str, bare: str) -> None:
    assert grammar.strip_newlines(padded) == bare


PATTERNS = {name: value for name, value in vars(grammar).items() if isinstance(value, re.Pattern)}


UNITS = ("<", " ", "\n", "`", "a", "<tool_call ", "<think>", '"', "}", "<arg_key>", "~~~")
TEXTS = [unit * (50_000 // len(unit)) for unit in UNITS]


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_no_text_makes_a_pattern_slow_where_it_stands(name: str) -> None:
    assert least_cost(lambda: [PATTERNS[name].match(text) for text in TEXTS], enough=10) < 10
