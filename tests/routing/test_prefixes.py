"""Known beginnings of prompts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.routing.prefixes import (
    BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_KNOWN,
    PrefixCache,
    block_hashes,
)


def turn(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def hashes(*texts: str, model: str = "m", **fields: Any) -> list[bytes]:
    return block_hashes(model, {"messages": [turn(text) for text in texts], **fields})


LONG = "x" * (10 * BLOCK_BYTES)


def test_the_next_turn_begins_with_the_blocks_of_the_last() -> None:
    first, second = hashes(LONG), hashes(LONG, "a" * 2000)
    assert len(first) == 10
    assert second[:10] == first
    assert len(second) > len(first)
    assert hashes(LONG, temperature=1) == first


def test_a_block_stands_for_all_before_it() -> None:
    assert not set(hashes("a" + LONG)) & set(hashes("b" + LONG))
    assert not set(hashes(LONG, model="a")) & set(hashes(LONG, model="b"))
    assert not set(hashes(LONG, tools=[{"type": "function"}])) & set(hashes(LONG))


def test_a_short_prompt_has_no_blocks() -> None:
    odd: list[Any] = ["text", None, [], 7]
    assert hashes("Hi") == []
    assert [block_hashes("m", {"input": value}) for value in odd] == [[]] * 4
    assert block_hashes("\ud800", {}) == []


def test_a_long_text_is_compared_by_its_beginning() -> None:
    assert len(hashes("x" * (2 * MAX_BLOCKS * BLOCK_BYTES))) == MAX_BLOCKS


texts = st.lists(st.text(max_size=1500), max_size=6)


@given(texts, texts)
def test_what_follows_does_not_change_earlier_blocks(before: list[str], after: list[str]) -> None:
    first = hashes(*before)
    assert hashes(*before, *after)[: len(first)] == first


def test_a_cache_knows_the_longest_prefix() -> None:
    cache = PrefixCache()
    cache.add(hashes(LONG))
    assert cache.matched(hashes(LONG)) == 10
    assert cache.matched(hashes(LONG[: 5 * BLOCK_BYTES])) >= 4
    assert cache.matched(hashes("y" + LONG)) == 0
    assert cache.matched([]) == 0


def test_the_oldest_blocks_are_dropped_and_the_last_of_a_prompt_before_its_first() -> None:
    cache = PrefixCache(limit=8)
    old, new = hashes("a" * 5 * BLOCK_BYTES), hashes("b" * 5 * BLOCK_BYTES)
    cache.add(old)
    cache.add(new)
    assert len(cache) == 8
    assert (cache.matched(new), cache.matched(old)) == (5, 3)
    cache.add(old)
    assert (cache.matched(new), cache.matched(old)) == (3, 5)


def test_a_cache_is_bounded() -> None:
    cache = PrefixCache()
    for number in range(MAX_KNOWN // MAX_BLOCKS + 2):
        cache.add([f"{number} {block}".encode() for block in range(MAX_BLOCKS)])
    assert len(cache) == MAX_KNOWN
