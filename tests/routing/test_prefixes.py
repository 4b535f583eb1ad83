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
    SharedPrefixes,
    block_hashes,
)
from sanic_proxy.state_store.shared import Layout, SharedMemory


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


# What workers know together

LABELS = ("a/m", "b/m")
NOW, TTL_S = 1000.0, 300.0


def workers(memory: SharedMemory | None = None) -> list[SharedPrefixes]:
    shared = memory or SharedMemory()
    return [SharedPrefixes(shared) for _ in range(2)]


@given(st.integers(1, 40), st.integers(0, 40))
def test_another_worker_finds_the_target_of_a_beginning(common: int, more: int) -> None:
    one, other = workers()
    sent, asked = hashes("x" * 60 * BLOCK_BYTES)[: common + more], hashes("x" * 60 * BLOCK_BYTES)[:common]
    one.add(sent, "b/m", NOW, TTL_S)
    label, count = other.matched(asked, LABELS, NOW) or ("", 0)
    assert label == "b/m"
    assert count > common // 2 - 1
    assert common - 8 < count <= common


def test_a_beginning_belongs_to_the_target_that_got_it_last() -> None:
    one, other = workers()
    prompt = hashes(LONG)
    one.add(prompt, "a/m", NOW, TTL_S)
    other.add(prompt, "b/m", NOW, TTL_S)
    assert one.matched(prompt, LABELS, NOW) == ("b/m", 8)
    assert one.matched(prompt, ["a/m"], NOW) is None
    assert one.matched(hashes("y" * 5000), LABELS, NOW) is None


def test_a_beginning_that_is_in_use_is_remembered() -> None:
    one, other = workers()
    prompt = hashes(LONG)
    for number in range(20):
        one.add(prompt, "a/m", NOW + number * TTL_S / 3, TTL_S)
    assert other.matched(prompt, LABELS, NOW + 19 * TTL_S / 3) == ("a/m", 8)
    assert other.matched(prompt, LABELS, NOW + 19 * TTL_S / 3 + TTL_S) is None


def test_without_room_nothing_is_shared() -> None:
    one, other = workers(SharedMemory(layout=Layout(entries=0)))
    one.add(hashes(LONG), "a/m", NOW, TTL_S)
    assert other.matched(hashes(LONG), LABELS, NOW) is None
    one.add([], "a/m", NOW, TTL_S)
