"""Where a text may be divided without breaking what a reader sees as one character. Pure.

Unicode calls that a grapheme cluster (UAX #29): a letter with its accents, a family of emoji joined by ZWJ,
a flag made of two regional indicators, the jamo of a Hangul syllable, CR LF. The standard library has the
categories of code points, but not their break properties, so the rules are applied a little too strictly:
some places where UAX #29 allows a break are refused, none that it refuses is allowed.
"""

from __future__ import annotations

import unicodedata

_ZWJ = "\u200d"
# ZWNJ, ZWJ, vowels of Thai and Lao, and the halfwidth voicing marks of katakana.
_EXTENDING = frozenset("\u200c\u200d\u0e33\u0eb3\uff9e\uff9f")
_VIRAMA_CLASS = 9  # the combining class of signs that join two consonants of an Indic script
# Grapheme_Cluster_Break=Prepend: they belong to the character that follows.
_PREPENDED = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd"
    "\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85\U00011a86\U00011a87\U00011a88"
    "\U00011a89\U00011d46\U00011f02"
)


def is_boundary(text: str, position: int, start: int = 0) -> bool:
    """Whether `text` may be divided before `position`. `start` is a boundary at or before it."""
    if position <= start or position >= len(text):
        return True
    before, after = text[position - 1], text[position]
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")
    if _is_regional(before) and _is_regional(after):
        return _regional_run(text, position, start) % 2 == 0
    return not (
        _extends(after)
        or before == _ZWJ
        or before in _PREPENDED
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
        or (unicodedata.combining(before) == _VIRAMA_CLASS and unicodedata.category(after) == "Lo")
        or (_is_leading_jamo(before) and _is_hangul(after))
    )


def _extends(char: str) -> bool:
    """Whether `char` belongs to the grapheme before it."""
    return (
        unicodedata.category(char) in ("Mn", "Me", "Mc")
        or char in _EXTENDING
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags, as in the flag of Scotland
        or "\u1160" <= char <= "\u11ff"  # vowels and final consonants of Hangul
        or "\ud7b0" <= char <= "\ud7fb"
    )


def _is_regional(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _regional_run(text: str, position: int, start: int) -> int:
    """How many regional indicators precede `position`: two of them are one flag."""
    first = position
    while first > start and _is_regional(text[first - 1]):
        first -= 1
    return position - first


def _is_leading_jamo(char: str) -> bool:
    return "\u1100" <= char <= "\u115f" or "\ua960" <= char <= "\ua97c"


def _is_hangul(char: str) -> bool:
    return _is_leading_jamo(char) or "\uac00" <= char <= "\ud7a3"
