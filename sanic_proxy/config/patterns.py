"""Model names with `*`. Pure.

A `*` stands for any text, empty or with slashes. A name is matched from the left, each `*` but the last
taking as little as it can, so the time is bounded by length times number of `*`: a regular expression would
let a client's name cost much more.
"""

from __future__ import annotations

from collections.abc import Iterable

STAR = "*"


def match(pattern: str, name: str) -> tuple[str, ...] | None:
    """The text that each `*` of `pattern` stands for in `name`; None if it does not match."""
    first, *rest = pattern.split(STAR)
    if not rest:
        return () if name == pattern else None
    last = rest.pop()
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return None
    end = len(name) - len(last)
    at, texts = len(first), []
    for piece in rest:
        found = name.find(piece, at, end)
        if found < 0:
            return None
        texts.append(name[at:found])
        at = found + len(piece)
    return (*texts, name[at:end])


def fill(pattern: str, texts: tuple[str, ...]) -> str:
    """`pattern` with its first `*` replaced by the first text, and so on; further ones stay."""
    first, *rest = pattern.split(STAR)
    padded = (*texts, *(STAR for _ in rest))
    return first + "".join(text + piece for text, piece in zip(padded, rest, strict=False))


def most_specific_first(patterns: Iterable[str]) -> list[str]:
    """Patterns in the order in which they are tried: the one with the most text of its own first."""
    return sorted(patterns, key=lambda pattern: pattern.count(STAR) - len(pattern))
