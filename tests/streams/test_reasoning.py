"""A model's reasoning under one name, however a provider sends it and the network cuts it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.streams.reasoning import ReasoningRenamer


def joined(*deltas: dict[str, Any]) -> tuple[str, str]:
    """The reasoning and the content of a stream of deltas."""
    renamer = ReasoningRenamer()
    for number, delta in enumerate(deltas, 1):
        renamer.rename(0, delta, is_last=number == len(deltas))
    texts = [[delta.get(key) or "" for delta in deltas] for key in ("reasoning_content", "content")]
    return "".join(texts[0]), "".join(texts[1])


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"reasoning": "a"}, {"reasoning_content": "a"}),
        ({"reasoning_text": "a"}, {"reasoning_content": "a"}),
        ({"reasoning": "a", "reasoning_content": "a"}, {"reasoning_content": "a"}),
        ({"reasoning": "a", "content": "b"}, {"reasoning_content": "a", "content": "b"}),
        ({"content": "<think>a</think>b"}, {"reasoning_content": "a", "content": "b"}),
        ({"content": "\n<think>\na\n</think>\n\nb"}, {"reasoning_content": "a\n", "content": "b"}),
        (
            {"role": "assistant", "content": "<think>a"},
            {"role": "assistant", "reasoning_content": "a", "content": ""},
        ),
        ({"content": "<think></think>b"}, {"content": "b"}),
        ({"reasoning": "a", "content": "<think>b</think>c"}, {"reasoning_content": "ab", "content": "c"}),
    ],
)
def test_reasoning_is_moved(part: dict[str, Any], expected: dict[str, Any]) -> None:
    assert ReasoningRenamer().rename(0, part, is_last=True)
    assert part == expected


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"content": None},
        {"content": ""},
        {"content": "b"},
        {"content": "use <think>a</think>"},
        {"content": "<thinking>"},
        {"content": "<th"},
        {"content": [{"type": "text", "text": "<think>"}]},
        {"reasoning": None},
        {"reasoning": {"effort": "low"}},
        {"reasoning_content": "a", "reasoning_details": []},
    ],
)
def test_nothing_else_is_changed(part: dict[str, Any]) -> None:
    before = dict(part)
    assert not ReasoningRenamer().rename(0, part, is_last=True)
    assert part == before


TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "th", "a", " ", "\n", "ink>", "b"]), max_size=12
)


@given(TEXTS, st.lists(st.integers(1, 4), max_size=40))
def test_tags_are_found_wherever_the_deltas_cut_them(parts: list[str], sizes: list[int]) -> None:
    text = "".join(parts)
    deltas: list[dict[str, Any]] = []
    rest = text
    for size in sizes:
        deltas.append({"content": rest[:size]})
        rest = rest[size:]
    deltas.append({"content": rest})
    assert joined(*deltas) == joined({"content": text})


def test_choices_are_kept_apart() -> None:
    renamer = ReasoningRenamer()
    one, two = {"content": "<think>a"}, {"content": "b"}
    renamer.rename(0, one, is_last=False)
    renamer.rename(1, two, is_last=False)
    assert (one, two) == ({"reasoning_content": "a"}, {"content": "b"})


def test_what_is_held_back_comes_at_the_end() -> None:
    renamer = ReasoningRenamer()
    part = {"content": "<think>a</th"}
    renamer.rename(2, part, is_last=False)
    assert part == {"reasoning_content": "a"}
    assert renamer.rest() == [(2, {"reasoning_content": "</th"})]
    assert renamer.rest() == []
