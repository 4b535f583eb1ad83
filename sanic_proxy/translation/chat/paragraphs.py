"""Texts of several parts as the one text that a chat has a place for. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_SEPARATOR = "\n\n"


def joined(texts: Iterable[str]) -> str:
    """`texts` as paragraphs."""
    return _SEPARATOR.join(text for text in texts if text)


def continued(text: str) -> str:
    """`text` as the beginning of a further paragraph."""
    return _SEPARATOR + text


class Paragraphs:
    """Neighbouring texts are one, as citations divide sentences; something else between them is a break."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts = [[""]]

    @property
    def text(self) -> str:
        return joined("".join(pieces) for pieces in self._texts)

    def add(self, text: str) -> None:
        self._texts[-1].append(text)

    def end(self) -> None:
        """End the current paragraph."""
        self._texts.append([])
